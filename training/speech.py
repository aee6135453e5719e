"""Training of the speech model on its own: from speech features to the mouth shape of people never heard before."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter

from data.dataset import SPEECH_RATE, Clip, ClipCache, StepBatches, clip_probabilities, clip_speech, load_clips
from faces.mouth_shape import NUM_POINTS, MouthShape, mouth_opening
from models.speech_model import SpeechModel
from training.common import Batch, Losses, Stage
from utils.config import Config
from utils.data_augmentation import disturb_features

REPORTED = 3  # coefficients whose correlation is reported one by one
MAX_GAIN = 1.5


class SpeechStage(Stage):
    """See the module. Validation: correlation with the true shape over whole clips of unseen people."""

    name = "speech"

    def build(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        self.model = SpeechModel(**config.model.speech.model_dump()).to(device)
        components = MouthShape.load(config.training.common.weights_dir / "mouth_shape").components
        # A coefficient counts by how far it moves the points, so that sub-pixel ones do not fill the loss.
        size = np.linalg.norm(components, axis=1)
        self._weights = torch.from_numpy(size / size.mean()).float().to(device)
        self._opening = mouth_opening(components.reshape(len(components), NUM_POINTS, 2))
        self._validation: list[Clip] | None = None

    def train_batches(self, rank: int = 0) -> Dataset:
        sampler = SpeechSampler(self.config)
        return StepBatches(sampler.draw, self.settings.batch_size, self.config.training.common.seed, rank)

    def training_step(self, batch: Batch, step: int) -> Losses:
        settings = self.settings
        phonemes = batch.get("phonemes")
        kept = torch.rand(2, len(batch["speech"]), device=self.device)
        has_phonemes = None if phonemes is None else kept[0] >= settings.phoneme_drop
        has_speech = None if phonemes is None else (kept[1] >= settings.speech_drop) | ~has_phonemes
        shape = self.model(batch["speech"], phonemes, batch["times"], has_speech, has_phonemes).shape.float()
        return self._losses(shape, batch["shape"], batch["valid"])

    def _losses(self, shape: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> Losses:
        """Differences of position and of speed, (B, F, K), over the frames that count (B, F)."""
        valid = valid[..., None].float()
        both = valid[:, 1:] * valid[:, :-1]
        position = F.smooth_l1_loss(shape, target, reduction="none", beta=0.5) * self._weights
        speed = F.smooth_l1_loss(shape.diff(dim=1), target.diff(dim=1), reduction="none", beta=0.5) * self._weights
        position = (position * valid).sum() / valid.sum().clamp_min(1) / len(self._weights)
        speed = (speed * both).sum() / both.sum().clamp_min(1) / len(self._weights)
        loss = position + self.settings.velocity_weight * speed
        return {"loss": loss, "position": position.detach(), "speed": speed.detach()}

    @torch.no_grad()
    def validate(self, step: int, writer: SummaryWriter) -> dict[str, float]:
        people = self._predict_validation()
        table = np.array([_correlations(predicted, true, self._opening) for predicted, true in people])
        names = ["opening", *(f"coefficient_{k}" for k in range(REPORTED))]
        metrics = dict(zip(names, table.mean(axis=0).tolist(), strict=True))
        metrics |= {
            f"{name}_median": value for name, value in zip(names, np.median(table, axis=0).tolist(), strict=True)
        }
        first, true_first = (np.concatenate([pair[side][:, 0] for pair in people]) for side in (0, 1))
        metrics["relative_spread"] = float(first.std() / true_first.std())
        return {**metrics, "score": float(table.mean())}

    @torch.no_grad()
    def finish(self) -> None:
        """Scale each coefficient's movement: the square root of the correlation times the ratio of the spreads.

        A network trained on differences moves less than the true mouth, by the correlation if it is calibrated.
        Half of that (in powers) is given back: full movement would also blow up the errors.
        """
        self.model.shape_gain.fill_(1.0)
        people = self._predict_validation()
        predicted, true = (np.concatenate([pair[side] for pair in people]) for side in (0, 1))
        spread, true_spread = np.maximum(predicted.std(0), 1e-3), np.maximum(true.std(0), 1e-3)
        correlation = (predicted * true).mean(0) / (spread * true_spread)
        gain = np.sqrt(np.maximum(correlation, 0.0)) * true_spread / spread
        self.model.shape_gain.copy_(torch.from_numpy(np.clip(gain, 0.0, MAX_GAIN)))

    def _predict_validation(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Predicted and true shape (N, K) of each validation person, each clip's mean taken out."""
        if self._validation is None:
            data = self.config.data
            self._validation = load_clips(data.processed_dir, "val", data.window, data.fps)
        people = defaultdict(list)
        for clip in self._validation:
            shape, valid = clip_shape(clip)
            speech = torch.from_numpy(np.asarray(clip_speech(clip)[0], np.float32)).to(self.device)
            times = (torch.arange(len(shape), device=self.device) + clip.offset) / self.config.data.fps
            predicted = self.model(speech[None], None, times[None]).shape[0].float().cpu().numpy()[valid]
            people[clip.person].append((predicted - predicted.mean(0), shape[valid] - shape[valid].mean(0)))
        return [tuple(np.concatenate(side) for side in zip(*pairs, strict=True)) for pairs in people.values()]


