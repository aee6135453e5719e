"""A portrait that does not freeze: breath, blinks and small movements of the head, by bending the picture.

No network is asked. All movements are sums of waves that fit into the period a whole number of times, so the last frame
goes over into the first one. Lengths are parts of the face's height, from the forehead to the chin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np

from faces.alignment import head_pose

_FOREHEAD, _CHIN = 10, 152
_EYES = (
    ([33, 246, 161, 160, 159, 158, 157, 173, 133], [33, 7, 163, 144, 145, 153, 154, 155, 133]),
    ([263, 466, 388, 387, 386, 385, 384, 398, 362], [263, 249, 390, 373, 374, 380, 381, 382, 362]),
)
"""Mesh: upper and lower lid of each eye, from the outer to the inner corner."""

_SWAY = ((0.012, (1, 3)), (0.008, (2, 3)))  # across and down: how far, and in how many waves of a period
_ROLL_DEG = (0.7, (1, 2))
_TURN = (0.014, (2, 3))  # how far the tip of the nose moves against the cheeks, to the side and down
_BREATH = 0.009  # how far the shoulders rise
_BREATH_S = 4.0  # about so long is a breath
_BLINK_EVERY_S = (2.5, 5.0)
_CLOSING_S, _OPENING_S = 0.1, 0.18
_CLOSED = 0.94  # of the way to the lower lid; a line of lashes is left
_HEAD_REACH = 0.75  # how far beyond the face the picture goes along with it
_FIELD = 4  # the fields are computed on a picture so much smaller


def moving_portrait(
    image: np.ndarray, points: np.ndarray, seconds: float, fps: float, seed: int = 1
) -> Iterator[np.ndarray]:
    """Frames of one period.

    Args:
        image: uint8 RGB (H, W, 3).
        points: mesh (468, 3) of the face, px.
        seconds: of the period.
        fps: frames per second.
        seed: of the phases, and of the moments of the blinks.

    Yields:
        uint8 RGB (H, W, 3), `round(seconds * fps)` of them.
    """
    chance = np.random.default_rng(seed)
    count = round(seconds * fps)
    fields = _Fields(image.shape[:2], points)
    waves = _Waves(chance, seconds)
    closing = lid_movement(count, fps, chance)
    for index in range(count):
        blinked = image if closing[index] == 0 else _blinked(image, points, float(closing[index]))
        yield _bent(blinked, fields.displacement(waves, index / count))


def lid_movement(count: int, fps: float, chance: np.random.Generator) -> np.ndarray:
    """How far the lids are closed in each frame (count,), 0 to 1; open at both ends."""
    closed, moment = np.zeros(count), 0.0
    times = np.arange(count) / fps
    while (moment := moment + chance.uniform(*_BLINK_EVERY_S)) < count / fps - 0.5:
        before, after = moment - times, times - moment
        closed = np.maximum(closed, np.clip(1 - np.maximum(before / _CLOSING_S, after / _OPENING_S), 0, 1))
    return closed * closed * (3 - 2 * closed)


class _Waves:
    """Movements at any part (0 to 1) of the period, each about -1 to 1."""

    def __init__(self, chance: np.random.Generator, seconds: float):
        self._phases = chance.uniform(0, 2 * math.pi, (5, 2))
        self._breaths = max(1, round(seconds / _BREATH_S))

    def at(self, row: int, numbers: tuple[int, int], part: float) -> float:
        """Two waves; `numbers`: how often each fits into the period."""
        turns = zip(numbers, self._phases[row], strict=True)
        first, second = (math.sin(2 * math.pi * number * part + phase) for number, phase in turns)
        return 0.65 * first + 0.35 * second

    def breath(self, part: float) -> float:
        """0 = breathed out, 1 = in."""
        return 0.5 - 0.5 * math.cos(2 * math.pi * self._breaths * part)


class _Fields:
    """Where in the picture the head is, how near to the camera, and what rises with the breath."""

    def __init__(self, size: tuple[int, int], points: np.ndarray):
        self._size = size
        self._height = float(np.linalg.norm(points[_FOREHEAD, :2] - points[_CHIN, :2]))
        self._middle = points[:, :2].mean(0)
        y, x = np.mgrid[0 : size[0] : _FIELD, 0 : size[1] : _FIELD].astype(np.float32)
        self._x, self._y = x - self._middle[0], y - self._middle[1]
        self._head = self._around_face(x, y, points)
        self._near = self._depth(points) * self._head
        # The chest begins well below the chin, where the head's own part ends.
        down = np.clip((y - points[_CHIN, 1]) / (0.6 * self._height), 0, 1)
        self._chest = down * down * (3 - 2 * down)

    def _around_face(self, x: np.ndarray, y: np.ndarray, points: np.ndarray) -> np.ndarray:
        """1 on the face and the hair, falling to 0 around them."""
        face = np.zeros(x.shape, np.uint8)
        outline = cv2.convexHull(points[:, :2].astype(np.float32))[:, 0]
        wider = np.where(outline[:, 1:] < self._middle[1], (0.15, 0.55), (0.05, 0.0))
        hair = outline + (outline - self._middle) * wider
        cv2.fillConvexPoly(face, (cv2.convexHull(hair.astype(np.float32)) / _FIELD).round().astype(np.int32), 1)
        far = cv2.distanceTransform(1 - face, cv2.DIST_L2, 5) * _FIELD
        near = np.clip(1 - far / (_HEAD_REACH * self._height), 0, 1)
        return (near * near * (3 - 2 * near)).astype(np.float32)

    def _depth(self, points: np.ndarray) -> np.ndarray:
        """How far before the cheeks' edge the face stands (1 at the tip of the nose), smooth."""
        rise = points[:, 2].max() - points[:, 2]
        rise = rise / max(float(rise.max()), 1e-6)
        height, width = self._x.shape
        total, weight = np.zeros((2, height, width), np.float32)
        columns, rows = (points[:, :2] / _FIELD).round().astype(int).T
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        np.add.at(total, (rows[inside], columns[inside]), rise[inside])
        np.add.at(weight, (rows[inside], columns[inside]), 1.0)
        sigma = 0.07 * self._height / _FIELD
        total, weight = (cv2.GaussianBlur(field, (0, 0), sigma) for field in (total, weight))
        return total / (weight + 0.02 * float(weight.max()))

    def displacement(self, waves: _Waves, part: float) -> np.ndarray:
        """(H, W, 2) float32, px: where each pixel of the frame comes from, relative to itself."""
        (across, across_n), (down, down_n) = _SWAY
        turn, turn_n = _TURN
        breath = waves.breath(part)
        x = across * waves.at(0, across_n, part) + turn * waves.at(1, turn_n, part) * self._near
        y = down * waves.at(2, down_n, part) + 0.5 * turn * waves.at(3, turn_n, part) * self._near
        angle = math.radians(_ROLL_DEG[0] * waves.at(4, _ROLL_DEG[1], part))
        moved_x = self._head * (x * self._height - angle * self._y)
        moved_y = self._head * (y * self._height + angle * self._x)
        moved_y = moved_y - _BREATH * self._height * breath * np.maximum(self._chest, 0.5 * self._head)
        field = -np.stack([moved_x, moved_y], axis=-1).astype(np.float32)
        return cv2.resize(field, self._size[::-1], interpolation=cv2.INTER_LINEAR)


