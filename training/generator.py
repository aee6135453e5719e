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

from data.dataset import SPEECH_RATE, ClipDataset, StepBatches, to_tensor
from faces.bank import MouthBank, MouthPicker, lips_of, mouth_of
from faces.mouth_shape import MouthShape, mouth_opening
from faces.warp import draft, lips_mask
from latent_diffusion import (
    LATENT_SIDE,
    LIPS_PX,
    Conditions,
    LatentLipDiffusion,
    lips_of_sketch,
    lips_of_window,
    rim_mask,
    shared_noise,
)
from models.autoencoder import MouthAutoencoder, PatchDiscriminator
from models.checkpoint import load_checked, load_pretrained, load_weights
from models.speech_model import SpeechContext, SpeechModel
from models.syncnet import SPEECH_STEPS, SyncNetV2
from training.adversary import fooling_losses, telling_loss
from training.autoencoder import psnr
from training.common import Batch, Losses, Stage, decay_groups, save_picture
from training.perceptual import PerceptualDifference
from utils.config import Config

FACE_REFERENCES = 2  # of the references that the face encoder sees
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
        self._validation: list[dict[str, Any]] = []

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
        settings, frames, keep_speech = self.settings, batch["frames"], batch["keep_speech"]
        conditions = self._conditions(batch, keep_speech, batch["keep_sketch"])
        clean = self._encode(frames)
        level = torch.rand(len(frames), device=self.device).clamp_min(0.02)
        full = torch.rand(len(frames), device=self.device) < settings.full_noise
        level = torch.where(full, torch.ones_like(level), level)
        weights = cell_weights(batch["region"], settings.outside_weight)
        loss, estimate = self.model.loss(clean, conditions, mixed_noise(clean), level, weights)
        losses, adversary = {"flow": settings.flow_weight * loss}, {}
        if self.progress >= settings.pixel_from and step % settings.pixel_every == 0:
            real, drawn = self._decoded(batch, estimate)
            losses |= self._pixel_losses(real, drawn, batch["region"]) | self._sync_loss(batch, drawn, keep_speech)
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
        with torch.no_grad():
            heard = self._hear(batch)
        return self.model.conditions(
            self._encode(batch["draft"]),
            batch["sketch"],
            heard.tokens,
            self.model.face_encoder(batch["references"], batch["reference_shapes"]),
            keep_speech,
            keep_sketch,
        )

    def _decoded(self, batch: Batch, estimate: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Real and drawn mouths (B, F, 3, H, W) of the first samples; the drawn ones are real outside the region."""
        count = self.settings.pixel_windows
        real, region = batch["frames"][:count], batch["region"][:count]
        return real, real + region * (self._decode(estimate[:count]) - real)

    def _pixel_losses(self, real: torch.Tensor, drawn: torch.Tensor, region: torch.Tensor) -> Losses:
        """Differences of pixels, of their changes in time, and of features."""
        settings, error = self.settings, drawn - real
        share = region[: len(real)].mean()
        losses = {
            "pixel": settings.pixel_weight * error.abs().mean() / share,
            "temporal": settings.temporal_weight * error.diff(dim=1).abs().mean() / share,
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
        fit = self._fit(drawn, batch)
        return {"sync": self.settings.sync_weight * ((1 - fit) * kept).sum() / kept.sum().clamp_min(1)}

    def _adversarial_losses(self, real: torch.Tensor, drawn: torch.Tensor) -> Losses:
        fooling, matching = fooling_losses(self.discriminator, drawn, real)
        settings = self.settings
        return {"adversarial": settings.adversarial_weight * fooling, "matching": settings.matching_weight * matching}

    @staticmethod
    def _some_mouths(frames: torch.Tensor, every: int = 2) -> torch.Tensor:
        """Some frames (N, 3, H, W); neighbours are too alike to be worth it."""
        return frames[:, ::every].flatten(0, 1).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def validate(self, step: int, writer: SummaryWriter) -> dict[str, float]:
        batch = self._validation_batch()
        frames = batch["frames"]
        heard = self._hear(batch)
        shapes = {"true": batch["shape"], "predicted": heard.shape.float()}
        shown = {name: self._with_shape(shape) for name, shape in shapes.items()}
        drawn = {name: self._sample(shown_batch) for name, shown_batch in shown.items()}
        region = shown["true"]["region"]
        metrics = {"psnr_mouth": psnr_in(drawn["true"] - frames, region).mean().item()}
        metrics["psnr_draft"] = psnr_in(shown["true"]["draft"] - frames, region).mean().item()
        metrics["flicker"] = ((drawn["true"] - frames).diff(dim=1).abs() * region[:, 1:]).mean().item()
        if self.syncnet is not None:
            for name, images in (("real", frames), *drawn.items()):
                metrics[f"sync_{name}"] = self._fit(images, batch).mean().item()
        for window in range(2):
            rows = [images[window, ::2] for images in (frames, shown["true"]["draft"], *drawn.values())]
            path = self.run_dir / f"validation_{window}.png"
            title = f"original, draft, true shape, predicted shape: {window}"
            save_picture(torch.cat(rows), len(rows[0]), path, title, writer, step)
        # The last weights count as the best: training ends long before it overfits, and the losses that come in
        # late trade a little PSNR for sync.
        return {**metrics, "score": float(step)}

    def _hear(self, batch: Batch) -> SpeechContext:
        more = {name: batch[name] for name in ("activity", "resting")}
        return self.model.predict_shape(batch["speech"], None, batch["times"], **more)

    def _sample(self, batch: Batch) -> torch.Tensor:
        """Mouths generated as in use, (B, F, 3, 96, 96)."""
        images = []
        for index in range(len(batch["frames"])):
            one = {name: value[index : index + 1] for name, value in batch.items() if torch.is_tensor(value)}
            conditions = self._conditions(one)
            channels = self.model.config.latent_channels
            noise = shared_noise(one["frames"].shape[1], channels, self.config.inference.seed).to(self.device)
            latents = self.model.sample(conditions, noise, self.config.inference.steps)
            images.append(one["draft"] + one["region"] * (self._decode(latents).clamp(-1, 1) - one["draft"]))
        return torch.cat(images)

    def _fit(self, drawn: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Cosine of mouth and sound (B,), of windows of 16 frames whose lips are drawn (B, 16, 3, 96, 96)."""
        speech, times, frames = (batch[name][: len(drawn)] for name in ("speech", "times", "window"))
        frames = frames.clone()
        frames[..., LIPS_PX[0], LIPS_PX[1]] = drawn
        first = (times[:, 0] * SPEECH_RATE).round().long().clamp(0, speech.shape[1] - SPEECH_STEPS)
        steps = first[:, None] + torch.arange(SPEECH_STEPS, device=self.device)
        heard = speech[torch.arange(len(speech), device=self.device)[:, None], steps]
        return (self.syncnet.visual(frames) * self.syncnet.audio(heard)).sum(dim=1)

    def _with_shape(self, shape: torch.Tensor) -> Batch:
        """The validation batch with sketches and drafts of mouth shapes (B, F, K)."""
        shown = []
        for item, wanted in zip(self._validation, shape.cpu().numpy(), strict=True):
            points = self.mouth_shape.decode(wanted, item["base"].numpy())
            shown.append(learnt_from(item | show_shape(item, points, self.mouth_shape), mirrored=False))
        return self._on_device(default_collate(shown))

    def _validation_batch(self) -> Batch:
        """Windows of as many validation people as possible, always the same; half of them know one picture only."""
        if not self._validation:
            windows = ClipDataset(self.config.data, "val", self.mouth_shape, CONTEXT_S)
            random = np.random.default_rng(0)
            by_person = {clip.person: clip for clip in windows.clips}
            clips = [by_person[person] for person in sorted(by_person)]
            chosen = [clips[i % len(clips)] for i in range(VALIDATION_WINDOWS)]
            items = [windows.window(clip, int(random.choice(clip.starts)), random) for clip in chosen]
            self._validation = [one_picture(item) if i % 2 else item for i, item in enumerate(items)]
        return self._on_device(default_collate([learnt_from(dict(item), mirrored=False) for item in self._validation]))

    def _on_device(self, batch: Batch) -> Batch:
        return {k: v.to(self.device) if torch.is_tensor(v) else v for k, v in batch.items()}

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
        keep_speech = random.random() >= self._settings.speech_drop
        keep_sketch = keep_speech and random.random() >= self._settings.shape_drop
        # A draft shows the wanted shape, too: where it must not be known, the draft is at rest.
        points = self._mouth_shape.decode(noisy, item["base"].numpy()) if keep_sketch else item["base"].numpy()
        item |= show_shape(item, points, self._mouth_shape)
        item |= {"keep_speech": torch.tensor(keep_speech), "keep_sketch": torch.tensor(keep_sketch)}
        return learnt_from(item, mirrored=random.random() < 0.5)


def one_picture(item: dict[str, Any]) -> dict[str, Any]:
    """The sample as that of a portrait: only the first reference is known."""
    names = ("references", "reference_shapes", "reference_points", "reference_pose")
    return item | {name: item[name][:1].expand_as(item[name]).clone() for name in names}


def learnt_from(item: dict[str, Any], mirrored: bool) -> dict[str, Any]:
    """The sample with its references as the face encoder takes them, mirrored or not; what only drafts need is out."""
    for name in ("skin", "own", "reference_points", "reference_pose", "pose"):
        del item[name]
    item["window"], item["frames"] = item["frames"], lips_of_window(item["frames"])
    item["references"] = to_tensor(item["references"][:FACE_REFERENCES].numpy())
    item["reference_shapes"] = item["reference_shapes"][:FACE_REFERENCES]
    if mirrored:
        for name in ("frames", "window", "references", "sketch", "draft", "region"):
            if name in item:
                item[name] = item[name].flip(-1)
    return item


def show_shape(item: dict[str, Any], points: np.ndarray, mouth_shape: MouthShape) -> dict[str, torch.Tensor]:
    """What tells the generator the wanted mouth shape.

    Args:
        item: a sample of `ClipDataset`.
        points: lips and jaw (F, P, 2), window px.
        mouth_shape: the basis of the shapes.

    Returns:
        Of the square that is drawn: sketch (F, 3, 24, 24) in [0, 1]; draft (F, 3, 96, 96) in [-1, 1]; region
        (F, 1, 96, 96) in [0, 1], where it counts.
    """
    known = {name: value.numpy() for name, value in item.items() if torch.is_tensor(value)}
    shapes = known["reference_shapes"]
    moved = mouth_shape.decode(shapes, np.float32(0))
    pictures = (known["references"], known["reference_points"], moved, shapes, known["reference_pose"])
    bank = MouthBank(tuple(mouth_of(*one) for one in zip(*pictures, strict=True)))
    picks = MouthPicker().pick(bank, lips_of(points - known["base"]), known["pose"])
    frames = zip(known["skin"], known["own"], points, picks, strict=True)
    closed = float(mouth_opening(known["base"][:1])[0])
    drafts = [draft(window, own, wanted, pick.mouths, closed) for window, own, wanted, pick in frames]
    region = np.stack([lips_mask(wanted) for wanted in points])[:, None]
    sketch = np.moveaxis(MouthShape.sketch(points).astype(np.float32) / 255, -1, -3)
    return {
        "sketch": lips_of_sketch(torch.from_numpy(sketch)),
        "draft": lips_of_window(to_tensor(np.stack(drafts))),
        "region": lips_of_window(torch.from_numpy(region)) * rim_mask(),
    }


def cell_weights(region: torch.Tensor, outside: float) -> torch.Tensor:
    """Loss weight of the latent cells (B, F, 1, 12, 12): 1 in the region (B, F, 1, 96, 96), less beyond; mean 1."""
    inside = F.adaptive_avg_pool2d(region.flatten(0, 1), LATENT_SIDE).unflatten(0, region.shape[:2])
    weights = inside + outside * (1 - inside)
    return weights / weights.mean()


def mixed_noise(like: torch.Tensor) -> torch.Tensor:
    """Noise (B, F, C, H, W) of unit variance: half of the samples share one picture over all frames, as in use, the
    others mix a shared and an own one."""
    shared = torch.randn_like(like[:, :1])
    part = torch.rand(len(like), 1, 1, 1, 1, device=like.device)
    part = torch.where(torch.rand_like(part) < 0.5, torch.ones_like(part), part)
    return part.sqrt() * shared + (1 - part).sqrt() * torch.randn_like(like)


def psnr_in(error: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """PSNR in dB (N,) of errors (B, F, 3, H, W) in [-1, 1] inside regions (B, F, 1, H, W)."""
    share = region.mean(dim=(-3, -2, -1), keepdim=True).clamp_min(1e-6)
    return psnr((error.square() * region / share).flatten(0, 1))
