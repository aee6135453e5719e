"""Training scenes in which people also do not speak: pauses with the mouth at rest, music and noise.

Clips of speech hold next to no silence, and none holds music, so a model trained on clips alone moves the mouth to
whatever it hears. A scene is one to three clips of a person with pauses before, between and after, or a pause
only; most have music, noise or voices in the background. Mouth shapes are those of the clips; in the pauses the mouth
goes to rest within 0.16 s: to the person's closed mouth, from which shapes are told, so its shape is zero. Scenes look
like processed clips without pictures:

    <processed>/<split>_scenes/<number>/  audio.wav  speech.npy  activity.npy  tracks.npz  meta.json
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from data.background_sounds import background
from data.dataset import Clip, clip_probabilities, clip_samples, load_clips

RATE, FPS = 16000, 25
SPEECH_RMS = 0.08
CLOSING_S = 0.16  # from the last frame of speech to rest, and from rest to the first one
KINDS = ("none", "none", "music", "music", "music", "noise", "noise", "murmur", "murmur", "wind", "hum", "babble")
PAUSE_ONLY, BACKGROUND_IN_PAUSES_ONLY = 0.2, 0.25  # shares of the scenes
Array = np.ndarray


@dataclass(frozen=True)
class Scene:
    """samples (N,) at 16 kHz; at 25 fps shape (T, K), valid (T,), spoken (T,): not in a pause; base (P, 2); person."""

    samples: Array
    shape: Array
    valid: Array
    spoken: Array
    base: Array
    person: str


class SceneMaker:
    """Makes scenes of the clips of one split.

    Args:
        processed: folder of the processed data set.
        split: train, val or test.
    """

    def __init__(self, processed: Path, split: str) -> None:
        self._clips = load_clips(processed, split, window=5, fps=FPS)
        self._chances = clip_probabilities(self._clips)
        self._of_person: dict[str, list[Clip]] = {}
        for clip in self._clips:
            self._of_person.setdefault(clip.person, []).append(clip)
        self._rests: dict[str, Array] = {}

    def make(self, rng: np.random.Generator) -> Scene:
        """A new scene of a person drawn by the root of the minutes."""
        first = self._draw(rng)
        own = self._of_person[first.person]
        clips = [first, *(own[rng.integers(len(own))] for _ in range(rng.integers(3)))]
        if rng.random() < PAUSE_ONLY:
            clips = []
        coefficients = _tracks(first)[0].shape[1]
        pieces = [_pause(rng, coefficients, only=not clips)]
        for clip in clips:
            pieces += [self._spoken(clip, rng), _pause(rng, coefficients)]
        voice, shape, valid, spoken = (np.concatenate(part) for part in zip(*pieces, strict=True))
        shape = _joined(shape, np.cumsum([len(piece[1]) for piece in pieces])[:-1], spoken)
        samples = self._with_background(voice, spoken, rng)
        return Scene(samples, shape.astype(np.float32), valid, spoken, self.rest(first.person), first.person)

    def rest(self, person: str) -> Array:
        """How the person's resting mouth lies (P, 2), window px: in the middle of all poses."""
        if person not in self._rests:
            base = np.concatenate([_tracks(clip)[1] for clip in self._of_person[person]])
            self._rests[person] = np.median(base, axis=0)
        return self._rests[person]

    def _draw(self, rng: np.random.Generator) -> Clip:
        return self._clips[rng.choice(len(self._clips), p=self._chances)]

    def _spoken(self, clip: Clip, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
        """Sound, shapes, valid frames, and that somebody speaks, of a clip; frame i belongs to the sound's frame i."""
        shape, _, valid = _tracks(clip)
        frames = np.arange(clip.frames) - clip.offset
        inside = (frames >= 0) & (frames < clip.frames)
        frames = frames.clip(0, clip.frames - 1)
        samples = np.zeros(clip.frames * RATE // FPS, np.float32)
        sound = clip_samples(clip)[: len(samples)]
        level = SPEECH_RMS / max(float(np.sqrt(np.mean(sound**2))), 1e-4)
        samples[: len(sound)] = sound * level * 10 ** (rng.uniform(-6, 3) / 20)
        fade = np.minimum(1, np.minimum(np.arange(len(samples)), np.arange(len(samples))[::-1]) / (0.02 * RATE))
        return samples * fade, shape[frames], valid[frames] & inside, np.ones(clip.frames, bool)

    def _with_background(self, voice: Array, spoken: Array, rng: np.random.Generator) -> Array:
        """The sound with something else under it, 0 to 20 dB below the voice, and a level of its own."""
        kind = KINDS[rng.integers(len(KINDS))]
        if kind == "none":
            added = background("noise", len(voice), RATE, rng) * 10 ** -rng.uniform(1.5, 4)
        elif kind == "babble":
            added = self._babble(len(voice), rng) * 10 ** -rng.uniform(0.25, 1)
        else:
            added = background(kind, len(voice), RATE, rng) * 10 ** -rng.uniform(0, 1)
        if kind != "none" and rng.random() < BACKGROUND_IN_PAUSES_ONLY:
            quiet = np.repeat(~spoken, RATE // FPS).astype(np.float32)
            added = added * np.convolve(quiet, np.full(800, 1 / 800), mode="same")
        mixed = voice + SPEECH_RMS * added
        return np.clip(mixed * 10 ** (rng.uniform(-10, 6) / 20), -1, 1).astype(np.float32)

    def _babble(self, length: int, rng: np.random.Generator) -> Array:
        """Several people at once, root mean square 1."""
        total = np.zeros(length, np.float32)
        for _ in range(rng.integers(4, 8)):
            voice = np.concatenate([clip_samples(self._draw(rng)) for _ in range(12)])
            voice = np.resize(voice, length + RATE)[rng.integers(RATE) :][:length]
            total += voice / max(float(voice.std()), 1e-4)
        return total / max(float(total.std()), 1e-9)


def write_scenes(
    maker: SceneMaker,
    folder: Path,
    minutes: float,
    features: Callable[[Array], Array],
    activity: Callable[[Array], Array],
    seed: int = 0,
) -> None:
    """Fill `folder` with scenes until they last so many minutes; those that are there are kept.

    Args:
        maker: makes them.
        folder: of all scenes, `<processed>/<split>_scenes`.
        minutes: how long all of them last at least.
        features: sound (N,) -> speech features (T, 5, 384).
        activity: sound (N,) -> voice activity (T,).
        seed: of the scenes.
    """
    number, total = 0, 0.0
    while total < minutes * 60:
        target = folder / f"scene_{number:04d}"
        if not (target / "meta.json").is_file():
            scene = maker.make(np.random.default_rng([seed, number]))
            _write(scene, target, features(scene.samples), activity(scene.samples))
        total += json.loads((target / "meta.json").read_text(encoding="utf-8"))["frames"] / FPS
        number += 1


def _write(scene: Scene, target: Path, features: Array, activity: Array) -> None:
    scratch = target.with_name(f".{target.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    soundfile.write(scratch / "audio.wav", scene.samples, RATE, subtype="PCM_16")
    np.save(scratch / "speech.npy", features[None].astype(np.float16))
    np.save(scratch / "activity.npy", activity.astype(np.float16))
    base = np.repeat(scene.base[None], len(scene.shape), axis=0)
    tracks = {"shape": scene.shape, "valid": scene.valid, "spoken": scene.spoken, "base": base.astype(np.float16)}
    np.savez(scratch / "tracks.npz", **tracks)
    meta = {"clip_id": target.name, "person": scene.person, "frames": len(scene.shape), "sync_offset": 0}
    (scratch / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    scratch.rename(target)


def _tracks(clip: Clip) -> tuple[Array, Array, Array]:
    with np.load(clip.directory / "tracks.npz") as tracks:
        return tracks["shape"].astype(np.float32), tracks["base"].astype(np.float32), tracks["valid"].astype(bool)


def _pause(rng: np.random.Generator, coefficients: int, only: bool = False) -> tuple[Array, Array, Array, Array]:
    """Silence with the mouth at rest: sound, shapes, valid frames, and that nobody speaks."""
    seconds = rng.uniform(3, 6) if only else rng.choice([rng.uniform(0.3, 0.8), rng.uniform(0.8, 2.5)])
    frames = round(seconds * FPS)
    shape = np.zeros((frames, coefficients), np.float32)
    return np.zeros(frames * RATE // FPS, np.float32), shape, np.ones(frames, bool), np.zeros(frames, bool)


def _joined(shape: Array, cuts: Array, spoken: Array) -> Array:
    """Smooth the jumps between speech and rest: the mouth closes and opens within the pause, at an even pace."""
    shape, steps = shape.copy(), round(CLOSING_S * FPS)
    for cut in cuts:
        closing = spoken[cut - 1]
        pause = np.arange(cut, min(cut + steps, len(shape))) if closing else np.arange(max(cut - steps, 0), cut)[::-1]
        from_shape = shape[cut - 1] if closing else shape[cut]
        weight = 0.5 + 0.5 * np.cos(np.pi * (np.arange(len(pause)) + 1) / (steps + 1))[:, None]
        shape[pause] = weight * from_shape + (1 - weight) * shape[pause]
    return shape
