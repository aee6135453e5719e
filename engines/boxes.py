"""Windows of engines that were trained on upright boxes of the face, each squeezed into a square."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import cv2
import numpy as np

from faces.alignment import Geometry


@dataclass(frozen=True)
class Box(Geometry):
    """A box around the face, brought to a square.

    Attributes:
        interpolation: how the original samples its crops, one of OpenCV's.
    """

    interpolation: int = cv2.INTER_LINEAR

    @abstractmethod
    def box(self, points: np.ndarray, frame: tuple[int, int]) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 px of the crop, of a mesh (468, 3) in px of a frame of this height and width."""

    def align(self, points: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
        """See `Geometry.align`: scaled in both directions, not turned."""
        return box_matrix(self.box(points, frame), self.height)

    def warp(self, image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """See `Geometry.warp`; sampled as the original does, without an area filter."""
        size = (self.width, self.height)
        return cv2.warpAffine(image, matrix, size, flags=self.interpolation, borderMode=cv2.BORDER_REPLICATE)


def box_matrix(box: tuple[float, float, float, float], side: int) -> np.ndarray:
    """Frame px -> window px, float32 (2, 3), as `cv2.resize` of a crop has it: pixels are areas, not points."""
    x0, y0, x1, y1 = box
    across, down = side / max(x1 - x0, 1.0), side / max(y1 - y0, 1.0)
    return np.array([[across, 0, (0.5 - x0) * across - 0.5], [0, down, (0.5 - y0) * down - 0.5]], np.float32)


def matrix_box(matrix: np.ndarray, side: int) -> tuple[float, float, float, float]:
    """The box of such a matrix."""
    (across, _, right), (_, down, below) = matrix.astype(np.float64)
    x0, y0 = 0.5 - (right + 0.5) / across, 0.5 - (below + 0.5) / down
    return x0, y0, x0 + side / across, y0 + side / down
