"""Training of the autoencoder: random crops of mouth windows, absolute and edge differences, a patch discriminator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter

from data.dataset import ClipCache, StepBatches, clip_probabilities, decode_crops, load_clips, to_tensor
from models.autoencoder import MouthAutoencoder, PatchDiscriminator
from training.adversary import fooling_losses, telling_loss
from training.common import Batch, Losses, Stage, decay_groups, save_picture
from training.perceptual import PerceptualDifference
from utils.config import Config
from utils.data_augmentation import colour_jitter, random_crop

# The inpainting area of the mouth window, px: where the generator draws and the autoencoder must be best.
AREA_TOP, AREA_BOTTOM, AREA_LEFT, AREA_RIGHT = 48, 152, 16, 144
VALIDATION_FRAMES = 96
PICTURES = 8


class AutoencoderStage(Stage):
    """See the module. Validation: PSNR of whole mouth windows of unseen people, and a picture of examples."""

    name = "autoencoder"

    def build(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        self.model = MouthAutoencoder(**config.model.autoencoder.model_dump()).to(device)
        self.discriminator = PatchDiscriminator(self.settings.discriminator_width).to(device)
        for module in (self.model, self.discriminator):
            module.to(memory_format=torch.channels_last)
        self._perceptual = None
        if self.settings.perceptual_weight > 0:
            self._perceptual = PerceptualDifference(self.settings.perceptual_network, device)
        if self.settings.decoder_only:
            self.model.network.encoder.requires_grad_(False)
        self._validation: torch.Tensor | None = None

    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "discriminator": self.discriminator}

    def parameter_groups(self) -> list[dict[str, Any]]:
        rate = self.settings.discriminator_learning_rate
        return decay_groups(self.model) + decay_groups(self.discriminator, lr=rate, betas=(0.5, 0.9))

    def train_batches(self, rank: int = 0) -> Dataset:
        crops = CropSampler(self.config, mouth_weights(self.settings.mouth_weight))
        return StepBatches(crops.draw, self.settings.batch_size, self.config.training.common.seed, rank)

    def training_step(self, batch: Batch, step: int) -> Losses:
        settings = self.settings
        real = batch["frames"].contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(not settings.decoder_only):
            latents = self.model.encode(real)
        decoded = self.model.decode(latents)
        weights = batch["weights"]
        losses = {
            "l1": settings.l1_weight * (weights * (decoded - real).abs()).mean(),
            "pyramid": settings.pyramid_weight * pyramid_difference(decoded, real, weights),
            "latents": settings.latent_weight * latents.float().square().mean(),
        }
        if self._perceptual is not None:
            losses["perceptual"] = settings.perceptual_weight * self._perceptual(decoded, real)
        adversary = {}
        if settings.adversarial_weight > 0 and step >= settings.adversarial_from_step:
            fooling, matching = fooling_losses(self.discriminator, decoded, real)
            losses["adversarial"] = settings.adversarial_weight * fooling
            losses["matching"] = settings.matching_weight * matching
            adversary["loss_discriminator"] = telling_loss(self.discriminator, decoded, real)
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        return {"loss": total, **adversary, **{name: loss.detach() for name, loss in losses.items()}}

    @torch.no_grad()
    def validate(self, step: int, writer: SummaryWriter) -> dict[str, float]:
        real = self._validation_frames()
        decoded = (
            torch.cat([self.model(part.to(self.device)).cpu() for part in real.split(16)])
            .float()
            .clamp(-1, 1)
        )
        error = (decoded - real).square()
        area = error[..., AREA_TOP:AREA_BOTTOM, AREA_LEFT:AREA_RIGHT]
        mouth, window = psnr(area).mean().item(), psnr(error).mean().item()
        chosen = torch.linspace(0, len(real) - 1, PICTURES).long()
        rows = torch.cat([real[chosen], decoded[chosen], (4 * (decoded - real)[chosen]).clamp(-1, 1)])
        save_picture(
            rows, PICTURES, self.run_dir / "validation.png", "original, decoded, difference x4", writer, step
        )
        return {"psnr_mouth": mouth, "psnr_window": window, "score": mouth}

    @torch.no_grad()
    def finish(self) -> None:
        """Measure mean and spread of the latents of many people, so that `encode` gives about N(0, 1)."""
        if self.settings.decoder_only:  # latents must stay what the generator knows
            return
        mean, std = self.model.latent_mean, self.model.latent_std
        self.model.set_latent_statistics(torch.zeros_like(mean), torch.ones_like(std))
        latents = torch.cat(
            [self.model.encode(part.to(self.device)) for part in self._validation_frames().split(16)]
        )
        latents = latents.float()
        self.model.set_latent_statistics(latents.mean((0, 2, 3)), latents.std((0, 2, 3)))

    def _validation_frames(self) -> torch.Tensor:
        """Frames of the validation people (N, 3, 160, 160), spread evenly over the people and their clips."""
        if self._validation is None:
            data = self.config.data
            clips = load_clips(data.processed_dir, "val", data.window, data.fps)
            random = np.random.default_rng(0)
            chosen = random.choice(len(clips), VALIDATION_FRAMES // 2, p=clip_probabilities(clips))
            pairs = [(clips[i], random.choice(clips[i].starts)) for i in sorted(chosen)]
            frames = [decode_crops(clip.directory / "crops.mp4")[[start, start + 8]] for clip, start in pairs]
            self._validation = to_tensor(np.concatenate(frames))
        return self._validation


class CropSampler:
    """Draws random crops of single frames, flipped and with changed colours.

    Args:
        config: the data part says where the clips are, the autoencoder's training part how to crop.
        weights: loss weight of each pixel of the mouth window (160, 160).
    """

    def __init__(self, config: Config, weights: np.ndarray) -> None:
        data = config.data
        self._clips = load_clips(
            data.processed_dir, "train", data.window, data.fps, data.max_minutes_per_person
        )
        self._chances = clip_probabilities(self._clips)
        self._frames = ClipCache(lambda clip: decode_crops(clip.directory / "crops.mp4"), data.cache_gb * 1e9)
        self._settings = config.training.autoencoder
        self._window = data.window
        self._weights = weights

    def draw(self, random: np.random.Generator) -> dict[str, torch.Tensor]:
        """One crop: "frames" (3, S, S) in [-1, 1] and "weights" (1, S, S)."""
        clip = self._clips[random.choice(len(self._clips), p=self._chances)]
        frame = self._frames(clip)[random.choice(clip.starts) + random.integers(self._window)]
        crop, left, top = random_crop(frame, random, self._settings.crop)
        weights = self._weights[top : top + self._settings.crop, left : left + self._settings.crop]
        crop = colour_jitter(crop, random, self._settings.colour_jitter)
        if random.random() < 0.5:
            crop, weights = crop[:, ::-1], weights[:, ::-1]
        return {"frames": to_tensor(crop), "weights": torch.from_numpy(weights[None].copy())}


def mouth_weights(peak: float, side: int = 160) -> np.ndarray:
    """Loss weight of each pixel: `peak` around the lips, 1 far away, a smooth hill between. float32 (side, side)."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    centre_y, centre_x = (AREA_TOP + AREA_BOTTOM) / 2 - 8, side / 2
    return (1 + (peak - 1) * np.exp(-(((y - centre_y) / 34) ** 2) - ((x - centre_x) / 40) ** 2)).astype(
        np.float32
    )


def pyramid_difference(ours: torch.Tensor, theirs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """L1 of Laplacian-pyramid bands and of gradients at three scales, weighted per pixel: sharp edges count.

    Args:
        ours, theirs: (B, 3, H, W), H and W multiples of 8.
        weights: (B, 1, H, W).
    """
    difference = ours - theirs
    total = difference.new_zeros((), dtype=torch.float32)
    for _ in range(3):
        coarse = F.avg_pool2d(difference, 2)
        band = difference - F.interpolate(coarse, scale_factor=2.0)
        across = (difference[..., 1:] - difference[..., :-1]).abs() * weights[..., 1:]
        down = (difference[..., 1:, :] - difference[..., :-1, :]).abs() * weights[..., 1:, :]
        total = total + (band.abs() * weights).mean() + 0.5 * (across.mean() + down.mean())
        difference, weights = coarse, F.avg_pool2d(weights, 2)
    return total + (difference.abs() * weights).mean()


def psnr(squared_error: torch.Tensor) -> torch.Tensor:
    """PSNR in dB of each picture (N,) from squared errors (N, C, H, W) of values in [-1, 1]."""
    return 10 * torch.log10(4.0 / squared_error.mean((1, 2, 3)).clamp_min(1e-10))
