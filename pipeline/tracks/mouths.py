"""Which mouth a speech sound has: Rhubarb's shapes, and where lips and jaw are.

Rhubarb's own rules (its file animationRules.cpp says for each English sound which shapes fit) are written here for the
sounds of all languages. Most consonants fit several shapes: of those the sequence is taken that needs the least
movement, with a slight preference for the first one. So an s beside "oo" is rounded and one beside "ee" is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from models.phonemes import BILABIALS, SYMBOLS, VOWELS, Phoneme
from pipeline.track import SHAPES, Cue, joined

FEATURES = ("opening", "width", "protrusion", "jaw")
"""Columns of an articulation, see `pipeline.track.Curves`."""

OF_SHAPE = {
    "A": (0.0, 0.0, 0.0, 0.06), "B": (0.2, 0.3, 0.0, 0.14), "C": (0.6, 0.2, 0.0, 0.5), "D": (1.0, 0.1, 0.0, 0.9),
    "E": (0.5, -0.35, 0.4, 0.42), "F": (0.25, -0.8, 0.9, 0.2), "G": (0.08, 0.1, 0.0, 0.1),
    "H": (0.6, 0.1, 0.0, 0.45), "X": (0.0, 0.0, 0.0, 0.0),
}  # fmt: skip
"""Shape -> articulation."""

_SHAPES_OF = {
    "A": "p b m", "G": "ɱ f v pf ʋ", "F": "w ɥ u ʊ y ʏ ʉ ɸ", "B": "i ɪ ɨ ɯ ɕ ʑ tɕ dʑ ç ʝ β", "C": "e ɛ æ ɤ ɛ̃",
    "D": "a ɑ ɑ̃", "E": "o ɔ ɒ ɔ̃ ø œ œ̃ ɚ ɜ", "BF": "t d s z ts dz θ ð ʃ ʒ ʂ ʐ tʃ dʒ tʂ dʐ", "BCEFH": "k ɡ q",
    "BCFH": "n ɲ", "BCEF": "ŋ ɴ x ɣ χ ʁ", "BCDEF": "h ɦ ʔ", "BEFH": "l ʎ", "BEF": "r ɾ ɹ ɻ", "BCF": "j ɰ",
    "BC": "ə", "CD": "ʌ ɐ",
}  # fmt: skip
_ARTICULATIONS = {
    (0.2, 0.9, 0.0, 0.12): "i j", (0.28, 0.6, 0.0, 0.2): "ɪ ɨ ɕ ʑ tɕ dʑ ç ʝ", (0.2, 0.35, 0.0, 0.1): "s z ts dz",
    (0.25, -0.35, 0.65, 0.14): "ʃ ʒ tʃ dʒ ʂ ʐ tʂ dʐ", (0.3, -0.3, 0.4, 0.22): "ɹ ɻ",
    (0.18, -0.9, 1.0, 0.15): "u w", (0.3, -0.6, 0.7, 0.25): "ʊ", (0.2, -0.7, 0.9, 0.15): "y ʏ ɥ",
    (0.45, -0.55, 0.65, 0.35): "o ɔ̃", (0.6, -0.35, 0.4, 0.5): "ɔ ɒ", (0.45, 0.5, 0.0, 0.35): "e",
    (0.6, 0.4, 0.0, 0.5): "ɛ ɛ̃", (0.8, 0.4, 0.0, 0.7): "æ", (0.35, 0.0, 0.0, 0.28): "ə", (0.25, 0.4, 0.0, 0.18): "ɯ",
    (0.06, 0.0, 0.1, 0.1): "β ɸ",
}  # fmt: skip
_LONG_L_S, _LONG_SCHWA_S = 0.2, 0.2
_PREFERENCE = 0.25  # of each place behind in the list, in units of movement
_VOWEL_S, _LIPS_S = 0.07, 0.05  # a vowel beside lips is to last so long, if that much is left to p, b and m
_PAUSE_S = 0.08  # a shorter one between two sounds belongs to both


def _by_symbol(table: dict) -> dict:
    from models.phonemes import split_ipa

    return {SYMBOLS[split_ipa(symbol)[0]]: value for value, symbols in table.items() for symbol in symbols.split()}


_ALLOWED, _ARTICULATION = _by_symbol(_SHAPES_OF), _by_symbol(_ARTICULATIONS)
_PLACES = np.array([OF_SHAPE[shape] for shape in SHAPES])
_EFFORT = np.abs(_PLACES[:, None, :3] - _PLACES[None, :, :3]).sum(axis=2)


def segments(phonemes: Sequence[Phoneme], duration: float) -> list[Phoneme]:
    """Sounds and pauses (id 0) from 0 to the end without a gap; very short pauses are shared by their neighbours."""
    found: list[Phoneme] = []
    now = 0.0
    for phoneme in phonemes:
        start, end = max(phoneme.start, now), min(phoneme.end, duration)
        if end <= start:
            continue
        if start - now >= _PAUSE_S:
            found.append(Phoneme("", 0, now, start))
        elif not found:
            start = 0.0
        elif start > now:
            middle = (now + start) / 2
            found[-1], start = Phoneme(found[-1].symbol, found[-1].id, found[-1].start, middle), middle
        found.append(Phoneme(phoneme.symbol, phoneme.id, start, end))
        now = end
    if now < duration or not found:
        found.append(Phoneme("", 0, now, max(duration, now)))
    return found


def with_open_vowels(parts: Sequence[Phoneme]) -> list[Phoneme]:
    """The same, where a very short vowel takes time from p, b and m beside it.

    Nasals and closures that are found in a sound spread over short vowels, and a vowel of 20 ms is hardly ever spoken:
    the mouth would stay closed in it.
    """
    edges = [part.start for part in parts] + [part.end for part in parts[-1:]]
    for number, part in enumerate(parts):
        missing = _VOWEL_S - (edges[number + 1] - edges[number])
        if part.id not in VOWELS or missing <= 0:
            continue
        lips = [0 <= other < len(parts) and parts[other].id in BILABIALS for other in (number - 1, number + 1)]
        spare = [
            max(edges[first + 1] - edges[first] - _LIPS_S, 0.0) if there else 0.0
            for first, there in zip((number - 1, number + 1), lips, strict=True)
        ]
        taken = min(1.0, missing / max(sum(spare), missing))
        edges[number] -= taken * spare[0]
        edges[number + 1] += taken * spare[1]
    return [Phoneme(p.symbol, p.id, *edge) for p, edge in zip(parts, pairwise(edges), strict=True)]


def allowed_shapes(phoneme: Phoneme) -> str:
    """Which of Rhubarb's shapes fit a sound, the most usual first; X for a pause."""
    if not phoneme.id:
        return "X"
    length = phoneme.end - phoneme.start
    if phoneme.symbol in ("l", "ʎ") and length >= _LONG_L_S:
        return "H"
    shapes = _ALLOWED[phoneme.symbol]
    return shapes[::-1] if shapes == "CD" and length >= _LONG_SCHWA_S else shapes


