"""Bends and relights pictures of a mouth: the starting point from which the generator draws.

Skin comes from the frame itself: chin, jaw and cheeks, bent to the new jaw, fit its pose and light exactly. Lips and
the inside of the mouth come from other pictures of the person (see `faces.bank`), bent to the wanted shape and brought
to the light of the frame. That leaves the generator only what no picture shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from faces.alignment import LIPS_INNER, LIPS_OUTER
from faces.bank import Mouth
from faces.inside import painted_inside
from faces.mouth_shape import NUM_POINTS
from faces.window import WINDOW_SIZE

_GRID = 40  # places per side at which the displacement is computed; it is smooth in between
_SOFTNESS_PX = 3.0  # points nearer than this share their pull: lips that touch may move apart
_RIM = np.array(
    [
        [x, y]
        for x in np.linspace(0, WINDOW_SIZE, 6)
        for y in np.linspace(0, WINDOW_SIZE, 6)
        if x in (0, WINDOW_SIZE) or y in (0, WINDOW_SIZE)
    ],
    np.float32,
)  # stays where it is
_OUTER = slice(0, len(LIPS_OUTER))
# What carries the skin: the inner lips of a wide mouth that is to close would fold it. The new lips hide theirs.
_AROUND = np.r_[0 : len(LIPS_OUTER), len(LIPS_OUTER) + len(LIPS_INNER) : NUM_POINTS]
_SUBPIXEL_BITS = 4
LIPS_GROWN_PX, LIPS_SOFT_PX = 4, 2.0  # how far beyond the lips' outline their picture reaches, and how softly
_RING_PX = (2, 12)  # skin that both pictures show, distance to the lips' outline
_LIGHT_REDUCE = 4  # light is compared on pictures this much smaller
_LIGHT_SIGMA = 16.0  # px of the window; light that changes faster is taken for surface
_DARK = 4.0  # levels added before ratios are taken: black has no ratio
_ODD_LIGHT = 0.25  # logarithm of a ratio this far off the median counts 1/e: a shadow's edge, hair
_MOST_LIGHT = 2.0  # logarithm of the largest ratio


def _grid_points() -> np.ndarray:
    centres = (np.arange(_GRID, dtype=np.float32) + 0.5) * WINDOW_SIZE / _GRID - 0.5
    return np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)


_CELLS = _grid_points()
_PIXELS = np.stack(np.meshgrid(*[np.arange(WINDOW_SIZE, dtype=np.float32)] * 2), axis=-1)


def bend(image: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Move points of a mouth window to other places.

    Displacements between the points are inverse-distance means (Shepard 1968), softened near the points.

    Args:
        image: mouth window (160, 160, 3), uint8 or float32.
        source: where the points are in it (P, 2), window px.
        target: where they shall be (P, 2), window px.

    Returns:
        (160, 160, 3), of the image's type.
    """
    anchors = np.concatenate([target, _RIM]).astype(np.float32)
    moves = np.concatenate([source - target, np.zeros_like(_RIM)]).astype(np.float32)
    # |a - b|^2 as one matrix product: 1600 places x 77 points.
    distance = (_CELLS**2).sum(1)[:, None] + (anchors**2).sum(1)[None] - 2 * _CELLS @ anchors.T
    weights = 1.0 / (np.maximum(distance, 0.0) + _SOFTNESS_PX**2) ** 2
    field = (weights @ moves / weights.sum(1, keepdims=True)).reshape(_GRID, _GRID, 2)
    where = _PIXELS + cv2.resize(field, (WINDOW_SIZE, WINDOW_SIZE), interpolation=cv2.INTER_LINEAR)
    return cv2.remap(image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def lips_mask(points: np.ndarray, grown: float = LIPS_GROWN_PX, soft: float = LIPS_SOFT_PX) -> np.ndarray:
    """Opacity float32 (160, 160) in [0, 1] of lips and what lies between them.

    Args:
        points: lips and jaw (P, 2), window px.
        grown: how far beyond the lips' outline, window px.
        soft: standard deviation of the rim, window px.
    """
    mask = np.zeros((WINDOW_SIZE, WINDOW_SIZE), np.uint8)
    fixed = np.round(np.clip(points[_OUTER], -WINDOW_SIZE, 2 * WINDOW_SIZE) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * int(grown) + 1,) * 2))
    return cv2.GaussianBlur(mask, (0, 0), soft).astype(np.float32) / 255 if soft else mask.astype(np.float32) / 255


def relit(picture: np.ndarray, skin: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Bring a mouth to the light of a frame: a gain by channel, slowly changing over the picture.

    It is measured on the skin around the lips, which both show.

    Args:
        picture: uint8 (160, 160, 3) with the mouth at `points`.
        skin: uint8 (160, 160, 3), the frame with its lips at the same place.
        points: lips and jaw (P, 2), window px.

    Returns:
        float32 (160, 160, 3), 0..255 but for overshoot.
    """
    small = (WINDOW_SIZE // _LIGHT_REDUCE,) * 2
    ring = lips_mask(points, _RING_PX[1], 0) - lips_mask(points, _RING_PX[0], 0)
    weight, here, there = (
        cv2.resize(x, small, interpolation=cv2.INTER_AREA).astype(np.float32) for x in (ring, picture, skin)
    )
    ratio = np.log((there + _DARK) / (here + _DARK))
    seen = weight > 0.5
    middle = np.median(ratio[seen], axis=0) if seen.any() else np.zeros(3, np.float32)
    weight = weight * np.exp(-((np.abs(ratio - middle).max(-1) / _ODD_LIGHT) ** 2))
    mean = (ratio * weight[..., None]).sum((0, 1)) / max(float(weight.sum()), 1e-3)
    sigma = _LIGHT_SIGMA / _LIGHT_REDUCE
    slow = cv2.GaussianBlur((ratio - mean) * weight[..., None], (0, 0), sigma)
    field = mean + slow / (cv2.GaussianBlur(weight, (0, 0), sigma)[..., None] + 0.05)
    gain = np.exp(np.clip(field, -_MOST_LIGHT, _MOST_LIGHT)).astype(np.float32)
    gain = cv2.resize(gain, (WINDOW_SIZE, WINDOW_SIZE), interpolation=cv2.INTER_LINEAR)
    return (picture.astype(np.float32) + _DARK) * gain - _DARK


def draft(
    window: np.ndarray,
    own: np.ndarray,
    wanted: np.ndarray,
    mouths: Sequence[tuple[Mouth, float]],
) -> np.ndarray:
    """A frame whose mouth has the wanted shape, made of the frame and of other pictures of the person.

    Args:
        window: uint8 (160, 160, 3), the mouth window of the frame.
        own: where lips and jaw are in it (P, 2), window px.
        wanted: where they shall be (P, 2), window px.
        mouths: pictures of lips, and their weights, whose sum is 1.

    Returns:
        uint8 (160, 160, 3).
    """
    skin = bend(window, own[_AROUND], wanted[_AROUND])
    lips = np.zeros(skin.shape, np.float32)
    for mouth, weight in mouths:
        bent = painted_inside(bend(mouth.picture, mouth.points, wanted), mouth.points, wanted)
        lips += weight * relit(bent, skin, wanted)
    mixed = skin + lips_mask(wanted)[..., None] * (lips - skin)
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)
