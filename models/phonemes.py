"""One inventory of speech sounds for all languages, and a network that hears them in the speech features.

Symbols are those of the International Phonetic Alphabet. Length, stress, tone and secondary articulation are left
out: the lips hardly show them. A diphthong is two symbols, an affricate is one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

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


class PhonemeRecogniser(ModelMixin, ConfigMixin):
    """Which phoneme is heard at each step: a few convolutions over the frozen speech features.

    Args:
        feature_layers: hidden states of the speech encoder in a step.
        feature_width: numbers in a hidden state.
        width: channels.
        blocks: residual convolutions over 5 steps, each with twice the spacing of the one before.
        phonemes: size of the inventory.
        dropout: fraction of channels dropped.
    """

    @register_to_config
    def __init__(
        self,
        feature_layers: int = 5,
        feature_width: int = 384,
        width: int = 192,
        blocks: int = 3,
        phonemes: int = INVENTORY_SIZE,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.mix = nn.Linear(feature_layers * feature_width, width)
        self.stack = nn.ModuleList(_Block(width, 2**k, dropout) for k in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, phonemes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Speech features (B, T, layers, width) at 50 Hz -> log-probabilities (B, T, phonemes)."""
        hidden = self.mix(features.flatten(2))
        for block in self.stack:
            hidden = block(hidden)
        return F.log_softmax(self.head(self.norm(hidden)).float(), dim=-1)

    @torch.inference_mode()
    def posteriors(self, features: np.ndarray, chunk: int = 3000) -> np.ndarray:
        """Log-probabilities (T, phonemes) float32 of one sound's features (T, layers, width), in bounded memory."""
        context = 2 ** (len(self.stack) + 1)
        parts = [np.zeros((0, self.config.phonemes), np.float32)]
        for start in range(0, len(features), chunk):
            low, high = max(0, start - context), min(len(features), start + chunk + context)
            piece = torch.as_tensor(np.asarray(features[low:high], np.float32), device=self.device)
            found = self(piece[None])[0].cpu().numpy()
            parts.append(found[start - low : start - low + chunk])
        return np.concatenate(parts)


class _Block(nn.Module):
    def __init__(self, width: int, spacing: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, 5, padding=2 * spacing, dilation=spacing)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        mixed = self.conv(self.norm(hidden).transpose(1, 2)).transpose(1, 2)
        return hidden + self.dropout(self.out(F.gelu(mixed)))
