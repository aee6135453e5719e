"""Altered copies of a sound whose timing stays: other pitch, level, tone, noise and room.

The speech features are computed once, before training, so the alterations that make the model indifferent to voice and
recording have to happen here.
"""

from __future__ import annotations

import librosa
import numpy as np
from scipy.signal import butter, fftconvolve, sosfilt


def speech_variants(samples: np.ndarray, rate: int, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The sound as it is, then ``count - 1`` altered copies of the same length.

    Args:
        samples: mono float32 (N,) in [-1, 1].
        rate: samples per second.
        count: number of copies in all, at least 1.
        rng: source of chance; the same state gives the same copies.
    """
    return [samples] + [_alter(samples, rate, rng) for _ in range(count - 1)]


def _alter(samples: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    altered = librosa.effects.pitch_shift(samples, sr=rate, n_steps=float(rng.uniform(-4, 4)), n_fft=1024)
    if rng.random() < 0.5:
        altered = _tone(altered, rate, rng)
    if rng.random() < 0.4:
        altered = _room(altered, rate, rng)
    if rng.random() < 0.6:
        altered = _noise(altered, rng)
    altered = altered * 10 ** (rng.uniform(-12, 6) / 20)
    return np.clip(altered, -1.0, 1.0).astype(np.float32)


def _tone(samples: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """A telephone's or a muffled microphone's band."""
    low, high = rng.uniform(60, 300), rng.uniform(2500, 7000)
    return sosfilt(butter(2, (low, high), "bandpass", fs=rate, output="sos"), samples)


def _room(samples: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Reverberation by an exponentially decaying noise tail of 0.1 to 0.4 s."""
    length = int(rate * rng.uniform(0.1, 0.4))
    tail = rng.standard_normal(length) * np.exp(-np.linspace(0, 6, length))
    tail[0] = 0.0
    wet = fftconvolve(samples, tail)[: len(samples)]
    level = np.std(wet) / max(float(np.std(samples)), 1e-6)
    return samples + wet * rng.uniform(0.1, 0.4) / max(level, 1e-6)


def _noise(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White to brown noise at 5 to 30 dB below the speech."""
    spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** rng.uniform(0.0, 1.0)
    noise = np.fft.irfft(spectrum, len(samples))
    level = np.std(samples) * 10 ** (-rng.uniform(5, 30) / 20)
    return samples + noise * level / max(float(np.std(noise)), 1e-9)
