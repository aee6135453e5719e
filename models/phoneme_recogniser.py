"""A network that hears phonemes in the speech features.

Apart from the inventory (`models/phonemes.py`), so that speaking a text does not load PyTorch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models.library import ConfigMixin, ModelMixin, register_to_config
from models.phonemes import INVENTORY_SIZE
from models.speech_track import Speech


class PhonemeRecogniser(ModelMixin, ConfigMixin):
    """Which phoneme is heard at each step: a few convolutions over the frozen speech features.

    Args:
        feature_layers: hidden states of the speech encoder in a step.
        feature_width: numbers in a hidden state.
        width: channels.
        blocks: residual convolutions over 5 steps, each with twice the spacing of the one before.
        phonemes: size of the inventory.
        dropout: fraction of channels dropped.
    """

    @register_to_config
    def __init__(
        self,
        feature_layers: int = 5,
        feature_width: int = 384,
        width: int = 192,
        blocks: int = 3,
        phonemes: int = INVENTORY_SIZE,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.mix = nn.Linear(feature_layers * feature_width, width)
        self.stack = nn.ModuleList(_Block(width, 2**k, dropout) for k in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, phonemes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Speech features (B, T, layers, width) at 50 Hz -> log-probabilities (B, T, phonemes)."""
        hidden = self.mix(features.flatten(2))
        for block in self.stack:
            hidden = block(hidden)
        return F.log_softmax(self.head(self.norm(hidden)).float(), dim=-1)

    @property
    def context_steps(self) -> int:
        """Steps to each side that can influence a step's result."""
        return 2 ** (len(self.stack) + 1)

    @torch.inference_mode()
    def posteriors(self, features: np.ndarray, chunk: int = 3000) -> np.ndarray:
        """Log-probabilities (T, phonemes) float32 of one sound's features (T, layers, width), in bounded memory."""
        context = self.context_steps
        parts = [np.zeros((0, self.config.phonemes), np.float32)]
        for start in range(0, len(features), chunk):
            low, high = max(0, start - context), min(len(features), start + chunk + context)
            piece = torch.as_tensor(np.asarray(features[low:high], np.float32), device=self.device)
            found = self(piece[None])[0].cpu().numpy()
            parts.append(found[start - low : start - low + chunk])
        return np.concatenate(parts)

    def heard(self, speech: Speech, first: int, stop: int) -> np.ndarray:
        """Log-probabilities (stop - first, phonemes) float32 of steps, with what lies around them heard along."""
        low = max(0, first - self.context_steps)
        features = speech.part(low, min(len(speech), stop + self.context_steps)).features
        return self.posteriors(features)[first - low : stop - low]


class _Block(nn.Module):
    def __init__(self, width: int, spacing: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, 5, padding=2 * spacing, dilation=spacing)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        mixed = self.conv(self.norm(hidden).transpose(1, 2)).transpose(1, 2)
        return hidden + self.dropout(self.out(F.gelu(mixed)))
