"""Adds to processed clips what the stage `fusion` learns from: phonemes with their times, and noisy speech features.

    python -m data.phoneme_tracks --processed processed_dataset

Writes into each clip of ``train`` and ``val``, after data/preprocess.py:

    phonemes.npy  (T50,) uint8, ids at 50 Hz as in `models.phonemes`: of the clip's text, found in its clean sound,
                  where the text is known; else what the phoneme recogniser hears in the clean sound (pseudo labels)
    noisy.npy     (V, T50, 5, 384) float16, speech features of the sound with voices, music or noise in the background

What is there is not made again, so the same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.background_sounds import background
from data.dataset import Clip, clip_samples, clip_speech, load_clips
from language_processor import LanguageProcessor, SpokenText
from models.audio_encoder import SAMPLE_RATE, SpeechEncoder
from models.checkpoint import load_pretrained
from models.phoneme_recogniser import PhonemeRecogniser
from models.phonemes import phoneme_track
from utils.config import Config, load_config
from utils.helpers import InputError, atomic_path

SPLITS = ("train", "val")
KINDS = ("babble", "babble", "music", "noise", "murmur")
VOICES = 5  # people who talk at once in babble


class PhonemeTracks:
    """Finds the phonemes of clips.

    Args:
        weights: folder of the trained weights.
        recogniser: folder of the phoneme recogniser.
    """

    def __init__(self, weights: Path, recogniser: Path) -> None:
        self._language = LanguageProcessor(weights, recogniser)
        self._recogniser = load_pretrained(PhonemeRecogniser, recogniser)

    def of(self, clip: Clip) -> np.ndarray:
        """Ids (T50,) uint8 at the steps of the clip's speech features."""
        features = clip_speech(clip)[0]
        meta = json.loads((clip.directory / "meta.json").read_text(encoding="utf-8"))
        if meta.get("text"):
            try:
                text = SpokenText(meta["text"], meta["language"] or "auto")
                said = self._language.align(clip_samples(clip), text, clip.directory)
                return phoneme_track(said.phonemes, len(features)).astype(np.uint8)
            except InputError:  # of a language without a voice, or longer than its sound
                pass
        return self._recogniser.posteriors(features).argmax(axis=1).astype(np.uint8)


class Noise:
    """Puts sounds behind the speech of clips.

    Args:
        clips: whose voices make up the babble.
    """

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._clips = clips

    def mixed(self, samples: np.ndarray, decibels: float, kind: str, rng: np.random.Generator) -> np.ndarray:
        """A sound with another one behind it.

        Args:
            samples: mono (N,) at 16 kHz.
            decibels: level of the speech above the background.
            kind: babble, or a kind of `background`.
            rng: source of chance; the same state gives the same sound.

        Returns:
            float32 (N,) in [-1, 1].
        """
        count = len(samples)
        added = self._babble(count, rng) if kind == "babble" else background(kind, count, SAMPLE_RATE, rng)
        level = float(np.sqrt(np.mean(samples**2))) * 10 ** (-decibels / 20)
        both = samples + level * added
        return (both / max(1.0, float(np.abs(both).max(initial=0.0)))).astype(np.float32)

    def _babble(self, length: int, rng: np.random.Generator) -> np.ndarray:
        """Several people at once (length,), root mean square 1."""
        total = np.zeros(length, np.float32)
        for _ in range(VOICES):
            voice = np.zeros(0, np.float32)
            while len(voice) < length:
                other = clip_samples(self._clips[rng.integers(len(self._clips))])
                voice = np.concatenate([voice, other / max(float(other.std()), 1e-4)])
            total += voice[:length]
        return total / max(float(total.std()), 1e-9)


def add_tracks(
    config: Config, processed: Path, copies: int, decibels: tuple[float, float], recogniser: Path | None = None
) -> None:
    """Add what is missing to all clips of `SPLITS`.

    Args:
        config: where the weights are.
        processed: folder that data/preprocess.py wrote.
        recogniser: folder of the phoneme recogniser; None: that of the size.
        copies: noisy copies of each clip's speech features.
        decibels: least and largest level of the speech above the background.
    """
    weights = config.training.common.weights_dir
    encoder = SpeechEncoder.from_pretrained(weights / "whisper_tiny_en_encoder")
    tracks = PhonemeTracks(weights, recogniser or weights / config.size / "phonemes")
    for split in SPLITS:
        clips = load_clips(processed, split, config.data.window, config.data.fps)
        noise = Noise(clips)
        for clip in tqdm(clips, desc=f"{split}: phonemes and noise", unit="clip"):
            _store(clip.directory / "phonemes.npy", lambda clip=clip: tracks.of(clip))
            _store(
                clip.directory / "noisy.npy",
                lambda clip=clip, noise=noise: _noisy_features(clip, noise, encoder, copies, decibels),
            )


def _noisy_features(
    clip: Clip, noise: Noise, encoder: SpeechEncoder, copies: int, decibels: tuple[float, float]
) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(clip.name.encode()))
    samples = clip_samples(clip)
    sounds = [
        noise.mixed(samples, float(rng.uniform(*decibels)), KINDS[rng.integers(len(KINDS))], rng) for _ in range(copies)
    ]
    return np.stack([encoder.features(sound) for sound in sounds]).astype(np.float16)


def _store(target: Path, make) -> None:  # noqa: ANN001 - a function without arguments
    if not target.is_file():
        with atomic_path(target) as path, open(path, "wb") as file:
            np.save(file, make())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("model_config.yaml"), help="configuration file")
    parser.add_argument("--processed", type=Path, help="folder of the clips (default: data.processed_dir)")
    parser.add_argument("--recogniser", type=Path, metavar="DIR", help="phoneme recogniser (default: that of the size)")
    parser.add_argument("--copies", type=int, default=2, metavar="N", help="noisy copies of a clip (%(default)s)")
    parser.add_argument(
        "--decibels", type=float, nargs=2, default=(-2.0, 10.0), metavar=("LEAST", "MOST"),
        help="level of the speech above the background (%(default)s)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        config = load_config(options.config)
        processed = options.processed or config.data.processed_dir
        add_tracks(config, processed, options.copies, tuple(options.decibels), options.recogniser)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
