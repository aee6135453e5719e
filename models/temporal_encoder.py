"""Local attention over the fused speech sequence; the tokens and the mouth shape of each video frame."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

STEP_RATE = 50.0  # steps of speech features per second


class LocalAttentionBlock(nn.Module):
    """Transformer block whose steps see only their neighbourhood, with a learned weight for each distance.

    Args:
        width: channels.
        heads: attention heads.
        reach: steps to each side.
        dropout: fraction of activations dropped in both branches.
    """

    def __init__(self, width: int, heads: int, reach: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.reach, self.dropout = heads, reach, dropout
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.distance = nn.Parameter(torch.zeros(heads, 2 * reach + 1))
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = x + F.dropout(self._attend(self.norm_attention(x)), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.norm_mlp(x)), self.dropout, self.training)

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=self._bias(length).to(query.dtype))
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))

    def _bias(self, length: int) -> torch.Tensor:
        """(heads, T, T): the learned weight of each distance, minus infinity beyond the reach."""
        steps = torch.arange(length, device=self.distance.device)
        apart = steps[None] - steps[:, None]
        bias = self.distance[:, (apart.clamp(-self.reach, self.reach) + self.reach)]
        return bias.masked_fill(apart.abs() > self.reach, float("-inf"))


class PersonScale(nn.Module):
    """Suits the channels before the shape's last layer to a person whose mouth rests more or less open.

    Coefficients are relative to the resting mouth: to close it, and to speak, one who rests with open lips moves
    further than one who rests with closed ones. Starts as no change.

    Args:
        width: channels.
    """

    USUAL_GAP_PX, GAP_SPREAD_PX = 6.0, 4.0  # of resting mouths, roughly the median and the spread of 83 people

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gap = nn.Linear(1, 2 * width, bias=False)
        nn.init.zeros_(self.gap.weight)

    def forward(self, x: torch.Tensor, resting: torch.Tensor) -> torch.Tensor:
        """(B, T, D) and the gaps of the resting mouths (B,) in window px -> (B, T, D)."""
        gap = (resting - self.USUAL_GAP_PX) / self.GAP_SPREAD_PX
        shift, scale = self.gap(gap[:, None, None].to(x.dtype)).chunk(2, dim=-1)
        return x * (1 + scale) + shift


class TemporalEncoder(nn.Module):
    """Blocks of local attention, then what each video frame needs, read off by its time in seconds.

    Args:
        width: channels of the sequence.
        layers: attention blocks; 0.2 s of reach in each of three make 0.6 s in all.
        heads: attention heads.
        reach: steps to each side in one block.
        tokens: tokens for each frame, 20 ms apart and centred on it.
        coefficients: numbers of the mouth shape.
        dropout: fraction of activations dropped.
        with_person: the gap of the person's resting mouth is known.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        reach: int,
        tokens: int,
        coefficients: int,
        dropout: float,
        with_person: bool = False,
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.blocks = nn.ModuleList(LocalAttentionBlock(width, heads, reach, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.shape_head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, coefficients)
        )
        self.person = PersonScale(width) if with_person else None

    def forward(
        self, fused: torch.Tensor, times: torch.Tensor, resting: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode the sequence and read it at the frames' times.

        Args:
            fused: (B, T, D) at 50 Hz; step k is centred at (k + 0.5) / 50 s.
            times: seconds of each frame (B, F); outside the sequence the first or last step counts.
            resting: (B,) gap between the inner lips of the person's resting mouth, window px; None = usual.

        Returns:
            Tokens (B, F, L, D) and mouth shape (B, F, K).
        """
        for block in self.blocks:
            fused = block(fused)
        sequence = self.norm(fused)
        offsets = torch.arange(self.tokens, device=times.device) - (self.tokens - 1) / 2
        tokens = read_at(sequence, times[..., None] + offsets / STEP_RATE)
        hidden = self.shape_head[0](sequence)
        if self.person is not None and resting is not None:
            hidden = self.person(hidden, resting)
        return tokens, read_at(self.shape_head[1:](hidden), times)


def read_at(sequence: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Linear interpolation of a 50 Hz sequence (B, T, D) at times (B, ...) in seconds -> (B, ..., D)."""
    length = sequence.shape[1]
    position = (times.float() * STEP_RATE - 0.5).clamp(0, length - 1)
    low = position.floor().long().clamp(max=max(length - 2, 0))
    weight = (position - low).unsqueeze(-1).to(sequence.dtype)
    batch = torch.arange(len(sequence), device=sequence.device).view(-1, *[1] * (times.ndim - 1))
    high = (low + 1).clamp(max=length - 1)
    return sequence[batch, low] * (1 - weight) + sequence[batch, high] * weight
