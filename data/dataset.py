"""Processed clips as training windows.

A processed clip is a folder `<root>/<split>/<clip_id>/` with crops.mp4 (25 fps mouth windows), audio.wav,
tracks.npz, speech.npy and meta.json, as data/preprocess.py writes it.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from scipy.io import wavfile
from torch.utils.data import Dataset, default_collate

from faces.mouth_shape import MouthShape, mouth_opening
from models.audio_encoder import log_mel
from utils import data_augmentation
from utils.config import DataConfig
from utils.helpers import InputError

SPEECH_RATE = 50  # steps of speech features per second
REFERENCE_GAP = 10  # frames between a window and a reference from the same clip
ONE_REFERENCE = 0.5  # share of training samples that show one picture of the person only, as a portrait does
OWN_SKIN = 0.4  # share of training samples whose skin is that of the very frames
SKIN_REACH = 12  # frames that other skin is away at most
Array = np.ndarray


@dataclass(frozen=True)
class Clip:
    """One processed clip. `offset`: frame i belongs to the sound at frame i + offset."""

    directory: Path
    name: str
    person: str
    frames: int
    offset: int
    starts: Array  # first frames of windows whose frames are all valid

    def speech_start(self, frame: int, fps: int) -> int:
        """The 50 Hz step of speech at which `frame` starts (may lie outside the clip)."""
        return round((frame + self.offset) * SPEECH_RATE / fps)


def load_clips(root: Path, split: str, window: int, fps: int, max_minutes: float | None = None) -> list[Clip]:
    """List the clips of a split that hold at least one window of valid frames, ordered by name.

    Args:
        root: folder of the processed data set.
        split: train, val or test.
        window: frames in a window.
        fps: frames per second of the crops.
        max_minutes: at most so many minutes of one person; clips are taken evenly over the person's list.

    Raises:
        InputError: the split is missing or holds no usable clip.
    """
    folder = Path(root) / split
    if not folder.is_dir():
        raise InputError(f"No processed clips in {folder}: run data/preprocess.py or set data.processed_dir.")
    clips = [clip for meta in sorted(folder.glob("*/meta.json")) if (clip := _load_clip(meta, window))]
    if not clips:
        raise InputError(
            f"No clip in {folder} has {window} valid frames in a row: check the preprocessing report."
        )
    return clips if max_minutes is None else _cap_people(clips, max_minutes * 60 * fps)


def _load_clip(meta_path: Path, window: int) -> Clip | None:
    meta = json.loads(meta_path.read_text(encoding="utf-8"))
    with np.load(meta_path.parent / "tracks.npz") as tracks:
        valid = tracks["valid"]
    if len(valid) < window:
        return None
    runs = np.lib.stride_tricks.sliding_window_view(valid, window).all(axis=1)
    starts = np.flatnonzero(runs)
    if not len(starts):
        return None
    offset = meta["sync_offset"] or 0
    return Clip(meta_path.parent, meta["clip_id"], str(meta["person"]), len(valid), offset, starts)


def _cap_people(clips: list[Clip], max_frames: float) -> list[Clip]:
    """Thin out the clips of people who have more than `max_frames`, evenly over their list."""
    kept = []
    for person in sorted({clip.person for clip in clips}):
        own = [clip for clip in clips if clip.person == person]
        total = sum(clip.frames for clip in own)
        count = max(1, int(len(own) * min(1.0, max_frames / total)))
        kept += [own[int(i)] for i in np.linspace(0, len(own) - 1, count).round()]
    return sorted(kept, key=lambda clip: clip.name)


def longest_of_each(clips: Sequence[Clip]) -> list[Clip]:
    """Each person's longest clip, in the order in which the people come."""
    best: dict[str, Clip] = {}
    for clip in clips:
        if clip.person not in best or clip.frames > best[clip.person].frames:
            best[clip.person] = clip
    return list(best.values())


