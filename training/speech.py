"""Training of the speech model on its own: from speech features to the mouth shape of people never heard before."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter

from data.dataset import (
    SPEECH_RATE,
    Clip,
    ClipCache,
    StepBatches,
    clip_activity,
    clip_probabilities,
    clip_resting,
    clip_shape,
    clip_speech,
    load_clips,
)
from faces.mouth_shape import NUM_POINTS, MouthShape, mouth_opening
from latent_diffusion import LatentLipDiffusion
from models.checkpoint import load_pretrained
from models.speech_model import SpeechModel
from training.common import Batch, Losses, Stage, decay_groups
from utils.config import Config
from utils.data_augmentation import disturb_features
from utils.training_config import ShapeTraining

REPORTED = 3  # coefficients whose correlation is reported one by one
MAX_GAIN = 1.5
_HEAD = ("temporal.shape_head.", "temporal.person.")
FAST = 10.0  # learning rate of the weights that start at zero, in parts of the others'
GAP_UNIT_PX = 4.0  # about the spread of the gap between the lips while people speak
CLOSED_PX = 1.0  # lips count as closed up to so much above the gap of the resting mouth, px
AFTER_S = 0.2  # so long after speech the mouth must rest


class SpeechStage(Stage):
    """See the module. Validation: correlation with the true shape over whole clips of unseen people."""

    name = "speech"

    def build(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        self.model = SpeechModel(**config.model.speech.model_dump()).to(device)
        components = MouthShape.load(config.training.common.weights_dir / "mouth_shape").components
        self._weights = torch.from_numpy(coefficient_weights(components)).to(device)
        self._opening = mouth_opening(components.reshape(len(components), NUM_POINTS, 2)).astype(np.float32)
        self._validation: list[Clip] | None = None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What voice activity and the person do is in a few weights that start at zero: these learn faster."""
        model, rate = self.model, self.settings.learning_rate
        few = nn.ModuleList(part for part in (model.fusion.pause, model.temporal.person) if part is not None)
        head = model.temporal.shape_head
        apart = [*few.parameters(), *head.parameters()]
        trunk = nn.ParameterList(p for p in model.parameters() if all(p is not q for q in apart))
        trunk_groups = decay_groups(trunk, lr=self.settings.trunk_rate * rate)
        return [*trunk_groups, *decay_groups(head), *decay_groups(few, lr=FAST * rate, weight_decay=0.0)]

    def train_batches(self, rank: int = 0) -> Dataset:
        sampler = SpeechSampler(self.config, self.settings, self.settings.scene_share)
        return StepBatches(sampler.draw, self.settings.batch_size, self.config.training.common.seed, rank)

    def training_step(self, batch: Batch, step: int) -> Losses:
        more = {name: batch[name] for name in ("activity", "resting")}
        heard = self.model(batch["speech"], None, batch["times"], **more)
        return self._losses(heard.shape.float(), batch)

    def _losses(self, shape: torch.Tensor, batch: Batch) -> Losses:
        """Differences of position, of speed and of the gap between the lips over the frames that count."""
        target, valid = batch["shape"], batch["valid"][..., None].float()
        both = valid[:, 1:] * valid[:, :-1]
        position = F.smooth_l1_loss(shape, target, reduction="none", beta=0.5) * self._weights
        speed = F.smooth_l1_loss(shape.diff(dim=1), target.diff(dim=1), reduction="none", beta=0.5) * self._weights
        position = (position * valid).sum() / valid.sum().clamp_min(1) / len(self._weights)
        speed = (speed * both).sum() / both.sum().clamp_min(1) / len(self._weights)
        gap, agreement = self._gap_losses(shape, batch)
        settings = self.settings
        loss = position + settings.velocity_weight * speed
        loss = loss + settings.gap_weight * gap + settings.correlation_weight * agreement
        parts = {"position": position, "speed": speed, "gap": gap, "correlation": 1 - agreement}
        return {"loss": loss, **{name: value.detach() for name, value in parts.items()}}

    def _gap_losses(self, shape: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Error of the gap between the lips, closed lips counting more; one minus its correlation in a window."""
        opening = torch.from_numpy(self._opening).to(shape)
        gap, true, valid = shape @ opening, batch["shape"] @ opening, batch["valid"].float()
        weight = valid * (1 + self.settings.closed_weight * (true < CLOSED_PX))
        error = F.smooth_l1_loss(gap / GAP_UNIT_PX, true / GAP_UNIT_PX, reduction="none", beta=0.5)
        count = valid.sum(dim=1, keepdim=True).clamp_min(1)
        moved, true = (valid * (x - (x * valid).sum(dim=1, keepdim=True) / count) for x in (gap, true))
        # A little is added, so that windows in which nothing moves do not count.
        norm = ((moved.square().sum(1) + count[:, 0]) * (true.square().sum(1) + count[:, 0])).sqrt()
        return (error * weight).sum() / weight.sum().clamp_min(1), 1 - ((moved * true).sum(1) / norm).mean()

    @torch.no_grad()
    def validate(self, step: int, writer: SummaryWriter) -> dict[str, float]:
        clips = self._predict_validation()
        people = _by_person(clips)
        table = np.array([_correlations(predicted, true, self._opening) for predicted, true in people])
        names = ["opening", *(f"coefficient_{k}" for k in range(REPORTED))]
        metrics = dict(zip(names, table.mean(axis=0).tolist(), strict=True))
        metrics |= {
            f"{name}_median": value for name, value in zip(names, np.median(table, axis=0).tolist(), strict=True)
        }
        first, true_first = (np.concatenate([pair[side][:, 0] for pair in people]) for side in (0, 1))
        metrics["relative_spread"] = float(first.std() / true_first.std())
        return {**metrics, **self._closed_lips(clips), **self._rest_in_pauses(), "score": float(table.mean())}

    @torch.no_grad()
    def finish(self) -> None:
        """Scale each coefficient to the mean of what is true where the network says so, as in a regression on people
        whom it never saw; the stage `movement` then adds what varies about that mean.

        What voice activity does is scaled, too: trained on minutes of noise, it does not yet outweigh noises that
        rise and fall as speech does. While somebody speaks it is zero, scaled or not.
        """
        self.model.shape_gain.fill_(1.0)
        people = _by_person(self._predict_validation())
        predicted, true = (np.concatenate([pair[side] for pair in people]) for side in (0, 1))
        gain = (predicted * true).mean(0) / np.maximum(np.square(predicted).mean(0), 1e-6)
        self.model.shape_gain.copy_(torch.from_numpy(np.clip(gain, 0.0, MAX_GAIN)))
        if self.model.fusion.pause is not None:
            self.model.fusion.pause.weight.mul_(self.settings.pause_gain)

    def initialise(self, directory: Path) -> None:
        """Start from exported weights, also from those of a model that knew nothing of pauses; undoes `finish`.

        With `new_head` the layers of the mouth shape start anew, for weights that knew other mouth shapes.
        """
        known = load_speech(directory)
        weights = known.state_dict()
        if self.settings.new_head:
            fresh = self.model.state_dict()
            weights = {name: fresh[name] if name.startswith(_HEAD) else value for name, value in weights.items()}
        self.model.load_state_dict(weights, strict=bool(known.config.knows_rest))
        self.model.register_to_config(knows_phonemes=known.config.knows_phonemes)
        self.model.shape_gain.fill_(1.0)
        if known.config.knows_rest:
            self.model.fusion.pause.weight.data.div_(self.settings.pause_gain)

    def _predict_validation(self) -> list[tuple[Clip, np.ndarray, np.ndarray]]:
        """Validation clips with predicted and true shape (N, K) of their valid frames."""
        if self._validation is None:
            data = self.config.data
            self._validation = load_clips(data.processed_dir, "val", data.window, data.fps)
        clips = []
        for clip in self._validation:
            shape, valid = clip_shape(clip)
            clips.append((clip, self._predict(clip)[valid], shape[valid]))
        return clips


    def _predict(self, clip: Clip) -> np.ndarray:
        """Shapes (T, K) of a whole clip from its clean sound."""
        speech, activity = (np.asarray(x, np.float32) for x in (clip_speech(clip)[0], clip_activity(clip)))
        times = (np.arange(clip.frames, dtype=np.float32) + clip.offset) / self.config.data.fps
        speech, activity, times = (torch.from_numpy(x)[None].to(self.device) for x in (speech, activity, times))
        resting = torch.tensor([clip_resting(clip)], device=self.device)
        return self.model(speech, None, times, activity=activity, resting=resting).shape[0].float().cpu().numpy()

    def _closed_lips(self, clips: list[tuple[Clip, np.ndarray, np.ndarray]]) -> dict[str, float]:
        """Of the frames with closed lips, how many are predicted closed; of those predicted closed, how many are."""
        sides = zip(*((predicted, shape) for _, predicted, shape in clips), strict=True)
        predicted, true = (np.concatenate(side) @ self._opening < CLOSED_PX for side in sides)
        both, found, there = (float(np.sum(x)) for x in (predicted & true, predicted, true))
        return {"closed_recall": both / max(there, 1), "closed_precision": both / max(found, 1)}

    def _rest_in_pauses(self) -> dict[str, float]:
        """In the pauses of the validation scenes: the gap above that of the resting mouth, px, and how it moves."""
        folder, data = self.config.data.processed_dir, self.config.data
        if not (folder / "val_scenes").is_dir():
            return {}
        gaps, pause, speech = [], [], []
        for clip in load_clips(folder, "val_scenes", data.window, data.fps):
            spoken = clip_spoken(clip)
            late = ~np.convolve(spoken, np.ones(2 * round(AFTER_S * data.fps) + 1), mode="same").astype(bool)
            moved = self._predict(clip) @ self._opening
            gaps.append(moved[late])
            pause.append(np.diff(moved)[late[1:] & late[:-1]])
            speech.append(np.diff(moved)[spoken[1:] & spoken[:-1]])
        chewing = np.concatenate(pause).std() / max(np.concatenate(speech).std(), 1e-6)
        return {"pause_gap_px": float(np.concatenate(gaps).mean()), "pause_chewing": float(chewing)}


class SpeechSampler:
    """Draws stretches of speech with the mouth shapes that belong to it.

    Augmentation: one of the altered copies of the sound, noise, lost channels and gaps in the features, and a
    slightly other tempo of both.

    Args:
        config: where the clips are.
        settings: of the stage.
        scene_share: share of samples from scenes with pauses, music and noise.
    """

    def __init__(self, config: Config, settings: ShapeTraining, scene_share: float) -> None:
        data = config.data
        self._settings, self._scene_share = settings, scene_share
        self._fps = data.fps
        self._frames = round(settings.window_s * data.fps)
        self._clips = load_clips(data.processed_dir, "train", data.window, data.fps, data.max_minutes_per_person)
        self._chances = clip_probabilities(self._clips)
        self._scenes: list[Clip] = []
        if scene_share > 0:
            self._scenes = load_clips(data.processed_dir, "train_scenes", data.window, data.fps)
        self._tracks = ClipCache(load_tracks, 1e9)

    def draw(self, random: np.random.Generator) -> dict[str, torch.Tensor]:
        """ "speech" (T, 5, 384), "activity" (T,), "resting" px, "times" (F,) s, "shape" (F, K), "valid" (F,)."""
        if random.random() < self._scene_share:
            clip = self._scenes[random.integers(len(self._scenes))]
        else:
            clip = self._clips[random.choice(len(self._clips), p=self._chances)]
        tracks = self._tracks(clip)
        tempo = 1 + random.uniform(-self._settings.tempo_jitter, self._settings.tempo_jitter)
        start = random.uniform(0, max(0.0, clip.frames - self._frames * tempo))
        frames = start + tempo * np.arange(self._frames)
        per_frame = SPEECH_RATE / self._fps
        # Step k is centred at (k + 0.5) / 50 s: the same instant has another index in each sequence.
        steps = (start + clip.offset) * per_frame + tempo * (np.arange(round(self._frames * per_frame)) + 0.5) - 0.5
        inside = frames <= clip.frames - 1
        valid = inside & (read_between(tracks["valid"].astype(np.float32), frames) > 0.99)
        return {
            **self._sounds(clip, steps, random),
            "activity": torch.from_numpy(read_between(tracks["activity"], steps)),
            "resting": tracks["resting"] * np.float32(random.uniform(0.85, 1.15)),
            "times": torch.arange(self._frames, dtype=torch.float32) / self._fps,
            "shape": torch.from_numpy(read_between(tracks["shape"], frames)),
            "valid": torch.from_numpy(valid),
        }

    def _sounds(self, clip: Clip, steps: np.ndarray, random: np.random.Generator) -> dict[str, torch.Tensor]:
        """What is heard at fractional steps (T,) of a clip's sound."""
        return {"speech": self._disturbed(clip_speech(clip), steps, random)}

    def _disturbed(self, copies: np.ndarray, steps: np.ndarray, random: np.random.Generator) -> torch.Tensor:
        """One of the copies (V, T50, 5, 384) at steps (T,), made less reliable, as (T, 5, 384) float32."""
        speech, settings = read_between(copies[random.integers(len(copies))], steps), self._settings
        speech = disturb_features(speech, random, settings.feature_noise, settings.feature_drop, settings.time_mask)
        return torch.from_numpy(speech.astype(np.float32))


def load_speech(directory: Path) -> SpeechModel:
    """The speech model of an exported generator, or an exported speech model.

    Raises:
        InputError: there are no weights, or they do not fit their settings.
    """
    if "speech_settings" in LatentLipDiffusion.load_config(directory):
        return load_pretrained(LatentLipDiffusion, directory).speech
    return load_pretrained(SpeechModel, directory)


def coefficient_weights(components: np.ndarray) -> np.ndarray:
    """How much each coefficient counts (K,), mean 1: by how far it moves the points against each other.

    Sub-pixel coefficients do not fill the loss, nor do those that shift lips and jaw as a whole: that is what the
    three angles of the head did not explain, and no sound tells it.
    """
    moves = components.reshape(len(components), NUM_POINTS, 2)
    size = np.linalg.norm(moves - moves.mean(axis=1, keepdims=True), axis=(1, 2))
    return (size / size.mean()).astype(np.float32)


def clip_spoken(clip: Clip) -> np.ndarray:
    """Which frames (T,) bool of a scene are not in a pause."""
    with np.load(clip.directory / "tracks.npz") as tracks:
        return tracks["spoken"]


def load_tracks(clip: Clip) -> dict[str, np.ndarray]:
    """shape (T, K), valid (T,), activity (T50,), resting (): what the sampler keeps of a clip."""
    shape, valid = clip_shape(clip)
    return {"shape": shape, "valid": valid, "activity": clip_activity(clip), "resting": clip_resting(clip)}


def read_between(sequence: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Linear interpolation of (T, ...) at fractional indices (N,), clamped to the ends -> float32 (N, ...)."""
    positions = np.clip(positions, 0, len(sequence) - 1)
    low = np.floor(positions).astype(int)
    first, last = low[0], min(low[-1] + 1, len(sequence) - 1)
    part = np.asarray(sequence[first : last + 1], np.float32)
    high = np.minimum(low + 1, last) - first
    weight = (positions - low).reshape(-1, *[1] * (sequence.ndim - 1)).astype(np.float32)
    return part[low - first] * (1 - weight) + part[high] * weight


def _by_person(clips: list[tuple[Clip, np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Predicted and true shape (N, K) of each person, each clip's mean taken out."""
    people = defaultdict(list)
    for clip, predicted, shape in clips:
        people[clip.person].append((predicted - predicted.mean(0), shape - shape.mean(0)))
    return [tuple(np.concatenate(side) for side in zip(*pairs, strict=True)) for pairs in people.values()]


def _correlations(predicted: np.ndarray, true: np.ndarray, opening: np.ndarray) -> list[float]:
    """Of the mouth opening and of the first coefficients, one person's (N, K); 0 where nothing moves."""
    pairs = [(predicted @ opening, true @ opening)]
    pairs += [(predicted[:, k], true[:, k]) for k in range(REPORTED)]
    return [float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-6 and b.std() > 1e-6 else 0.0 for a, b in pairs]
