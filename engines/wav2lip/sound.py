"""What Wav2Lip hears: 0.2 s of a mel spectrogram from the moment of the frame on, 80 columns a second."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import librosa
import numpy as np

from utils.stages import stop_point

SAMPLE_RATE = 16000
FFT_SIZE, HOP = 800, 200
BANDS, LOWEST_HZ, HIGHEST_HZ = 80, 55, 7600
COLUMNS, COLUMNS_PER_SECOND = 16, 80
PREEMPHASIS = 0.97
SILENCE = -4.0  # the least value, and minus the greatest
_REFERENCE_DB, _RANGE_DB = 20.0, 100.0
_BLOCK = 2048  # columns computed at once, 26 s
_EPSILON = 1e-6  # columns; times are rounded numbers


class MelTrack:
    """A whole sound; only the columns that are asked for are computed.

    Args:
        samples: mono (N,) at 16 kHz, any float type, in [-1, 1].
    """

    ahead: ClassVar[int | None] = None

    def __init__(self, samples: np.ndarray) -> None:
        self._samples = samples
        self._block: tuple[int, np.ndarray] = (-1, np.zeros((BANDS, 0), np.float32))

    def __len__(self) -> int:
        return 1 + len(self._samples) // HOP

    def columns(self, first: int, stop: int) -> np.ndarray:
        """(80, stop - first) float32 in [-4, 4]; silence beyond the ends."""
        parts = []
        while first < stop:
            number = first // _BLOCK
            end = min(stop, (number + 1) * _BLOCK)
            if number != self._block[0]:
                self._block = (number, self._compute(number * _BLOCK, (number + 1) * _BLOCK))
            parts.append(self._block[1][:, first - number * _BLOCK : end - number * _BLOCK])
            first = end
        return np.concatenate(parts, axis=1)

    def frames(self, times: np.ndarray) -> np.ndarray:
        """What is heard at frames, (F, 80, 16) float32; `times` (F,) in seconds.

        As in the original the last windows of a sound are its last 16 columns.
        """
        starts = start_columns(times, len(self))
        return np.stack([self.columns(start, start + COLUMNS) for start in starts])

    def _compute(self, first: int, stop: int) -> np.ndarray:
        stop_point()
        known = min(stop, len(self))
        mel = np.full((BANDS, stop - first), SILENCE, np.float32)
        if known > first:
            mel[:, : known - first] = mel_columns(self._samples, first, known)
        return mel


def start_columns(times: np.ndarray, length: int) -> np.ndarray:
    """The first of the 16 columns (F,) of frames at seconds (F,), in a sound of so many columns."""
    starts = np.floor(np.asarray(times, np.float64) * COLUMNS_PER_SECOND + _EPSILON).astype(np.int64)
    return np.clip(starts, 0, max(length - COLUMNS, 0))


def mel_columns(samples: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Columns (80, stop - first) float32 of a sound; column m is centred at sample 200 m, zeros around the sound."""
    low, high = first * HOP - FFT_SIZE // 2, (stop - 1) * HOP + FFT_SIZE // 2
    piece = np.asarray(samples[max(low - 1, 0) : max(high, 0)], np.float32)
    emphasised = piece.copy()
    emphasised[1:] -= np.float32(PREEMPHASIS) * piece[:-1]
    emphasised = emphasised[1:] if low > 0 else emphasised
    padded = np.pad(emphasised, (max(-low, 0), 0))
    padded = np.pad(padded, (0, high - low - len(padded)))
    spectrum = np.abs(librosa.stft(padded, n_fft=FFT_SIZE, hop_length=HOP, center=False))
    decibels = 20 * np.log10(np.maximum(_filters() @ spectrum, 1e-5)) - _REFERENCE_DB
    scaled = -2 * SILENCE * (decibels + _RANGE_DB) / _RANGE_DB + SILENCE
    return np.clip(scaled, SILENCE, -SILENCE).astype(np.float32)


@lru_cache(maxsize=1)
def _filters() -> np.ndarray:
    return librosa.filters.mel(sr=SAMPLE_RATE, n_fft=FFT_SIZE, n_mels=BANDS, fmin=LOWEST_HZ, fmax=HIGHEST_HZ)
