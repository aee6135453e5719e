"""How far the work is, shown on standard error, and what was done, in a few lines for a person."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from pipeline import Summary

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows how far the work is, on standard error: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._bar: tqdm | None = None
        self._done = 0
        self._started = self._shown = clock()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: int, total: int | None) -> None:
        """Take note that `done` frames of `total` (None: unknown) are written."""
        if done == 0:  # what comes before the first frame does not count
            self._started = self._clock()
        if done == self._done:
            return
        self._done = done
        if sys.stderr.isatty():
            self._show_bar(done, total)
        elif self._clock() - self._shown >= _SECONDS_BETWEEN_LINES or done == total:
            self._shown = self._clock()
            print(self._line(done, total), file=sys.stderr, flush=True)

    def _show_bar(self, done: int, total: int | None) -> None:
        if self._bar is None:
            self._bar = tqdm(unit="frames", desc="lip-sync", dynamic_ncols=True)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def _line(self, done: int, total: int | None) -> str:
        rate = done / max(self._clock() - self._started, 1e-6)
        if total is None:
            return f"frame {done}, {rate:.1f} frames/s"
        return f"frame {done} of {total}, {rate:.1f} frames/s, {max(total - done, 0) / max(rate, 1e-6):.0f} s left"


def describe(summary: Summary) -> str:
    """What was done, in a few lines for a person."""
    lines = [f"Written: {summary.output}", f"  {summary.frames} frames, {summary.generated} with a new mouth"]
    lines += [f"  {summary.left_as_they_were()}"] if summary.passed_through else []
    lines += [f"  {note}" for note in summary.notes]
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in summary.stages.items())
    if summary.adaptation is not None:
        lines.append(f"  {summary.adaptation.sentence()}")
    lines.append(f"  {summary.seconds:.1f} s, {summary.fps:.1f} frames per second (work in seconds: {stages})")
    return "\n".join(lines)
