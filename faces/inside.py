"""The inside of a mouth that no picture shows, and closed lips where none are seen: painted plainly.

A closed mouth that is bent open has nothing but stretched lips between its lips. Here the opening gets what every
mouth has: a dark inside, the edge of the upper teeth, the tongue. Colours come from the person's own lips and skin, so
they have the picture's light. A mouth that is seen open keeps its own teeth: they hang from the skull, so they stay
below the upper lip as large as they are while the lower lip goes down. Parted lips that are bent shut still show a
strip of teeth, so the lips are drawn on over it until they meet.
"""

from __future__ import annotations

import cv2
import numpy as np

from faces.alignment import LIPS_INNER, LIPS_OUTER
from faces.mouth_shape import mouth_opening

_INNER = slice(len(LIPS_OUTER), len(LIPS_OUTER) + len(LIPS_INNER))
_OUTER = slice(0, len(LIPS_OUTER))
_UPPER, _LOWER = list(range(0, 11)), [0, *range(19, 9, -1)]  # of the inner lips, from the left corner to the right
_STRETCH = 1.25  # a picture that is opened at all may be opened so many times wider before its inside is not enough
_CLOSED_PX = 2.0  # pictures open by less than that are closed: the mesh says no better
_PARTED_PX = 5.0  # opening at which the lips are parted over all of the gap that the mesh sees; lips fill it before
_NEW_PX = (0.3, 1.8)  # opening beyond that from which on the inside is painted, and painted fully
_DARK = np.array([0.28, 0.16, 0.16], np.float32)  # the inside, in parts of the lips' colour
_TONGUE = np.array([0.75, 0.50, 0.50], np.float32)  # the same of the tongue
_TEETH_PART, _TEETH_MOST_PX = 0.42, 7.0  # height of the teeth's edge in parts of the opening, and at most
_TEETH_LIGHT, _TEETH_PALE = 0.93, 0.45  # in parts of the skin's brightness; how much of the skin's tint they have
_TEETH_FROM_PX = (3.0, 7.0)  # opening from which on teeth are seen, and seen fully
# Where teeth meet, in parts of the mouth's half width (an incisor is a sixth of a mouth), and how it shows.
_BETWEEN_TEETH = np.array([-0.82, -0.6, -0.33, 0.0, 0.33, 0.6, 0.82], np.float32)
_BETWEEN_WIDTH, _BETWEEN_DARK = 0.022, 0.22
_SOFT_PX = 1.2
_SHUT_PX = 2.0  # gap beyond that of closed lips from which on lips are parted, and are no longer drawn together
_BARED = 0.15  # share of teeth between lips that the mesh takes for closed, from which on they are parted all the same
_GROWN_PX, _FROM_PX = 2.0, 2.0  # beyond the inner lips' mesh that is painted, and where the lips' colour is taken, px
_SEAM_PX, _SEAM_DARK = 0.8, 0.45  # the line in which lips meet
_CORNER = 0.2  # part of the mouth's half width over which that fades at its corners


def is_opened_further(source: np.ndarray, wanted: np.ndarray, closed: float) -> bool:
    """Whether a picture shows some inside of the mouth, and less than is wanted.

    Args:
        source: where lips and jaw are in it (P, 2), px.
        wanted: where they shall be (P, 2), px.
        closed: gap between the inner lips of the mesh when the mouth is closed, px.
    """
    return _seen_gap(source, closed) > 0 and _amount(source, wanted, closed) > 0


