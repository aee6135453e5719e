"""What both parts of learning from a person need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engines.base import Lesson
from faces.footage import Footage
from faces.mouth_shape import MouthShape, Neutral
from models.speech_track import SpeechTrack


@dataclass(frozen=True)
class Heard:
    """A lesson, and what the model hears in its sound."""

    lesson: Lesson
    speech: SpeechTrack

    @property
    def footage(self) -> Sequence[Footage]:
        """Stretches of the person."""
        return self.lesson.footage

    def times(self) -> np.ndarray:
        """See `Lesson.times`."""
        return self.lesson.times()

    def points(self) -> np.ndarray:
        """See `Lesson.points`."""
        return self.lesson.points()

    def pose(self) -> np.ndarray:
        """See `Lesson.pose`."""
        return self.lesson.pose()


def true_shapes(heard: Heard, shape: MouthShape) -> tuple[Neutral, np.ndarray, np.ndarray]:
    """The resting mouth, where it lies in each frame (N, P, 2), and the coefficients (N, K) of all frames."""
    points, pose = heard.points(), heard.pose()
    neutral = shape.neutral(points, pose)
    base = shape.base(neutral, pose)
    return neutral, base, shape.encode(points, base)
