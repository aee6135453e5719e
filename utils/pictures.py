"""RGB pictures of which only the parts that are looked at need to exist, and pictures to mix into others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np


class Picture(Protocol):
    """An upright RGB picture."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, px."""
        ...

    def whole(self) -> np.ndarray:
        """uint8 (H, W, 3)."""
        ...

    def part(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        """Rows y0 up to y1 and columns x0 up to x1, within the picture, uint8; to be read only."""
        ...

    def small(self, side: int) -> np.ndarray:
        """The whole picture, uint8, its longer side reduced to at most so many px."""
        ...


class ArrayPicture:
    """A picture that is there as an array uint8 (H, W, 3)."""

    def __init__(self, image: np.ndarray):
        self._image = image

    @property
    def shape(self) -> tuple[int, int]:
        return self._image.shape[:2]

    def whole(self) -> np.ndarray:
        return self._image

    def part(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        return self._image[y0:y1, x0:x1]

    def small(self, side: int) -> np.ndarray:
        size = reduced_size(self.shape, side)
        return self._image if size == self.shape else cv2.resize(self._image, size[::-1], interpolation=cv2.INTER_AREA)


def picture_of(frame: Any) -> Picture:
    """The picture of a frame that has one as `picture`, or as an array as `image`."""
    picture = getattr(frame, "picture", None)
    return ArrayPicture(frame.image) if picture is None else picture


def same_picture(picture: Picture, other: Picture | None) -> bool:
    """Whether two pictures are one and the same, converted or not."""
    if isinstance(picture, ArrayPicture) and isinstance(other, ArrayPicture):
        return picture.whole() is other.whole()
    return picture is other


def reduced_size(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """Height and width with the longer side at most `side`, the same proportions, at least 1."""
    scale = min(1.0, side / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


@dataclass(frozen=True)
class Patch:
    """A picture to mix into a frame.

    Attributes:
        x: column of its left edge in the upright frame, pixels; it may reach over the frame's edges.
        y: row of its upper edge, pixels.
        image: uint8 RGB (h, w, 3).
        alpha: float32 (h, w) in [0, 1]; nothing changes where it is 0.
    """

    x: int
    y: int
    image: np.ndarray
    alpha: np.ndarray
