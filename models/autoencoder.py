"""The autoencoder of the mouth window: pixels to latents, eight times smaller, and back."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from models.library import AutoencoderTiny, ConfigMixin, ModelMixin, register_to_config


class MouthAutoencoder(ModelMixin, ConfigMixin):
    """diffusers' AutoencoderTiny on 2x2 blocks of pixels, with latents of zero mean and unit variance.

    Folding 2x2 pixels into channels keeps the convolutions off the full-size picture, where they cost most. One set
    of weights codes any size that is a multiple of 8 px.

    Args:
        width: channels of every block.
        encoder_blocks: residual blocks at 1/2, 1/4 and 1/8 of the side.
        decoder_blocks: residual blocks at 1/8, 1/4 and 1/2 of the side.
        latent_channels: numbers for each 8x8 pixels.
    """

    @register_to_config
    def __init__(
        self,
        width: int = 64,
        encoder_blocks: tuple[int, int, int] = (1, 2, 2),
        decoder_blocks: tuple[int, int, int] = (2, 2, 1),
        latent_channels: int = 16,
    ) -> None:
        super().__init__()
        self.network = AutoencoderTiny(
            in_channels=12,
            out_channels=12,
            encoder_block_out_channels=(width,) * 3,
            decoder_block_out_channels=(width,) * 3,
            num_encoder_blocks=tuple(encoder_blocks),
            num_decoder_blocks=tuple(decoder_blocks),
            latent_channels=latent_channels,
        )
        # The decoder's output is in [0, 1] before its last scaling: start at grey, not at black.
        nn.init.constant_(self.network.decoder.layers[-1].bias, 0.5)
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, H, W) in [-1, 1], H and W multiples of 8 -> latents (B, C, H/8, W/8), about N(0, 1)."""
        raw = self.network.encoder(F.pixel_unshuffle(images, 2))
        return (raw - self._per_channel(self.latent_mean)) / self._per_channel(self.latent_std)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w) as `encode` gives them -> pixels (B, 3, 8h, 8w), about [-1, 1], not clamped."""
        raw = latents * self._per_channel(self.latent_std) + self._per_channel(self.latent_mean)
        return F.pixel_shuffle(self.network.decoder(raw), 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Encode and decode again."""
        return self.decode(self.encode(images))

    @torch.no_grad()
    def set_latent_statistics(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Set the per-channel mean and standard deviation (C,) of the raw latents that `encode` divides out."""
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std.clamp_min(1e-4))

    @staticmethod
    def _per_channel(values: torch.Tensor) -> torch.Tensor:
        return values.view(1, -1, 1, 1)


class PatchDiscriminator(nn.Module):
    """Tells real pictures from drawn ones, patch by patch: (B, 3, H, W) in [-1, 1] -> scores (B, 1, H/8, W/8).

    Args:
        width: channels of the first layer; H and W are multiples of 8.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            [
                nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, width, 3, padding=1), nn.LeakyReLU(0.2)),
                self._down(width, 2 * width),
                self._down(2 * width, 4 * width),
            ]
        )
        self.last = nn.Conv2d(4 * width, 1, 3, padding=1)

    @staticmethod
    def _down(before: int, after: int) -> nn.Sequential:
        convolution = nn.Conv2d(before, after, 4, stride=2, padding=1)
        return nn.Sequential(convolution, nn.GroupNorm(4, after), nn.LeakyReLU(0.2))

    def score(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Scores (B, 1, H/8, W/8), and the features at 1/2, 1/4 and 1/8 of the side that they come from."""
        features = []
        for stage in self.stages:
            images = stage(images)
            features.append(images)
        return self.last(images), features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores only."""
        return self.score(images)[0]
