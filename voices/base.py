"""What every speech engine offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from models.phonemes import Phoneme


@dataclass(frozen=True)
class Sentence:
    """A piece of the text and when it is spoken, seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Speech:
    """Spoken text.

    Attributes:
        samples: mono float32 (N,) in [-1, 1].
        rate: samples per second.
        phonemes: sounds in order of time, without the silences between them; empty where an engine does not know
            their times, which are then searched for in the sound.
        sentences: the text in order of time; empty where an engine was asked for one sentence.
    """

    samples: np.ndarray
    rate: int
    phonemes: tuple[Phoneme, ...]
    sentences: tuple[Sentence, ...] = ()

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.samples.size / self.rate


@dataclass(frozen=True)
class Voice:
    """A voice that can be chosen by name.

    Attributes:
        name: unique within its language.
        language: code such as "en".
        gender: "female" or "male".
        engine: name of the engine that speaks it.
        natural: recorded or learnt from a person, not robotic.
        licence: of the voice's data.
    """

    name: str
    language: str
    gender: Literal["female", "male"]
    engine: str
    natural: bool
    licence: str


class VoiceEngine(ABC):
    """A way to speak. Own engines are given to `LanguageProcessor`, or announced as the entry point "lipsync.voices".

    Attributes:
        name: short name, shown in the list of voices.
    """

    name: ClassVar[str]

    @abstractmethod
    def missing(self) -> str | None:
        """Why the engine cannot be used on this computer and what to install; None = it can."""

    @abstractmethod
    def voices(self) -> Sequence[Voice]:
        """All voices, the default of each language first."""

    @abstractmethod
    def speak(self, text: str, voice: Voice, speed: float) -> Speech:
        """Speak one sentence of plain text (no markup, at most a few hundred characters).

        Args:
            text: what to say, in the voice's language.
            voice: one of `voices()`.
            speed: 1 = the voice's own, 2 = twice as fast.
        """

    @abstractmethod
    def pronounce(self, text: str, language: str) -> tuple[int, ...]:
        """Phoneme ids of a sentence, without times."""
