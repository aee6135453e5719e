"""What every speech engine offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import soxr

from models.phonemes import Phoneme


@dataclass(frozen=True)
class Sentence:
    """A piece of the text and when it is spoken, seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Word:
    """A word as it was written, and when it is said.

    Attributes:
        text: the word.
        start, end: seconds.
        sentence: number of its sentence, from 0.
        spaced: whether its language puts a space after it.
    """

    text: str
    start: float
    end: float
    sentence: int = 0
    spaced: bool = True


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


def moved(speech: Speech, by: float) -> Speech:
    """The same sound; its phonemes and sentences are said `by` seconds later."""
    return replace(
        speech,
        phonemes=tuple(Phoneme(p.symbol, p.id, p.start + by, p.end + by) for p in speech.phonemes),
        sentences=tuple(Sentence(s.text, s.start + by, s.end + by) for s in speech.sentences),
    )


def joined(parts: Sequence[Speech], rate: int) -> Speech:
    """Parts one after the other at one rate; their times, which count from the start of each, count from the first."""
    sound, phonemes, said, now = [np.zeros(0, np.float32)], [], [], 0.0
    for part in parts:
        samples = part.samples if part.rate == rate else soxr.resample(part.samples, part.rate, rate)
        sound.append(samples.astype(np.float32))
        placed = moved(part, now)
        phonemes += placed.phonemes
        said += placed.sentences
        now += samples.size / rate
    return Speech(np.concatenate(sound), rate, tuple(phonemes), tuple(said))


def whole(parts: Sequence[Speech]) -> Speech:
    """Parts of one rate as one, where their times count from the start of the first already."""
    return Speech(
        np.concatenate([part.samples for part in parts]),
        parts[0].rate,
        tuple(phoneme for part in parts for phoneme in part.phonemes),
        tuple(sentence for part in parts for sentence in part.sentences),
    )


def with_pause(speech: Speech, written: str, start: float, pause: float) -> Speech:
    """A sentence that starts `start` seconds after the text, and silence of `pause` seconds after it."""
    silence = np.zeros(round(pause * speech.rate), np.float32)
    said = replace(moved(speech, start), sentences=(Sentence(written, start, start + speech.duration),))
    return replace(said, samples=np.concatenate([said.samples, silence]))


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
