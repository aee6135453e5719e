"""Draws three faces that are no photographs: a flat cartoon, an anime-like face, and a statue as a renderer shows it.

    python tools/draw_faces.py FOLDER

They are what `docs/animation.md` shows and what tests take: the first has no face that a network for people sees, the
third has one. Everything is computed here, so nobody else has rights in them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator

SIDE = 512
_OVER = 4  # times larger while it is drawn, for smooth edges

Colour = tuple[int, int, int]
Point = tuple[float, float]


class _Canvas:
    """Shapes in px of the finished picture, drawn larger and reduced at the end."""

    def __init__(self, paper: Colour) -> None:
        self.image = np.full((SIDE * _OVER, SIDE * _OVER, 3), paper, np.uint8)

    def oval(self, centre: Point, axes: Point, colour: Colour, line: float = 0, turn: float = 0) -> None:
        """Filled, or an outline of this width."""
        at, size = ((round(value * _OVER) for value in pair) for pair in (centre, axes))
        width = round(line * _OVER) if line else cv2.FILLED
        cv2.ellipse(self.image, tuple(at), tuple(size), turn, 0, 360, colour, width, cv2.LINE_AA)

    def arc(self, centre: Point, axes: Point, span: tuple[float, float], colour: Colour, line: float) -> None:
        """Part of an oval's outline, degrees clockwise from the right."""
        at, size = ((round(value * _OVER) for value in pair) for pair in (centre, axes))
        cv2.ellipse(self.image, tuple(at), tuple(size), 0, *span, colour, round(line * _OVER), cv2.LINE_AA)

    def shape(self, points: Sequence[Point], colour: Colour, line: float = 0) -> None:
        """A polygon, filled, or as an open line of this width."""
        corners = (np.array(points) * _OVER).round().astype(np.int32)
        if line:
            cv2.polylines(self.image, [corners], False, colour, round(line * _OVER), cv2.LINE_AA)
        else:
            cv2.fillPoly(self.image, [corners], colour, cv2.LINE_AA)

    def done(self) -> np.ndarray:
        """uint8 RGB (SIDE, SIDE, 3)."""
        return cv2.resize(self.image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def cartoon() -> np.ndarray:
    """A round flat face with dots for eyes, uint8 RGB (512, 512, 3); its mouth is at (256, 352)."""
    ink, skin = (40, 32, 40), (255, 205, 120)
    canvas = _Canvas((128, 200, 232))
    canvas.oval((256, 610), (170, 160), (214, 84, 76))
    canvas.oval((256, 270), (168, 178), skin)
    canvas.oval((256, 270), (168, 178), ink, 6)
    for x in (84, 428):
        canvas.oval((x, 280), (26, 34), skin)
        canvas.oval((x, 280), (26, 34), ink, 6)
    canvas.shape([(110, 170), (170, 70), (256, 48), (342, 70), (402, 170), (340, 132), (256, 150), (170, 132)], ink)
    for x in (192, 320):
        canvas.oval((x, 236), (34, 44), (255, 255, 255))
        canvas.oval((x, 236), (34, 44), ink, 5)
        canvas.oval((x + 4, 244), (13, 17), ink)
    canvas.arc((256, 300), (16, 14), (20, 160), ink, 6)
    canvas.arc((256, 330), (62, 30), (20, 160), ink, 7)
    return canvas.done()


def anime() -> np.ndarray:
    """A face with large eyes and a pointed chin, uint8 RGB (512, 512, 3); its mouth is at (256, 388)."""
    ink, skin, shade, hair = (70, 40, 52), (255, 226, 208), (240, 188, 170), (96, 84, 168)
    canvas = _Canvas((238, 230, 240))
    canvas.oval((256, 236), (206, 216), hair)
    canvas.shape([(60, 240), (452, 240), (430, 512), (82, 512)], hair)
    canvas.shape([(216, 400), (296, 400), (304, 512), (208, 512)], shade)
    cheek = [(118, 232), (122, 306), (150, 366), (206, 416), (256, 438), (306, 416), (362, 366), (390, 306), (394, 232)]
    canvas.shape([*cheek, (360, 110), (152, 110)], skin)
    canvas.shape(cheek, ink, 4)
    for x, side in ((186, -1), (326, 1)):
        canvas.oval((x, 286), (40, 50), (255, 255, 255))
        canvas.oval((x, 288), (29, 46), (84, 70, 190))
        canvas.oval((x, 302), (22, 28), (150, 140, 240))
        canvas.oval((x, 286), (13, 22), (30, 20, 60))
        canvas.oval((x - 10, 266), (10, 13), (255, 255, 255))
        canvas.shape([(x - side * 40, 262), (x - side * 8, 238), (x + side * 34, 250), (x + side * 48, 272)], ink, 9)
        canvas.shape([(x - side * 34, 216), (x, 202), (x + side * 40, 212)], ink, 6)
        canvas.arc((x, 290), (38, 48), (50, 130), ink, 4)
    canvas.shape([(252, 346), (258, 352), (254, 354)], shade, 4)
    canvas.arc((256, 372), (24, 16), (25, 155), (176, 74, 88), 5)
    fringe = [(100, 250), (120, 110), (256, 56), (392, 110), (412, 250), (366, 170), (330, 226), (290, 160), (250, 228)]
    canvas.shape([*fringe, (216, 160), (170, 226), (146, 170)], hair)
    return canvas.done()


def _bump(grid: tuple[np.ndarray, np.ndarray], centre: Point, radii: Point, height: float) -> np.ndarray:
    """A soft hill on the surface of the statue."""
    x, y = grid
    return height * np.exp(-(((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2))


def _head(grid: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Height of the surface above the picture, px; below 0 there is no head."""
    x, y = grid
    across = (x - 256) / PchipInterpolator([0, 70, 200, 330, 450, 512], [120, 128, 148, 132, 74, 60])(y)
    down = (y - 262) / 196
    dome = 150 * np.sqrt(np.clip(1 - np.abs(across) ** 2.2 - np.abs(down) ** 3.2, 0, None))
    hills = [((256, 244), (17, 42), 26), ((256, 290), (24, 22), 34), ((234, 300), (13, 10), 12),
             ((278, 300), (13, 10), 12), ((256, 344), (44, 9), 14),
             ((256, 366), (36, 11), 15), ((256, 414), (40, 24), 18),
             ((198, 188), (50, 18), 13), ((314, 188), (50, 18), 13), ((176, 300), (40, 36), 10),
             ((336, 300), (40, 36), 10),
             ((200, 222), (24, 11), 15), ((312, 222), (24, 11), 15)]  # fmt: skip
    dents = [((200, 220), (40, 24), -26), ((312, 220), (40, 24), -26), ((256, 355), (44, 3.5), -12),
             ((256, 324), (9, 14), -6), ((256, 388), (46, 8), -8),
             ((200, 222), (27, 3), -4), ((312, 222), (27, 3), -4)]  # fmt: skip
    shaped = sum(_bump(grid, *place) for place in [*hills, *dents])
    return np.where(dome > 0, dome + shaped * np.clip(dome / 40, 0, 1), 0)


def statue() -> np.ndarray:
    """A head of stone in light from the upper left, uint8 RGB (512, 512, 3)."""
    grid = tuple(np.meshgrid(np.arange(SIDE, dtype=np.float32), np.arange(SIDE, dtype=np.float32)))
    height = cv2.GaussianBlur(_head(grid).astype(np.float32), (0, 0), 1.6)
    slope_y, slope_x = np.gradient(height)
    normal = np.stack([-slope_x, -slope_y, np.ones_like(height)], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    light = np.array([-0.42, -0.5, 0.76])
    diffuse = np.clip(normal @ light, 0, 1)
    shine = np.clip(normal @ np.array([-0.24, -0.28, 0.93]), 0, 1) ** 40
    hollow = np.clip((cv2.GaussianBlur(height, (0, 0), 14) - height) / 30, 0, 1)
    stone = 60 + 165 * diffuse * (1 - 0.5 * hollow) + 22 * shine
    tint = np.array([1.0, 0.98, 0.93])
    inside = np.clip(cv2.GaussianBlur((height > 2).astype(np.float32), (0, 0), 1.0), 0, 1)[..., None]
    wall = np.linspace(70, 46, SIDE)[:, None, None] * np.array([0.86, 0.93, 1.0])
    neck = _neck(grid)[..., None]
    picture = wall * (1 - neck) + 118 * tint * neck
    picture = picture * (1 - inside) + stone[..., None] * tint * inside
    return np.clip(picture, 0, 255).round().astype(np.uint8)


def _neck(grid: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    x, y = grid
    half = np.interp(y, [0, 400, 470, 512], [0, 66, 72, 150])
    return np.clip(0.5 - (np.abs(x - 256) - half) / 4, 0, 1) * (y > 380)


FACES = {"cartoon": cartoon, "anime": anime, "statue": statue}
"""Name -> what draws it."""


def main() -> None:
    """Write the three as PNG."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FACES.items():
        cv2.imwrite(str(folder / f"{name}.png"), cv2.cvtColor(draw(), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main()
