"""Training of the generator: flow matching on latents, later also losses on the decoded pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset, default_collate
from torch.utils.tensorboard import SummaryWriter

from data.dataset import SPEECH_RATE, ClipDataset, StepBatches
from faces.mouth_shape import MouthShape
from faces.warp import bend_to_shape
from latent_diffusion import (
    CELL,
    Conditions,
    LatentLipDiffusion,
    draft_pictures,
    latent_mask,
    nearest_reference,
    pixel_mask,
    rim_mask,
    shared_noise,
)
from models.autoencoder import MouthAutoencoder
from models.checkpoint import load_pretrained, load_weights
from models.syncnet import SPEECH_STEPS, SyncNetV2
from training.autoencoder import mouth_weights, psnr
from training.common import Batch, Losses, Stage, save_picture
from utils.config import Config

CONTEXT_S = 0.8  # speech before and after a window: what the speech model can look at
VALIDATION_WINDOWS = 8


class GeneratorStage(Stage):
    """See the module. The autoencoder, the speech model and the sync network are frozen.

    Validation: PSNR of the mouth area on unseen people with the true mouth shapes (how well appearance is drawn),
    how well mouths drawn from predicted shapes fit the sound, and a picture of both.
    """

    name = "generator"

    def build(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        settings, sizes = self.settings, config.model
        self.autoencoder = self._frozen(load_pretrained(MouthAutoencoder, self._weights("autoencoder")))
        self.syncnet = None
        if settings.sync_weight > 0:
            self.syncnet = self._frozen(load_pretrained(SyncNetV2, self._weights("syncnet")))
        self.mouth_shape = MouthShape.load(config.training.common.weights_dir / "mouth_shape")
        channels = self.autoencoder.config.latent_channels
        self.model = LatentLipDiffusion(
            speech_settings=sizes.speech.model_dump(), latent_channels=channels, **sizes.generator.model_dump()
        )
        load_weights(self.model.speech, self._weights("speech"))
        self.model.speech.requires_grad_(False)
        self.model.to(device, memory_format=torch.channels_last)
        self._mask, self._rim = pixel_mask().to(device), rim_mask().to(device)
        self._cells = cell_weights(settings.outside_weight, settings.mouth_weight).to(device)
        self._pixels = torch.from_numpy(mouth_weights(settings.mouth_weight)).to(device) * self._mask
        self._validation: Batch | None = None

    def train_batches(self, rank: int = 0) -> Dataset:
        windows = GeneratorSampler(self.config, self.mouth_shape)
        return StepBatches(windows.draw, self.settings.batch_size, self.config.training.common.seed, rank)

    def training_step(self, batch: Batch, step: int) -> Losses:
        self.model.speech.eval()
        settings, frames = self.settings, batch["frames"]
        chance = torch.rand(3, len(frames), device=self.device)
        keep_speech = chance[0] >= settings.speech_drop
        keep_sketch = keep_speech & (chance[1] >= settings.shape_drop)
        conditions = self._conditions(batch, keep_speech, keep_sketch)
        clean = self._encode(frames)
        level = torch.rand(len(frames), device=self.device).clamp_min(0.02)
        level = torch.where(chance[2] < settings.full_noise, torch.ones_like(level), level)
        loss, estimate = self.model.loss(clean, conditions, mixed_noise(clean), level, self._cells)
        losses = {"flow": loss}
        if self.progress >= settings.pixel_from and step % settings.pixel_every == 0:
            losses |= self._pixel_losses(batch, estimate, keep_speech)
        total = torch.stack([value.float() for value in losses.values()]).sum()
        return {"loss": total, **{name: value.detach() for name, value in losses.items()}}

    def _conditions(
        self,
        batch: Batch,
        keep_speech: torch.Tensor | None = None,
        keep_sketch: torch.Tensor | None = None,
    ) -> Conditions:
        frames, reference = batch["frames"], batch["bent"]
        if keep_sketch is not None:  # a bent reference shows the shape, too
            reference = torch.where(keep_sketch[:, None, None, None, None], reference, batch["plain"][:, None])
        with torch.no_grad():
            heard = self.model.predict_shape(batch["speech"], None, batch["times"])
        return self.model.conditions(
            self._encode(draft_pictures(frames, reference, self._rim)),
            batch["sketch"],
            heard.tokens,
            self.model.face_encoder(batch["references"], batch["reference_shapes"]),
            keep_speech,
            keep_sketch,
        )

    def _pixel_losses(self, batch: Batch, estimate: torch.Tensor, keep_speech: torch.Tensor) -> Losses:
        """Differences of the decoded estimate: of pixels, of their changes in time, of mouth and sound."""
        settings, count = self.settings, self.settings.pixel_windows
        real, kept = batch["frames"][:count], keep_speech[:count].float()
        decoded = self._decode(estimate[:count])
        mixed = real + self._rim * (decoded - real)
        error = mixed - real
        losses = {
            "pixel": settings.pixel_weight * (error.abs() * self._pixels).mean(),
            "temporal": settings.temporal_weight * (error.diff(dim=1).abs() * self._pixels).mean(),
        }
        if self.syncnet is not None:
            fit = self._fit(mixed, batch["speech"][:count], batch["times"][:count])
            losses["sync"] = settings.sync_weight * ((1 - fit) * kept).sum() / kept.sum().clamp_min(1)
        return losses

    @torch.no_grad()
    def validate(self, step: int, writer: SummaryWriter) -> dict[str, float]:
        batch = self._validation_batch()
        frames = batch["frames"]
        heard = self.model.predict_shape(batch["speech"], None, batch["times"])
        shapes = {"true": batch["shape"], "predicted": heard.shape.float()}
        drawn = {name: self._sample(self._with_shape(batch, shape)) for name, shape in shapes.items()}
        quality = psnr_in((drawn["true"] - frames).flatten(0, 1), self._mask)
        metrics = {"psnr_mouth": quality.mean().item()}
        metrics["flicker"] = ((drawn["true"] - frames).diff(dim=1).abs() * self._mask).mean().item()
        if self.syncnet is not None:
            speech, times = batch["speech"], batch["times"]
            for name, images in (("real", frames), *drawn.items()):
                metrics[f"sync_{name}"] = self._fit(images, speech, times).mean().item()
        for window in range(2):
            shown = [images[window, ::2] for images in (frames, *drawn.values())]
            path = self.run_dir / f"validation_{window}.png"
            title = f"original, true shape, predicted shape: {window}"
            save_picture(torch.cat(shown), len(shown[0]), path, title, writer, step)
        # The last weights count as the best: training ends long before it overfits, and the losses that come in
        # late trade a little PSNR for sync.
        return {**metrics, "score": float(step)}

    def _sample(self, batch: Batch) -> torch.Tensor:
        """Windows generated as in use, (B, F, 3, 160, 160)."""
        images = []
        for index in range(len(batch["frames"])):
            one = {name: value[index : index + 1] for name, value in batch.items() if torch.is_tensor(value)}
            conditions = self._conditions(one)
            channels = self.model.config.latent_channels
            noise = shared_noise(one["frames"].shape[1], channels, self.config.inference.seed).to(self.device)
            decoded = self._decode(self.model.sample(conditions, noise, self.config.inference.steps))
            images.append(one["frames"] + self._rim * (decoded.float().clamp(-1, 1) - one["frames"]))
        return torch.cat(images)

    def _fit(self, frames: torch.Tensor, speech: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Cosine of mouth and sound (B,), of windows of 16 frames."""
        first = (times[:, 0] * SPEECH_RATE).round().long().clamp(0, speech.shape[1] - SPEECH_STEPS)
        steps = first[:, None] + torch.arange(SPEECH_STEPS, device=self.device)
        heard = speech[torch.arange(len(speech), device=self.device)[:, None], steps]
        return (self.syncnet.visual(frames) * self.syncnet.audio(heard)).sum(dim=1)

    def _with_shape(self, batch: Batch, shape: torch.Tensor) -> Batch:
        """The batch with sketches and bent references of other mouth shapes (B, F, K)."""
        shown = []
        for index in range(len(shape)):
            item = {name: value[index].cpu() for name, value in batch.items() if torch.is_tensor(value)}
            points = self.mouth_shape.decode(shape[index].cpu().numpy(), item["base"].numpy())
            shown.append(show_shape(item, points))
        return batch | {name: value.to(self.device) for name, value in default_collate(shown).items()}

    def _validation_batch(self) -> Batch:
        """Windows of as many validation people as possible, always the same."""
        if self._validation is None:
            windows = ClipDataset(self.config.data, "val", self.mouth_shape, CONTEXT_S)
            random = np.random.default_rng(0)
            by_person = {clip.person: clip for clip in windows.clips}
            clips = [by_person[person] for person in sorted(by_person)]
            chosen = [clips[i % len(clips)] for i in range(VALIDATION_WINDOWS)]
            items = [windows.window(clip, int(random.choice(clip.starts)), random) for clip in chosen]
            batch = default_collate(items)
            self._validation = {k: v.to(self.device) if torch.is_tensor(v) else v for k, v in batch.items()}
        return self._validation

    @torch.no_grad()
    def _encode(self, frames: torch.Tensor) -> torch.Tensor:
        flat = frames.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return self.autoencoder.encode(flat).float().unflatten(0, frames.shape[:2])

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.autoencoder.decode(latents.flatten(0, 1)).float().unflatten(0, latents.shape[:2])

    def _weights(self, part: str) -> Path:
        common = self.config.training.common
        return getattr(self.settings, part) or common.weights_dir / self.config.size / part

    def _frozen(self, model: Any) -> Any:
        return model.to(self.device, memory_format=torch.channels_last).eval().requires_grad_(False)


