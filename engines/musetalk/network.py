"""MuseTalk's network: Stable Diffusion's U-Net, asked once, that turns latents of a face into latents of a new one.

Paper: Zhang et al., 2024, https://arxiv.org/abs/2410.10122
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from engines import vae as autoencoder
from engines.published import fill, read_tensors
from engines.vae import FACTOR, LATENT_CHANNELS, Noise
from utils.stages import stop_point

SIDE = 256  # px of the face
AUDIO_WIDTH, AUDIO_ROWS = 384, 50
PUBLISHED_WIDTHS = (320, 640, 1280, 1280)
VAE_BATCH = 4  # pictures at once


def make_unet(widths: tuple[int, ...] = PUBLISHED_WIDTHS) -> UNet2DConditionModel:
    """The network without its weights; `widths`: channels of the four blocks."""
    return UNet2DConditionModel(
        in_channels=2 * LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=widths,
        cross_attention_dim=AUDIO_WIDTH,
        attention_head_dim=8,
    )


def load_unet(path: Path) -> UNet2DConditionModel:
    """The published `unet.pth`; its widths may differ.

    Raises:
        InputError: the file cannot be read, or is of another network.
    """
    state = read_tensors(path)
    names = [f"down_blocks.{index}.resnets.0.conv1.bias" for index in range(len(PUBLISHED_WIDTHS))]
    known = zip(names, PUBLISHED_WIDTHS, strict=True)
    widths = tuple(state[name].shape[0] if name in state else width for name, width in known)
    return fill(lambda: make_unet(widths), state, path)


def row_positions() -> torch.Tensor:
    """What is added to the 50 rows of sound, (50, 384): sine and cosine of the row's number, side by side."""
    place = torch.arange(AUDIO_ROWS)[:, None]
    rate = torch.exp(torch.arange(0, AUDIO_WIDTH, 2) * (-math.log(10000.0) / AUDIO_WIDTH))
    return torch.stack([torch.sin(place * rate), torch.cos(place * rate)], dim=-1).flatten(1)


@dataclass(frozen=True)
class Painter:
    """The networks.

    Attributes:
        unet: latents of a face and sound -> latents of the new face.
        vae: pictures <-> latents.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL

    @torch.inference_mode()
    def see(self, faces: torch.Tensor, noise: Noise) -> torch.Tensor:
        """What the network is given of faces.

        Args:
            faces: (N, 3, side, side) in [-1, 1].
            noise: of the two encodings; drawn for the masked face first.

        Returns:
            (N, 8, side / 8, side / 8): the face without its lower half | the face as it is.
        """
        masked = faces.clone()
        masked[:, :, faces.shape[2] // 2 :] = -1  # black; the originals mask before they scale
        return torch.cat([self._encode(pictures, noise) for pictures in (masked, faces)], dim=1)

    @torch.inference_mode()
    def paint(self, seen: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        """Scaled latents (N, 4, h, w) of the new faces; `seen` from `see`, `audio` (N, 50, 384)."""
        stop_point()
        dtype = self.unet.dtype
        audio = audio.to(seen) + row_positions().to(seen)
        return self.unet(seen.to(dtype), 0, audio.to(dtype), return_dict=False)[0].float()

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pictures uint8 (N, side, side, 3) of scaled latents; rounded as theirs."""
        parts = [autoencoder.decode(self.vae, part) for part in latents.split(VAE_BATCH)]
        pictures = (torch.cat(parts) / 2 + 0.5).clamp(0, 1)
        return (pictures * 255).round().to(torch.uint8).permute(0, 2, 3, 1)

    def _encode(self, pictures: torch.Tensor, noise: Noise) -> torch.Tensor:
        side = [size // FACTOR for size in pictures.shape[2:]]
        drawn = iter(noise((len(pictures), LATENT_CHANNELS, *side)).split(VAE_BATCH))
        parts = [autoencoder.encode(self.vae, part, lambda _: next(drawn)) for part in pictures.split(VAE_BATCH)]
        return torch.cat(parts)
