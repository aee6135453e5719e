"""When each word of a spoken sentence is said, for captions that run along."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.phonemes import Phoneme

_LONGEST_RUN = 400  # characters of a sentence; what is longer is parted before it is spoken


@dataclass(frozen=True)
class Word:
    """A word as it was written, and when it is said, seconds."""

    text: str
    start: float
    end: float


def words_of(text: str) -> list[str]:
    """The words of a text with the signs that follow them; of scripts without spaces, the characters."""
    words: list[str] = []
    for run in text.split():
        part = ""
        for character in run:
            if _stands_alone(character):
                words += [part] if part else []
                part = character
            elif part and _stands_alone(part[0]) and character.isalnum():
                words.append(part)
                part = character
            else:
                part += character
        words += [part] if part else []
    return words


def timed_words(text: str, phonemes: Sequence[Phoneme], count: Callable[[str], int]) -> list[Word]:
    """Share the phonemes of a sentence among its words, each as many as it would have alone.

    Args:
        text: the sentence as it was written.
        phonemes: what is said when, in order.
        count: how many phonemes a word has by itself; the exact number does not matter, the proportion does.
    """
    words = words_of(text[:_LONGEST_RUN])
    if not words or not phonemes:
        return []
    sizes = [max(1, count(word)) for word in words]
    timed, before, total = [], 0, sum(sizes)
    for word, size in zip(words, sizes, strict=True):
        first = min(round(before / total * len(phonemes)), len(phonemes) - 1)
        last = min(max(round((before + size) / total * len(phonemes)) - 1, first), len(phonemes) - 1)
        timed.append(Word(word, phonemes[first].start, phonemes[last].end))
        before += size
    return timed


def _stands_alone(character: str) -> bool:
    """A character of a script that is written without spaces."""
    name = unicodedata.name(character, "")
    return name.startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA"))
