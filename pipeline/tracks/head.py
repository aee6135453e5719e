"""A small head of our own (CC0) that moves as ARKit's blend shapes say; made by rules, so no model has to be shipped.

The skin is one sheet of rings around a real hole, the mouth: an ellipsoid unrolled around the middle of the mouth, in
which lips and jaw are easy to move. Units are about 10 cm, the head looks along +z, up is +y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_RADII = np.array([0.8, 1.05, 0.92])  # of the skull
_MOUTH_TILT = -0.52  # of the middle of the mouth below the equator, radians
_HALF_WIDTH, _LIP_WIDTH, _LIP_HEIGHT = 0.25, 0.3, 0.1  # of the mouth in the unrolled sheet, radians
_SPOKES, _RINGS, _LIP_RINGS = 48, 26, 3
_NOSE, _NOSE_SIZE, _NOSE_PUSH = 0.36, 0.1, 0.16

SKIN, LIPS, DARK, WHITE, PUPIL = "skin", "lips", "dark", "white", "pupil"
COLOURS = {
    SKIN: (0.86, 0.64, 0.52), LIPS: (0.7, 0.27, 0.27), DARK: (0.13, 0.03, 0.04),
    WHITE: (0.97, 0.97, 0.97), PUPIL: (0.08, 0.07, 0.06),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Part:
    """A piece of one colour.

    Attributes:
        colour: a key of `COLOURS`.
        points: (N, 3) float32.
        triangles: (M, 3) uint16.
        moves: blend shape -> displacement (N, 3) float32; empty for what stays as it is.
    """

    colour: str
    points: np.ndarray
    triangles: np.ndarray
    moves: dict[str, np.ndarray]


def _side(x: np.ndarray, sign: int) -> np.ndarray:
    """How much a place belongs to one half of the face: 1 at its corner of the mouth, 0.5 in the middle."""
    return np.clip(0.5 + sign * x / (2 * _HALF_WIDTH), 0, 1)


@dataclass(frozen=True, eq=False)
class _Sheet:
    """Places in the unrolled face: x to the side, v up, radians; what belongs to the lower and the upper lip."""

    x: np.ndarray
    v: np.ndarray

    @property
    def near(self) -> np.ndarray:
        """1 on the lips, falling to 0 around them."""
        return np.exp(-np.square(np.hypot(self.x / 0.42, self.v / 0.24)))

    @property
    def below(self) -> np.ndarray:
        """What the jaw carries: lower lip and chin; not the corners of the mouth, and not the neck."""
        down = np.clip(-self.v / np.maximum(np.hypot(self.x, self.v), 1e-9), 0, 1)
        # On the line between the lips the direction says nothing: there the place along the mouth does.
        arch = np.sqrt(np.clip(1 - np.square(self.x / _HALF_WIDTH), 0, 1)) * (self.v < 0)
        reach = np.clip((1.15 + self.v) / 0.6, 0, 1) * np.exp(-np.square(self.x / 0.75))
        return np.maximum(down**0.7, arch) * reach

    @property
    def above(self) -> np.ndarray:
        """What the upper lip carries."""
        arch = np.sqrt(np.clip(1 - np.square(self.x / _HALF_WIDTH), 0, 1))
        return arch * np.exp(-np.square(np.maximum(self.v, 0) / 0.12)) * (self.v > 0)


_Move = Callable[[_Sheet], tuple[np.ndarray, np.ndarray, np.ndarray]]  # -> to the side, up, outwards


def _nothing(sheet: _Sheet) -> np.ndarray:
    return np.zeros_like(sheet.x)


def _both(name: str, move: Callable[[_Sheet, int], tuple]) -> dict[str, _Move]:
    """The same on the left half of the face (+x) and on the right one."""
    return {f"{name}{side}": lambda s, sign=sign: move(s, sign) for side, sign in (("Left", 1), ("Right", -1))}


def _lower_lip(sheet: _Sheet) -> np.ndarray:
    return sheet.below * np.exp(-np.square(np.minimum(sheet.v, 0) / 0.14))


_MOVES: dict[str, _Move] = {
    "jawOpen": lambda s: (-0.06 * s.x * s.near, -0.42 * s.below, -0.03 * s.below),
    "mouthFunnel": lambda s: (
        -0.45 * s.x * s.near, 0.09 * s.above - 0.1 * _lower_lip(s), 0.14 * s.near),
    "mouthPucker": lambda s: (-0.6 * s.x * s.near, _nothing(s), 0.18 * s.near),
    "mouthRollLower": lambda s: (_nothing(s), 0.05 * _lower_lip(s), -0.07 * _lower_lip(s)),
    "mouthRollUpper": lambda s: (_nothing(s), -0.03 * s.above, -0.06 * s.above),
    "mouthShrugLower": lambda s: (_nothing(s), 0.05 * _lower_lip(s), 0.03 * _lower_lip(s)),
    "mouthShrugUpper": lambda s: (_nothing(s), 0.04 * s.above, 0.03 * s.above),
    **_both("mouthStretch", lambda s, sign: (
        sign * 0.1 * s.near * _side(s.x, sign) ** 2, -0.02 * s.near * _side(s.x, sign), _nothing(s))),
    **_both("mouthSmile", lambda s, sign: (
        sign * 0.08 * s.near * _side(s.x, sign) ** 2, 0.09 * s.near * _side(s.x, sign) ** 3, _nothing(s))),
    **_both("mouthPress", lambda s, sign: (
        _nothing(s), 0.02 * (_lower_lip(s) - s.above) * _side(s.x, sign), -0.03 * s.near * _side(s.x, sign))),
    **_both("mouthLowerDown", lambda s, sign: (
        _nothing(s), -0.13 * _lower_lip(s) * _side(s.x, sign), _nothing(s))),
    **_both("mouthUpperUp", lambda s, sign: (
        _nothing(s), 0.1 * s.above * _side(s.x, sign), _nothing(s))),
}  # fmt: skip
NAMES = (*_MOVES, "mouthClose")
"""The blend shapes of the head, named as ARKit names them."""


def sample_head() -> list[Part]:
    """All parts of the head; those that move have all of `NAMES`."""
    return [*_skin(), _inside(), *_eyes()]


def _on_skull(x: np.ndarray, v: np.ndarray, out: np.ndarray | float = 0.0) -> np.ndarray:
    """Places of the unrolled sheet (around the mouth) on the head (N, 3), `out` above the skin."""
    away, turn = np.hypot(x, v), np.arctan2(v, x)
    ball = np.stack([np.sin(away) * np.cos(turn), np.sin(away) * np.sin(turn), np.cos(away)], axis=-1)
    c, s = np.cos(_MOUTH_TILT), np.sin(_MOUTH_TILT)
    y, z = c * ball[..., 1] + s * ball[..., 2], -s * ball[..., 1] + c * ball[..., 2]
    ball = np.stack([ball[..., 0], y, z], axis=-1)
    return ball * (_RADII + np.asarray(out)[..., None])


def _skin() -> list[Part]:
    """Lips and skin: one sheet in two colours."""
    angles = 2 * np.pi * np.arange(_SPOKES) / _SPOKES
    wide, high = np.full(1, _HALF_WIDTH), np.full(1, 0.004)
    steps = np.linspace(0, 1, _LIP_RINGS + 1)[1:]
    wide = np.append(wide, _HALF_WIDTH + steps * (_LIP_WIDTH - _HALF_WIDTH))
    high = np.append(high, 0.004 + steps * (_LIP_HEIGHT - 0.004))
    rest = np.linspace(0, 1, _RINGS)[1:]
    wide = np.append(wide, _LIP_WIDTH + (np.pi - _LIP_WIDTH) * rest**1.3)
    high = np.append(high, _LIP_HEIGHT + (np.pi - _LIP_HEIGHT) * rest**1.15)
    sheet = _Sheet((wide[:, None] * np.cos(angles)).ravel(), (high[:, None] * np.sin(angles)).ravel())
    puffed = 0.05 * np.repeat(np.exp(-np.square((np.arange(len(wide)) - 1.5) / 1.3)), _SPOKES)
    nose = _NOSE_PUSH * np.exp(
        -np.square(sheet.x / _NOSE_SIZE) - np.square((sheet.v - _NOSE) / (1.3 * _NOSE_SIZE))
    )
    out = puffed + nose
    base, moves = _on_skull(sheet.x, sheet.v, out).astype(np.float32), _moved(sheet, out)
    lips, skin = _rings(0, _LIP_RINGS), _rings(_LIP_RINGS, len(wide) - 1)
    return [Part(LIPS, base, lips, moves), Part(SKIN, base, skin, moves)]


def _moved(sheet: _Sheet, out: np.ndarray) -> dict[str, np.ndarray]:
    """Blend shape -> displacement (N, 3) float32 of places that are `out` above the skull."""
    base, moves = _on_skull(sheet.x, sheet.v, out), {}
    for name, move in _MOVES.items():
        aside, up, forward = move(sheet)
        moves[name] = (_on_skull(sheet.x + aside, sheet.v + up, out + forward) - base).astype(np.float32)
    lifted = np.exp(-np.square(np.minimum(sheet.v, 0) / 0.14))  # the lower lip goes back to the upper one
    moves["mouthClose"] = (-lifted[:, None] * moves["jawOpen"]).astype(np.float32)
    return moves


def _inside() -> Part:
    """The dark inside of the mouth: a bag that hangs on the inner edge of the lips."""
    angles = 2 * np.pi * np.arange(_SPOKES) / _SPOKES
    deep = np.repeat((0.0, -0.2, -0.45), _SPOKES)
    narrower = np.repeat((1.0, 1.0, 0.4), _SPOKES)
    x, v = np.tile(_HALF_WIDTH * np.cos(angles), 3) * narrower, np.tile(0.004 * np.sin(angles), 3)
    sheet = _Sheet(x, v)
    return Part(DARK, _on_skull(x, v, deep).astype(np.float32), _rings(0, 2), _moved(sheet, deep))


def _rings(first: int, last: int) -> np.ndarray:
    """Triangles between the rings from `first` to `last`."""
    found = []
    for ring in range(first, last):
        for spoke in range(_SPOKES):
            a, b = ring * _SPOKES + spoke, ring * _SPOKES + (spoke + 1) % _SPOKES
            found += [(a, a + _SPOKES, b), (b, a + _SPOKES, b + _SPOKES)]
    return np.array(found, np.uint16)


def _ball(centre: tuple[float, float, float], radii: tuple[float, float, float], colour: str) -> Part:
    rows, columns = 12, 20
    down, around = np.linspace(0, np.pi, rows), 2 * np.pi * np.arange(columns) / columns
    points = np.stack(
        [
            np.outer(np.sin(down), np.sin(around)),
            np.outer(np.cos(down), np.ones(columns)),
            np.outer(np.sin(down), np.cos(around)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    found = []
    for row in range(rows - 1):
        for column in range(columns):
            a, b = row * columns + column, row * columns + (column + 1) % columns
            found += [(a, a + columns, b)] if row < rows - 2 else []
            found += [(b, a + columns, b + columns)] if row else []
            found += [] if row < rows - 2 else [(a, a + columns, b)]
    return Part(colour, (points * radii + centre).astype(np.float32), np.array(found, np.uint16), {})


def _eyes() -> list[Part]:
    parts = []
    for side in (-1, 1):
        parts.append(_ball((0.28 * side, 0.16, 0.78), (0.14, 0.14, 0.1), WHITE))
        parts.append(_ball((0.28 * side, 0.15, 0.86), (0.06, 0.06, 0.03), PUPIL))
    return parts
