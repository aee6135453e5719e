"""One inventory of speech sounds for all languages.

Symbols are those of the International Phonetic Alphabet. Length, stress, tone and secondary articulation are left
out: the lips hardly show them. A diphthong is two symbols, an affricate is one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

INVENTORY_SIZE = 128
STEPS_PER_SECOND = 50
SILENCE = 0

_PLOSIVES = "p b t d k ɡ q ʔ"
_NASALS = "m ɱ n ɲ ŋ ɴ"
_FRICATIVES = "ɸ β f v θ ð s z ʃ ʒ ʂ ʐ ɕ ʑ ç ʝ x ɣ χ ʁ h ɦ"
_AFFRICATES = "pf ts dz tʃ dʒ tʂ dʐ tɕ dʑ"
_APPROXIMANTS = "l ʎ r ɾ ɹ ɻ ʋ j w ɥ ɰ"
_VOWELS = "i y ɨ ʉ ɯ u ɪ ʏ ʊ e ø ɤ o ə ɚ ɛ œ ɜ ʌ ɔ æ ɐ a ɑ ɒ ɛ̃ œ̃ ɔ̃ ɑ̃"
_GROUPS = (_PLOSIVES, _NASALS, _FRICATIVES, _AFFRICATES, _APPROXIMANTS, _VOWELS)


def _decomposed(ipa: str) -> str:
    """Marks as characters of their own; but the cedilla makes another sound, not a variant of one."""
    return unicodedata.normalize("NFD", ipa).replace("c\u0327", "ç")


# Positions are part of trained weights: append only.
SYMBOLS: tuple[str, ...] = ("", *(_decomposed(s) for group in _GROUPS for s in group.split()))
_IDS = {symbol: number for number, symbol in enumerate(SYMBOLS)}

VOWELS = frozenset(_IDS[_decomposed(s)] for s in _VOWELS.split())
BILABIALS = frozenset(_IDS[s] for s in "pbm")

# Other ways of writing the same sound, among them the single letters that Kokoro and misaki use.
_ALIASES = {
    "g": "ɡ", "ʦ": "ts", "ʣ": "dz", "ʧ": "tʃ", "ʤ": "dʒ", "ʨ": "tɕ", "ʥ": "dʑ", "ꭧ": "tʂ",
    "A": "eɪ", "I": "aɪ", "O": "oʊ", "W": "aʊ", "Y": "ɔɪ", "Q": "əʊ", "T": "ɾ", "S": "s",
    "ᵊ": "ə", "ᵻ": "ɪ", "ɝ": "ɚ", "ɫ": "l", "ɬ": "l", "ɭ": "l", "ɽ": "ɾ", "ɖ": "d", "ʈ": "t", "ɳ": "n", "c": "k",
    "ɟ": "ɡ", "ɵ": "ø", "ɘ": "ə", "ɞ": "œ", "ɶ": "œ", "ʍ": "w", "ʙ": "b", "ʀ": "ʁ", "ɢ": "ɡ", "ħ": "h", "ʕ": "ʔ",
    "ɓ": "b", "ɗ": "d", "ɠ": "ɡ", "ɺ": "ɾ", "ɮ": "l", "ɿ": "ɨ", "ʅ": "ɨ",
}  # fmt: skip
_LONGEST = max(map(len, SYMBOLS))
_NASAL = "\u0303"


@dataclass(frozen=True)
class Phoneme:
    """A speech sound with its time.

    Attributes:
        symbol: IPA.
        id: its number in the inventory.
        start, end: seconds from the start of the sound.
    """

    symbol: str
    id: int
    start: float
    end: float


@lru_cache(maxsize=4096)
def split_ipa(ipa: str) -> tuple[int, ...]:
    """Ids of the sounds in a piece of IPA; marks and unknown characters are left out.

    The longest symbol wins ("tʃ" is one affricate, "aɪ" two vowels).
    """
    text = "".join(_ALIASES.get(c, c) for c in _decomposed(ipa))
    # A tie bar or a mark between the parts of a symbol must not part them; only the tilde changes a symbol.
    text = "".join(c for c in text if c == _NASAL or not (unicodedata.combining(c) or c in "ʰʲʷˠᵝ"))
    found, position = [], 0
    while position < len(text):
        for size in range(_LONGEST, 0, -1):
            number = _IDS.get(text[position : position + size])
            if number:
                found.append(number)
                break
        position += size
    return tuple(found)


def share_time(ids: Sequence[int], start: float, end: float) -> list[Phoneme]:
    """Phonemes that follow each other in equal parts of a stretch of time, seconds."""
    step = (end - start) / max(1, len(ids))
    return [Phoneme(SYMBOLS[i], i, start + k * step, start + (k + 1) * step) for k, i in enumerate(ids)]


def phoneme_track(phonemes: Sequence[Phoneme], steps: int) -> np.ndarray:
    """Ids (steps,) int64 at 50 Hz: step k has the sound at (k + 0.5) / 50 s, 0 where there is none."""
    track = np.full(steps, SILENCE, np.int64)
    for phoneme in phonemes:
        first, last = (round(t * STEPS_PER_SECOND) for t in (phoneme.start, phoneme.end))
        track[max(first, 0) : max(last, 0)] = phoneme.id
    return track


def steps_around(times: np.ndarray, ramp_s: float) -> tuple[int, int]:
    """First step, and the step after the last one, that `lip_closure` of these frames looks at."""
    around = ramp_s + 1 / STEPS_PER_SECOND
    first = max(0, int((times.min() - around) * STEPS_PER_SECOND))
    return first, max(first, int((times.max() + around) * STEPS_PER_SECOND) + 1)


def lip_closure(met: np.ndarray, first: int, times: np.ndarray, ramp_s: float) -> np.ndarray:
    """How far the lips must be closed (F,), in [0, 1].

    Args:
        met: how surely each step is of p, b or m (T,), in [0, 1], at 50 Hz.
        first: number of the first of these steps, see `steps_around`.
        times: of frames (F,), seconds.
        ramp_s: seconds in which the lips close before the sound and open after it.
    """
    steps = np.flatnonzero(met)
    if not len(steps):
        return np.zeros(len(times))
    centres = (first + steps + 0.5) / STEPS_PER_SECOND
    apart = np.abs(times[:, None] - centres) - 0.5 / STEPS_PER_SECOND
    return (met[steps] * (0.5 + 0.5 * np.cos(np.pi * np.clip(apart / ramp_s, 0.0, 1.0)))).max(axis=1)
