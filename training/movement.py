"""Training of movement: what people really do about the mean of what a sound lets expect; see `models.movement`.

A sync network that looks at mouth shapes may supervise it: then movement also learns to be told from its sound.

The speech model stays as it is. What it makes of all clips and of their altered copies is computed once and kept in
memory, so a step costs what the small network costs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter

from data.dataset import (
    Clip,
    StepBatches,
    clip_activity,
    clip_probabilities,
    clip_resting,
    clip_shape,
    clip_speech,
    load_clips,
)
from faces.mouth_shape import MouthShape
from models.movement import MovementModel, Told, heard_tokens
from models.movement_track import BLOCK, LOOK, PREFIX, Listened, Movement, MovementSettings
from models.speech_model import SpeechModel
from training.common import Batch, Losses, Stage
from training.movement_figures import Measures, Predicted
from training.movement_sync import MovementSync, heard_windows
from training.speech import clip_spoken, coefficient_weights, load_speech
from utils.config import Config
from utils.training_config import MovementTraining

STEPS = PREFIX + BLOCK + LOOK  # of a sample, as in use
LEAST_STEPS = 4  # that are drawn where the sample is cut short, as for live sound
SMALLEST_SPREAD = 0.05
CALIBRATED = 3  # coefficients whose size is fitted on validation people
TRIED = {"size": (0.25, 0.5, 1.0, 1.5, 2.0, 2.5), "gain": (0.8, 1.0, 1.2, 1.5, 2.0)}
SETTLING = 5  # frames over which a person's own offset fades at the rim of a pause
Array = np.ndarray


@dataclass(frozen=True)
class Known:
    """A clip at its frames (T): copies (V) of what the speech model makes of its sound, and the truth.

    Attributes:
        tokens: float16 (V, T, HEARD_TOKENS * D).
        mean: (V, T, K).
        activity: (T,).
        resting: px.
        shape: (T, K).
        valid: (T,) bool.
        speaks: (T,), 1 in speech, 0 in the pauses of a scene.
        heard: (T, D) what the sync network hears in the 0.64 s that begin with each frame; D is 0 without one.
    """

    tokens: Array
    mean: Array
    activity: Array
    resting: float
    shape: Array
    valid: Array
    speaks: Array
    heard: Array

    def moved(self, copy: int) -> Array:
        """What the true shape differs from the mean (T, K), without what it differs by all through the clip.

        A person's habits and the pose of the head shift whole clips. No sound tells that, and drawn at random it would
        make the mouth wander.
        """
        differs, counts = self.shape - self.mean[copy], self.valid & (self.speaks > 0.5)
        offset = differs[counts].mean(axis=0) if counts.any() else np.zeros(differs.shape[1], np.float32)
        return differs - self.speaks[:, None] * offset


class MovementStage(Stage):
    """See the module. Validation: whole clips of unseen people, as in use; see `evaluation.movement`."""

    name = "movement"

    def build(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        weights = config.training.common.weights_dir
        self._speech = load_speech(self.settings.speech or weights / config.size / "generator").to(device).eval()
        chosen, told = config.model.movement, self._speech.config
        self.model = MovementModel(chosen.width, chosen.blocks, told.width, told.shape_coefficients, chosen.dropout).to(
            device
        )
        sync = self.settings.sync
        self._sync = None if sync is None else MovementSync.load(sync).to(device)
        shape = MouthShape.load(weights / "mouth_shape")
        self._measures = Measures(shape, config.data.fps)
        self._weights = torch.from_numpy(coefficient_weights(shape.components)).to(device)
        self._validation: dict[str, list[tuple[Clip, Known]]] = {}

    def train_batches(self, rank: int = 0) -> Dataset:
        sampler = MovementSampler(self.config, self._speech, self.settings, self._sync)
        if not bool((self.model.spread != 1).any()):
            self.model.spread.copy_(torch.from_numpy(sampler.spread()))
        return StepBatches(sampler.draw, self.settings.batch_size, self.config.training.common.seed, rank)

    def training_step(self, batch: Batch, step: int) -> Losses:
        told = Told(*(batch[name] for name in ("tokens", "mean", "activity", "resting", "before", "over", "there")))
        clean = batch["moved"] / self.model.spread
        level = torch.rand(len(clean), device=self.device)
        level = torch.where(torch.rand_like(level) < self.settings.full_noise, torch.ones_like(level), level)
        s = level[:, None, None]
        estimate = self.model((1 - s) * clean + s * torch.randn_like(clean), level, told).float()
        losses = self._losses(estimate, clean, s, batch["counts"])
        if self._sync is None:
            return losses
        moved = torch.where(told.over[..., None], batch["moved"], estimate * self.model.spread)
        # The less noise, the more of the estimate is the truth.
        fits = self._sync.loss(told.mean + moved, batch["heard"], batch["hears"] * level[:, None])
        return losses | {"loss": losses["loss"] + self.settings.sync_weight * fits, "sync": fits.detach()}

    def _losses(self, estimate: torch.Tensor, clean: torch.Tensor, s: torch.Tensor, counts: torch.Tensor) -> Losses:
        """Errors of position and of speed, where they count (B, T) bool, in what the network's last layer gives."""
        unit = (s.square() / ((1 - s).square() + s.square())).clamp_min(1e-2)
        wide = self._weights * self.model.spread
        wide = wide / wide.mean()
        error = (estimate - clean) * wide.sqrt()
        both = (counts[:, 1:] & counts[:, :-1])[..., None]
        position = (error.square() / unit * counts[..., None]).sum() / counts.sum().clamp_min(1) / len(wide)
        speed = (error.diff(dim=1).square() / unit * both).sum() / both.sum().clamp_min(1) / len(wide)
        loss = position + self.settings.velocity_weight * speed
        return {"loss": loss, "position": position.detach(), "speed": speed.detach()}

    @torch.no_grad()
    def validate(self, step: int, writer: SummaryWriter) -> dict[str, float]:
        """Fits `gain` and `size` of the averaged network, which are then exported with it, and measures with them."""
        self.model.gain.fill_(1.0)
        self.model.size.fill_(1.0)
        drawn = self._drawn("val")
        means = [known.mean[0] for _, known in self._validation["val"]]
        score, figures = self._calibrate(drawn, means)
        if (self.config.data.processed_dir / "val_scenes").is_dir():
            figures |= self._measures.scenes(self._drawn("val_scenes"))
        return {**figures, "score": score}

    def _calibrate(self, drawn: list[Predicted], means: list[Array]) -> tuple[float, dict[str, float]]:
        """Try factors for the coefficients that move lips most, one after the other; returns score and figures.

        On people whom the network saw in training, what is left to draw is smaller than on others.
        """
        factors = {name: np.ones(len(self._weights), np.float32) for name in ("gain", "size")}
        best = _score(self._with_factors(drawn, means, factors))
        most = np.argsort(-self._weights.cpu().numpy())[:CALIBRATED]
        for _ in range(2):
            for name, coefficient in [(name, k) for k in most for name in ("size", "gain")]:
                for factor in TRIED[name]:
                    tried = {key: value.copy() for key, value in factors.items()}
                    tried[name][coefficient] = factor
                    score = _score(self._with_factors(drawn, means, tried))
                    if score > best:
                        best, factors = score, tried
        for name, value in factors.items():
            getattr(self.model, name).copy_(torch.from_numpy(value))
        return best, self._with_factors(drawn, means, factors)

    def _with_factors(self, drawn: list[Predicted], means: list[Array], factors: dict[str, Array]) -> dict[str, float]:
        """Figures of clips that were drawn with all factors one."""
        gain, size = factors["gain"], factors["size"]
        return self._measures.clips(
            replace(clip, shape=gain * mean + size * (clip.shape - mean))
            for clip, mean in zip(drawn, means, strict=True)
        )

    def _drawn(self, split: str) -> list[Predicted]:
        """Movement of all clips of a split, as in use."""
        chosen = self.config.inference
        settings = MovementSettings(chosen.seed, chosen.movement_temperature, chosen.movement_steps)
        if split not in self._validation:
            data = self.config.data
            clips = load_clips(data.processed_dir, split, data.window, data.fps)
            self._validation[split] = [(clip, know(clip, self._speech, data.fps, copies=1)) for clip in clips]
        drawn = []
        for clip, known in self._validation[split]:
            movement = Movement(self.model, _Heard(known, self.device), known.resting, settings)
            shape = movement.shapes(np.arange(len(known.shape)) / self.config.data.fps)
            spoken = clip_spoken(clip) if split.endswith("scenes") else None
            drawn.append(Predicted(clip.person, known.shape, shape, known.valid, spoken))
        return drawn


