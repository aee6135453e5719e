"""The inside of a mouth that no picture shows: painted plainly, for the generator to draw over.

A closed mouth that is bent open has nothing but stretched lips between its lips. Here the opening gets what every
mouth has: a dark inside, the edge of the upper teeth, the tongue. Colours come from the person's own lips and skin, so
they have the picture's light.
"""

from __future__ import annotations

import cv2
import numpy as np

from faces.alignment import LIPS_INNER, LIPS_OUTER
from faces.mouth_shape import RESTING_OPENING_PX, mouth_opening
from faces.window import WINDOW_SIZE

_INNER = slice(len(LIPS_OUTER), len(LIPS_OUTER) + len(LIPS_INNER))
_OUTER = slice(0, len(LIPS_OUTER))
_UPPER, _LOWER = list(range(0, 11)), [0, *range(19, 9, -1)]  # of the inner lips, from the left corner to the right
_STRETCH = 2.2  # a picture that is opened at all may be opened so many times wider before its inside is not enough
_NEW_PX = (1.0, 4.0)  # opening beyond that from which on the inside is painted, and painted fully
_DARK = np.array([0.28, 0.16, 0.16], np.float32)  # the inside, in parts of the lips' colour
_TONGUE = np.array([0.75, 0.50, 0.50], np.float32)  # the same of the tongue
_TEETH_PART, _TEETH_MOST_PX = 0.42, 7.0  # height of the teeth's edge in parts of the opening, and at most
_TEETH_TINT = np.array([1.0, 0.94, 0.86], np.float32)
_TEETH_LIGHT = 0.97  # in parts of the skin's brightness
_SOFT_PX = 0.8
_COLUMNS = np.arange(WINDOW_SIZE, dtype=np.float32)


def painted_inside(picture: np.ndarray, source: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Paint the inside of a mouth where it is opened further than in the picture that it was bent from.

    Args:
        picture: uint8 (160, 160, 3), bent so that lips and jaw lie at `wanted`.
        source: where they were before (P, 2), window px.
        wanted: where they are (P, 2), window px.

    Returns:
        uint8 (160, 160, 3); the picture itself where there is nothing to paint.
    """
    wide, before = (float(mouth_opening(points[None])[0]) - RESTING_OPENING_PX for points in (wanted, source))
    opened = wide - _STRETCH * max(0.0, before)
    amount = np.clip((opened - _NEW_PX[0]) / (_NEW_PX[1] - _NEW_PX[0]), 0.0, 1.0)
    if amount <= 0:
        return picture
    top, bottom, across = _opening(wanted[_INNER])
    lips, skin = _colours(picture, wanted)
    rows = np.arange(WINDOW_SIZE, dtype=np.float32)[:, None]
    gap = np.maximum(bottom - top, 1e-3)
    down = np.clip((rows - top) / gap, 0, 1)[..., None]
    tongue = 0.7 * _smooth((down - 0.55) / 0.45) * _smooth(gap / 10.0)[None, :, None]
    inside = lips * (_DARK + tongue * (_TONGUE - _DARK))
    height = np.minimum(_TEETH_PART * gap, _TEETH_MOST_PX) * np.sqrt(np.maximum(1 - across**2, 0))
    teeth = _smooth((height - (rows - top)) / 1.5 + 0.5) * _smooth((height - 0.8) / 1.2)[None]
    shade = ((1 - 0.4 * across**2) * np.clip(0.72 + 0.14 * (rows - top), 0, 1))[..., None]
    inside = inside + teeth[..., None] * (skin * _TEETH_LIGHT * _TEETH_TINT * shade - inside)
    weight = amount * _mask(wanted[_INNER])[..., None]
    return np.clip(picture + weight * (inside - picture) + 0.5, 0, 255).astype(np.uint8)


def _opening(inner: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each column of the window: upper and lower edge of the opening, px, and the place across it, -1 to 1."""
    upper, lower = (inner[points][np.argsort(inner[points, 0])] for points in (_UPPER, _LOWER))
    top = np.interp(_COLUMNS, upper[:, 0], upper[:, 1]).astype(np.float32)
    bottom = np.interp(_COLUMNS, lower[:, 0], lower[:, 1]).astype(np.float32)
    left, right = inner[:, 0].min(), inner[:, 0].max()
    across = np.clip((2 * _COLUMNS - left - right) / max(right - left, 1.0), -1, 1)
    return top, bottom, across.astype(np.float32)


def _colours(picture: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour of the lips (3,), and brightness of the skin below them, 0..255."""
    lower = (points[_OUTER][11:20] + points[_INNER][11:20]) / 2  # the middle of the lower lip
    below = points[_OUTER][11:20] + (0, 8)
    spots = [np.clip(np.round(spot).astype(int), 0, WINDOW_SIZE - 1) for spot in (lower, below)]
    lips, skin = (np.median(picture[spot[:, 1], spot[:, 0]].astype(np.float32), axis=0) for spot in spots)
    return lips, float(skin.max())


def _mask(inner: np.ndarray) -> np.ndarray:
    mask = np.zeros((WINDOW_SIZE, WINDOW_SIZE), np.uint8)
    cv2.fillPoly(mask, [np.round(inner * 16).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    return cv2.GaussianBlur(mask, (0, 0), _SOFT_PX).astype(np.float32) / 255


def _smooth(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(x, 0, 1)
    return t * t * (3 - 2 * t)
