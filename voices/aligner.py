"""When each phoneme of a known text is spoken: a Viterbi search over the recogniser's log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.phonemes import SILENCE, STEPS_PER_SECOND, SYMBOLS, Phoneme
from utils.helpers import InputError
from utils.stages import stop_point

# States that are followed at a time, about 40 s of speech to each side of the best path: an hour must fit in memory.
_BAND = 2048
_FLOOR = -12.0  # log-probability that a step costs at most: one wrongly heard sound must not bend the whole path


def align_phonemes(log_probabilities: np.ndarray, ids: Sequence[int]) -> tuple[Phoneme, ...]:
    """Times of phonemes that are spoken in this order.

    The states are those of connectionist temporal classification (Graves et al., 2006): a silence, that may be
    skipped, before, between and after the phonemes; each phoneme lasts at least one step.

    Args:
        log_probabilities: (T, phonemes) at 50 Hz, from `PhonemeRecogniser.posteriors`.
        ids: phonemes of the text, without silences.

    Raises:
        InputError: the sound is too short for them.
    """
    if not len(ids):
        return ()
    if len(log_probabilities) < len(ids):
        raise InputError(
            f"The sound ({len(log_probabilities) / STEPS_PER_SECOND:.1f} s) is too short for its text "
            f"({len(ids)} phonemes): give the text that is spoken in it."
        )
    states = np.full(2 * len(ids) + 1, SILENCE)
    states[1::2] = ids
    path = _best_path(np.maximum(log_probabilities, _FLOOR), states)
    phonemes = []
    for number, identity in enumerate(ids):
        first, last = np.searchsorted(path, [2 * number + 1, 2 * number + 2])
        phonemes.append(
            Phoneme(SYMBOLS[identity], int(identity), float(first) / STEPS_PER_SECOND, float(last) / STEPS_PER_SECOND)
        )
    return tuple(phonemes)


def _best_path(scores: np.ndarray, states: np.ndarray) -> np.ndarray:
    """The state (T,) of each step on the best path, never falling."""
    steps, width = len(scores), min(_BAND, len(states))
    moves = np.zeros((steps, width), np.uint8)
    starts = np.zeros(steps, np.int64)
    total = np.full(width, -np.inf, np.float32)
    total[:2] = scores[0, states[:2]]
    for t in range(1, steps):
        stop_point()
        starts[t] = _band_start(starts[t - 1], total, t, steps, len(states))
        total, moves[t] = _advance(total, int(starts[t] - starts[t - 1]), states[starts[t] :][:width])
        total += scores[t, states[starts[t] :][:width]]
    return _trace_back(moves, starts, total, len(states))


def _band_start(start: int, total: np.ndarray, step: int, steps: int, count: int) -> int:
    """Where the band of followed states begins: the best state in its middle, and the end must stay in reach."""
    width = len(total)
    wanted = start + int(np.argmax(total)) - width // 2
    # Each step goes on by two states at most, so the band must not fall behind; it never goes back.
    wanted = max(wanted, count - width - 2 * (steps - 1 - step), start)
    return min(wanted, count - width, start + width - 1)


def _advance(total: np.ndarray, shift: int, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best scores of arriving in each state of the shifted band, and from how many states before (0, 1 or 2)."""
    width = len(total)
    padded = np.full(width + 2 + shift, -np.inf, np.float32)
    padded[2 : 2 + width] = total
    stay, one, two = (padded[2 - back + shift :][:width] for back in (0, 1, 2))
    two = np.where(states == SILENCE, -np.inf, two)
    choices = np.stack([stay, one, two])
    best = choices.argmax(axis=0)
    return choices[best, np.arange(width)], best.astype(np.uint8)


def _trace_back(moves: np.ndarray, starts: np.ndarray, total: np.ndarray, count: int) -> np.ndarray:
    last = count - 1 - int(starts[-1])
    state = count - 1 if last == 0 or total[last] >= total[last - 1] else count - 2
    path = np.empty(len(moves), np.int64)
    for t in range(len(moves) - 1, -1, -1):
        path[t] = state
        state -= int(moves[t, state - starts[t]])
    return path
