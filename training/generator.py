"""Training of the generator: flow matching on latents, later also losses on the decoded pixels.

Of the decoded pixels count the absolute difference, the change from frame to frame, the sync network, a perceptual
difference and a patch discriminator: the first two alone draw the mean of all mouths that fit, which is a soft one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset, default_collate
from torch.utils.tensorboard import SummaryWriter

from data.dataset import SPEECH_RATE, ClipDataset, StepBatches
from faces.mouth_shape import MouthShape
from faces.warp import bend_references
from latent_diffusion import (
    CELL,
    Conditions,
    LatentLipDiffusion,
    draft_pictures,
    latent_mask,
    pixel_mask,
    rim_mask,
    shared_noise,
    unlikeness,
)
from models.autoencoder import MouthAutoencoder, PatchDiscriminator
from models.checkpoint import load_checked, load_pretrained, load_weights
from models.speech_model import SpeechContext, SpeechModel
from models.syncnet import SPEECH_STEPS, SyncNetV2
from training.adversary import fooling_losses, telling_loss
from training.autoencoder import AREA_BOTTOM, AREA_LEFT, AREA_RIGHT, AREA_TOP, mouth_weights, psnr
from training.common import Batch, Losses, Stage, decay_groups, save_picture
from training.perceptual import PerceptualDifference
from utils.config import Config

CONTEXT_S = 0.8  # speech before and after a window: what the speech model can look at
VALIDATION_WINDOWS = 8
PERCEPTUAL_EVERY = 4  # frames between two whose features are compared


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
        heard = load_pretrained(SpeechModel, self._weights("speech"))
        self.model = LatentLipDiffusion(
            speech_settings={**sizes.speech.model_dump(), "knows_phonemes": heard.config.knows_phonemes},
            latent_channels=channels,
            **sizes.generator.model_dump(),
        )
        load_weights(self.model.speech, self._weights("speech"))
        self.model.speech.requires_grad_(False)
        self.model.to(device, memory_format=torch.channels_last)
        self.discriminator = PatchDiscriminator(settings.discriminator_width).to(device)
        self._perceptual = None
        if settings.perceptual_weight > 0:
            self._perceptual = PerceptualDifference(settings.perceptual_network, device)
        self._mask, self._rim = pixel_mask().to(device), rim_mask().to(device)
        self._cells = cell_weights(settings.outside_weight, settings.mouth_weight).to(device)
        self._pixels = torch.from_numpy(mouth_weights(settings.mouth_weight)).to(device) * self._mask
        self._validation: Batch | None = None

    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "discriminator": self.discriminator}

    def parameter_groups(self) -> list[dict[str, Any]]:
        rate = self.settings.discriminator_learning_rate
        return decay_groups(self.model) + decay_groups(self.discriminator, lr=rate, betas=(0.5, 0.9))

    def initialise(self, directory: Path) -> None:
        """Start from a generator exported earlier; its speech part stays the one that the speech stage made."""
        earlier = load_pretrained(LatentLipDiffusion, directory).state_dict()
        drawing = {name: tensor for name, tensor in earlier.items() if not name.startswith("speech.")}
        heard = {name: tensor for name, tensor in self.model.state_dict().items() if name.startswith("speech.")}
        load_checked(self.model, drawing | heard, str(directory))

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
        losses, adversary = {"flow": settings.flow_weight * loss}, {}
        if self.progress >= settings.pixel_from and step % settings.pixel_every == 0:
            real, drawn = self._decoded(batch, estimate)
            losses |= self._pixel_losses(real, drawn) | self._sync_loss(batch, drawn, keep_speech)
            if settings.adversarial_weight > 0 and self.progress >= settings.adversarial_from:
                seen = self._some_mouths(real), self._some_mouths(drawn)
                losses |= self._adversarial_losses(*seen)
                adversary["loss_discriminator"] = telling_loss(self.discriminator, seen[1], seen[0])
        total = torch.stack([value.float() for value in losses.values()]).sum()
        return {"loss": total, **adversary, **{name: value.detach() for name, value in losses.items()}}

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
            heard = self._hear(batch)
        return self.model.conditions(
            self._encode(draft_pictures(frames, reference, self._rim)),
            batch["sketch"],
            heard.tokens,
            self.model.face_encoder(batch["references"], batch["reference_shapes"]),
            keep_speech,
            keep_sketch,
        )

    def _decoded(self, batch: Batch, estimate: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Real and drawn windows (B, F, 3, 160, 160) of the first samples; the drawn ones are real outside the mask."""
        real = batch["frames"][: self.settings.pixel_windows]
        decoded = self._decode(estimate[: self.settings.pixel_windows])
        return real, real + self._rim * (decoded - real)

    def _pixel_losses(self, real: torch.Tensor, drawn: torch.Tensor) -> Losses:
        """Differences of pixels, of their changes in time, and of features."""
        settings, error = self.settings, drawn - real
        losses = {
            "pixel": settings.pixel_weight * (error.abs() * self._pixels).mean(),
            "temporal": settings.temporal_weight * (error.diff(dim=1).abs() * self._pixels).mean(),
        }
        if self._perceptual is not None:
            seen = (self._some_mouths(frames, PERCEPTUAL_EVERY) for frames in (drawn, real))
            losses["perceptual"] = settings.perceptual_weight * self._perceptual(*seen)
        return losses

    def _sync_loss(self, batch: Batch, drawn: torch.Tensor, keep_speech: torch.Tensor) -> Losses:
        """How badly mouth and sound fit; samples that were not told the speech do not count."""
        if self.syncnet is None:
            return {}
        count = len(drawn)
        kept = keep_speech[:count].float()
        fit = self._fit(drawn, batch["speech"][:count], batch["times"][:count])
        return {"sync": self.settings.sync_weight * ((1 - fit) * kept).sum() / kept.sum().clamp_min(1)}

    def _adversarial_losses(self, real: torch.Tensor, drawn: torch.Tensor) -> Losses:
        fooling, matching = fooling_losses(self.discriminator, drawn, real)
        settings = self.settings
        return {"adversarial": settings.adversarial_weight * fooling, "matching": settings.matching_weight * matching}

    @staticmethod
    def _some_mouths(frames: torch.Tensor, every: int = 2) -> torch.Tensor:
        """The generated area of some frames (N, 3, 104, 128); neighbours are too alike to be worth it."""
        area = frames[:, ::every, :, AREA_TOP:AREA_BOTTOM, AREA_LEFT:AREA_RIGHT]
        return area.flatten(0, 1).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def validate(self, step: int, writer: SummaryWriter) -> dict[str, float]:
        batch = self._validation_batch()
        frames = batch["frames"]
        heard = self._hear(batch)
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

    def _hear(self, batch: Batch) -> SpeechContext:
        more = {name: batch[name] for name in ("activity", "resting")}
        return self.model.predict_shape(batch["speech"], None, batch["times"], **more)

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
        sketch (F, 3, 40, 40) in [0, 1]; plain (3, 160, 160), the nearest reference; bent (F, 3, 160, 160), the
        references bent to the shape and mixed.
    """
    unlike = unlikeness(item["frames"][None], item["references"][None])[0].numpy()
    pictures = np.ascontiguousarray(item["references"].permute(0, 2, 3, 1).numpy())
    plain = item["references"][int(unlike.argmin())]
    bent = bend_references(pictures, item["reference_points"].numpy(), points, unlike)
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
