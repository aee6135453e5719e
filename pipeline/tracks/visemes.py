"""Other sets of mouths: the 15 visemes of Oculus (Meta), VRM's five vowels, and those of Adobe Character Animator.

Each is a table from speech sounds to weights, blended over time as Rhubarb's shapes are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from models.phonemes import SYMBOLS, split_ipa
from pipeline.track import SHAPES, Track
from pipeline.tracks.blending import blended, closed, closures
from pipeline.tracks.mouths import segments

OCULUS = ("sil", "PP", "FF", "TH", "DD", "kk", "CH", "SS", "nn", "RR", "aa", "E", "ih", "oh", "ou")
VRM = ("aa", "ih", "ou", "ee", "oh")
ADOBE = ("Neutral", "M", "F", "D", "L", "R", "S", "Aa", "Ee", "Uh", "Oh", "W-Oo")

_OCULUS = {
    "PP": "p b m", "FF": "f v ɱ pf ʋ ɸ β", "TH": "θ ð", "DD": "t d", "kk": "k ɡ q x ɣ χ ʁ ŋ ɴ h ɦ ʔ ɰ",
    "CH": "ʃ ʒ ʂ ʐ ɕ ʑ tʃ dʒ tʂ dʐ tɕ dʑ ç ʝ", "SS": "s z ts dz", "nn": "n ɲ l ʎ", "RR": "r ɾ ɹ ɻ ɚ ɜ",
    "aa": "a ɑ ɑ̃ æ ʌ ɐ", "E": "e ɛ ɛ̃ ə ɤ œ œ̃", "ih": "i ɪ ɨ ɯ j", "oh": "o ɔ ɔ̃ ɒ ø", "ou": "u ʊ ʉ y ʏ w ɥ",
}  # fmt: skip
_ADOBE = {
    "M": "p b m", "F": "f v ɱ pf ʋ ɸ β", "D": "t d n ɲ k ɡ q ŋ ɴ θ ð x ɣ χ ʁ", "L": "l ʎ", "R": "r ɾ ɹ ɻ ɚ ɜ",
    "S": "s z ts dz ʃ ʒ ʂ ʐ ɕ ʑ tʃ dʒ tʂ dʐ tɕ dʑ ç ʝ", "Aa": "a ɑ ɑ̃ æ ɛ ɛ̃", "Ee": "i ɪ ɨ ɯ e j", "Oh": "o ɔ ɔ̃ ɒ",
    "Uh": "ə ʌ ɐ ɤ œ œ̃ ø h ɦ ʔ ɰ", "W-Oo": "u ʊ ʉ y ʏ w ɥ",
}  # fmt: skip
_VOWELS = {
    (1.0, 0, 0, 0, 0): "a ɑ ɑ̃", (0.8, 0, 0, 0, 0): "ʌ ɐ", (0.6, 0, 0, 0.4, 0): "æ", (0, 1.0, 0, 0, 0): "i j",
    (0, 0.7, 0, 0.2, 0): "ɪ", (0, 0.6, 0.2, 0, 0): "ɨ ɯ", (0, 0, 1.0, 0, 0): "u w", (0, 0, 0.8, 0, 0): "ʊ ʉ",
    (0, 0.25, 0.75, 0, 0): "y ʏ ɥ", (0, 0, 0, 1.0, 0): "e ɛ ɛ̃", (0.2, 0, 0, 0.4, 0): "ə ɤ h ɦ ʔ",
    (0, 0, 0, 0.2, 0.6): "ø œ œ̃ ɚ ɜ", (0, 0, 0, 0, 1.0): "o ɔ ɔ̃ ɒ", (0, 0.3, 0, 0, 0): "s z ts dz ɕ ʑ tɕ dʑ ç ʝ t d",
    (0, 0, 0.4, 0, 0): "ʃ ʒ ʂ ʐ tʃ dʒ tʂ dʐ ɹ ɻ", (0, 0.15, 0, 0.2, 0): "n ɲ l ʎ k ɡ q ŋ ɴ x ɣ χ ʁ r ɾ ɰ θ ð",
}  # fmt: skip
_OCULUS_OF_SHAPE = ("PP", "DD", "E", "aa", "oh", "ou", "FF", "nn", "sil")
_VOWELS_OF_SHAPE = ((0,) * 5, (0, 0.4, 0, 0, 0), (0, 0, 0, 0.8, 0), (1.0, 0, 0, 0, 0), (0, 0, 0, 0, 0.8),
                    (0, 0, 0.9, 0, 0), (0,) * 5, (0.2, 0, 0, 0.4, 0), (0,) * 5)  # fmt: skip
_ADOBE_OF_SHAPE = ("M", "D", "Aa", "Aa", "Oh", "W-Oo", "F", "L", "Neutral")


def _symbols(table: Mapping) -> dict:
    return {SYMBOLS[split_ipa(symbol)[0]]: value for value, symbols in table.items() for symbol in symbols.split()}


def _one_of(names: tuple[str, ...], name: str) -> np.ndarray:
    return np.eye(len(names))[names.index(name)]


def oculus_weights(track: Track) -> np.ndarray:
    """Weights (F, 15) in the order of `OCULUS`; each row adds up to 1."""
    table = {symbol: _one_of(OCULUS, name) for symbol, name in _symbols(_OCULUS).items()}
    rest, shapes = _one_of(OCULUS, "sil"), np.array([_one_of(OCULUS, name) for name in _OCULUS_OF_SHAPE])
    weights = _weights(track, table, rest, shapes)
    if track.phonemes:
        weights = closed(weights, _shut(track), OCULUS.index("PP"))
    weights = weights * min(track.options.strength, 1.0)
    weights[:, 0] += 1.0 - weights.sum(axis=1)
    return weights


def vrm_weights(track: Track) -> np.ndarray:
    """Weights (F, 5) in [0, 1] of `VRM`'s vowels; all 0 where the mouth is closed."""
    table = {symbol: np.array(vowel, float) for symbol, vowel in _symbols(_VOWELS).items()}
    weights = _weights(track, table, np.zeros(len(VRM)), np.array(_VOWELS_OF_SHAPE, float))
    if track.phonemes:
        weights = weights * (1.0 - _shut(track))[:, None]
    return np.clip(weights * track.options.strength, 0.0, 1.0)


def adobe_visemes(track: Track) -> list[tuple[str, float, float]]:
    """Names of `ADOBE` from when to when, seconds, without a gap."""
    if track.phonemes:
        names = _symbols(_ADOBE)
        parts = segments(track.phonemes, track.duration)
        spans = [(names.get(part.symbol, "Neutral"), part.start, part.end) for part in parts]
    else:
        spans = [(_ADOBE_OF_SHAPE[SHAPES.index(cue.shape)], cue.start, cue.end) for cue in track.cues]
    found: list[tuple[str, float, float]] = []
    for name, start, end in spans:
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1], end)
        else:
            found.append((name, start, end))
    return found


def _weights(track: Track, table: Mapping[str, np.ndarray], rest: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """Weights (F, V) of a set of mouths: by the sounds where they are known, else by Rhubarb's shapes (9, V)."""
    if not track.phonemes:
        return track.weights @ shapes
    parts = segments(track.phonemes, track.duration)
    values = np.array([table.get(part.symbol, rest) for part in parts])
    return blended(np.array([part.end for part in parts[:-1]]), values, track.times, track.options.smooth)


def _shut(track: Track) -> np.ndarray:
    return closures(segments(track.phonemes, track.duration), track.times, track.options.smooth)
