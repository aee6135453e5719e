"""Whisper's encoder (Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision", section 2.2).

The names of its weights and the order of its arithmetic are those of `transformers`, so that the published files load
and the states are the same to the bit. That library's own class is not used since loading it takes as long as PyTorch.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional


class WhisperEncoder(nn.Module):
    """Two convolutions, positions and pre-norm layers; `SpeechEncoder` calls them one by one.

    Args:
        mel_bands: of the spectrogram.
        positions: steps that have a position vector.
        width, layers, heads, inner: of the layers; `inner` numbers between their two last products.
    """

    def __init__(self, mel_bands: int, positions: int, width: int, layers: int, heads: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(mel_bands, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(positions, width)
        self.layers = nn.ModuleList([WhisperLayer(width, heads, inner) for _ in range(layers)])
        self.layer_norm = nn.LayerNorm(width)

    @classmethod
    def from_config(cls, path: Path) -> WhisperEncoder:
        """As a config.json of `transformers` says, with random weights."""
        config = json.loads(path.read_text(encoding="utf-8"))
        names = ("num_mel_bins", "max_source_positions", "d_model")
        layers = ("encoder_layers", "encoder_attention_heads", "encoder_ffn_dim")
        return cls(*(config[name] for name in (*names, *layers)))


class WhisperLayer(nn.Module):
    """Self attention and two products with a GELU between them, each after a norm and added to its input."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.self_attn = WhisperAttention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, S, width) -> the same shape."""
        hidden = hidden + self.self_attn(self.self_attn_layer_norm(hidden))
        return hidden + self.fc2(functional.gelu(self.fc1(self.final_layer_norm(hidden))))


class WhisperAttention(nn.Module):
    """Every step looks at all of them. The keys have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads, self._scale = heads, (width // heads) ** -0.5
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, S, width) -> the same shape."""
        # Scaled before the product, as the network was trained: in low precision the order shows.
        query = self._split(self.q_proj(hidden) * self._scale)
        key, value = self._split(self.k_proj(hidden)), self._split(self.v_proj(hidden))
        mixed = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        return self.out_proj(mixed.transpose(1, 2).contiguous().flatten(2))

    def _split(self, values: torch.Tensor) -> torch.Tensor:
        """(B, S, width) -> (B, heads, S, width / heads)."""
        return values.unflatten(2, (self._heads, -1)).transpose(1, 2).contiguous()
