"""Things drawn in front of a mouth: hands, microphones, cups, cloths. What the cover network learns from.

Each thing is a sprite with an opacity. Its unit is a pixel of the mouth window, in which the eyes are 72 px apart; a
sprite can be put into a window or, scaled, into a whole frame, still or moving.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from faces.alignment import JAW, LIPS_OUTER

SIDE = 240  # px of a sprite
KINDS = ("hand", "fist", "microphone", "thing", "cloth")

_CHEEKS = (50, 280, 205, 425, 117, 346)  # mesh points of bare skin, also under a beard
_CENTRE = SIDE / 2
_GRID = np.stack(np.meshgrid(np.arange(SIDE, dtype=np.float32), np.arange(SIDE, dtype=np.float32)), -1)


@dataclass(frozen=True)
class Sprite:
    """A drawn thing: `colour` uint8 RGB (240, 240, 3) and `alpha` float32 (240, 240) in [0, 1]."""

    colour: np.ndarray
    alpha: np.ndarray


@dataclass(frozen=True)
class Covered:
    """How much of a mouth lies behind something.

    Attributes:
        lips: part of the lips' area, 0 to 1.
        lower: part of the lower face's area, from the nose to the jaw, 0 to 1.
    """

    lips: float
    lower: float

    @property
    def hides_the_mouth(self) -> bool:
        """Whether a new mouth would be drawn over the thing."""
        return self.lips >= 0.2 or self.lower >= 0.35

    @property
    def is_free(self) -> bool:
        """Whether next to nothing lies in front of the mouth; between this and the other it is a matter of taste."""
        return self.lips < 0.03 and self.lower < 0.1


def skin_colour(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Median colour (3,) of the cheeks. `image`: uint8 RGB; `points`: mesh (468, 2) px of it."""
    places = np.round(points[list(_CHEEKS), :2]).astype(int)
    places = np.clip(places, 0, np.array(image.shape[1::-1]) - 1)
    return np.median(image[places[:, 1], places[:, 0]], axis=0).astype(np.float32)


def draw_sprite(kind: str, skin: np.ndarray, random: np.random.Generator) -> Sprite:
    """Draw a thing of one of `KINDS`, never twice the same. `skin`: RGB (3,) of the person."""
    makers: dict[str, Callable[[np.ndarray, np.random.Generator], Sprite]] = {
        "hand": _hand,
        "fist": _fist,
        "microphone": _microphone,
        "thing": _thing,
        "cloth": _cloth,
    }
    drawn = makers[kind](skin, random)
    grain = random.normal(0, random.uniform(0, 5), (SIDE, SIDE, 1)).astype(np.float32)
    softness = random.uniform(0.4, 1.6)
    colour = cv2.GaussianBlur(drawn.colour + grain, (0, 0), softness)
    alpha = cv2.GaussianBlur(drawn.alpha, (0, 0), softness)
    return Sprite(np.clip(colour, 0, 255).astype(np.uint8), alpha)


def put(
    image: np.ndarray, sprite: Sprite, centre: tuple[float, float], scale: float, turn: float
) -> tuple[np.ndarray, np.ndarray]:
    """Put a sprite in front of a picture.

    Args:
        image: uint8 RGB (H, W, 3).
        sprite: the thing.
        centre: where its middle goes, px of the image.
        scale: px of the image for one of the sprite.
        turn: radians, clockwise.

    Returns:
        The new picture, and the opacity of the thing in it, float32 (H, W).
    """
    cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
    matrix = np.array([[cosine, -sine, 0], [sine, cosine, 0]])
    matrix[:, 2] = np.array(centre) - matrix[:, :2] @ (_CENTRE, _CENTRE)
    size = image.shape[1::-1]
    colour = cv2.warpAffine(sprite.colour, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(sprite.alpha, matrix, size, flags=cv2.INTER_LINEAR)
    mixed = image + alpha[..., None] * (colour.astype(np.float32) - image)
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8), alpha