def _score(figures: dict[str, float]) -> float:
    """How good movement is: like the real one, as large, and as lively."""
    off = {name: abs(np.log(max(figures[name], 1e-3))) for name in ("opening_spread", "width_spread", "opening_jerk")}
    like = figures["opening_correlation"] + figures["width_correlation"]
    return float(like - off["opening_spread"] - off["width_spread"] - 0.5 * off["opening_jerk"])


class _Heard:
    """A clip's sound at its frames, for `Movement`; before and after it stands still."""

    ahead_s: float | None = None

    def __init__(self, known: Known, device: torch.device) -> None:
        self._parts = [torch.from_numpy(np.asarray(x, np.float32)).to(device) for x in (known.tokens[0], known.mean[0])]
        self._activity = torch.from_numpy(known.activity).to(device)

    def __call__(self, times: Array, resting: float, margin_s: float | None) -> Listened:
        frames = torch.from_numpy(np.rint(times * 25).astype(int).clip(0, len(self._activity) - 1))
        tokens, mean = (part[None, frames] for part in self._parts)
        return Listened(tokens, mean, self._activity[None, frames])


class MovementSampler:
    """Draws stretches of clips and scenes with what the speech model makes of them.

    Args:
        config: where the clips are.
        speech: the trained speech model.
        settings: of the stage.
        sync: hears what belongs to the movement; None: nothing does.
    """

    def __init__(
        self, config: Config, speech: SpeechModel, settings: MovementTraining, sync: MovementSync | None = None
    ) -> None:
        data = config.data
        clips = load_clips(data.processed_dir, "train", data.window, data.fps, data.max_minutes_per_person)
        self._settings, self._chances = settings, clip_probabilities(clips)
        self._clips = [know(clip, speech, data.fps, settings.copies, sync) for clip in clips]
        self._scenes: list[Known] = []
        if settings.scene_share > 0:
            scenes = load_clips(data.processed_dir, "train_scenes", data.window, data.fps)
            self._scenes = [know(scene, speech, data.fps, settings.copies, sync) for scene in scenes]

    def spread(self) -> Array:
        """Standard deviation (K,) of what has to be drawn."""
        parts = np.concatenate([known.moved(0)[known.valid] for known in self._clips])
        return np.maximum(parts.std(axis=0), SMALLEST_SPREAD).astype(np.float32)

    def draw(self, random: np.random.Generator) -> dict[str, torch.Tensor]:
        """What `Told` holds, "moved" (T, K) the truth, and "counts" (T,) bool where it is to be drawn."""
        if random.random() < self._settings.scene_share:
            known = self._scenes[random.integers(len(self._scenes))]
        else:
            known = self._clips[random.choice(len(self._clips), p=self._chances)]
        copy, before = random.integers(len(known.mean)), self._before(random)
        start = int(random.integers(-before, max(1, len(known.shape) - before - LEAST_STEPS)))
        stop = STEPS
        if random.random() < self._settings.short_share:
            stop = before + int(random.integers(LEAST_STEPS, BLOCK))
        return self._sample(known, copy, start + np.arange(STEPS), before, stop, random)

    def _before(self, random: np.random.Generator) -> int:
        """How many steps are over."""
        if random.random() < self._settings.prefix_drop:
            return 0
        return PREFIX if random.random() < 0.8 else int(random.integers(1, PREFIX))

    def _sample(
        self, known: Known, copy: int, frames: Array, before: int, stop: int, random: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        steps, there = np.arange(STEPS), (frames < len(known.shape)) & (np.arange(STEPS) < stop)
        inside = frames.clip(0, len(known.shape) - 1)
        moved, over = known.moved(copy)[inside], steps < before
        # Of another size than the truth, as drawn movement is, and not as exact.
        size = random.uniform(self._settings.prefix_least, 1.1)
        noise = self._settings.prefix_noise * random.standard_normal(moved.shape)
        seen = there[:, None].astype(np.float32)
        parts = {
            "tokens": known.tokens[copy, inside] * seen,
            "mean": known.mean[copy, inside] * seen,
            "activity": known.activity[inside] * seen[:, 0],
            "before": (size * moved + noise) * over[:, None],
            "moved": moved,
        }
        parts["heard"], parts["hears"] = heard_windows(known.heard, frames, stop)
        return {name: torch.from_numpy(value.astype(np.float32)) for name, value in parts.items()} | {
            "resting": torch.tensor(known.resting * random.uniform(0.85, 1.15), dtype=torch.float32),
            "over": torch.from_numpy(over),
            "there": torch.from_numpy(there),
            "counts": torch.from_numpy(there & ~over & known.valid[inside] & (frames >= 0)),
        }


@torch.no_grad()
def know(clip: Clip, speech: SpeechModel, fps: int, copies: int, sync: MovementSync | None = None) -> Known:
    """What the speech model makes of a clip's sound and its altered copies (the first `copies` of them)."""
    device, (shape, valid) = speech.device, clip_shape(clip)
    sounds, activity = clip_speech(clip)[:copies], clip_activity(clip)
    steps = min(sounds.shape[1], len(activity))
    times = torch.arange(clip.frames, device=device)[None].float() / fps + clip.offset / fps
    resting = float(clip_resting(clip))
    heard = [
        speech(
            torch.from_numpy(np.asarray(sound[:steps], np.float32))[None].to(device),
            None,
            times,
            activity=torch.from_numpy(activity[:steps])[None].to(device),
            resting=torch.tensor([resting], device=device),
        )
        for sound in sounds
    ]
    return Known(
        np.stack([heard_tokens(one.tokens)[0].half().cpu().numpy() for one in heard]),
        np.stack([one.shape[0].float().cpu().numpy() for one in heard]),
        heard[0].activity[0].float().cpu().numpy(),
        resting,
        shape,
        valid,
        _speaks(clip),
        np.zeros((clip.frames, 0), np.float16) if sync is None else sync.hear(clip),
    )


def _speaks(clip: Clip) -> Array:
    """(T,) float32: 1 in speech, 0 in the pauses of a scene, rising and falling within them."""
    if not clip.directory.parent.name.endswith("scenes"):
        return np.ones(clip.frames, np.float32)
    spoken = clip_spoken(clip).astype(np.float32)
    padded = np.pad(spoken, SETTLING // 2, mode="edge")
    return np.convolve(padded, np.full(SETTLING, 1 / SETTLING), mode="valid").astype(np.float32)