def _bent(image: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]].astype(np.float32)
    source = x + displacement[..., 0], y + displacement[..., 1]
    return cv2.remap(image, *source, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _blinked(image: np.ndarray, points: np.ndarray, amount: float) -> np.ndarray:
    """The picture with both lids closed so far, 0 to 1: the skin above the eye is drawn down over it."""
    result = image
    for upper, lower in _EYES:
        result = _with_lid(result, points[upper, :2], points[lower, :2], _CLOSED * amount)
    return result


def _with_lid(image: np.ndarray, upper: np.ndarray, lower: np.ndarray, amount: float) -> np.ndarray:
    """One eye. Everything happens along the eye's own vertical, in a square around it."""
    centre, across = (upper[0] + upper[-1]) / 2, upper[-1] - upper[0]
    if across[0] < 0:
        across = -across
    width = float(np.linalg.norm(across))
    turn = across / max(width, 1e-6)
    basis = np.array([turn, [-turn[1], turn[0]]])  # px of the picture -> along and across the eye
    box = np.array([centre - 1.1 * width, centre + 1.1 * width])
    x0, y0 = np.clip(np.floor(box[0]).astype(int), 0, None)
    x1, y1 = np.minimum(np.ceil(box[1]).astype(int), image.shape[1::-1])
    if x1 <= x0 or y1 <= y0:
        return image
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float64)
    along, down = ((x - centre[0]) * row[0] + (y - centre[1]) * row[1] for row in basis)
    shift = _lid_shift(along, down, ((upper - centre) @ basis.T, (lower - centre) @ basis.T), amount, width)
    map_x, map_y = (x - basis[1][0] * shift).astype(np.float32), (y - basis[1][1] * shift).astype(np.float32)
    result = image.copy()
    result[y0:y1, x0:x1] = cv2.remap(image, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return result


def _lid_shift(
    along: np.ndarray, down: np.ndarray, lids: tuple[np.ndarray, np.ndarray], amount: float, width: float
) -> np.ndarray:
    """How far down each pixel of the frame has come from above, px."""
    top, bottom = (np.interp(along, *lid[np.argsort(lid[:, 0])].T) for lid in lids)
    bottom = np.maximum(bottom, top + 1e-3)
    edge = np.clip((width / 2 - np.abs(along)) / (0.12 * width), 0, 1)  # nothing moves beyond the corners
    lid = top + amount * edge * (bottom - top)
    brow = top - 0.45 * width
    skin = (down - brow) * (1 - (top - brow) / (lid - brow))
    eye = (down - bottom) * (1 - (bottom - top) / np.maximum(bottom - lid, 1e-3))
    shift = np.where(down < lid, skin, eye)
    return np.where((down > brow) & (down < bottom), shift, 0.0)


def is_frontal(points: np.ndarray, limit_deg: float = 35.0) -> bool:
    """Whether a face (468, 3) is turned so little that `moving_portrait` bends it well."""
    return abs(head_pose(points)[0]) < limit_deg
