"""When each word of a sentence is said, from the times of its phonemes."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import TYPE_CHECKING

from models.phonemes import Phoneme
from voices.base import Sentence, Word

if TYPE_CHECKING:
    from sudachipy import Tokenizer

_UNSPACED = ("zh", "yue", "ja")
_LETTERS = re.compile(r"[A-Za-z0-9.,:%-]*[A-Za-z0-9%]|\S")  # of Chinese: Latin words and numbers stay whole


def timed_words(
    sentences: Sequence[Sentence],
    phonemes: Sequence[Phoneme],
    language: str,
    pronounce: Callable[[str], Sequence[int]],
) -> tuple[Word, ...]:
    """The words of sentences, each from its first phoneme to its last one.

    Args:
        sentences: what is said when, in order of time.
        phonemes: of all of them, in order of time.
        language: code; Chinese is parted into its characters, Japanese into dictionary words.
        pronounce: a word -> ids of its phonemes. What is pronounced otherwise within the sentence is found all the
            same: the two sequences are laid over each other.
    """
    found: list[Word] = []
    for number, sentence in enumerate(sentences):
        first = bisect_left(phonemes, sentence.start - 1e-6, key=lambda p: p.start)
        last = bisect_left(phonemes, sentence.end - 1e-6, key=lambda p: p.start)
        if first < last:
            found += _in_sentence(sentence.text, phonemes[first:last], number, language, pronounce)
    return tuple(found)


def split_words(text: str, language: str) -> list[str]:
    """Words with the marks that are written at them."""
    base = language.split("-")[0]
    if base not in _UNSPACED:
        words = text.split()
    elif base == "ja":
        words = [token.surface() for token in _japanese().tokenize(text)]
    else:
        words = _LETTERS.findall(text)
    joined: list[str] = []
    for word in words:
        if any(map(str.isalnum, word)) or not joined:
            joined.append(word)
        elif base in _UNSPACED:
            joined[-1] += word  # marks belong to the word before them
        else:
            joined[-1] += f" {word}"
    return joined


def _in_sentence(
    text: str,
    phonemes: Sequence[Phoneme],
    number: int,
    language: str,
    pronounce: Callable[[str], Sequence[int]],
) -> list[Word]:
    words = split_words(text, language)
    ids = [list(pronounce(word)) if any(map(str.isalnum, word)) else [] for word in words]
    ends = _ends(ids, [phoneme.id for phoneme in phonemes])
    spaced = language.split("-")[0] not in _UNSPACED
    found, start = [], 0
    for word, end in zip(words, ends, strict=True):
        first, last = min(start, len(phonemes) - 1), max(min(end, len(phonemes)), 1) - 1
        found.append(Word(word, phonemes[first].start, phonemes[max(first, last)].end, number, spaced))
        start = max(end, start)
    return found


def _ends(words: Sequence[Sequence[int]], said: Sequence[int]) -> list[int]:
    """How many of the phonemes that are said are over at the end of each word; never falling, the last one all."""
    alone = [identity for ids in words for identity in ids]
    places = [0.0] * (len(alone) + 1)
    for _, a0, a1, b0, b1 in SequenceMatcher(None, alone, said, autojunk=False).get_opcodes():
        for at in range(a0, a1 + 1):
            places[at] = b0 + (b1 - b0) * (at - a0) / max(a1 - a0, 1)
    ends, at = [], 0
    for ids in words:
        at += len(ids)
        ends.append(round(places[at]))
    ends[-1] = len(said)
    return ends


@lru_cache(maxsize=1)
def _japanese() -> Tokenizer:
    from sudachipy import dictionary

    return dictionary.Dictionary().create()
