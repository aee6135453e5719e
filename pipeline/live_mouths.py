"""Mouths of a host for one sound, drawn block by block ahead of the moment at which they are shown.

They are kept in the mouth window, so one that is drawn for a frame can be shown in a neighbouring one, and two of them
can be cross-faded: that is what is shown where there is no time to draw every frame.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from engines.base import Engine, Style
from faces.mouth_windows import MouthFrame
from pipeline.host import Host
from pipeline.live_sound import Sound

TAIL_S = 0.3
"""For so long the mouth is drawn after the end of a sound, until it rests."""

SHORT_BLOCK = 3
"""Frames that are drawn at once where it is urgent: at the beginning, and when drawing is late."""

_STREAMED_BLOCK = 4  # frames drawn at once, at most, of a sound that still arrives: the last one waits for its sound
_GROWING = 4  # by so many frames each block is longer than the one before
_CONTEXT = 4  # frames before a block that are drawn along, so that the picture does not jump
_KEPT = 50  # drawn mouths that are kept, at most, behind the one that is shown


class Mouths:
    """The mouths of one sound.

    Args:
        engine: that draws.
        host: whose mouth.
        person: see `Engine.unpack`.
        sound: what is said.
        style: how it is drawn.
        ahead_s: see `Sound.hear`.
    """

    def __init__(self, engine: Engine, host: Host, person: Any, sound: Sound, style: Style, ahead_s: float):
        self.sound = sound
        self._engine, self._host, self._person, self._style, self._ahead_s = engine, host, person, style, ahead_s
        self._fps = float(host.fps)
        self._most = max(1, engine.facts.window - _CONTEXT)
        self._size = min(SHORT_BLOCK, self._most)
        self._paint: Callable[[list[MouthFrame]], np.ndarray] | None = None
        self._recent: list[MouthFrame] = []
        self._pictures: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()
        self.next = 0  # frame of the sound that is drawn next
        self.drawn = 0  # frames that were drawn, in all

    @property
    def frames(self) -> int | None:
        """Frames of the sound with its tail; None: nobody knows yet."""
        seconds = self.sound.seconds()
        return None if seconds is None else int(np.ceil((seconds + TAIL_S) * self._fps))

    @property
    def begun(self) -> bool:
        """Whether the first block is there."""
        return self.drawn > 0

    @property
    def complete(self) -> bool:
        """Whether all of it is drawn."""
        return self.frames is not None and self.next >= self.frames

    def can_draw(self, stride: int, most: int) -> bool:
        """Whether all sound is there that the next block depends on; arguments as for `draw`."""
        last = self.next + (self._block(most) - 1) * stride
        return not self.complete and self.sound.can_draw(last / self._fps, self._ahead_s)

    def draw(self, shown: int, stride: int, most: int) -> int:
        """Draw the next block.

        Args:
            shown: number of the host's frame that is shown together with the sound's first one.
            stride: draw every frame (1), every second one (2), ...
            most: frames that there is time for.

        Returns:
            How many frames were drawn.
        """
        numbers = [self.next + index * stride for index in range(self._block(most))]
        if self._paint is None:
            self._paint = self._engine.painter(self._person, self.sound.hear(self._engine, self._ahead_s), self._style)
        fresh = [self._host.mouth(shown + number, number / self._fps) for number in numbers]
        made = self._paint([*self._recent, *fresh])[-len(fresh) :]
        pictures = self._engine.render(fresh, made)
        self._recent = [*self._recent, *fresh][-_CONTEXT:]
        with self._lock:
            self._pictures |= dict(zip(numbers, pictures, strict=True))
        self.next, self.drawn = numbers[-1] + stride, self.drawn + len(numbers)
        self._size = min(self._size + _GROWING, self._most)
        return len(numbers)

    def skip_to(self, number: int) -> None:
        """Leave out what is late: the next frame drawn is this one."""
        self.next, self._size = max(self.next, number), min(SHORT_BLOCK, self._most)

    def at(self, number: int) -> tuple[np.ndarray | None, bool]:
        """The mouth of a frame, uint8 RGB (H, W, 3), and whether it is in time; None: nothing has been drawn yet.

        Between two that were drawn it is their mean; after the last one it is that.
        """
        with self._lock:
            for old in [key for key in self._pictures if key < number - _KEPT]:
                del self._pictures[old]
            known = self._pictures
            if number in known:
                return known[number], True
            before = max((key for key in known if key < number), default=None)
            after = min((key for key in known if key > number), default=None)
            if before is None or after is None:
                nearest = before if after is None else after
                return (None if nearest is None else known[nearest]), False
            weight = (number - before) / (after - before)
            return cv2.addWeighted(known[before], 1 - weight, known[after], weight, 0.0), True

    def _block(self, most: int) -> int:
        size = min(self._size, max(most, SHORT_BLOCK))
        if self.frames is None:
            return min(size, _STREAMED_BLOCK)
        return max(1, min(size, self.frames - self.next))
