"""A long run of frames made in windows of fixed length that overlap and are cross-faded, as a stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

Item = TypeVar("Item")


class OverlappingWindows(Generic[Item]):
    """Takes items one by one and gives them back with what was made for them.

    The last window of a run reaches back over items that are out already, so that it too has full length.

    Args:
        make: makes float arrays (N, ...) of N successive items, N up to `window`.
        window: items made at once.
        overlap: items that two windows share, less than `window`.
    """

    def __init__(self, make: Callable[[list[Item]], np.ndarray], window: int, overlap: int):
        if not 0 <= overlap < window:
            raise ValueError(f"an overlap of {overlap} does not fit into a window of {window}")
        self._make = make
        self._window = window
        self._overlap = overlap
        self._items: list[Item] = []  # the last ones, at most a window
        self._pending = 0  # how many of them are not out yet
        self._tail: np.ndarray | None = None  # made already, for the first of the pending items

    def add(self, item: Item) -> list[tuple[Item, np.ndarray]]:
        """Take in an item; returns what became ready, in order."""
        self._items = [*self._items[-self._window + 1 :], item] if self._window > 1 else [item]
        self._pending += 1
        return self._next(keep=self._overlap) if self._pending == self._window else []

    def finish(self) -> list[tuple[Item, np.ndarray]]:
        """The rest of the run."""
        return self._next(keep=0) if self._pending else []

    def _next(self, keep: int) -> list[tuple[Item, np.ndarray]]:
        """Make what is pending; the last `keep` of it wait for the cross-fade with the next window."""
        known = 0 if self._tail is None else len(self._tail)
        made = self._tail
        if self._pending > known:
            made = self._make(self._items)[-self._pending :]
            if known:
                made = np.concatenate([cross_fade(self._tail, made[:known]), made[known:]])
        ready = self._pending - keep
        items = self._items[len(self._items) - self._pending :][:ready]
        self._tail, self._pending = (made[ready:] if keep else None), keep
        return list(zip(items, made[:ready], strict=True))


class HoppingWindows(Generic[Item]):
    """Takes items one by one and makes them a few at a time, at the end of a window of earlier ones.

    Nothing waits for the next window, so there is no cross-fade.

    Args:
        make: as in `OverlappingWindows`.
        window: items made at once, old and new.
        hop: new ones, at most `window`.
    """

    def __init__(self, make: Callable[[list[Item]], np.ndarray], window: int, hop: int):
        if not 1 <= hop <= window:
            raise ValueError(f"a hop of {hop} does not fit into a window of {window}")
        self._make = make
        self._items: deque[Item] = deque(maxlen=window)
        self._hop = hop
        self._pending = 0

    def add(self, item: Item) -> list[tuple[Item, np.ndarray]]:
        """Take in an item; returns what became ready, in order."""
        self._items.append(item)
        self._pending += 1
        return self.finish() if self._pending == self._hop else []

    def finish(self) -> list[tuple[Item, np.ndarray]]:
        """The rest of the run."""
        if not self._pending:
            return []
        items, count = list(self._items), self._pending
        self._pending = 0
        return list(zip(items[-count:], self._make(items)[-count:], strict=True))


def cross_fade(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Float arrays (N, ...) that go from the first window's to the second's over their N common items."""
    weight = np.arange(1, len(first) + 1, dtype=first.dtype) / (len(first) + 1)
    weight = weight.reshape(-1, *[1] * (first.ndim - 1))
    return first * (1 - weight) + second * weight
