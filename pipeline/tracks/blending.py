"""Co-articulation: what is meant for each sound flows into that of its neighbours, and lips close where they must."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.phonemes import BILABIALS, Phoneme

_LEAST_RAMP_S = 1e-3
_LOOSE_S, _LOOSE = 0.03, 0.4  # lips begin to part so long before the end of their sound, at most this part of it


def blended(bounds: np.ndarray, values: np.ndarray, times: np.ndarray, smooth: float) -> np.ndarray:
    """Steps from value to value, smoothed by a raised cosine.

    A sound shorter than the smoothing is never fully reached, and its neighbours are heard in it, as in speech. Rows
    that add up to one go on adding up to one.

    Args:
        bounds: where one value ends and the next begins (N - 1,), seconds, rising.
        values: (N, V).
        times: of frames (F,), seconds, rising.
        smooth: half of the time of a change, seconds; 0 = at once.

    Returns:
        (F, V) float64.
    """
    result = np.zeros((len(times), values.shape[1]))
    whole = np.zeros((len(times) + 1, values.shape[1]))  # changes that are over, added up at the end
    whole[0] = values[0]
    reach = max(smooth, _LEAST_RAMP_S)
    firsts, lasts = np.searchsorted(times, bounds - reach), np.searchsorted(times, bounds + reach)
    changes = np.diff(values, axis=0)
    for bound, change, first, last in zip(bounds, changes, firsts, lasts, strict=True):
        part = (times[first:last] - bound) / reach
        result[first:last] += (0.5 * (1 + part + np.sin(np.pi * part) / np.pi))[:, None] * change
        whole[last] += change
    return np.clip(result + np.cumsum(whole[:-1], axis=0), values.min(axis=0), values.max(axis=0))  # rounding


def closures(parts: Sequence[Phoneme], times: np.ndarray, smooth: float) -> np.ndarray:
    """How far the lips must be closed (F,) in [0, 1], by p, b and m alone.

    At least one frame of each of them has 1, however short it is: the frame nearest to its middle. The lips close and
    open about the edges of their sound, as all mouths change about them, and not beyond the middle of its neighbours:
    times that are found in a sound are often wrong by half a short vowel, which would be closed else.

    Args:
        parts: sounds and pauses without a gap, see `pipeline.tracks.mouths.segments`.
        times: of frames (F,), seconds, rising.
        smooth: time of closing and of opening, seconds.
    """
    amount = np.zeros(len(times))
    for number, part in enumerate(parts):
        if part.id not in BILABIALS or not len(times):
            continue
        before, after = (_ramp(parts, number + side, smooth) for side in (-1, 1))
        loose = min(_LOOSE_S, _LOOSE * (part.end - part.start))
        first, last = np.searchsorted(times, (part.start - before, part.end + after))
        near = times[first:last]
        rise = (near - part.start + before) / (before + loose)
        fall = (part.end + after - near) / (after + loose)
        level = np.clip(np.minimum(rise, fall), 0.0, 1.0)
        amount[first:last] = np.maximum(amount[first:last], 0.5 - 0.5 * np.cos(np.pi * level))
        amount[_nearest(times, (part.start + part.end) / 2)] = 1.0
    return amount


def closed(weights: np.ndarray, amount: np.ndarray, shape: int) -> np.ndarray:
    """Weights (F, V), rows adding up to 1, in which column `shape` has at least `amount` (F,) of the whole."""
    before = weights[:, shape]
    share = np.maximum(before, amount)
    kept = weights * ((1.0 - share) / np.maximum(1.0 - before, 1e-9))[:, None]
    kept[:, shape] = share
    return kept


def _ramp(parts: Sequence[Phoneme], number: int, smooth: float) -> float:
    """Time that lips may take from a neighbour, seconds."""
    if not 0 <= number < len(parts):
        return max(smooth, _LEAST_RAMP_S)
    return max(min(smooth, (parts[number].end - parts[number].start) / 2), _LEAST_RAMP_S)


def _nearest(times: np.ndarray, time: float) -> int:
    after = int(np.clip(np.searchsorted(times, time), 1, max(len(times) - 1, 1)))
    if after >= len(times):
        return len(times) - 1
    return after if times[after] - time < time - times[after - 1] else after - 1