def clip_probabilities(clips: list[Clip]) -> Array:
    """Chance of each clip: people by the square root of their minutes, within a person by its windows.

    The root lies between "every second counts the same" (one speaker would be half of all batches) and "every
    person counts the same" (a single three-second clip would be seen as often as eight minutes of speech).
    """
    seconds = np.array([len(clip.starts) for clip in clips], dtype=np.float64)
    people, owner = np.unique([clip.person for clip in clips], return_inverse=True)
    totals = np.bincount(owner, weights=seconds, minlength=len(people))
    weights = seconds / np.sqrt(totals[owner])
    return weights / weights.sum()


def decode_crops(path: Path) -> Array:
    """All frames of a crops.mp4 as uint8 RGB (T, H, W, 3)."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


class ClipCache:
    """Keeps what `load(clip)` returned, up to a number of bytes; drops the least recently used first."""

    def __init__(self, load: Callable[[Clip], Any], limit_bytes: float) -> None:
        self._load = load
        self._limit = limit_bytes
        self._items: OrderedDict[str, Any] = OrderedDict()
        self._bytes = 0

    def __call__(self, clip: Clip) -> Any:
        if clip.name in self._items:
            self._items.move_to_end(clip.name)
            return self._items[clip.name]
        item = self._load(clip)
        self._items[clip.name] = item
        self._bytes += _size(item)
        while self._bytes > self._limit and len(self._items) > 1:
            self._bytes -= _size(self._items.popitem(last=False)[1])
        return item


def _size(item: Any) -> int:
    return sum(_size(part) for part in item.values()) if isinstance(item, dict) else item.nbytes


class StepBatches(Dataset):
    """Item `step` is a collated batch, made from nothing but (seed, rank, step): the base of exact resume.

    Args:
        draw: draws one sample with the random generator given.
        batch_size: samples in a batch.
        seed: seed of the data order and augmentation.
        rank: number of the training process.
    """

    def __init__(
        self, draw: Callable[[np.random.Generator], Any], batch_size: int, seed: int, rank: int = 0
    ) -> None:
        self._draw = draw
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank

    def __getitem__(self, step: int) -> Any:
        random = np.random.default_rng([self._seed, self._rank, step])
        return default_collate([self._draw(random) for _ in range(self._batch_size)])


def to_tensor(images: Array) -> torch.Tensor:
    """uint8 RGB (..., H, W, 3) -> float32 (..., 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.moveaxis(images, -1, -3).astype(np.float32) / 127.5 - 1.0)


def clip_speech(clip: Clip) -> Array:
    """Speech features of a clip, float16 (V, T50, 5, 384), read as needed; variant 0 is the clean one."""
    path = clip.directory / "speech.npy"
    if not path.is_file():
        raise InputError(
            f"No speech features {path}: run data/preprocess.py again, with the speech encoder in place."
        )
    return np.load(path, mmap_mode="r")


def clip_activity(clip: Clip) -> Array:
    """Chance (T50,) float32 that somebody speaks, at the steps of the speech features; the same for all variants."""
    path = clip.directory / "activity.npy"
    if not path.is_file():
        raise InputError(f"No voice activity {path}: run data/preprocess.py again; it adds what is missing.")
    return np.load(path).astype(np.float32)


def resting_gap(base: Array) -> np.float32:
    """Gap between the inner lips of a person's resting mouth, px, from how it lies in each frame (T, P, 2)."""
    return np.float32(np.median(mouth_opening(base.astype(np.float32))))


