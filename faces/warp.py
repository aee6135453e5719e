"""Bends and relights pictures of a mouth: the starting point from which the generator draws.

Skin comes from the frame itself, bent to the new jaw, so that it fits pose and light exactly. Lips and the inside of
the mouth come from other pictures of the person (see `faces.bank`), bent to the wanted shape and brought to the light
of the frame; where a face looks ahead, the skin around the lips and the chin come along, since those of the frame say
what the old mouth said. Of a face that looks aside only skin comes along: the other picture's background may lie there.
That leaves the generator only what no picture shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from faces.alignment import LIPS_INNER, LIPS_OUTER
from faces.bank import Mouth
from faces.inside import is_opened_further, opened_no_further, painted_inside, shut_lips, smooth_step
from faces.mouth_shape import JAW_PART, NUM_POINTS
from faces.turned import looks_ahead
from faces.window import WINDOW_SIZE

_GRID = 40  # places per side at which the displacement is computed; it is smooth in between
_CELL = WINDOW_SIZE // _GRID
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
_CALM = 1.2  # places; skin follows what moves it less sharply than lips do, else the corners of wide mouths curl up
_SUBPIXEL_BITS = 4
LIPS_GROWN_PX, LIPS_SOFT_PX = 4.0, 4.0  # how far beyond the lips' outline they are drawn, and how softly
# The same of the picture they come from, and how much further below: old lips that swell over their mesh, and the
# shadow below the lower lip, belong to the lips.
_LAID_PX = (8.0, 12.0, 4.0)
_SWOLLEN_PX = 8.0  # lips reach so far beyond their mesh at most
_MOVED_PX = (1.0, 3.0)  # movement of the lips at which old lips begin to be cleared away, and are so fully
_CLEARED_PX = (1.0, 4.0)  # beyond the old lips' outline, and softness
_CLEAR_REDUCE, _CLEAR_SIGMA = 4, 16.0  # skin grows into the cleared place on a picture this much smaller; px
# Skin that both pictures show, distance to the lips' outline: from, up to, and up to where chin and cheeks come along.
_RING_PX, _WIDE_RING_PX = (2, 12), 30
_PART_MARGIN_PX = 20  # of the picture around the lips that is looked at
# Chin and cheeks of the frame still show what the old mouth said, so where a face looks ahead they come along with the
# lips: beyond the outline, and softness; and the margin that this needs.
_CHIN_PX, _CHIN_MARGIN_PX = (30.0, 16.0), 40
_JAW_INSET_PX, _JAW_SOFT_PX = 2.0, 8.0  # so far within the jaw line that ends
_LIPS_ONLY_PX = (1.0, 5.0)  # beyond the lips of a face that looks aside, where only the same skin is taken: from, fully
_OTHER_LEVELS = (16.0, 40.0)  # by which two pictures of the same skin may differ, and by which it is something else
_OTHER_REDUCE, _OTHER_SIGMA = 4, 4.0  # they are compared on pictures this much smaller; px of the window
_JAW_SEEN = 1.5  # how far the jaw moves where the mesh sees it move by one
_LIGHT_REDUCE = 4  # light is compared on pictures this much smaller
_LIGHT_SIGMA = 16.0  # px of the window; light that changes faster is taken for surface
_DARK = 4.0  # levels added before ratios are taken: black has no ratio
_ODD_LIGHT = 0.25  # logarithm of a ratio this far off the median counts 1/e: a shadow's edge, hair
_MOST_LIGHT = 2.0  # logarithm of the largest ratio


Part = tuple[slice, slice]
_WHOLE: Part = (slice(0, WINDOW_SIZE), slice(0, WINDOW_SIZE))


def _grid_points() -> np.ndarray:
    centres = (np.arange(_GRID, dtype=np.float32) + 0.5) * WINDOW_SIZE / _GRID - 0.5
    return np.stack(np.meshgrid(centres, centres), axis=-1)


_CELLS = _grid_points()
_PIXELS = np.stack(np.meshgrid(*[np.arange(WINDOW_SIZE, dtype=np.float32)] * 2), axis=-1)


def bend(
    image: np.ndarray, source: np.ndarray, target: np.ndarray, calm: float = 0.0, part: Part = _WHOLE
) -> np.ndarray:
    """Move points of a mouth window to other places.

    Displacements between the points are inverse-distance means (Shepard 1968), softened near the points.

    Args:
        image: mouth window (160, 160, 3), uint8 or float32.
        source: where the points are in it (P, 2), window px.
        target: where they shall be (P, 2), window px.
        calm: standard deviation of a blur of the displacements, 1/40 of the window.
        part: rows and columns of the window that are wanted, multiples of 4.

    Returns:
        (H, W, 3), of the image's type and the part's size.
    """
    anchors = np.concatenate([target, _RIM]).astype(np.float32)
    moves = np.concatenate([source - target, np.zeros_like(_RIM)]).astype(np.float32)
    places = _CELLS[tuple(slice(side.start // _CELL, side.stop // _CELL) for side in part)]
    cells = places.reshape(-1, 2)
    # |a - b|^2 as one matrix product: up to 1600 places x 77 points.
    distance = (cells**2).sum(1)[:, None] + (anchors**2).sum(1)[None] - 2 * cells @ anchors.T
    weights = 1.0 / (np.maximum(distance, 0.0) + _SOFTNESS_PX**2) ** 2
    field = (weights @ moves / weights.sum(1, keepdims=True)).reshape(places.shape)
    if calm:
        field = cv2.GaussianBlur(field, (0, 0), calm)
    pixels = _PIXELS[part]
    where = pixels + cv2.resize(field, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return cv2.remap(image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def beyond_lips(
    points: np.ndarray, drop: float = 0.0, size: tuple[int, ...] = (WINDOW_SIZE, WINDOW_SIZE)
) -> np.ndarray:
    """How far each place is beyond the outline of the lips, float32 (H, W) px; 0 within it.

    Args:
        points: lips and jaw (P, 2), px of the picture.
        drop: how much further down the lower lip is taken to reach, px.
        size: H and W of the picture, of a whole window if not given.
    """
    canvas = np.full(size, 255, np.uint8)
    outline = np.clip(points[_OUTER], -WINDOW_SIZE, 2 * WINDOW_SIZE)
    for lips in (outline, outline + (0, drop)) if drop else (outline,):
        fixed = np.round(lips * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(canvas, [fixed], 0, shift=_SUBPIXEL_BITS)
    return cv2.distanceTransform(canvas, cv2.DIST_L2, 5)


def lips_mask(points: np.ndarray, grown: float = LIPS_GROWN_PX, soft: float = LIPS_SOFT_PX) -> np.ndarray:
    """Opacity float32 (160, 160) in [0, 1] of lips and what lies between them.

    Args:
        points: lips and jaw (P, 2), window px.
        grown, soft: see `grown_mask`.
    """
    return grown_mask(beyond_lips(points), grown, soft)


def grown_mask(beyond: np.ndarray, grown: float, soft: float) -> np.ndarray:
    """Opacity float32 (H, W) in [0, 1] of what lies within the lips' outline, or not far beyond it.

    Args:
        beyond: see `beyond_lips`.
        grown: how far beyond the outline the opacity is a half, px; all of the lips are always covered.
        soft: width of the rim, px; 0 = none.
    """
    if not soft:
        return (beyond <= grown).astype(np.float32)
    return smooth_step((max(grown - soft / 2, 0.0) + soft - beyond) / soft).astype(np.float32)


def without_lips(window: np.ndarray, points: np.ndarray, amount: float) -> np.ndarray:
    """A mouth window whose lips are grown over by the skin around them (normalised convolution, Knutsson 1993).

    Args:
        window: uint8 (160, 160, 3).
        points: where its lips and jaw are (P, 2), window px.
        amount: 0..1, how much of that is taken.

    Returns:
        uint8 (160, 160, 3); the window itself where `amount` is 0.
    """
    if amount <= 0:
        return window
    (grown, soft), beyond = _CLEARED_PX, beyond_lips(points)
    small = (WINDOW_SIZE // _CLEAR_REDUCE,) * 2
    skin = 1 - grown_mask(beyond, grown + _SWOLLEN_PX, 1.0)
    weight = cv2.resize(skin, small, interpolation=cv2.INTER_AREA)[..., None]
    sigma = _CLEAR_SIGMA / _CLEAR_REDUCE
    seen = cv2.resize(window, small, interpolation=cv2.INTER_AREA).astype(np.float32) * weight
    filled = cv2.GaussianBlur(seen, (0, 0), sigma) / (cv2.GaussianBlur(weight, (0, 0), sigma)[..., None] + 1e-3)
    filled = cv2.resize(filled, (WINDOW_SIZE, WINDOW_SIZE), interpolation=cv2.INTER_LINEAR)
    mask = amount * grown_mask(beyond, grown, soft)[..., None]
    return np.clip(window + mask * (filled - window) + 0.5, 0, 255).astype(np.uint8)


def relit(picture: np.ndarray, skin: np.ndarray, beyond: np.ndarray, ring_px: float = _RING_PX[1]) -> np.ndarray:
    """Bring a mouth to the light of a frame: a gain by channel, slowly changing over the picture.

    It is measured on the skin around the lips, which both show.

    Args:
        picture: uint8 (H, W, 3), a window or the part of it around the mouth.
        skin: uint8 (H, W, 3), the frame with its lips at the same place.
        beyond: float32 (H, W), see `beyond_lips`.
        ring_px: how far from the lips skin is looked at.

    Returns:
        float32 (H, W, 3), 0..255 but for overshoot.
    """
    size = picture.shape[:2]
    small = (size[1] // _LIGHT_REDUCE, size[0] // _LIGHT_REDUCE)
    ring = ((beyond > _RING_PX[0]) & (beyond <= ring_px)).astype(np.float32)
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
    gain = cv2.resize(gain, size[::-1], interpolation=cv2.INTER_LINEAR)
    return (picture.astype(np.float32) + _DARK) * gain - _DARK


def draft(
    window: np.ndarray,
    own: np.ndarray,
    wanted: np.ndarray,
    mouths: Sequence[tuple[Mouth, float]],
    closed: float,
) -> np.ndarray:
    """A frame whose mouth has the wanted shape, made of the frame and of other pictures of the person.

    Lips swell beyond their mesh, so where the old ones stood elsewhere they are cleared away first.

    Args:
        window: uint8 (160, 160, 3), the mouth window of the frame.
        own: where lips and jaw are in it (P, 2), window px.
        wanted: where they shall be (P, 2), window px.
        mouths: pictures of lips, and their weights, whose sum is 1.
        closed: gap between the inner lips of the mesh when this person's mouth is closed, window px.

    Returns:
        uint8 (160, 160, 3).
    """
    moved = float(np.sqrt(np.square(own[_OUTER] - wanted[_OUTER]).sum(1).mean()))
    amount = float(smooth_step(np.float32((moved - _MOVED_PX[0]) / (_MOVED_PX[1] - _MOVED_PX[0]))))
    made = bend(without_lips(window, own, amount), _jaw_seen(own, wanted)[_AROUND], wanted[_AROUND], _CALM)
    ahead = float(looks_ahead(wanted))
    part, corner = _around_lips(wanted, _CHIN_MARGIN_PX if ahead else _PART_MARGIN_PX)
    skin, there = made[part], wanted - corner
    beyond = beyond_lips(there, size=skin.shape[:2])
    ring_px = _RING_PX[1] + ahead * (_WIDE_RING_PX - _RING_PX[1])  # no jump of the light while a head turns
    lips = np.zeros(skin.shape, np.float32)
    for mouth, weight in mouths:
        lips += weight * relit(_bent_mouth(mouth, wanted, closed, part, there), skin, beyond, ring_px)
    mask = _laid(there, lips, skin, ahead)[..., None]
    made[part] = np.clip(skin + mask * (lips - skin) + 0.5, 0, 255)
    return made


def _laid(there: np.ndarray, lips: np.ndarray, skin: np.ndarray, ahead: float) -> np.ndarray:
    """Opacity float32 (H, W) in [0, 1] of the picture of the lips over the skin of the frame.

    Args:
        there: lips and jaw (P, 2), px of the part.
        lips, skin: the two pictures (H, W, 3), 0..255.
        ahead: see `looks_ahead`.
    """
    (grown, soft, drop), (low, high) = _LAID_PX, _LIPS_ONLY_PX
    beyond, same = beyond_lips(there, drop, skin.shape[:2]), _same_skin(lips, skin)
    beside = smooth_step((beyond - low) / (high - low))
    near = grown_mask(beyond, grown, soft) * (1 - (1 - ahead) * beside * (1 - same))
    chin = grown_mask(beyond, *_CHIN_PX) * smooth_step((_within_jaw(there, near.shape) - _JAW_INSET_PX) / _JAW_SOFT_PX)
    return np.maximum(near, ahead * chin * same)


def _same_skin(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where two pictures (H, W, 3) show the same surface, float32 (H, W) in [0, 1]: not a hand in one of them."""
    size = one.shape[1] // _OTHER_REDUCE, one.shape[0] // _OTHER_REDUCE
    here, there = (cv2.resize(x, size, interpolation=cv2.INTER_AREA).astype(np.float32) for x in (one, other))
    odd = cv2.GaussianBlur(np.abs(here - there).max(-1), (0, 0), _OTHER_SIGMA / _OTHER_REDUCE)
    low, high = _OTHER_LEVELS
    return cv2.resize(smooth_step((high - odd) / (high - low)), one.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def _within_jaw(points: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """How far each place is within the line of the jaw (P, 2), float32 (H, W) px; 0 beyond it."""
    jaw = points[JAW_PART]
    face = np.concatenate([jaw, [[jaw[-1, 0], -1.0], [jaw[0, 0], -1.0]]])
    fixed = np.round(np.clip(face, -WINDOW_SIZE, 2 * WINDOW_SIZE) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    canvas = cv2.fillPoly(np.zeros(size, np.uint8), [fixed], 255, shift=_SUBPIXEL_BITS)
    return cv2.distanceTransform(canvas, cv2.DIST_L2, 5)


def _jaw_seen(points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Lips and jaw (P, 2) with the jaw as much further from the wanted one as the mesh saw too little of it, px."""
    seen = points.copy()
    seen[JAW_PART] = wanted[JAW_PART] + _JAW_SEEN * (points[JAW_PART] - wanted[JAW_PART])
    return seen


def _bent_mouth(mouth: Mouth, wanted: np.ndarray, closed: float, part: Part, there: np.ndarray) -> np.ndarray:
    """A part of a picture of a mouth (H, W, 3), bent to the wanted points, which lie `there` (P, 2) in the part."""
    seen = _jaw_seen(mouth.points, wanted)
    bent, teeth = bend(mouth.picture, seen, wanted, part=part), None
    if is_opened_further(mouth.points, wanted, closed):
        teeth = bend(mouth.picture, mouth.points, opened_no_further(mouth.points, wanted), part=part)
    opened = painted_inside(bent, mouth.points, there, closed, teeth)
    return shut_lips(opened, mouth.points, there, closed, mouth.teeth)


def _around_lips(points: np.ndarray, margin: float) -> tuple[Part, np.ndarray]:
    """The part of the window with the lips and the skin around them, and its corner (2,) x, y."""
    low = np.floor((points[_OUTER].min(0) - margin) / _CELL).astype(int) * _CELL
    high = np.ceil((points[_OUTER].max(0) + margin) / _CELL).astype(int) * _CELL
    low = np.clip(low, 0, WINDOW_SIZE - _CELL)
    high = np.clip(high, low + _CELL, WINDOW_SIZE)
    return (slice(low[1], high[1]), slice(low[0], high[0])), low
