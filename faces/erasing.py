"""A face without its mouth: skin in its place, so that a drawn mouth can be laid there."""

from __future__ import annotations

import cv2
import numpy as np

from faces.alignment import LIPS_OUTER

_RADIUS = 4  # px of the window that the filling looks at
_LINES = 21  # px, odd: lines thinner than half of it are no skin
_SMOOTH = 2.5  # px; the filling is streaky
_MARGIN, _SOFT = 0.09, 0.05  # of the mouth's width: how far around the lips is filled, and the width of the soft rim


def lips_mask(points: np.ndarray, size: tuple[int, int], width: float) -> np.ndarray:
    """Opacity, float32 (H, W) in [0, 1], of what hides the lips of a mesh.

    Args:
        points: mesh (468, 2), window px.
        size: H and W of the window.
        width: of the mouth, px.
    """
    hull = cv2.convexHull(points[LIPS_OUTER].astype(np.float32))
    mask = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(mask, hull.round().astype(np.int32), 1)
    return _soft(mask, width)


def oval_mask(middle: tuple[float, float], axes: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """The same of what hides a mouth at a marked place.

    Args:
        middle: x, y of the mouth, window px.
        axes: half of its width and of its height, px.
        size: H and W of the window.
    """
    mask = np.zeros(size, np.uint8)
    at, halves = ((round(value) for value in pair) for pair in (middle, axes))
    cv2.ellipse(mask, tuple(at), tuple(halves), 0, 0, 360, 1, cv2.FILLED)
    return _soft(mask, 2 * axes[0])


def _soft(mask: np.ndarray, width: float) -> np.ndarray:
    """Grown by the margin, with a soft rim that ends within the window."""
    reach = 2 * round((_MARGIN + _SOFT) * width) + 1
    grown = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    grown[[0, -1]] = grown[:, [0, -1]] = 0
    return np.clip(cv2.distanceTransform(grown, cv2.DIST_L2, 5) / max(_SOFT * width, 1.0), 0, 1).astype(np.float32)


def without_mouth(window: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The window uint8 (H, W, 3) with what lies around filled into where the mask is above 0 (Telea, 2004).

    Lines that end there, such as the one of a nose or of a shadow, are left out of what is filled in: a median takes
    them away first, or they would be drawn out to streaks.
    """
    hidden = (mask > 0).astype(np.uint8)
    rough = cv2.inpaint(window, hidden, _RADIUS, cv2.INPAINT_TELEA)
    filled = cv2.inpaint(cv2.medianBlur(rough, _LINES), hidden, _RADIUS, cv2.INPAINT_TELEA)
    smooth = cv2.GaussianBlur(filled, (0, 0), _SMOOTH)
    return np.where(hidden[..., None] > 0, smooth, window)