def opened_no_further(source: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The wanted lips and jaw (P, 2), with the lower lip as far from the upper one as in the picture, px."""
    points, lower = wanted.copy(), [_INNER.start + i for i in range(11, 20)]
    upper = [_INNER.start + i for i in range(9, 0, -1)]
    move = points[upper] + source[lower] - source[upper] - points[lower]
    points[lower] += move
    points[11:20] += move  # the outer lips run along with the inner ones
    return points


def painted_inside(
    picture: np.ndarray, source: np.ndarray, wanted: np.ndarray, closed: float, teeth: np.ndarray | None = None
) -> np.ndarray:
    """Paint the inside of a mouth where it is opened further than in the picture that it was bent from.

    Args:
        picture: uint8 (H, W, 3), bent so that lips and jaw lie at `wanted`; a window or the part around the mouth.
        source: where they were before (P, 2), px of the window.
        wanted: where they are (P, 2), px of the picture.
        closed: gap between the inner lips of the mesh when the mouth is closed, window px; lips fill it then.
        teeth: uint8 (H, W, 3), the same picture bent to `opened_no_further`, for pictures that `is_opened_further`.

    Returns:
        uint8 (H, W, 3); the picture itself where there is nothing to paint.
    """
    amount = _amount(source, wanted, closed)
    if amount <= 0:
        return picture
    crossed = max(0.0, -closed)  # thin lips: their mesh is still crossed where they begin to part
    before, opening = (float(mouth_opening(lips[None])[0]) + crossed for lips in (source, wanted))
    parted = float(smooth_step(np.float32((opening - crossed - closed) / _PARTED_PX)))
    top, bottom, across = _opening(wanted[_INNER], picture.shape[1], parted, crossed)
    down, gap = np.arange(len(picture), dtype=np.float32)[:, None] - top, np.maximum(bottom - top, 1e-3)
    lips, white = _colours(picture, wanted)
    inside = _deep(down, gap, lips)
    if teeth is None:
        edge, shown = _painted_teeth(down, gap, across, white)
    else:
        kept = before / opening * gap
        edge, shown = smooth_step((kept - down) / _SOFT_PX + 0.5), teeth
    inside += edge[..., None] * (shown - inside)
    edges = smooth_step(down / _SOFT_PX + 0.5) * smooth_step((gap - down) / _SOFT_PX + 0.5)
    weight = amount * (edges * (np.abs(across) < 1))[..., None]
    return np.clip(picture + weight * (inside - picture) + 0.5, 0, 255).astype(np.uint8)


def shut_lips(
    picture: np.ndarray, source: np.ndarray, wanted: np.ndarray, closed: float, teeth: float = 0.0
) -> np.ndarray:
    """Draw parted lips on until they meet, where they were bent to be closed.

    Args:
        picture: uint8 (H, W, 3), bent so that lips and jaw lie at `wanted`.
        source: where they were before (P, 2), px of the window.
        wanted: where they are (P, 2), px of the picture.
        closed: gap between the inner lips of the mesh when the mouth is closed, window px.
        teeth: share of teeth between the lips of the source, 0..1.

    Returns:
        uint8 (H, W, 3); the picture itself where there is nothing to close.
    """
    before, after = (float(mouth_opening(lips[None])[0]) - closed for lips in (source, wanted))
    parted = max(smooth_step(np.float32(before / _SHUT_PX - 0.5)), smooth_step(np.float32(teeth / _BARED)))
    amount = float(parted * smooth_step(np.float32(1 - after / _SHUT_PX)))
    if amount <= 0:
        return picture
    top, bottom, across = _opening(wanted[_INNER], picture.shape[1], 1.0, 0.0)
    top, bottom = top - _GROWN_PX, bottom + _GROWN_PX
    rows = np.arange(len(picture), dtype=np.float32)[:, None]
    part = np.clip((rows - top) / np.maximum(bottom - top, 1e-3), 0, 1)[..., None]
    upper, lower = (_along(picture, edge) for edge in (top - _FROM_PX, bottom + _FROM_PX))
    seam = np.exp(-0.5 * ((rows - (top + bottom) / 2) / _SEAM_PX) ** 2)[..., None]
    lips = (upper + part * (lower - upper)) * (1 - _SEAM_DARK * seam)
    edges = smooth_step((rows - top) / _SOFT_PX + 0.5) * smooth_step((bottom - rows) / _SOFT_PX + 0.5)
    weight = amount * (edges * smooth_step((1 - np.abs(across)) / _CORNER))[..., None]
    return np.clip(picture + weight * (lips - picture) + 0.5, 0, 255).astype(np.uint8)


def _along(picture: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Colours (1, W, 3) of a picture along a line with one row (W,) for each column, evened out along it."""
    rows = np.clip(np.round(edge).astype(int), 0, len(picture) - 1)
    found = picture[rows, np.arange(picture.shape[1])][None].astype(np.float32)
    return cv2.GaussianBlur(found, (0, 0), 2.0)


def _seen_gap(points: np.ndarray, closed: float) -> float:
    """How far lips (P, 2) are visibly apart, px."""
    return max(0.0, float(mouth_opening(points[None])[0]) - closed - _CLOSED_PX)


def _amount(source: np.ndarray, wanted: np.ndarray, closed: float) -> float:
    """How much of the painting is needed, 0..1."""
    opened = float(mouth_opening(wanted[None])[0]) - closed - _STRETCH * _seen_gap(source, closed)
    return float(np.clip((opened - _NEW_PX[0]) / (_NEW_PX[1] - _NEW_PX[0]), 0.0, 1.0))


def _deep(down: np.ndarray, gap: np.ndarray, lips: np.ndarray) -> np.ndarray:
    """The dark of the mouth and the tongue (H, W, 3).

    Args:
        down: distance to the upper lip (H, W), px.
        gap: between the lips, by column (W,), px.
        lips: their colour (3,).
    """
    part = np.clip(down / gap, 0, 1)[..., None]
    tongue = 0.7 * smooth_step((part - 0.55) / 0.45) * smooth_step(gap / 10.0)[None, :, None]
    return lips * (_DARK + tongue * (_TONGUE - _DARK))


def _painted_teeth(
    down: np.ndarray, gap: np.ndarray, across: np.ndarray, white: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where upper teeth are seen (H, W), 0..1, and their picture (H, W, 3).

    Args:
        down, gap: as above.
        across: place of the columns (W,), -1 to 1.
        white: colour of teeth (3,).
    """
    between = np.exp(-0.5 * ((across[:, None] - _BETWEEN_TEETH) / _BETWEEN_WIDTH) ** 2).max(axis=1)
    height = np.minimum(_TEETH_PART * gap, _TEETH_MOST_PX) * np.sqrt(np.maximum(1 - across**2, 0)) - between
    low, high = _TEETH_FROM_PX
    seen = smooth_step((gap.max() - low) / (high - low)) * smooth_step(height)
    shade = (1 - 0.4 * across**2) * (1 - _BETWEEN_DARK * between) * np.clip(0.6 + 0.1 * down, 0, 1)
    return seen * smooth_step((height - down) / 1.5 + 0.5), white * shade[..., None]


def _opening(
    inner: np.ndarray, width: int, part: float, crossed: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each column: upper and lower edge of a part of the opening, px, and the place across it, -1 to 1.

    Args:
        inner: the inner lips (20, 2), px of the picture.
        width: of the picture, px.
        part: of the gap between them, 0..1.
        crossed: what is added to that gap in the middle of the mouth, px.
    """
    upper, lower = (inner[points][np.argsort(inner[points, 0])] for points in (_UPPER, _LOWER))
    columns = np.arange(width, dtype=np.float32)
    top, bottom = (np.interp(columns, edge[:, 0], edge[:, 1]) for edge in (upper, lower))
    left, right = inner[:, 0].min(), inner[:, 0].max()
    across = np.clip((2 * columns - left - right) / max(right - left, 1.0), -1, 1)
    middle, half = (top + bottom) / 2, part * np.maximum(bottom - top + crossed * (1 - across**2), 0) / 2
    return tuple(x.astype(np.float32) for x in (middle - half, middle + half, across))


def _colours(picture: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour of the lips, and of teeth in the light of the skin below them; (3,) each, 0..255."""
    lower = (points[_OUTER][11:20] + points[_INNER][11:20]) / 2  # the middle of the lower lip
    below = points[_OUTER][11:20] + (0, 8)
    limit = np.array(picture.shape[1::-1]) - 1
    spots = [np.clip(np.round(spot).astype(int), 0, limit) for spot in (lower, below)]
    lips, skin = (np.median(picture[spot[:, 1], spot[:, 0]].astype(np.float32), axis=0) for spot in spots)
    light = max(float(skin.max()), 1.0)
    return lips, _TEETH_LIGHT * light * (skin / light) ** _TEETH_PALE


def smooth_step(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between; of the same shape."""
    t = np.clip(x, 0, 1)
    return t * t * (3 - 2 * t)
