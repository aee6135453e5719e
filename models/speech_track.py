"""What the model hears of a whole sound, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.phonemes import Phoneme, phoneme_track


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

    def half(self) -> SpeechTrack:
        """The same in float16: half the memory for hours of sound."""
        return replace(self, features=self.features.astype(np.float16), activity=self.activity.astype(np.float16))

    def saying(self, phonemes: Sequence[Phoneme]) -> SpeechTrack:
        """The same, and what is said when; no phonemes at all = not known."""
        return replace(self, phonemes=phoneme_track(phonemes, len(self)) if phonemes else None)
