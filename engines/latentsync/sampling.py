"""From faces and sound to new faces: what goes into LatentSync's network, the steps, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, DDIMScheduler

from engines import vae as autoencoder
from engines.latentsync.unet import LatentSyncUNet
from engines.vae import FACTOR, LATENT_CHANNELS, Noise
from utils.stages import stop_point

VAE_BATCH = 4  # pictures at once


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise, removed by DDIM (Song et al., 2021, https://arxiv.org/abs/2010.02502)."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip


def latent_mask(mask: torch.Tensor) -> torch.Tensor:
    """The mask (H, W) in latent size: the value at every eighth pixel."""
    return mask[::FACTOR, ::FACTOR]


@dataclass(frozen=True)
class Sampler:
    """The networks of one size.

    Attributes:
        unet: predicts the noise.
        vae: pictures <-> latents.
        mask: float32 (side, side), 1 = keep, 0 = paint.
    """

    unet: LatentSyncUNet
    vae: AutoencoderKL
    mask: torch.Tensor

    def start(self, noise: Noise) -> torch.Tensor:
        """The noise (1, 4, 1, h, w) that all frames of a video begin with."""
        height, width = (side // FACTOR for side in self.mask.shape)
        return noise((1, LATENT_CHANNELS, 1, height, width))

    @torch.inference_mode()
    def latents(
        self,
        faces: torch.Tensor,
        audio: torch.Tensor,
        start: torch.Tensor,
        noise: Noise,
        steps: int = 20,
        guidance: float = 1.5,
    ) -> torch.Tensor:
        """Latents of the new faces of a clip.

        Args:
            faces: (F, 3, side, side) in [-1, 1], F up to 24 (the original has 16).
            audio: (F, 50, 384), see `engines.hearing`.
            start: from `start`.
            noise: of the two encodings of the clip.
            steps: network passes.
            guidance: exaggeration of what the sound asks for; 1 = off.

        Returns:
            (F, 4, h, w) float32, scaled.
        """
        conditions = self.conditions(faces, noise)
        audio = audio[None].to(conditions)
        if guidance != 1.0:
            audio = torch.cat([torch.zeros_like(audio), audio])
        latents = start.to(conditions.device).expand(-1, -1, len(faces), -1, -1)
        ddim = scheduler()
        ddim.set_timesteps(steps)
        for step in ddim.timesteps:
            stop_point()
            drift = self._noise(latents, conditions, audio, step, guidance)
            latents = ddim.step(drift, int(step), latents).prev_sample
        return latents[0].transpose(0, 1)

    def conditions(self, faces: torch.Tensor, noise: Noise) -> torch.Tensor:
        """What the network sees beside the noisy latents: (1, 9, F, h, w), mask 1 | masked picture 4 | reference 4."""
        mask = self.mask.to(faces)
        masked, reference = (self._encode(pictures, noise) for pictures in (faces * mask, faces))
        small = latent_mask(mask)[None, None].expand(len(faces), 1, -1, -1)
        return torch.cat([small, masked, reference], dim=1).transpose(0, 1)[None]

    @torch.inference_mode()
    def combined(self, latents: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
        """Pictures (F, 3, side, side), about [-1, 1]: painted where the mask says so, the frame's own elsewhere."""
        parts = [autoencoder.decode(self.vae, part) for part in latents.split(VAE_BATCH)]
        mask = self.mask.to(faces)
        return torch.cat(parts) * (1 - mask) + faces * mask

    def _encode(self, pictures: torch.Tensor, noise: Noise) -> torch.Tensor:
        side = [size // FACTOR for size in pictures.shape[2:]]
        drawn = iter(noise((len(pictures), LATENT_CHANNELS, *side)).split(VAE_BATCH))
        return torch.cat(
            [autoencoder.encode(self.vae, part, lambda _: next(drawn)) for part in pictures.split(VAE_BATCH)]
        )

    def _noise(
        self, latents: torch.Tensor, conditions: torch.Tensor, audio: torch.Tensor, step: torch.Tensor, guidance: float
    ) -> torch.Tensor:
        dtype = next(self.unet.parameters()).dtype
        stacked = torch.cat([latents, conditions], dim=1).expand(len(audio), -1, -1, -1, -1)
        found = self.unet(stacked.to(dtype), step, audio.to(dtype)).float()
        if len(found) == 1:
            return found
        plain, heard = found.chunk(2)
        return plain + guidance * (heard - plain)