def chosen_shapes(parts: Sequence[Phoneme]) -> list[int]:
    """Numbers in `SHAPES` of the mouths of sounds and pauses that follow each other, with the least movement."""
    choices = [np.array([SHAPES.index(shape) for shape in allowed_shapes(part)]) for part in parts]
    totals, ways = _PREFERENCE * np.arange(len(choices[0])), []
    for before, now in zip(choices, choices[1:], strict=False):
        costs = totals[:, None] + _EFFORT[np.ix_(before, now)]
        ways.append(costs.argmin(axis=0))
        totals = costs.min(axis=0) + _PREFERENCE * np.arange(len(now))
    place = int(totals.argmin())
    found = [int(choices[-1][place])]
    for choice, way in zip(choices[-2::-1], ways[::-1], strict=True):
        place = int(way[place])
        found.append(int(choice[place]))
    return found[::-1]


def cues_of(parts: Sequence[Phoneme], shapes: Sequence[int]) -> tuple[Cue, ...]:
    """The shapes as cues; neighbours that are alike are one."""
    pairs = zip(parts, shapes, strict=True)
    return joined([Cue(SHAPES[shape], part.start, part.end) for part, shape in pairs])


def articulations(parts: Sequence[Phoneme], shapes: Sequence[int]) -> np.ndarray:
    """Where lips and jaw go at each sound or pause (N, 4), see `FEATURES`."""
    pairs = zip(parts, shapes, strict=True)
    return np.array([_ARTICULATION.get(part.symbol, OF_SHAPE[SHAPES[shape]]) for part, shape in pairs])
