"""The movement of a mouth over time, without a picture: what animators put on their own rigs.

Light on purpose: nothing here loads a network, so that writers and pages can use it. `pipeline.tracks.maker` makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.phonemes import Phoneme
from pipeline.tracks.options import TrackOptions
from voices.base import Word

SHAPES = tuple("ABCDEFGHX")
"""Mouths as Rhubarb Lip Sync names them (its README): A lips pressed (p b m), B teeth together (s t k, ee), C open (e),
D wide open (a), E rounded (o, er), F puckered (u w), G teeth on the lip (f v), H tongue raised (long l), X at rest."""

REST = SHAPES.index("X")
_CLOSED = "AG"
_NOTHING_S = 1e-6
_TWEEN_S = 0.06  # of a mouth between two that are far apart
_BETWEEN = {
    "DA": ("C", 0.0), "DB": ("C", 0.5), "DG": ("C", 0.0), "DX": ("C", 1.0), "CF": ("E", 0.5), "FC": ("E", 0.5),
    "DF": ("E", 0.5), "HF": ("E", 1.0), "FH": ("E", 0.0),
}  # fmt: skip
"""Two mouths -> the one between them, and which part of its time it takes from the second (Rhubarb's getTween)."""


@dataclass(frozen=True)
class Cue:
    """A mouth that is shown from `start` to `end`, seconds; `shape` is one of `SHAPES`."""

    shape: str
    start: float
    end: float


@dataclass(frozen=True, eq=False)
class Curves:
    """What the mouth does frame by frame, all of (F,).

    Attributes:
        opening: gap between the lips, 0 = closed, 1 = wide open.
        width: -1 = as narrow as in "oo", 0 = at rest, 1 = as wide as in "ee".
        protrusion: how far the lips are pushed forward, 0 to 1.
        jaw: how far the jaw is down, 0 to 1.
    """

    opening: np.ndarray
    width: np.ndarray
    protrusion: np.ndarray
    jaw: np.ndarray


@dataclass(frozen=True, eq=False)
class Track:
    """The movement of a mouth.

    Attributes:
        duration: seconds.
        options: how it was made; frame i is at i / fps.
        phonemes: what is said when, without the pauses; empty where the mouth was only seen.
        cues: one mouth after the other, from 0 to the end without a gap.
        weights: (F, 9), how much of each of `SHAPES` there is; each row adds up to 1.
        curves: the lips and the jaw.
        shape: (F, K) mouth shape coefficients, see `faces.mouth_shape.MouthShape`.
        words: with their times; empty where no text was given.
        source: name of the sound or video, "" for a text.
        notes: sentences for a person.
        peaks: loudest sample of each of some hundred parts of the sound, 0 to 1, to draw its waveform; maybe none.
    """

    duration: float
    options: TrackOptions
    phonemes: tuple[Phoneme, ...]
    cues: tuple[Cue, ...]
    weights: np.ndarray
    curves: Curves
    shape: np.ndarray
    words: tuple[Word, ...] = ()
    source: str = ""
    notes: tuple[str, ...] = ()
    peaks: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.options.fps

    @property
    def times(self) -> np.ndarray:
        """Of the frames (F,), seconds."""
        return frame_times(self.duration, self.fps)


def frame_times(duration: float, fps: float) -> np.ndarray:
    """Times of all frames that begin within so many seconds, at least one."""
    return np.arange(max(1, int(duration * fps + 1e-6))) / fps


def steady(cues: Sequence[Cue], least: float) -> tuple[Cue, ...]:
    """Cues that are long enough to be seen: lips that close or touch get time from their neighbours, others give it.

    Args:
        cues: one after the other without a gap.
        least: seconds.
    """
    kept = [list((cue.shape, cue.start, cue.end)) for cue in cues]
    for number in range(1, len(kept) - 1):
        (shape, start, end), before, after = kept[number], kept[number - 1], kept[number + 1]
        missing = least - (end - start)
        if missing <= 0:
            continue
        by = missing / 2 if shape in _CLOSED else -(end - start) / 2
        kept[number][1] = before[2] = max(start - by, before[1]) if by > 0 else start - by
        kept[number][2] = after[1] = min(end + by, after[2]) if by > 0 else end + by
    return joined([Cue(shape, start, end) for shape, start, end in kept if end - start > _NOTHING_S])


def with_between(cues: Sequence[Cue]) -> list[Cue]:
    """Cues with a short one between two mouths that are far apart, as cartoons have it."""
    found = list(cues[:1])
    for cue in cues[1:]:
        before = found[-1]
        between, share = _BETWEEN.get(before.shape + cue.shape, ("", 0.0))
        taken, given = (1 - share) * _TWEEN_S, share * _TWEEN_S
        if between and before.end - before.start > 2 * taken and cue.end - cue.start > 2 * given:
            found[-1] = Cue(before.shape, before.start, before.end - taken)
            found.append(Cue(between, before.end - taken, cue.start + given))
            cue = Cue(cue.shape, cue.start + given, cue.end)
        found.append(cue)
    return found


def reduced(cues: Sequence[Cue], extended: str) -> tuple[Cue, ...]:
    """Cues without the extended shapes that somebody has not drawn; neighbours that become alike are one.

    Args:
        cues: of any of `SHAPES`.
        extended: which of G, H and X are there. As in Rhubarb, A stands for G and X, and C for H.
    """
    instead = {"G": "A", "H": "C", "X": "A"}
    shapes = [cue.shape if cue.shape not in instead or cue.shape in extended else instead[cue.shape] for cue in cues]
    return joined([Cue(shape, cue.start, cue.end) for shape, cue in zip(shapes, cues, strict=True)])


def joined(cues: Sequence[Cue]) -> tuple[Cue, ...]:
    """Cues of which neighbours of one shape are one."""
    found: list[Cue] = []
    for cue in cues:
        if found and found[-1].shape == cue.shape:
            found[-1] = Cue(cue.shape, found[-1].start, cue.end)
        else:
            found.append(cue)
    return tuple(found)
