"""Training of the phoneme recogniser on synthesised speech, whose phoneme times are known (`data/synthesise.py`)."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter

from data.dataset import SPEECH_RATE, StepBatches
from models.phoneme_recogniser import PhonemeRecogniser
from models.phonemes import SILENCE
from training.common import Batch, Losses, Stage
from utils.config import Config
from utils.data_augmentation import disturb_features
from utils.helpers import InputError
from voices.aligner import align_phonemes


@dataclass(frozen=True)
class SpokenVoice:
    """One folder of the corpus.

    Attributes:
        language: code such as "en".
        features: (N, layers, width) float16, all utterances one after the other, read from disk when used.
        phonemes: (N,) ids at 50 Hz.
        bounds: first step of each utterance, and N.
    """

    language: str
    features: np.ndarray
    phonemes: np.ndarray
    bounds: np.ndarray


def load_corpus(directory: Path) -> list[SpokenVoice]:
    """All voices below a folder of the corpus, "train" or "val".

    Raises:
        InputError: there is none.
    """
    folders = sorted(path.parent for path in directory.glob("[!.]*/utterances.json"))
    if not folders:
        raise InputError(f"No synthesised speech in {directory}: run python -m data.synthesise first.")
    return [_load_voice(folder) for folder in folders]


def _load_voice(folder: Path) -> SpokenVoice:
    utterances = json.loads((folder / "utterances.json").read_text(encoding="utf-8"))
    bounds = np.array([0, *(u["stop"] for u in utterances)])
    features = np.load(folder / "features.npy", mmap_mode="r")
    return SpokenVoice(folder.name.split("-")[0], features, np.load(folder / "phonemes.npy"), bounds)


class PhonemesStage(Stage):
    """See the module. Validation, on voices never heard in training: which part of the steps is right, and how far the
    starts of phonemes are off when the text is known (median, milliseconds).
    """

    name = "phonemes"

    def build(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        self.model = PhonemeRecogniser(**config.model.phonemes.model_dump()).to(device)
        self._validation: list[SpokenVoice] | None = None

    def train_batches(self, rank: int = 0) -> Dataset:
        sampler = PhonemeSampler(self.config)
        return StepBatches(sampler.draw, self.settings.batch_size, self.config.training.common.seed, rank)

    def training_step(self, batch: Batch, step: int) -> Losses:
        found = self.model(batch["speech"])
        frames = F.nll_loss(found.transpose(1, 2), batch["phonemes"])
        sequences = ctc_loss(found, batch["phonemes"])
        loss = frames + self.settings.ctc_weight * sequences
        return {"loss": loss, "frames": frames.detach(), "sequences": sequences.detach()}

    @torch.no_grad()
    def validate(self, step: int, writer: SummaryWriter) -> dict[str, float]:
        if self._validation is None:
            self._validation = load_corpus(self.settings.corpus / "val")
        hits: dict[str, list[np.ndarray]] = defaultdict(list)
        errors: dict[str, list[np.ndarray]] = defaultdict(list)
        for voice in self._validation:
            heard = self.model.posteriors(voice.features)
            hits[voice.language].append(heard.argmax(axis=1) == voice.phonemes)
            parts = zip(voice.bounds, voice.bounds[1:], strict=False)
            errors[voice.language] += [start_errors(heard[a:b], voice.phonemes[a:b]) for a, b in parts]
        metrics = {f"accuracy_{language}": float(np.concatenate(h).mean()) for language, h in hits.items()}
        score = float(np.mean(list(metrics.values())))
        metrics |= {f"start_ms_{language}": float(np.median(np.concatenate(e))) for language, e in errors.items()}
        return {**metrics, "score": score}


def start_errors(log_probabilities: np.ndarray, track: np.ndarray) -> np.ndarray:
    """How far the starts of an utterance's phonemes are off when they are searched for, milliseconds.

    Args:
        log_probabilities: (T, phonemes) that are heard.
        track: right ids (T,).
    """
    starts = np.flatnonzero(np.diff(track, prepend=SILENCE) != 0)
    starts = starts[track[starts] != SILENCE]
    found = align_phonemes(log_probabilities, track[starts])
    return 1000 * np.abs(np.array([phoneme.start for phoneme in found]) - starts / SPEECH_RATE)


def ctc_loss(log_probabilities: torch.Tensor, tracks: torch.Tensor) -> torch.Tensor:
    """Connectionist temporal classification (Graves et al., 2006) with silence as the blank, per phoneme.

    Args:
        log_probabilities: (B, T, phonemes).
        tracks: the right ids (B, T); their sequence without repetitions and silences is the target.
    """
    sequences = [torch.unique_consecutive(track) for track in tracks]
    sequences = [sequence[sequence != SILENCE] for sequence in sequences]
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    steps = torch.full((len(tracks),), tracks.shape[1], dtype=torch.long)
    # The same phoneme twice without a silence between them needs a blank that the track may not have room for.
    losses = F.ctc_loss(
        log_probabilities.float().transpose(0, 1), torch.cat(sequences), steps, lengths,
        blank=SILENCE, reduction="none", zero_infinity=True,
    )  # fmt: skip
    return (losses / lengths.clamp_min(1).to(losses.device)).mean()


class PhonemeSampler:
    """Draws stretches of synthesised speech: first a language, then a voice, then a place."""

    def __init__(self, config: Config) -> None:
        self._settings = config.training.phonemes
        self._steps = round(self._settings.window_s * SPEECH_RATE)
        self._languages: dict[str, list[SpokenVoice]] = defaultdict(list)
        for voice in load_corpus(self._settings.corpus / "train"):
            self._languages[voice.language].append(voice)

    def draw(self, random: np.random.Generator) -> dict[str, torch.Tensor]:
        """ "speech" (T, layers, width) and "phonemes" (T,) int64; stretches may run from one sentence into the next."""
        voices = self._languages[sorted(self._languages)[random.integers(len(self._languages))]]
        voice = voices[random.integers(len(voices))]
        start = int(random.integers(max(1, len(voice.phonemes) - self._steps)))
        speech = _padded(np.asarray(voice.features[start : start + self._steps], np.float32), self._steps)
        track = _padded(voice.phonemes[start : start + self._steps], self._steps)
        settings = self._settings
        speech = disturb_features(speech, random, settings.feature_noise, settings.feature_drop, settings.time_mask)
        return {
            "speech": torch.from_numpy(speech.astype(np.float32)),
            "phonemes": torch.from_numpy(track.astype(np.int64)),
        }


def _padded(sequence: np.ndarray, steps: int) -> np.ndarray:
    """(N, ...) with zeros behind it -> (steps, ...)."""
    return np.pad(sequence, [(0, steps - len(sequence))] + [(0, 0)] * (sequence.ndim - 1))
