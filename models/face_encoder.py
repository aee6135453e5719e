"""What a person looks like: several reference crops and their mouth shapes become a few tokens."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class FaceEncoder(nn.Module):
    """A small convolutional network on each reference; learned queries then look at all places of all references.

    Runs once per window of frames. The mouth shape tells how open the mouth of a reference was, so that teeth and
    closed lips can be told from missing ones.

    Args:
        width: channels after the first convolution; doubled twice.
        token_width: numbers in a token.
        tokens: number of tokens.
        coefficients: numbers of the mouth shape.
    """

    def __init__(self, width: int, token_width: int, tokens: int, coefficients: int) -> None:
        super().__init__()
        widths = (48, width, 2 * width, 4 * width)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                nn.GroupNorm(min(8, after), after),
                nn.SiLU(),
            )
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.project = nn.Linear(widths[-1], token_width)
        self.place = nn.Parameter(0.02 * torch.randn(25, token_width))
        self.shape = nn.Linear(coefficients, token_width)
        self.queries = nn.Parameter(torch.randn(tokens, token_width) / token_width**0.5)
        self.attention = nn.MultiheadAttention(token_width, 4, batch_first=True)
        self.norm_memory, self.norm_out = nn.LayerNorm(token_width), nn.LayerNorm(token_width)

    def forward(self, references: torch.Tensor, shapes: torch.Tensor) -> torch.Tensor:
        """Encode the references.

        Args:
            references: (B, R, 3, 160, 160) in [-1, 1].
            shapes: mouth shape of each (B, R, K); zeros where unknown.

        Returns:
            (B, N, D) tokens.
        """
        batch, count = references.shape[:2]
        x = F.pixel_unshuffle(references.flatten(0, 1), 4)
        for stage in self.stages:
            x = stage(x)
        places = self.project(x.flatten(2).transpose(1, 2)) + self.place
        places = places.view(batch, count, 25, -1) + self.shape(shapes)[:, :, None]
        memory = self.norm_memory(places.flatten(1, 2))
        queries = self.queries.to(memory.dtype).expand(batch, -1, -1)
        attended = self.attention(queries, memory, memory, need_weights=False)[0]
        return self.norm_out(queries + attended)