def covered(alpha: np.ndarray, points: np.ndarray) -> Covered:
    """How much of a mouth a thing hides. `alpha`: its opacity (H, W); `points`: the true mesh (468, 2) px."""
    lower = np.concatenate([points[[2, 205, 425], :2], points[JAW[2:-2], :2]])
    parts = [_mean_inside(alpha, shape) for shape in (points[LIPS_OUTER, :2], lower)]
    return Covered(*parts)


def _mean_inside(alpha: np.ndarray, points: np.ndarray) -> float:
    mask = np.zeros(alpha.shape, np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(points.astype(np.float32)).round().astype(np.int32), 1)
    return float(alpha[mask > 0].mean()) if mask.any() else 0.0


def _smooth_noise(random: np.random.Generator, cells: int, strength: float) -> np.ndarray:
    """Slow random shading (240, 240, 1), standard deviation about `strength` levels."""
    small = random.normal(0, strength, (cells, cells)).astype(np.float32)
    return cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)[..., None]


def _capsule(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """Distance of each pixel to the line from a to b, in parts of the radius: (240, 240)."""
    along = b - a
    t = np.clip(((_GRID - a) @ along) / max(float(along @ along), 1e-6), 0, 1)
    return np.linalg.norm(_GRID - (a + t[..., None] * along), axis=-1) / radius


def _any_colour(random: np.random.Generator) -> np.ndarray:
    """RGB (3,), half of the time a muted one."""
    colour = random.uniform(5, 250, 3).astype(np.float32)
    return colour if random.random() < 0.5 else 0.8 * colour.mean() + 0.2 * colour


def _like_skin(skin: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The colour of a hand: much like the face's, some lighter or darker; now and then a glove."""
    if random.random() < 0.08:
        return random.uniform(20, 240, 3).astype(np.float32)
    return skin * random.uniform(0.65, 1.15) * random.uniform(0.94, 1.06, 3).astype(np.float32)


def _shade(colour: np.ndarray, alpha: np.ndarray, parts: list[np.ndarray], tone: np.ndarray, rim: float) -> None:
    """Add round parts (distances in parts of their radius) to a drawing, the later ones in front.

    `rim`: light at their edge, 0 to 1; it is 1 in the middle.
    """
    for distance in parts:
        inside = distance < 1.0
        light = rim + (1 - rim) * np.sqrt(np.clip(1 - distance[inside] ** 2, 0, 1))
        colour[inside] = tone * light[:, None]
        alpha[inside] = 1.0


def _hand(skin: np.ndarray, random: np.random.Generator) -> Sprite:
    """Two to five fingers side by side, with or without the palm that they belong to."""
    colour, alpha = np.zeros((SIDE, SIDE, 3), np.float32), np.zeros((SIDE, SIDE), np.float32)
    tone, radius = _like_skin(skin, random), random.uniform(7, 12)
    count, spread = int(random.integers(2, 6)), random.uniform(0.0, 0.22)
    root = np.array([_CENTRE, _CENTRE + random.uniform(10, 40)], np.float32)
    parts = [_capsule(root, root + (0, 60), radius * count * 0.95)] if random.random() < 0.8 else []
    for i in range(count):
        place = i - (count - 1) / 2
        start = root + (place * radius * 1.9, 0)
        angle = place * spread + random.normal(0, 0.05)
        length = random.uniform(45, 80)
        end = start + length * np.array([np.sin(angle), -np.cos(angle)])
        parts.append(_capsule(start.astype(np.float32), end.astype(np.float32), radius * random.uniform(0.9, 1.05)))
    _shade(colour, alpha, parts, tone, random.uniform(0.5, 0.9))
    return Sprite(colour + _smooth_noise(random, 6, 10), alpha)


def _fist(skin: np.ndarray, random: np.random.Generator) -> Sprite:
    """A closed hand: a round shape with knuckles."""
    colour, alpha = np.zeros((SIDE, SIDE, 3), np.float32), np.zeros((SIDE, SIDE), np.float32)
    tone, radius = _like_skin(skin, random), random.uniform(28, 48)
    middle = np.array([_CENTRE, _CENTRE], np.float32)
    arm = middle + np.array([random.uniform(-40, 40), 150], np.float32)
    parts = [_capsule(middle, arm, radius * 0.75), _capsule(middle - (8, 0), middle + (8, 0), radius)]
    for i in range(4):
        knuckle = middle + ((i - 1.5) * radius * 0.5, -radius * random.uniform(0.3, 0.6))
        parts.append(_capsule(knuckle, knuckle + (0, radius * 0.7), radius * random.uniform(0.26, 0.32)))
    _shade(colour, alpha, parts, tone, random.uniform(0.5, 0.9))
    return Sprite(colour + _smooth_noise(random, 6, 10), alpha)


def _microphone(skin: np.ndarray, random: np.random.Generator) -> Sprite:
    """A round or long head with grain, a handle, sometimes a ring or a cube with a sign."""
    colour, alpha = np.zeros((SIDE, SIDE, 3), np.float32), np.zeros((SIDE, SIDE), np.float32)
    radius = random.uniform(15, 32)
    dark = random.random() < 0.7
    tone = np.full(3, random.uniform(15, 70)) if dark else random.uniform(30, 230, 3)
    middle = np.array([_CENTRE, _CENTRE], np.float32)
    foot = middle + np.array([random.uniform(-30, 30), 140], np.float32)
    handle = _capsule(middle, foot, radius * random.uniform(0.4, 0.75))
    _shade(colour, alpha, [handle], tone * random.uniform(0.5, 1.3), 0.55)
    if random.random() < 0.3:
        half, top = radius * random.uniform(0.8, 1.4), radius * random.uniform(0.9, 1.4)
        box = np.all(np.abs(_GRID - (middle + (0, top + half))) < half, axis=-1)
        colour[box], alpha[box] = random.uniform(20, 240, 3), 1.0
    head = _capsule(middle, middle + (0, radius * random.uniform(0, 1.2)), radius)
    _shade(colour, alpha, [head], tone, 0.55)
    mesh = random.normal(0, random.uniform(4, 18), (SIDE, SIDE, 1)).astype(np.float32)
    return Sprite(colour + mesh * (head < 1)[..., None], alpha)


def _thing(skin: np.ndarray, random: np.random.Generator) -> Sprite:
    """A cup, a phone, a sheet of paper: a shape with few corners or round, of one or several colours."""
    corners = int(random.integers(3, 9)) if random.random() < 0.5 else 4
    angles = np.sort((np.arange(corners) + random.uniform(-0.25, 0.25, corners)) * 2 * np.pi / corners) + np.pi / 4
    size = random.uniform(25, 65, 2)
    points = _CENTRE + size * np.stack([np.cos(angles), np.sin(angles)], -1)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    if random.random() < 0.3:
        cv2.ellipse(mask, (int(_CENTRE), int(_CENTRE)), tuple(int(s) for s in size), 0, 0, 360, 1, -1)
    else:
        cv2.fillPoly(mask, [points.round().astype(np.int32)], 1)
    colour = np.broadcast_to(_any_colour(random), (SIDE, SIDE, 3)).astype(np.float32).copy()
    if random.random() < 0.5:  # stripes, or lines of print
        width = random.uniform(4, 25)
        stripes = ((_GRID @ random.normal(0, 1, 2).astype(np.float32)) / width % 2) < random.uniform(0.5, 1.5)
        colour[stripes] = _any_colour(random)
    return Sprite(colour + _smooth_noise(random, 4, 20), mask.astype(np.float32))


def _cloth(skin: np.ndarray, random: np.random.Generator) -> Sprite:
    """A mask or a scarf: wide, with an upper edge that bends, and folds."""
    x, y = _GRID[..., 0] - _CENTRE, _GRID[..., 1] - _CENTRE
    bend = random.uniform(-0.004, 0.004)
    edge = -random.uniform(15, 45) + bend * x**2 + random.uniform(0, 4) * np.sin(x / random.uniform(8, 30))
    mask = (y > edge) & (np.abs(x) < random.uniform(60, 119))
    colour = np.broadcast_to(_any_colour(random), (SIDE, SIDE, 3)).astype(np.float32).copy()
    folds = random.uniform(0, 25) * np.sin((y + 0.2 * x * random.normal()) / random.uniform(5, 18))
    return Sprite(colour + folds[..., None] + _smooth_noise(random, 5, 15), mask.astype(np.float32))
