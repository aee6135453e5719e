"""Does something lie in front of this mouth? A small network that looks at one mouth window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models.checkpoint import load_pretrained
from models.library import ConfigMixin, ModelMixin, register_to_config

USUAL_LIGHT = (136.0, 98.0, 82.0)  # mean R, G, B of mouth windows of twelve people, 0 to 255
GAINS = (0.4, 5.0)  # least and greatest by which a channel is brought there
INPUT_SIDE = 64  # px to which the 160x160 mouth window is scaled


class MouthCover(ModelMixin, ConfigMixin):
    """Mouth windows to the logit that the mouth is covered, by a hand, a microphone, a cup, a cloth.

    Args:
        width: channels of the first stage; the last of four has four times as many.
    """

    @register_to_config
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 3 * width, 4 * width)
        self.stages = nn.Sequential(*(_halving(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(widths[-1] * (INPUT_SIDE // 16) ** 2, 1))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Mouth windows (B, 3, 160, 160) or scaled already (B, 3, 64, 64), in [-1, 1] -> logits (B,)."""
        if windows.shape[-1] != INPUT_SIDE:
            windows = F.interpolate(windows, size=INPUT_SIDE, mode="area")
        return self.head(self.stages(windows)).squeeze(1)


def _halving(before: int, after: int) -> nn.Sequential:
    """Two convolutions, the first halves the side."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class CoverJudge:
    """The trained network: how sure is it that a mouth is covered?

    Args:
        folder: its weights.

    Raises:
        InputError: they are missing.
    """

    def __init__(self, folder: Path):
        self._net = load_pretrained(MouthCover, folder)

    @torch.inference_mode()
    def __call__(self, window: np.ndarray) -> float:
        """The chance, 0 to 1, of a mouth window, uint8 RGB (160, 160, 3).

        The network takes coloured light for a cover, so it looks twice: at the window as it is, and in the usual light.
        A cover is one in both; the lower chance counts.
        """
        given = torch.from_numpy(np.ascontiguousarray(window)).permute(2, 0, 1)[None].float()
        small = F.interpolate(given, size=INPUT_SIDE, mode="area")
        mean = small.mean((2, 3), keepdim=True).clamp(min=1.0)
        gain = (torch.tensor(USUAL_LIGHT).view(1, 3, 1, 1) / mean).clamp(*GAINS)
        both = torch.cat([small, (small * gain).clamp(max=255.0)]) / 127.5 - 1
        return self._net(both).sigmoid().min().item()