def clip_shape(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """Mouth shape (T, K) float32 and which frames count (T,) bool."""
    with np.load(clip.directory / "tracks.npz") as tracks:
        return tracks["shape"].astype(np.float32), tracks["valid"].astype(bool)


def clip_resting(clip: Clip) -> np.float32:
    """Gap between the inner lips of the person's resting mouth, window px."""
    with np.load(clip.directory / "tracks.npz") as tracks:
        return resting_gap(tracks["base"])


def clip_samples(clip: Clip) -> Array:
    """The clip's sound, float32 (N,) in [-1, 1] at 16 kHz."""
    _, samples = wavfile.read(clip.directory / "audio.wav")
    return samples.astype(np.float32) / 32768


def clip_mel(clip: Clip) -> Array:
    """The clip's log-mel spectrogram, float32 (80, T100)."""
    return np.asarray(log_mel(torch.from_numpy(clip_samples(clip))), dtype=np.float32)


class ClipDataset:
    """Windows of clips with everything that the generator learns from.

    A sample has these keys (F frames, R references, K shape coefficients, P shape points, T speech steps):
        frames (F, 3, 160, 160): float32 in [-1, 1]
        skin uint8 (F, 160, 160, 3), own (F, P, 2): the frames again, or ones a moment away with another mouth but
            nearly the same pose and light, as a frame in use has the old mouth; and their lips and jaw, window px
        references uint8 (R, 160, 160, 3), reference_shapes (R, K), reference_points (R, P, 2), reference_pose (R, 3):
            pictures of the person, from at least REFERENCE_GAP frames away or from other clips if there are such, since
            a neighbour would give the mouth away; where fewer than R are shown, they are repeated
        shape (F, K): coefficients; base (F, P, 2): the resting mouth, window px; pose (F, 3): degrees
        speech (T, 5, 384) float32 at 50 Hz, of which the first `speech_steps` are real and the rest is zero
        activity (T,) float32: chance that somebody speaks, at the same steps
        resting: gap between the inner lips of the person's resting mouth, window px
        times (F,): starts of the frames, seconds since the start of `speech`
        person: id

    Args:
        config: where the clips are, how long windows are, how many references.
        split: train, val or test. Training windows take a random variant of the speech, a random number of references
            and skin from other moments; the others the clean speech, all references and the frames themselves.
        mouth_shape: turns the references' shapes into points.
        context_s: seconds of speech before and after the window.
        colour_jitter: random change of colours, the same for a window and its references, fraction.
    """

    def __init__(
        self,
        config: DataConfig,
        split: str,
        mouth_shape: MouthShape,
        context_s: float = 0.5,
        colour_jitter: float = 0.0,
    ) -> None:
        cap = config.max_minutes_per_person if split == "train" else None
        self.clips = load_clips(config.processed_dir, split, config.window, config.fps, cap)
        self._config, self._mouth_shape, self._context_s = config, mouth_shape, context_s
        self._jitter, self._varied = colour_jitter, split == "train"
        self._chances = clip_probabilities(self.clips)
        self._of_person: dict[str, list[Clip]] = {}
        for clip in self.clips:
            self._of_person.setdefault(clip.person, []).append(clip)
        self._content = ClipCache(load_content, config.cache_gb * 1e9)

    def draw(self, random: np.random.Generator) -> dict[str, Any]:
        """A random window of a random clip, people by the root of their minutes."""
        clip = self.clips[random.choice(len(self.clips), p=self._chances)]
        return self.window(clip, int(random.choice(clip.starts)), random)

    def window(self, clip: Clip, start: int, random: np.random.Generator) -> dict[str, Any]:
        """The window of `clip` that begins with frame `start` (one of `clip.starts`)."""
        content, length = self._content(clip), self._config.window
        part = slice(start, start + length)
        references = self._references(clip, start, random)
        near = self._skin_start(clip, start, random)
        images = [content["frames"][part], content["frames"][near : near + length], references.pop("pictures")]
        images = data_augmentation.colour_jitter(np.concatenate(images), random, self._jitter)
        own = self._points(content, slice(near, near + length))
        base = content["base"][part].astype(np.float32)
        known = {"own": own, "shape": content["shape"][part], "base": base, "pose": content["pose"][part], **references}
        return {
            "frames": to_tensor(images[:length]),
            "skin": torch.from_numpy(images[length : 2 * length]),
            "references": torch.from_numpy(images[2 * length :]),
            **{name: torch.from_numpy(values) for name, values in known.items()},
            "resting": resting_gap(content["base"]),
            **self._speech(clip, start, random),
            "person": clip.person,
        }

    def _points(self, content: dict[str, Array], frames: Any) -> Array:
        """Lips and jaw (N, P, 2) of frames, as the mouth shape tells them."""
        return self._mouth_shape.decode(content["shape"][frames], content["base"][frames].astype(np.float32))

    def _skin_start(self, clip: Clip, start: int, random: np.random.Generator) -> int:
        """First frame of the window whose skin is taken: this one, or one up to half a second away."""
        if not self._varied or random.random() < OWN_SKIN:
            return start
        return int(np.clip(start + random.integers(-SKIN_REACH, SKIN_REACH + 1), clip.starts[0], clip.starts[-1]))

    def _references(self, clip: Clip, start: int, random: np.random.Generator) -> dict[str, Array]:
        """Pictures of the same person, from the same clip where it is long enough, as in use; see the class."""
        candidates = self._candidates(clip, start, random)
        if self._varied and random.random() < ONE_REFERENCE:
            candidates = [self._single(candidates, random)]
        elif self._varied:
            candidates = candidates[: random.integers(2, self._config.references + 1)]
        chosen = [candidates[i % len(candidates)] for i in range(self._config.references)]
        contents = [(self._content(other), frame) for other, frame in chosen]
        return {
            "pictures": np.stack([content["frames"][frame] for content, frame in contents]),
            "reference_shapes": np.stack([content["shape"][frame] for content, frame in contents]),
            "reference_points": np.concatenate([self._points(content, [frame]) for content, frame in contents]),
            "reference_pose": np.stack([content["pose"][frame] for content, frame in contents]),
        }

    def _candidates(self, clip: Clip, start: int, random: np.random.Generator) -> list[tuple[Clip, int]]:
        """Frames of the person that may be shown: clip and number."""
        count, window = self._config.references, self._config.window
        own = self._of_person[clip.person]
        candidates = []
        for source in (clip, own[random.integers(len(own))]):
            frames = random.choice(source.starts, 4 * count) + random.integers(window, size=4 * count)
            gap = np.maximum(start - frames, frames - (start + window - 1))
            apart = (gap >= REFERENCE_GAP) | (source is not clip)
            candidates += [(source, int(frame)) for frame in frames[apart]]
            if len(candidates) >= count:
                break
        # A short clip of a person without other clips: its near frames have to do.
        candidates += [(clip, int(frame)) for frame in random.choice(clip.starts, max(0, count - len(candidates)))]
        return candidates[:count]

    def _single(self, candidates: list[tuple[Clip, int]], random: np.random.Generator) -> tuple[Clip, int]:
        """One picture, as of a portrait: half of the time the one with the lips closest."""
        if random.random() < 0.5:
            return candidates[0]
        gaps = [mouth_opening(self._points(self._content(clip), [frame]))[0] for clip, frame in candidates]
        return candidates[int(np.argmin(gaps))]

    def _speech(self, clip: Clip, start: int, random: np.random.Generator) -> dict[str, Any]:
        variants = clip_speech(clip)
        track = variants[random.integers(len(variants)) if self._varied else 0]
        steps = round((self._config.window / self._config.fps + 2 * self._context_s) * SPEECH_RATE)
        wanted = clip.speech_start(start, self._config.fps) - round(self._context_s * SPEECH_RATE)
        first = min(max(0, wanted), max(0, len(track) - steps))
        real = np.asarray(track[first : first + steps], dtype=np.float32)
        speech = np.zeros((steps, *real.shape[1:]), np.float32)
        speech[: len(real)] = real
        activity = np.zeros(steps, np.float32)
        activity[: len(real)] = clip_activity(clip)[first : first + steps]
        frames = np.arange(start, start + self._config.window) + clip.offset
        times = frames / self._config.fps - first / SPEECH_RATE
        return {
            "speech": torch.from_numpy(speech),
            "activity": torch.from_numpy(activity),
            "speech_steps": len(real),
            "times": torch.from_numpy(times.astype(np.float32)),
        }


def load_content(clip: Clip) -> dict[str, Array]:
    """Pictures and tracks of a clip: frames uint8 (T, 160, 160, 3), shape, base, pose."""
    with np.load(clip.directory / "tracks.npz") as tracks:
        content = {name: tracks[name] for name in ("shape", "base", "pose")}
    return {"frames": decode_crops(clip.directory / "crops.mp4"), **content}
