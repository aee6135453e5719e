"""Other frame rates: frames shown again where there are too few for a mouth to move, and a rate that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from video.stills import IMAGE_FPS
from video.types import Frame

FEWEST_FPS = 12
"""Frames a second below which a mouth cannot be seen to speak."""

_TOLERANCE = 1e-3  # seconds


class Filled:
    """Frames of which none stands longer than a twelfth of a second while somebody speaks: it is shown again at 25 fps.

    All frames stay, at their own times.

    Args:
        frames: in order.
        until: seconds at which the speech ends.

    Attributes:
        added: how many frames were put in so far.
    """

    def __init__(self, frames: Iterator[Frame], until: float):
        self._frames, self._until = frames, until
        self.added = 0

    def __iter__(self) -> Iterator[Frame]:
        before: Frame | None = None
        for frame in self._frames:
            if before is not None:
                yield from self._shown(before, frame.time)
            before = frame
        if before is not None:
            yield from self._shown(before, min(before.time + before.duration, max(self._until, before.time)))

    def _shown(self, frame: Frame, end: float) -> Iterator[Frame]:
        """A frame, and again until the next one stands there."""
        index = frame.index + self.added
        stands = end - frame.time
        step = float(1 / IMAGE_FPS)
        if stands <= 1 / FEWEST_FPS + _TOLERANCE or frame.time >= self._until:
            yield replace(frame, index=index)
            return
        count = min(max(1, round(stands / step)), max(1, round((self._until - frame.time) / step)))
        for number in range(count):
            time = frame.time + number * step
            length = step if number + 1 < count else max(end - time, step)
            yield replace(frame, index=index + number, time=time, duration=length)
        self.added += count - 1


def at_rate(frames: Iterator[Frame], fps: Fraction) -> Iterator[Frame]:
    """Frames at the multiples of a fixed interval: at each the one that is shown then.

    Args:
        frames: in order, the first at time 0.
        fps: frames per second of the result.
    """
    step, count = 1 / fps, 0
    shown: Frame | None = None
    for frame in frames:
        while shown is not None and count * step < Fraction(frame.time) - Fraction(_TOLERANCE):
            yield _at(shown, count, step)
            count += 1
        shown = frame
    while shown is not None and count * step < Fraction(shown.time + shown.duration) - step / 2:
        yield _at(shown, count, step)
        count += 1


def _at(frame: Frame, count: int, step: Fraction) -> Frame:
    return replace(frame, index=count, time=float(count * step), duration=float(step))
