"""What the parts of adaptation share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from faces.footage import FPS, Footage
from faces.mouth_shape import MouthShape, Neutral
from models.speech_track import SpeechTrack


class Skipped(Exception):
    """There is a reason not to adapt; the message is the end of a sentence."""


@dataclass(frozen=True)
class Change:
    """A measure on frames that were not learnt from, before and after learning; was the learnt part kept?"""

    before: float
    after: float
    kept: bool


@dataclass(frozen=True)
class Budget:
    """How long adaptation may go on.

    Attributes:
        end: value of `time.monotonic` at which to stop.
        tick: called often; raises to stop the whole job.
    """

    end: float
    tick: Callable[[], None] = lambda: None

    def left(self) -> float:
        """Seconds that are left, never below 0; also the moment at which a wish to stop is obeyed."""
        self.tick()
        return max(0.0, self.end - time.monotonic())


@dataclass(frozen=True)
class Heard:
    """Footage with its own sound.

    Attributes:
        footage: stretches of the person.
        speech: the sound of all of them in a row, each with a margin.
        starts: of each stretch, its first frame's number in that sound (25 a second).
        offset: frames by which the sound is late; see `SyncResult`.
    """

    footage: Sequence[Footage]
    speech: SpeechTrack
    starts: Sequence[int]
    offset: int = 0

    def times(self) -> np.ndarray:
        """Seconds in the sound (N,) that belong to all frames, stretch by stretch."""
        numbers = [start + np.arange(len(f)) for start, f in zip(self.starts, self.footage, strict=True)]
        return (np.concatenate(numbers) + self.offset) / FPS

    def points(self) -> np.ndarray:
        """The meshes (N, 468, 2) of all frames, window px."""
        return np.concatenate([f.points for f in self.footage])


def true_shapes(points: np.ndarray, shape: MouthShape) -> tuple[Neutral, np.ndarray, np.ndarray]:
    """The resting mouth, where it lies in each frame (N, P, 2), and the coefficients (N, K) of meshes (N, 468, 2)."""
    neutral = shape.neutral(points)
    base = shape.base(neutral, points)
    return neutral, base, shape.encode(points, base)
