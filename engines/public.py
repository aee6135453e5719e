"""What the engines with published weights have in common: how files are found, and the format that a device likes."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
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


def placed(network: nn.Module, device: torch.device, compiled: bool = False) -> nn.Module:
    """The network on its device, in the format and memory order that it computes fastest in.

    Args:
        network: for evaluation.
        device: where it is to compute.
        compiled: on a GPU, let PyTorch compile it at its first pass.
    """
    if device.type == "cuda":
        moved = as_on_a_gpu(network, device, fast_dtype(device))
        return let_compile(moved) if compiled else moved
    moved = _moved(network, device, torch.float32)
    for layer in moved.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            # On a CPU one pass may take minutes; a run is to end within a second all the same.
            layer.register_forward_pre_hook(_may_stop)
    return moved.eval().requires_grad_(False)


def as_on_a_gpu(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The network in a number format, and in the memory order that convolutions on a GPU like; a CPU takes it too."""
    return _moved(network, device, dtype).to(memory_format=torch.channels_last).eval().requires_grad_(False)


def _moved(network: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    # Not the network's own `to`: diffusers' warns about a list that is empty.
    return nn.Module.to(network, device, dtype)


def let_compile(network: nn.Module, backend: str = "inductor") -> nn.Module:
    """The same network, compiled when it is first asked; of an autoencoder both halves, which are asked by themselves.

    Args:
        network: its tensors and their names stay as they are.
        backend: one of PyTorch's.
    """
    halves = [network.encoder, network.decoder] if isinstance(network, AutoencoderKL) else [network]
    for half in halves:
        half.compile(backend=backend)
    return network


def _may_stop(_: nn.Module, __: tuple[object, ...]) -> None:
    stop_point()
