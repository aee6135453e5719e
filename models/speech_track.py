"""What the model hears of a whole sound, step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SpeechTrack:
    """A sound at 50 steps a second.

    Attributes:
        features: (T, layers, width) of the speech encoder.
        activity: (T,) chance that somebody speaks, in [0, 1].
    """

    features: np.ndarray
    activity: np.ndarray

    def __post_init__(self) -> None:
        if len(self.features) != len(self.activity):
            raise ValueError(f"{len(self.features)} steps of features, but {len(self.activity)} of voice activity.")

    def __len__(self) -> int:
        return len(self.features)

    def part(self, first: int, stop: int) -> SpeechTrack:
        """Steps from `first` up to, not including, `stop`."""
        return SpeechTrack(self.features[first:stop], self.activity[first:stop])

    def half(self) -> SpeechTrack:
        """The same in float16: half the memory for hours of sound."""
        return SpeechTrack(self.features.astype(np.float16), self.activity.astype(np.float16))
