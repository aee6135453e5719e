"""Cross-fades from one scene into another (dissolves), seen in small grey pictures.

In a dissolve every picture is a mix of the one before it and the one after it, and the share of the second grows
evenly; whatever moves in a scene, or a camera that turns, fits no such mix. Light that comes or goes is none: it keeps
the structure of the picture.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.pictures import picture_of

_WINDOWS_S = (0.6, 1.0, 1.4, 1.9)  # looked at: a dissolve with a little of both scenes around it
_SHORTEST_S, _LONGEST_S = 0.2, 1.6
_AROUND = 4  # pictures of each scene that must be seen beside it
_STEADY = 0.4  # of an even step, by which the share may change there
_PURE = 0.08  # share of the other scene up to which a picture is of one
_UNLIKE = 0.35  # 1 - correlation of the two scenes
_PLAIN = 6.0  # grey levels of spread up to which a picture shows nothing
_MOST_LEFT = 0.3  # of a picture that the mix does not explain, in parts of the difference between the scenes
_LEAST_EVEN, _MOST_EVEN = 0.1, 2.2  # steps of the share, in even ones
_CALM = 5.0  # grey levels of change within `_LOOK_BACK` pictures up to which no dissolve begins
_LOOK_BACK = 5
_DELAY = 8  # pictures that always wait, so that the start of a dissolve is not gone when it is noticed
_HELD_BYTES = 128 * 2**20  # of pictures that wait


@dataclass(eq=False)
class Seen:
    """A frame among others.

    Attributes:
        frame: as given.
        small: float32 (N,), its small grey picture.
        cut: it begins a scene.
        mixed: it shows two scenes at once.
    """

    frame: Any
    small: np.ndarray
    cut: bool
    mixed: bool = False


@dataclass(eq=False)
class _Glance:
    """What is kept of a frame for nearly two seconds: its time and small picture, by how many grey levels that has
    changed since some frames before, and the frame itself only as long as it waits."""

    time: float
    small: np.ndarray
    change: float
    seen: Seen | None


def with_dissolves(frames: Iterable[Seen]) -> Iterator[Seen]:
    """Yield every frame, in order; those within a dissolve are marked as mixed, and the first one after it as a cut.

    Some frames are waited for, and nearly two seconds of them (or 128 MB) where the picture changes.
    """
    held: deque[_Glance] = deque()
    recent: deque[_Glance] = deque()  # of the scene, also those whose frames are gone
    for seen in frames:
        if seen.cut:
            yield from (_released(held) for _ in range(len(held)))
            recent.clear()
        before = recent[-_LOOK_BACK].small if len(recent) >= _LOOK_BACK else seen.small
        held.append(_Glance(seen.frame.time, seen.small, float(np.abs(seen.small - before).mean()), seen))
        recent.append(held[-1])
        while recent[-1].time - recent[0].time > _WINDOWS_S[-1] + 1e-6:
            recent.popleft()
        if (begins := _mark(recent)) is not None:
            while recent[0] is not begins:
                recent.popleft()
        while len(held) > _may_wait(seen, recent):
            yield _released(held)
    yield from (_released(held) for _ in range(len(held)))


def _released(held: deque[_Glance]) -> Seen:
    """The frame that has waited longest."""
    glance = held.popleft()
    seen, glance.seen = glance.seen, None
    return seen


def _may_wait(seen: Seen, recent: deque[_Glance]) -> int:
    """How many frames wait for what comes."""
    height, width = picture_of(seen.frame).shape
    room = max(1, int(_HELD_BYTES / (1.5 * height * width)))
    changes = any(glance.change > _CALM for glance in itertools.islice(reversed(recent), _DELAY))
    return min(room, len(recent) if changes else _DELAY)


def _mark(recent: deque[_Glance]) -> _Glance | None:
    """Mark the dissolve that has just ended, if one has; the first frame after it."""
    last = recent[-1]
    for length in _WINDOWS_S:
        if last.time - recent[0].time < length - 0.1:
            return None
        window = [glance for glance in recent if last.time - glance.time <= length + 1e-6]
        if not _unlike(window[0].small, last.small, _UNLIKE / 2):
            continue  # nearly always; a glance before the work
        found = mixed_part(np.stack([glance.small for glance in window]), np.array([glance.time for glance in window]))
        if found is not None:
            for seen in (glance.seen for glance in window[found]):
                if seen is not None:
                    seen.mixed = True
            if window[found.stop].seen is not None:
                window[found.stop].seen.cut = True
            return window[found.stop]
    return None


def mixed_part(small: np.ndarray, times: np.ndarray) -> slice | None:
    """Which pictures are mixes of those before and those after them; None: these are no pictures of a dissolve.

    Args:
        small: float32 (T, N), grey pictures, 0 to 255.
        times: seconds (T,).
    """
    if len(small) < 2 * _AROUND + 3:
        return None
    before, after = small[:_AROUND].mean(0), small[-_AROUND:].mean(0)
    if not _unlike(before, after, _UNLIKE):
        return None
    change = after - before
    share = (small - before) @ change / (change @ change)
    inside = np.flatnonzero((share > _PURE) & (share < 1 - _PURE))
    if len(inside) < 3 or inside[0] < _AROUND or inside[-1] >= len(small) - _AROUND:
        return None
    part = slice(int(inside[0]), int(inside[-1]) + 1)
    if not _SHORTEST_S <= times[part.stop] - times[part.start - 1] <= _LONGEST_S:
        return None
    steps = np.diff(share[part.start - 1 : part.stop + 1]) * (part.stop + 1 - part.start)  # 1 = even
    drift = max(abs(share[_AROUND - 1] - share[0]), abs(share[-1] - share[-_AROUND])) / (_AROUND - 1)
    if steps.min() < _LEAST_EVEN or steps.max() > _MOST_EVEN or drift > _STEADY / len(steps):
        return None
    rest = np.abs(small[part] - before - share[part, None] * change).mean(1)
    return part if rest.max() < _MOST_LEFT * np.abs(change).mean() else None


def _unlike(one: np.ndarray, other: np.ndarray, least: float) -> bool:
    """Two pictures show something, and their structure differs by so much, 0 to 2."""
    if min(one.std(), other.std()) <= _PLAIN:
        return False
    return 1.0 - float(np.corrcoef(one, other)[0, 1]) > least
