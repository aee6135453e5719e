"""A person's own mouths: pictures of the real lips, teeth and tongue, spread over all shapes and poses that were seen.

Drawing takes the nearest ones for every wanted shape, along a cheapest path over time, as unit selection in speech
synthesis does (Hunt and Black 1996): a cost for how unlike mouth and wanted shape are, and one for each change of the
picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from faces.alignment import LIPS_INNER, LIPS_OUTER
from faces.mouth_shape import mouth_opening

_LIPS = len(LIPS_OUTER) + len(LIPS_INNER)  # the first of the shape's points
_OUTER, _INNER = slice(0, len(LIPS_OUTER)), slice(len(LIPS_OUTER), _LIPS)
_MOUTH = (slice(48, 152), slice(16, 144))  # rows, columns of the window in which sharpness counts
_POSE_PX_PER_DEG = np.array([0.08, 0.08, 0.03], np.float32)  # unlikeness of a head turned by a degree: yaw, pitch, roll
_TURNED_PX_PER_DEG, _TURNED_DEG = 0.16, (10.0, 30.0)  # more of it in yaw, from and up to such a yaw: sides come and go
_SOFT_PX = 0.5  # unlikeness of a picture with none of the detail of the sharpest
# Unlikeness of each px that the lips must be opened further than in a picture, whose inside is then invented, and of
# each px that they must be shut.
_OPENED, _SHUT = 0.2, 0.1
# The same where lips shall be closed, which show teeth when they are bent shut; and the gap at which that ends, px.
_PARTED, _PARTED_PX = 2.0, 2.0
_BITTEN_PX = 8.0  # unlikeness of a picture with nothing but teeth between its lips, where lips shall be closed
_TOOTH_LIGHT, _TOOTH_PALE = 0.7, 0.8  # least lightness and most saturation of teeth, in parts of the skin's below them
_SHIFT = 0.5  # how much a shift of all of the mouth counts
_SWITCH_PX = 0.6  # cost of a change of the picture
_NOVEL_PX = 0.4  # a mouth nearer than this to a known one is not worth keeping
_MIX = (0.15, 0.7, 0.15)  # over frames, so that a change of the picture is a short cross-fade


@dataclass(frozen=True, eq=False)
class Mouth:
    """One picture of a person's mouth.

    Attributes:
        picture: uint8 RGB (160, 160, 3), mouth window.
        points: float32 (P, 2), lips and jaw, window px.
        shape: float32 (K,), mouth shape.
        lips: float32 (2 * L,), how the lips differ from the resting mouth, window px.
        pose: float32 (3,), yaw, pitch and roll, degrees.
        sharpness: deviation of the Laplacian.
    """

    picture: np.ndarray
    points: np.ndarray
    shape: np.ndarray
    lips: np.ndarray
    pose: np.ndarray
    sharpness: float

    @cached_property
    def teeth(self) -> float:
        """Share of what lies between the lips, 0 to 1, that looks like teeth: a mesh takes bared ones for lips."""
        inner, below = self.points[_INNER], self.points[_OUTER][11:20] + (0, 8)
        limit = np.array(self.picture.shape[1::-1]) - 1
        x, y = np.clip(np.round(below), 0, limit).astype(int).T
        skin = np.median(self.picture[y, x].astype(np.float32), axis=0)
        low = np.clip(np.floor(inner.min(0)), 0, limit).astype(int)
        high = np.clip(np.ceil(inner.max(0)), low + 1, limit + 1).astype(int)
        part = self.picture[low[1] : high[1], low[0] : high[0]].astype(np.float32)
        between = np.zeros(part.shape[:2], np.uint8)
        cv2.fillPoly(between, [np.round(inner - low).astype(np.int32)], 1)
        light, pale = part.max(-1), np.ptp(part, axis=-1) / np.maximum(part.max(-1), 1.0)
        tooth_like = (light >= _TOOTH_LIGHT * skin.max()) & (pale <= _TOOTH_PALE * np.ptp(skin) / max(skin.max(), 1.0))
        return float(tooth_like[between > 0].mean()) if between.any() else 0.0


def gap_of(lips: np.ndarray) -> np.ndarray:
    """How much further lips (F, 2 * L) are open than at rest (F,), window px; see `lips_of`."""
    return mouth_opening(lips.reshape(len(lips), _LIPS, 2))


def lips_of(moved: np.ndarray) -> np.ndarray:
    """Of how lips and jaw differ from the resting mouth (F, P, 2), the lips as one row a frame (F, 2 * L).

    What they moved as a whole counts little: a picture that is laid elsewhere need not be bent.
    """
    lips = moved[:, :_LIPS]
    return (lips - (1 - _SHIFT) * lips.mean(axis=1, keepdims=True)).reshape(len(moved), -1)


def mouth_of(window: np.ndarray, points: np.ndarray, moved: np.ndarray, shape: np.ndarray, pose: np.ndarray) -> Mouth:
    """A mouth as the bank keeps it: `moved` (P, 2) is how lips and jaw differ from rest; others as in `Mouth`."""
    grey = cv2.cvtColor(window[_MOUTH], cv2.COLOR_RGB2GRAY)
    sharpness = float(cv2.Laplacian(grey, cv2.CV_32F).std())
    return Mouth(window, points, shape, lips_of(moved[None])[0], pose, sharpness)


@dataclass(frozen=True, eq=False)
class MouthBank:
    """Mouths of one person; never changes, so what is drawn from it does not depend on when it is drawn."""

    mouths: tuple[Mouth, ...]

    def __len__(self) -> int:
        return len(self.mouths)

    @classmethod
    def of(cls, mouths: Sequence[Mouth], size: int) -> MouthBank:
        """At most `size` of the mouths, as unlike each other as possible (farthest point sampling, Gonzalez 1985)."""
        everything = cls(tuple(mouths))
        chosen = [int(np.argmax(everything._sharpness))]
        nearest = everything.unlikeness(*everything._key(chosen[0]))
        while len(chosen) < min(size, len(mouths)) and nearest.max() > _NOVEL_PX:
            chosen.append(int(nearest.argmax()))
            nearest = np.minimum(nearest, everything.unlikeness(*everything._key(chosen[-1])))
        return cls(tuple(mouths[i] for i in chosen))

    def with_mouth(self, mouth: Mouth, size: int) -> MouthBank:
        """This bank, or one with the mouth in it where that is unlike all others; the most redundant one makes room."""
        nearest = float(self.unlikeness(mouth.lips[None], mouth.pose[None])[0].min())
        if nearest <= _NOVEL_PX:
            return self
        if len(self) < size:
            return MouthBank((*self.mouths, mouth))
        redundant = int(self._redundancy.argmin())
        if self._redundancy[redundant] >= nearest:
            return self
        return MouthBank((*self.mouths[:redundant], *self.mouths[redundant + 1 :], mouth))

    def unlikeness(self, lips: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """How unlike the mouths are to wanted ones, window px.

        Args:
            lips: of the wanted mouths (F, 2 * L), see `lips_of`.
            pose: of the frames (F, 3), degrees.

        Returns:
            (F, N): root mean square distance of the lips' points, and what the turn of the head adds.
        """
        off, (low, high) = np.abs(pose[:, None] - self._poses[None]), _TURNED_DEG
        most = np.maximum(np.abs(pose[:, None, 0]), np.abs(self._poses[None, :, 0]))
        turned = np.clip((most - low) / (high - low), 0, 1)
        return self.apart(lips) + off @ _POSE_PX_PER_DEG + _TURNED_PX_PER_DEG * turned * off[..., 0]

    def apart(self, lips: np.ndarray) -> np.ndarray:
        """Root mean square distance (F, N) of the lips' points of mouths and of wanted ones (F, 2 * L), window px."""
        # |a - b|^2 as one matrix product
        square = (lips**2).sum(1)[:, None] + (self._lips**2).sum(1)[None] - 2 * lips @ self._lips.T
        return np.sqrt(np.maximum(square, 0.0) / _LIPS)

    def costs(self, lips: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """`unlikeness`, and what a picture's softness and another opening of the lips add."""
        wanted = gap_of(lips)[:, None]
        further = wanted - gap_of(self._lips)[None]
        closed = np.clip(1 - wanted / _PARTED_PX, 0, 1)
        opened = np.where(further > 0, _OPENED, -_SHUT - _PARTED * closed) * further + _BITTEN_PX * closed * self._teeth
        soft = _SOFT_PX * (1 - self._sharpness / max(self._sharpness.max(), 1e-6))
        return self.unlikeness(lips, pose) + opened + soft

    def _key(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self._lips[index : index + 1], self._poses[index : index + 1]

    @cached_property
    def _lips(self) -> np.ndarray:
        return np.stack([mouth.lips for mouth in self.mouths])

    @cached_property
    def _poses(self) -> np.ndarray:
        return np.stack([mouth.pose for mouth in self.mouths])

    @cached_property
    def _teeth(self) -> np.ndarray:
        return np.array([mouth.teeth for mouth in self.mouths], np.float32)

    @cached_property
    def _sharpness(self) -> np.ndarray:
        return np.array([mouth.sharpness for mouth in self.mouths], np.float32)

    @cached_property
    def _redundancy(self) -> np.ndarray:
        """(N,) distance of each mouth to the nearest other one."""
        between = self.unlikeness(self._lips, self._poses)
        np.fill_diagonal(between, np.inf)
        return between.min(axis=1)


@dataclass(frozen=True, eq=False)
class Pick:
    """What a frame is drawn from.

    Attributes:
        mouths: and their weights, whose sum is 1.
        unlike: root mean square distance of the lips' points to the wanted ones, window px.
    """

    mouths: tuple[tuple[Mouth, float], ...]
    unlike: float


class MouthPicker:
    """Picks mouths for successive frames, block by block; each block goes on from where the one before ended."""

    def __init__(self) -> None:
        self._last: Mouth | None = None

    def pick(self, bank: MouthBank, lips: np.ndarray, pose: np.ndarray) -> list[Pick]:
        """Mouths for the next frames.

        Args:
            bank: to take them from; it may have grown since the block before.
            lips: wanted (F, 2 * L), see `lips_of`.
            pose: of the frames (F, 3), degrees.
        """
        mouths = list(bank.mouths)
        costs, apart = bank.costs(lips, pose), bank.apart(lips)
        start = next((i for i, mouth in enumerate(mouths) if mouth is self._last), None)
        path = cheapest_path(costs, _SWITCH_PX, start)
        chosen = [self._last or mouths[path[0]], *(mouths[i] for i in path), mouths[path[-1]]]
        self._last = mouths[path[-1]]
        distance = apart[np.arange(len(path)), path]
        return [Pick(_mixed(chosen[i : i + 3]), float(distance[i])) for i in range(len(path))]


def _mixed(neighbours: Iterable[Mouth]) -> tuple[tuple[Mouth, float], ...]:
    """The mouths of the frame before, the frame and the one after, with their weights; the same one counts once."""
    weights: dict[int, tuple[Mouth, float]] = {}
    for mouth, weight in zip(neighbours, _MIX, strict=True):
        weights[id(mouth)] = (mouth, weights.get(id(mouth), (mouth, 0.0))[1] + weight)
    return tuple(weights.values())


def cheapest_path(costs: np.ndarray, switch: float, start: int | None = None) -> list[int]:
    """For each frame the number of a mouth, such that costs and changes are least in all (Viterbi 1967).

    Args:
        costs: (F, N).
        switch: cost of each change.
        start: mouth of the frame before; None = free.
    """
    total = costs[0].copy()
    if start is not None:
        total += switch
        total[start] -= switch
    came_from = []
    for cost in costs[1:]:
        best = int(total.argmin())
        stays = total <= total[best] + switch
        came_from.append(np.where(stays, np.arange(len(total)), best))
        total = np.where(stays, total, total[best] + switch) + cost
    path = [int(total.argmin())]
    for before in reversed(came_from):
        path.append(int(before[path[-1]]))
    return path[::-1]
