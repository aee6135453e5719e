"""Perceptual difference: how far apart two pictures are in the features of a frozen network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from utils.helpers import InputError


class PerceptualDifference(nn.Module):
    """Mean absolute difference of the feature maps that a TorchScript network gives for two batches of pictures.

    Args:
        path: TorchScript file whose call takes (B, 3, H, W) in [-1, 1] and gives a sequence of feature maps, see
            tools/perceptual_network.py.
        device: where it computes.

    Raises:
        InputError: there is no such file.
    """

    def __init__(self, path: Path | None, device: torch.device) -> None:
        super().__init__()
        if path is None or not Path(path).is_file():
            raise InputError(
                "perceptual_weight needs perceptual_network, a TorchScript file: make one with "
                "tools/perceptual_network.py, or set the weight to 0."
            )
        self._network = torch.jit.load(path, map_location=device).eval()

    def forward(self, ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        """Both (B, 3, H, W) in [-1, 1]; gradients flow into `ours` only."""
        # Depthwise convolutions gain nothing from bfloat16 on a CPU.
        with torch.autocast(ours.device.type, enabled=False):
            with torch.no_grad():
                wanted = self._network(theirs.float())
            given = self._network(ours.float())
        return torch.stack([F.l1_loss(a, b) for a, b in zip(given, wanted, strict=True)]).mean()
