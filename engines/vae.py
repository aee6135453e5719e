"""The autoencoder of Stable Diffusion (`stabilityai/sd-vae-ft-mse`), which LatentSync and MuseTalk draw with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from engines.published import fill, read_tensors

SCALE = 0.18215  # of the latents; absent in the file's config
FACTOR = 8  # px of a latent
LATENT_CHANNELS = 4

Noise = Callable[[tuple[int, ...]], torch.Tensor]
"""Draws standard normal numbers of a shape, float32 on the CPU."""

# diffusers renamed them in 2023; the published file has the old names.
_RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def load_vae(path: Path) -> AutoencoderKL:
    """The published file, `.safetensors` or `.bin`; its widths may differ.

    Raises:
        InputError: the file cannot be read, or is of another network.
    """
    state = {_today(name): tensor for name, tensor in read_tensors(path).items()}
    # Some copies keep the 1x1 convolutions that the attention once was.
    state = {name: _linear(name, tensor) for name, tensor in state.items()}
    return fill(lambda: make_vae(_widths(state)), state, path)


def make_vae(widths: tuple[int, ...] = (128, 256, 512, 512)) -> AutoencoderKL:
    """The network without its weights.

    Args:
        widths: channels of the blocks, finest first, multiples of 32.
    """
    blocks = len(widths)
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=2,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=32,
        sample_size=256,
        scaling_factor=SCALE,
    )


def encode(vae: AutoencoderKL, pictures: torch.Tensor, noise: Noise) -> torch.Tensor:
    """Scaled latents of pictures, a sample of what the encoder thinks possible.

    Args:
        vae: the network.
        pictures: (N, 3, H, W) in [-1, 1].
        noise: what is drawn for the sample, (N, 4, H/8, W/8).

    Returns:
        (N, 4, H/8, W/8) float32.
    """
    possible = vae.encode(pictures.to(vae.dtype)).latent_dist
    mean, deviation = possible.mean.float(), torch.exp(0.5 * possible.logvar.float())
    return (mean + deviation * noise(tuple(mean.shape)).to(mean.device)) * SCALE


def decode(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Pictures (N, 3, H, W) float32, about [-1, 1] but not clamped, of scaled latents (N, 4, H/8, W/8)."""
    return vae.decode((latents / SCALE).to(vae.dtype)).sample.float()


def to_tensor(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W) in [-1, 1]."""
    # Contiguous: another order of memory makes convolutions round in another way, ten times further from the originals.
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float() / 127.5 - 1


def drawn_by(seed: int) -> Noise:
    """Noise of a seed; successive calls go on in one sequence, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=generator)


def _today(name: str) -> str:
    for old, new in _RENAMED.items():
        if ".attentions." in name:
            name = name.replace(old, new)
    return name


def _linear(name: str, tensor: torch.Tensor) -> torch.Tensor:
    is_attention = ".attentions." in name and name.endswith("weight")
    return tensor[:, :, 0, 0] if is_attention and tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor


def _widths(state: dict[str, torch.Tensor]) -> tuple[int, ...]:
    names = [f"encoder.down_blocks.{index}.resnets.0.conv1.bias" for index in range(4)]
    known = zip(names, (128, 256, 512, 512), strict=True)
    return tuple(state[name].shape[0] if name in state else width for name, width in known)
