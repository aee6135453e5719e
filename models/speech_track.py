"""What the model hears of a whole sound, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

STEPS_PER_SECOND = 50


class Speech(Protocol):
    """What is said, at 50 steps a second: known as a whole, or heard bit by bit.

    Attributes:
        ahead: steps after a frame that may be asked for; None = any.
        phonemes: (T,) int64 ids of the whole sound; None = not known.
    """

    ahead: int | None
    phonemes: np.ndarray | None

    def __len__(self) -> int:
        """Steps of the whole sound."""
        ...

    def part(self, first: int, stop: int) -> SpeechTrack:
        """Steps from `first` up to, not including, `stop`."""
        ...


@dataclass(frozen=True)
class SpeechTrack:
    """A sound at 50 steps a second.

    Attributes:
        features: (T, layers, width) of the speech encoder.
        activity: (T,) chance that somebody speaks, in [0, 1].
        phonemes: (T,) int64 ids of what is said, see `models.phonemes.phoneme_track`; None = not known.
    """

    features: np.ndarray
    activity: np.ndarray
    phonemes: np.ndarray | None = None
    ahead: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        if len(self.features) != len(self.activity):
            raise ValueError(f"{len(self.features)} steps of features, but {len(self.activity)} of voice activity.")
        if self.phonemes is not None and len(self.phonemes) != len(self.features):
            raise ValueError(f"{len(self.features)} steps of features, but {len(self.phonemes)} of phonemes.")

    def __len__(self) -> int:
        return len(self.features)

    def part(self, first: int, stop: int) -> SpeechTrack:
        """Steps from `first` up to, not including, `stop`."""
        phonemes = None if self.phonemes is None else self.phonemes[first:stop]
        return SpeechTrack(self.features[first:stop], self.activity[first:stop], phonemes)
