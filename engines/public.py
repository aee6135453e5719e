"""What the engines with published weights have in common: how files are found, and the format that a device likes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from engines.catalogue import ENTRIES, Shelf
from models.precision import fast_dtype
from utils.stages import stop_point


def weight_files(name: str, folder: Path) -> dict[str, Path]:
    """The files of an engine by their role.

    Raises:
        InputError: some are missing, or the licence is not accepted yet.
    """
    shelf = Shelf(folder)
    shelf.check(name)
    return {file.role: found for file in ENTRIES[name].files if (found := shelf.find(name, file))}


def placed(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on its device, in the format and memory order that it computes fastest in."""
    # Not the network's own `to`: diffusers' warns about a list that is empty.
    moved = nn.Module.to(network, device, fast_dtype(device) if device.type == "cuda" else torch.float32)
    if device.type == "cuda":
        return moved.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    for layer in moved.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            # On a CPU one pass may take minutes; a run is to end within a second all the same.
            layer.register_forward_pre_hook(_may_stop)
    return moved.eval().requires_grad_(False)


def _may_stop(_: nn.Module, __: tuple[object, ...]) -> None:
    stop_point()
