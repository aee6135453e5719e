"""Bends a picture of a mouth to another shape: the starting point from which the generator draws.

A reference frame shows the person's skin, lips and teeth, but with another mouth shape and a slightly other pose.
Moving its lip and jaw points to the wanted places, and everything between smoothly along, leaves the generator only
what a bend cannot give: the inside of the mouth, and creases.
"""

from __future__ import annotations

import cv2
import numpy as np

from faces.mouth_shape import mouth_opening
from faces.window import WINDOW_SIZE

_GRID = 40  # places per side at which the displacement is computed; it is smooth in between
_SOFTNESS_PX = 3.0  # points nearer than this share their pull: lips that touch may move apart
_OPENING_PX = 1.5  # a reference whose lips are further apart, or closer, by so much counts 1/e times as much
_UNLIKE = 0.02  # the same for the difference of its surroundings, in units of [-1, 1]
_NEGLIGIBLE = 0.02  # weight below which a reference is not worth bending
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


def bend_references(
    pictures: np.ndarray, sources: np.ndarray, target: np.ndarray, unlikeness: np.ndarray
) -> np.ndarray:
    """Bend several pictures of a mouth to each wanted shape and mix them.

    Lips that shall be closed come from a picture with closed lips and teeth from one that shows them, as long as the
    head is held alike.

    Args:
        pictures: mouth windows (R, 160, 160, 3), uint8 or float32.
        sources: where lips and jaw are in them (R, P, 2), window px.
        target: where they shall be (T, P, 2), window px.
        unlikeness: mean difference of each picture's surroundings to those of the frames, (R,) for all of them or
            (T, R), in units of [-1, 1].

    Returns:
        (T, 160, 160, 3), of the pictures' type.
    """
    weights = _reference_weights(mouth_opening(sources), mouth_opening(target), unlikeness)
    mixed = np.zeros((len(target), *pictures.shape[1:]), np.float32)
    for picture, source, weight in zip(pictures, sources, weights.T, strict=True):
        used = np.flatnonzero(weight)
        if not len(used):
            continue
        mixed[used] += weight[used, None, None, None] * bend_to_shape(picture, source, target[used])
    return mixed.astype(pictures.dtype) if pictures.dtype != np.uint8 else np.round(mixed).astype(np.uint8)


def _reference_weights(openings: np.ndarray, wanted: np.ndarray, unlikeness: np.ndarray) -> np.ndarray:
    """(T, R), rows with the sum 1, smooth over time, of the lips' gaps (R,) and (T,) and unlikeness (R,) or (T, R)."""
    distance = np.abs(wanted[:, None] - openings) / _OPENING_PX + unlikeness / _UNLIKE
    weights = np.exp(distance.min(1, keepdims=True) - distance)
    padded = np.pad(weights / weights.sum(1, keepdims=True), ((1, 1), (0, 0)), mode="edge")
    smooth = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    smooth[smooth < _NEGLIGIBLE] = 0.0
    return smooth / smooth.sum(1, keepdims=True)


def _bend(image: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    anchors = np.concatenate([target, _RIM]).astype(np.float32)
    moves = np.concatenate([source - target, np.zeros_like(_RIM)]).astype(np.float32)
    # |a - b|^2 as one matrix product: 1600 places x 77 points.
    distance = (_CELLS**2).sum(1)[:, None] + (anchors**2).sum(1)[None] - 2 * _CELLS @ anchors.T
    weights = 1.0 / (np.maximum(distance, 0.0) + _SOFTNESS_PX**2) ** 2
    field = (weights @ moves / weights.sum(1, keepdims=True)).reshape(_GRID, _GRID, 2)
    where = _PIXELS + cv2.resize(field, (WINDOW_SIZE, WINDOW_SIZE), interpolation=cv2.INTER_LINEAR)
    return cv2.remap(image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
