"""Bends a picture of a mouth to another shape: the starting point from which the generator draws.

A reference frame shows the person's skin, lips and teeth, but with another mouth shape and a slightly other pose.
Moving its lip and jaw points to the wanted places, and everything between smoothly along, leaves the generator only
what a bend cannot give: the inside of the mouth, and creases.
"""

from __future__ import annotations

import cv2
import numpy as np

from faces.alignment import WINDOW_SIZE

_GRID = 40  # places per side at which the displacement is computed; it is smooth in between
_SOFTNESS_PX = 3.0  # points nearer than this share their pull: lips that touch may move apart
_RIM = np.array(
    [
        [x, y]
        for x in np.linspace(0, WINDOW_SIZE, 6)
        for y in np.linspace(0, WINDOW_SIZE, 6)
        if x in (0, 160) or y in (0, 160)
    ],
    np.float32,
)  # stays where it is


def _grid_points() -> np.ndarray:
    centres = (np.arange(_GRID, dtype=np.float32) + 0.5) * WINDOW_SIZE / _GRID - 0.5
    return np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)


_CELLS = _grid_points()
_PIXELS = np.stack(np.meshgrid(*[np.arange(WINDOW_SIZE, dtype=np.float32)] * 2), axis=-1)


def bend_to_shape(image: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Move points of a mouth window to other places.

    Displacements between the points are inverse-distance means (Shepard 1968), softened near the points.

    Args:
        image: mouth window (160, 160, 3), uint8 or float32.
        source: where the points are in it (P, 2), window px.
        target: where they shall be in each result (T, P, 2), window px.

    Returns:
        (T, 160, 160, 3), of the image's type.
    """
    return np.stack([_bend(image, source, points) for points in target])


def _bend(image: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    anchors = np.concatenate([target, _RIM]).astype(np.float32)
    moves = np.concatenate([source - target, np.zeros_like(_RIM)]).astype(np.float32)
    # |a - b|^2 as one matrix product: 1600 places x 77 points.
    distance = (_CELLS**2).sum(1)[:, None] + (anchors**2).sum(1)[None] - 2 * _CELLS @ anchors.T
    weights = 1.0 / (np.maximum(distance, 0.0) + _SOFTNESS_PX**2) ** 2
    field = (weights @ moves / weights.sum(1, keepdims=True)).reshape(_GRID, _GRID, 2)
    where = _PIXELS + cv2.resize(field, (WINDOW_SIZE, WINDOW_SIZE), interpolation=cv2.INTER_LINEAR)
    return cv2.remap(image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
