"""What a host is made of: frames of a video, or of a portrait that moves. Both can be read more than once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from faces.motion import moving_portrait
from video_processor import MediaLimits, Size, VideoReader, probe_video

_MOST_FPS = 30
_PORTRAIT_FPS = 25


@dataclass(frozen=True)
class Shown:
    """A frame: its number, its time in seconds, and its picture, uint8 RGB (H, W, 3)."""

    number: int
    time: float
    image: np.ndarray


class Source(Protocol):
    """Frames in order.

    Attributes:
        fps: frames per second.
        bounce: it was filmed, so it goes on backwards at its end; else the last frame goes over into the first.
    """

    fps: Fraction
    bounce: bool

    def frames(self) -> Iterator[Shown]:
        """All of them, from the first."""
        ...


class Filmed:
    """A video; of one with more than 30 frames a second every second or third.

    Args:
        path: the file.
        fps: its frame rate.
        size: to which the frames are brought, see `host_size`.
        limits: what is too big.
        look_s: seconds after which it is not looked at any more.
    """

    bounce = True

    def __init__(self, path: Path, fps: Fraction, size: Size, limits: MediaLimits, look_s: float):
        self._step = max(1, -(-fps // (_MOST_FPS + 1)))
        self.fps = fps / self._step
        self._path, self._size, self._limits, self._look_s = path, size, limits, look_s

    def frames(self) -> Iterator[Shown]:
        with VideoReader(self._path, self._limits, size=self._size) as reader:
            for frame in reader:
                if frame.time >= self._look_s:
                    return
                number, odd = divmod(frame.index, self._step)
                if not odd:
                    yield Shown(number, frame.time, even(frame.image))


class Portrait:
    """A picture that moves, or stands still where no mesh is given.

    Args:
        image: uint8 RGB (H, W, 3).
        points: mesh (468, 3) of its face, px.
        seconds: after which it begins again.
    """

    bounce = False
    fps = Fraction(_PORTRAIT_FPS)

    def __init__(self, image: np.ndarray, points: np.ndarray | None, seconds: float):
        self._image, self._points, self._seconds = image, points, seconds

    def frames(self) -> Iterator[Shown]:
        fps = float(self.fps)
        still = (self._image for _ in range(round(self._seconds * fps)))
        moving = still if self._points is None else moving_portrait(self._image, self._points, self._seconds, fps)
        for number, image in enumerate(moving):
            yield Shown(number, number / fps, image)


def host_size(path: Path, limits: MediaLimits, asked: Size | None, longest: int) -> Size:
    """The size to which a video or picture is brought: the one that is asked for, else its own up to a longest side.

    Raises:
        InputError: the file cannot be used, see `probe_video`.
    """
    if asked is not None:
        return asked
    info = probe_video(path, limits)
    return Size(longest=longest) if max(info.width, info.height) > longest else Size()


def even(image: np.ndarray) -> np.ndarray:
    """uint8 RGB (H, W, 3) without its last row and column where they are odd: video has colour for pairs of them."""
    height, width = (side // 2 * 2 for side in image.shape[:2])
    return np.ascontiguousarray(image[:height, :width])
