"""From what a phoneme recogniser hears in each step to sounds with times, where nobody knows the text."""

from __future__ import annotations

import numpy as np

from models.phonemes import SILENCE, STEPS_PER_SECOND, SYMBOLS, Phoneme
from utils.stages import stop_point

_FLOOR = -9.0  # log-probability that a step costs at most
_CHANGE = 2.0  # what going over to another sound costs, so that a single odd step makes none
_CHECK_EVERY = 2000  # steps


def decode(log_probabilities: np.ndarray, active: np.ndarray | None = None) -> tuple[Phoneme, ...]:
    """The most likely sequence of sounds (Viterbi; staying is free, each change costs the same).

    Args:
        log_probabilities: (T, phonemes) at 50 Hz, from `PhonemeRecogniser.posteriors`, any float type.
        active: (T,) whether somebody speaks; elsewhere there is silence. None = always.
    """
    if not len(log_probabilities):
        return ()
    path = _best_path(log_probabilities, active)
    edges = np.flatnonzero(np.diff(path, prepend=-1, append=-1))
    times = _edge_times(log_probabilities, path, edges)
    found = []
    for start, end, first in zip(times, times[1:], edges, strict=False):
        if (identity := int(path[first])) != SILENCE:
            found.append(Phoneme(SYMBOLS[identity], identity, float(start), float(end)))
    return tuple(found)


def _best_path(heard: np.ndarray, active: np.ndarray | None) -> np.ndarray:
    """The sound (T,) of each step."""
    count = min(heard.shape[1], len(SYMBOLS))
    total = np.zeros(count)
    back = np.zeros((len(heard), count), np.uint8)
    for step, row in enumerate(heard):
        if step % _CHECK_EVERY == 0:
            stop_point()
        best = int(total.argmax())
        changed = total[best] - _CHANGE > total
        back[step] = np.where(changed, best, np.arange(count))
        total = np.where(changed, total[best] - _CHANGE, total) + np.maximum(row[:count].astype(np.float64), _FLOOR)
        if active is not None and not active[step]:
            total[np.arange(count) != SILENCE] -= -_FLOOR
        total -= total.max()
    path = np.empty(len(heard), np.int64)
    state = int(total.argmax())
    for step in range(len(heard) - 1, -1, -1):
        path[step] = state
        state = int(back[step, state])
    return path


def _edge_times(heard: np.ndarray, path: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Seconds of the first step of each run (and of the end); between two sounds, where they are equally likely."""
    times = edges / STEPS_PER_SECOND
    for number in range(1, len(edges) - 1):
        step = edges[number]
        before, after = path[step - 1], path[step]
        lead = [float(heard[at, after]) - float(heard[at, before]) for at in (step - 1, step)]
        if lead[0] < 0 < lead[1]:
            times[number] += (lead[0] / (lead[0] - lead[1]) - 0.5) / STEPS_PER_SECOND
    return times
