"""The networks that draw pictures, as they are run in use: by PyTorch here, by OpenVINO in `openvino_networks`."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from models.autoencoder import MouthAutoencoder
from models.precision import fast_dtype


class Networks(Protocol):
    """Pictures to latents, a step of the generator, latents to pictures. All tensors are float32."""

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        """(F, 3, H, W) in [-1, 1] -> latents (F, 16, H/8, W/8)."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(F, 16, h, w) -> pictures (F, 3, 8h, 8w), about [-1, 1]."""
        ...

    def difference(self, stacked: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """What the U-Net draws: input (B, 44, F, 12, 12), timestep (B,), tokens (B * F, L, D) -> (B, 16, F, 12, 12)."""
        ...


class TorchNetworks:
    """Run by PyTorch, in the format that the device computes fastest in.

    Args:
        autoencoder: pictures <-> latents.
        unet: the generator's U-Net; it may be trained further between two calls.
        device: where they are.
        compiled: let PyTorch compile them for this GPU (a minute at the start, then CUDA graphs).
    """

    def __init__(self, autoencoder: MouthAutoencoder, unet: nn.Module, device: torch.device, compiled: bool = False):
        self._device = device
        self._dtype = fast_dtype(device)
        self._encode, self._decode, self._unet = autoencoder.encode, autoencoder.decode, unet
        if compiled:
            self._encode, self._decode, self._unet = map(_compiled, (self._encode, self._decode, self._unet))

    def encode(self, pictures: torch.Tensor) -> torch.Tensor:
        return self._encode(self._images(pictures)).float()

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self._decode(self._images(latents)).float()

    def difference(self, stacked: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        stacked, tokens = (x.to(self._device, self._dtype) for x in (stacked, tokens))
        return self._unet(stacked, timestep.to(self._device), tokens, return_dict=False)[0].float()

    def _images(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(self._device, self._dtype, memory_format=torch.channels_last)


def _compiled(function: Any) -> Any:
    """The function with CUDA graphs. Its results are copied: the next call would write over them."""
    fast = torch.compile(function, mode="reduce-overhead", dynamic=False)

    def call(*inputs: Any, **named: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        result = fast(*inputs, **named)
        return tuple(part.clone() for part in result) if isinstance(result, tuple) else result.clone()

    return call
