"""HDR pictures as ordinary ones, and back: the networks have only seen ordinary ones."""

from __future__ import annotations

from functools import cache

import numpy as np

from video.types import PQ

# Of SMPTE ST 2084, and the white of a page on an HDR screen (ITU-R BT.2408), cd/m2.
_M1, _M2, _C1, _C2, _C3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
_PEAK, _WHITE = 10_000.0, 203.0
_GAMMA = 2.2
_STEPS = 4096


def to_ordinary(image: np.ndarray, transfer: int) -> np.ndarray:
    """Show PQ pictures as on an ordinary screen; HLG was made to look right there, and all else is ordinary.

    Args:
        image: uint8 RGB as the video has it.
        transfer: H.273 number of its curve.
    """
    if transfer != PQ:
        return image
    signal, shown = _curve()
    table = np.interp(np.arange(256) / 255, signal, shown)
    return np.rint(table * 255).astype(np.uint8)[image]


def from_ordinary(image: np.ndarray, transfer: int) -> np.ndarray:
    """What `to_ordinary` has changed, changed back: uint8 RGB -> float32 in [0, 1] as the video has it."""
    if transfer != PQ:
        return image.astype(np.float32) / 255
    signal, shown = _curve()
    return np.interp(np.arange(256) / 255, shown, signal).astype(np.float32)[image]


@cache
def _curve() -> tuple[np.ndarray, np.ndarray]:
    """Signal of PQ, and what is shown for it, both rising from 0 to 1."""
    signal = np.linspace(0, 1, _STEPS)
    root = signal ** (1 / _M2)
    light = (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1) * _PEAK / _WHITE
    most = _PEAK / _WHITE
    # Reinhard's curve: ordinary light is hardly changed, lamps and reflections are squeezed below white.
    return signal, (light * (1 + light / most**2) / (1 + light)) ** (1 / _GAMMA)
