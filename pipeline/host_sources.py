"""What a host is made of: frames of a video, or of a portrait that moves. Both can be read more than once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from faces.motion import moving_portrait
from video_processor import MediaLimits, VideoReader

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
        size: width and height of the frames, px.
        limits: what is too big.
        look_s: seconds after which it is not looked at any more.
    """

    bounce = True

    def __init__(self, path: Path, fps: Fraction, size: tuple[int, int], limits: MediaLimits, look_s: float):
        self._step = max(1, -(-fps // (_MOST_FPS + 1)))
        self.fps = fps / self._step
        self._path, self._size, self._limits, self._look_s = path, size, limits, look_s

    def frames(self) -> Iterator[Shown]:
        with VideoReader(self._path, self._limits) as reader:
            for frame in reader:
                if frame.time >= self._look_s:
                    return
                number, odd = divmod(frame.index, self._step)
                if not odd:
                    yield Shown(number, frame.time, resized(frame.image, self._size))


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


def fitting_size(width: int, height: int, longest: int) -> tuple[int, int]:
    """Width and height in even px, the longer one at most `longest`."""
    scale = min(1.0, longest / max(width, height))
    return max(2, round(width * scale) // 2 * 2), max(2, round(height * scale) // 2 * 2)


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 RGB (H, W, 3) of a width and height; an odd row or column is cut off, not squeezed."""
    if image.shape[1] - size[0] in (0, 1) and image.shape[0] - size[1] in (0, 1):
        return np.ascontiguousarray(image[: size[1], : size[0]])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