class GeneratorSampler:
    """Windows of clips whose mouth shapes are drawn inexactly, as predicted ones are; half of them mirrored."""

    def __init__(self, config: Config, mouth_shape: MouthShape) -> None:
        self._settings = config.training.generator
        self._mouth_shape = mouth_shape
        jitter = self._settings.colour_jitter
        self._windows = ClipDataset(config.data, "train", mouth_shape, CONTEXT_S, colour_jitter=jitter)

    def draw(self, random: np.random.Generator) -> dict[str, Any]:
        """A window as `ClipDataset` gives it, with the changed sketch."""
        item = self._windows.draw(random)
        shape = item["shape"].numpy()
        # Predictions are wrong for a while, not in each frame anew: most of the noise lasts the whole window.
        noise = random.standard_normal((1, shape.shape[1])) + 0.5 * random.standard_normal(shape.shape)
        noisy = (shape + self._settings.shape_noise * noise / np.sqrt(1.25)).astype(np.float32)
        item |= show_shape(item, self._mouth_shape.decode(noisy, item["base"].numpy()))
        if random.random() < 0.5:
            for name in ("frames", "references", "sketch", "bent", "plain"):
                item[name] = item[name].flip(-1)
        return item


def show_shape(item: dict[str, Any], points: np.ndarray) -> dict[str, torch.Tensor]:
    """What tells the generator the wanted mouth shape.

    Args:
        item: a sample of `ClipDataset`.
        points: lips and jaw (F, P, 2), window px.

    Returns:
        sketch (F, 3, 40, 40) in [0, 1]; plain (3, 160, 160), the nearest reference; bent (F, 3, 160, 160), the same
        bent to the shape.
    """
    nearest = int(nearest_reference(item["frames"][None], item["references"][None]))
    plain = item["references"][nearest]
    picture = np.ascontiguousarray(plain.permute(1, 2, 0).numpy())
    bent = bend_to_shape(picture, item["reference_points"][nearest].numpy(), points)
    sketch = np.moveaxis(MouthShape.sketch(points).astype(np.float32) / 255, -1, -3)
    return {"sketch": torch.from_numpy(sketch), "plain": plain, "bent": torch.from_numpy(bent).permute(0, 3, 1, 2)}


def cell_weights(outside: float, mouth: float) -> torch.Tensor:
    """Loss weight of each latent cell (1, 20, 20): `outside` beyond the mask, 1 to `mouth` inside; mean 1."""
    hill = F.avg_pool2d(torch.from_numpy(mouth_weights(mouth))[None], CELL)
    mask = latent_mask()
    weights = hill * mask + outside * (1 - mask)
    return weights / weights.mean()


def mixed_noise(like: torch.Tensor) -> torch.Tensor:
    """Noise (B, F, C, H, W) of unit variance: half of the samples share one picture over all frames, as in use, the
    others mix a shared and an own one."""
    shared = torch.randn_like(like[:, :1])
    part = torch.rand(len(like), 1, 1, 1, 1, device=like.device)
    part = torch.where(torch.rand_like(part) < 0.5, torch.ones_like(part), part)
    return part.sqrt() * shared + (1 - part).sqrt() * torch.randn_like(like)


def psnr_in(error: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """PSNR in dB (N,) of errors (N, 3, H, W) in [-1, 1] inside a mask (1, H, W)."""
    return psnr(error.square() * mask / mask.mean())