class SpeechSampler:
    """Draws stretches of speech with the mouth shapes that belong to it.

    Augmentation: one of the altered copies of the sound, noise, lost channels and gaps in the features, and a
    slightly other tempo of both.
    """

    def __init__(self, config: Config) -> None:
        data = config.data
        self._settings = config.training.speech
        self._fps = data.fps
        self._frames = round(self._settings.window_s * data.fps)
        self._clips = load_clips(data.processed_dir, "train", data.window, data.fps, data.max_minutes_per_person)
        self._chances = clip_probabilities(self._clips)
        self._shapes = ClipCache(lambda clip: dict(zip(("shape", "valid"), clip_shape(clip), strict=True)), 1e9)

    def draw(self, random: np.random.Generator) -> dict[str, torch.Tensor]:
        """ "speech" (T, 5, 384), "times" (F,) s, "shape" (F, K), "valid" (F,) bool."""
        clip = self._clips[random.choice(len(self._clips), p=self._chances)]
        tracks = self._shapes(clip)
        tempo = 1 + random.uniform(-self._settings.tempo_jitter, self._settings.tempo_jitter)
        start = random.uniform(0, max(0.0, clip.frames - self._frames * tempo))
        frames = start + tempo * np.arange(self._frames)
        per_frame = SPEECH_RATE / self._fps
        # Step k is centred at (k + 0.5) / 50 s: the same instant has another index in each sequence.
        steps = (start + clip.offset) * per_frame + tempo * (np.arange(round(self._frames * per_frame)) + 0.5) - 0.5
        variants = clip_speech(clip)
        speech = read_between(variants[random.integers(len(variants))], steps)
        settings = self._settings
        speech = disturb_features(speech, random, settings.feature_noise, settings.feature_drop, settings.time_mask)
        inside = frames <= clip.frames - 1
        valid = inside & (read_between(tracks["valid"].astype(np.float32), frames) > 0.99)
        return {
            "speech": torch.from_numpy(speech.astype(np.float32)),
            "times": torch.arange(self._frames, dtype=torch.float32) / self._fps,
            "shape": torch.from_numpy(read_between(tracks["shape"], frames)),
            "valid": torch.from_numpy(valid),
        }


def clip_shape(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Mouth shape (T, K) float32 and which frames count (T,) bool."""
    with np.load(clip.directory / "tracks.npz") as tracks:
        return tracks["shape"].astype(np.float32), tracks["valid"].astype(bool)


def read_between(sequence: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Linear interpolation of (T, ...) at fractional indices (N,), clamped to the ends -> float32 (N, ...)."""
    positions = np.clip(positions, 0, len(sequence) - 1)
    low = np.floor(positions).astype(int)
    first, last = low[0], min(low[-1] + 1, len(sequence) - 1)
    part = np.asarray(sequence[first : last + 1], np.float32)
    high = np.minimum(low + 1, last) - first
    weight = (positions - low).reshape(-1, *[1] * (sequence.ndim - 1)).astype(np.float32)
    return part[low - first] * (1 - weight) + part[high] * weight


def _correlations(predicted: np.ndarray, true: np.ndarray, opening: np.ndarray) -> list[float]:
    """Of the mouth opening and of the first coefficients, one person's (N, K); 0 where nothing moves."""
    pairs = [(predicted @ opening, true @ opening)]
    pairs += [(predicted[:, k], true[:, k]) for k in range(REPORTED)]
    return [float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-6 and b.std() > 1e-6 else 0.0 for a, b in pairs]
