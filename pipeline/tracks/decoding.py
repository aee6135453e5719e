"""From what a phoneme recogniser hears in each step to sounds with times, where nobody knows the text."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from models.phonemes import BILABIALS, SILENCE, STEPS_PER_SECOND, SYMBOLS, VOWELS, Phoneme
from utils.stages import stop_point

_FLOOR = -9.0  # log-probability that a step costs at most
_CHANGE = 1.5  # what going over to another sound costs, so that a single odd step makes none
_LIPS_BONUS = 2.0  # of p, b and m: lips that miss one are seen, one too many in a stop or a nasal hardly is
_OWN_SHARE = 0.1  # how much it counts which of the three it is
_LEAST_LIPS = 3  # steps of p, b and m that vowels beside them leave alone
_EARLIER, _LATER = 8, 3  # steps around speech that may belong to it: it is noticed late, and a first m is quiet
_CHECK_EVERY = 2000  # steps


def decode(log_probabilities: np.ndarray, active: np.ndarray | None = None) -> tuple[Phoneme, ...]:
    """The most likely sequence of sounds (Viterbi; staying is free, each change costs the same).

    Args:
        log_probabilities: (T, phonemes) at 50 Hz, from `PhonemeRecogniser.posteriors`, any float type.
        active: (T,) whether somebody speaks; elsewhere there is silence. None = always.
    """
    if not len(log_probabilities):
        return ()
    path = _best_path(_lips_first(log_probabilities), None if active is None else _widened(active))
    path = _vowels_beside_lips(log_probabilities, path)
    edges = np.flatnonzero(np.diff(path, prepend=-1, append=-1))
    times = _edge_times(log_probabilities, path, edges)
    found = []
    for start, end, first in zip(times, times[1:], edges, strict=False):
        if (identity := int(path[first])) != SILENCE:
            found.append(Phoneme(SYMBOLS[identity], identity, float(start), float(end)))
    return tuple(found)


def _widened(active: np.ndarray) -> np.ndarray:
    """Steps (T,) bool that are active or near to active ones."""
    total = np.concatenate([[0], np.cumsum(active)])
    steps = np.arange(len(active))
    high, low = np.minimum(steps + _EARLIER + 1, len(active)), np.maximum(steps - _LATER, 0)
    return total[high] > total[low]


def _lips_first(heard: np.ndarray) -> np.ndarray:
    """The same, where each of p, b and m has the chance of all three, and more than heard where no vowel is heard."""
    lips, wanted = sorted(BILABIALS), heard.astype(np.float32)
    together = np.logaddexp.reduce(wanted[:, lips], axis=1, keepdims=True)
    vowels = np.exp(wanted[:, sorted(VOWELS)]).sum(axis=1, keepdims=True)
    share = wanted[:, lips] - together
    wanted[:, lips] = together + _LIPS_BONUS * np.clip(1 - vowels, 0, 1) + _OWN_SHARE * share
    return wanted


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


def _vowels_beside_lips(heard: np.ndarray, path: np.ndarray) -> np.ndarray:
    """The path (T,) without steps at the edges of p, b and m in which vowels, taken together, are likelier than lips.

    No single vowel may be: their chance is shared by thirty of them. Lips keep at least `_LEAST_LIPS` steps.
    """
    vowels = sorted(VOWELS)
    chance = np.exp(heard[:, vowels].astype(np.float32))
    is_vowel = chance.sum(axis=1) > np.exp(heard[:, sorted(BILABIALS)].astype(np.float32)).sum(axis=1)
    found = path.copy()
    edges = np.flatnonzero(np.diff(path, prepend=-1, append=-1))
    for start, end in pairwise(edges):
        if int(path[start]) not in BILABIALS:
            continue
        last, first = end, start
        while last > start + _LEAST_LIPS and is_vowel[last - 1]:
            last -= 1
        while first < last - _LEAST_LIPS and is_vowel[first]:
            first += 1
        for part, beside in ((slice(start, first), start - 1), (slice(last, end), end)):
            if part.start < part.stop:
                near = int(path[beside]) if 0 <= beside < len(path) else SILENCE
                found[part] = near if near in VOWELS else vowels[int(chance[part].sum(axis=0).argmax())]
    return found


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
