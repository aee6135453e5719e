"""Sound that a host says: a sentence that is known as a whole, or a stream whose end nobody knows yet."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import soxr

from engines.base import Engine
from models.phonemes import Phoneme
from models.speech_track import STEPS_PER_SECOND
from pipeline.captions import Word

HEARD_RATE = 16000
PLAYED_RATE = 48000
"""Samples per second of what engines hear and of what is played."""


class Sound(Protocol):
    """What is said from one moment on.

    Attributes:
        text: what is said, where that is known.
        words: with times in seconds from its start.
        tag: the client's name for what it asked for.
    """

    text: str | None
    words: Sequence[Word]
    tag: str | None

    def hear(self, engine: Engine, ahead_s: float) -> Any:
        """What the engine's painter takes; `ahead_s`: see `Engine.hear_live`."""
        ...

    def can_draw(self, time: float, ahead_s: float) -> bool:
        """Whether all has arrived that the mouth at a time in seconds depends on."""
        ...

    def seconds(self) -> float | None:
        """How long it is; None: nobody knows yet."""
        ...

    def part(self, first: int, stop: int) -> np.ndarray:
        """Samples int16 (stop - first,) at `PLAYED_RATE`; silence before, after, and where nothing has arrived."""
        ...


@dataclass(frozen=True)
class Spoken:
    """A sentence.

    Attributes:
        played: int16 (N,) at `PLAYED_RATE`.
        heard: float32 (M,) at `HEARD_RATE`.
        phonemes: what is said when.
        text, words, tag: see `Sound`.
    """

    played: np.ndarray
    heard: np.ndarray
    phonemes: tuple[Phoneme, ...] = ()
    text: str | None = None
    words: tuple[Word, ...] = ()
    tag: str | None = None

    @classmethod
    def of(cls, samples: np.ndarray, rate: int, **more: Any) -> Spoken:
        """From mono float samples (N,) in [-1, 1] at any rate; `more`: the other attributes."""
        samples = samples.astype(np.float32)
        played, heard = (soxr.resample(samples, rate, wanted) for wanted in (PLAYED_RATE, HEARD_RATE))
        return cls(_as_played(played), heard, **more)

    def hear(self, engine: Engine, ahead_s: float) -> Any:
        return engine.hear(self.heard, self.phonemes)

    def can_draw(self, time: float, ahead_s: float) -> bool:
        return True

    def seconds(self) -> float | None:
        return len(self.played) / PLAYED_RATE

    def part(self, first: int, stop: int) -> np.ndarray:
        return _cut(self.played, 0, first, stop)


class Streamed:
    """Sound that arrives in pieces, from any thread.

    Args:
        rate: samples per second of what arrives.
        tag: see `Sound`.
    """

    text: str | None = None
    words: Sequence[Word] = ()

    def __init__(self, rate: int, tag: str | None = None):
        self.rate, self.tag = rate, tag
        self.arrived_at = 0.0  # when the last piece came, by the session's clock
        self._lock = threading.Lock()
        self._to_heard, self._to_played = (
            soxr.ResampleStream(rate, wanted, 1, dtype="float32") for wanted in (HEARD_RATE, PLAYED_RATE)
        )
        self._heard: list[np.ndarray] = []  # arrived, and not yet heard
        self._heard_count = 0
        self._played, self._origin = np.zeros(0, np.int16), 0  # the last seconds, and where they begin
        self._ended = False

    @property
    def waiting_s(self) -> float:
        """Seconds of sound that are kept: not yet played, for the most part."""
        return len(self._played) / PLAYED_RATE

    def add(self, samples: np.ndarray, now: float) -> None:
        """Take in mono float samples (N,) in [-1, 1]; `now`: seconds by the session's clock."""
        self._append(samples.astype(np.float32), False)
        self.arrived_at = now

    def end(self) -> None:
        """Nothing more will come."""
        if not self._ended:
            self._append(np.zeros(0, np.float32), True)

    @property
    def ended(self) -> bool:
        """Whether that was said."""
        return self._ended

    def _append(self, samples: np.ndarray, last: bool) -> None:
        with self._lock:
            heard = self._to_heard.resample_chunk(samples, last=last)
            played = _as_played(self._to_played.resample_chunk(samples, last=last))
            self._heard.append(heard)
            self._heard_count += len(heard)
            self._played = np.concatenate([self._played, played])
            self._ended = self._ended or last

    def hear(self, engine: Engine, ahead_s: float) -> Any:
        return engine.hear_live(self._pieces(), ahead_s)

    def _pieces(self) -> Iterator[np.ndarray]:
        """What has arrived; whoever reads has asked `can_draw` first, so it never has to wait."""
        while True:
            with self._lock:
                waiting, self._heard, ended = self._heard, [], self._ended
            if waiting:
                yield np.concatenate(waiting)
            elif ended:
                return
            else:
                yield np.zeros(1, np.float32)

    def can_draw(self, time: float, ahead_s: float) -> bool:
        return self._ended or self._heard_count >= (time + ahead_s + 2 / STEPS_PER_SECOND) * HEARD_RATE

    def seconds(self) -> float | None:
        with self._lock:
            return (self._origin + len(self._played)) / PLAYED_RATE if self._ended else None

    def part(self, first: int, stop: int) -> np.ndarray:
        with self._lock:
            part = _cut(self._played, self._origin, first, stop)
            spare = min(first - self._origin, len(self._played))
            if spare > PLAYED_RATE:  # about a second stays
                self._played, self._origin = self._played[spare:], self._origin + spare
            return part


def _as_played(samples: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16)


def _cut(samples: np.ndarray, origin: int, first: int, stop: int) -> np.ndarray:
    """Samples `first` up to `stop` of a sound of which those from `origin` on are there."""
    low, high = (int(np.clip(place - origin, 0, len(samples))) for place in (first, stop))
    part = np.zeros(stop - first, np.int16)
    part[max(0, origin - first) :][: high - low] = samples[low:high]
    return part
