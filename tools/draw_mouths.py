"""Draws the nine mouths of `examples/mouths`, for faces that are drawn themselves.

    python tools/draw_mouths.py examples/mouths

Names and meaning are those of Rhubarb Lip Sync: A closed (p, b, m), B teeth together (s, t, k, ee), C open (e),
D wide open (a), E rounded (o), F puckered (u, w), G teeth on the lip (f, v), H tongue raised (l), X at rest. All have
one size and lie at one place, so that they can be laid over each other. Nobody has rights in them: use them freely.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 320, 256
_OVER = 4  # times larger while it is drawn, for smooth edges
_MIDDLE, _LINE = (160.0, 104.0), 9.0  # the corners of the mouth lie at this height; width of the outline, px
_INK, _INSIDE, _TEETH, _TONGUE = (58, 28, 34), (112, 26, 38), (255, 252, 244), (226, 104, 112)


@dataclass(frozen=True)
class Mouth:
    """A mouth, px.

    Attributes:
        width: from corner to corner.
        up, down: how far the upper lip is above the corners, the lower one below them.
        teeth: height of the upper teeth; 0 = none are seen.
        tongue: how high the tongue comes above the lower lip; 0 = it is not seen.
        clenched: the lower teeth stand at the upper ones.
        round: 2 = an oval; less makes the corners pointed.
    """

    width: float
    up: float
    down: float
    teeth: float = 0.0
    tongue: float = 0.0
    clenched: bool = False
    round: float = 1.55


OPEN = {
    "B": Mouth(184, 12, 26, 40, clenched=True),
    "C": Mouth(182, 22, 58, 20, 26),
    "D": Mouth(170, 32, 104, 26, 46, round=1.8),
    "E": Mouth(122, 34, 62, 14, 22, round=2.0),
    "F": Mouth(72, 26, 38, round=2.1),
    "G": Mouth(170, 14, 18, 24),
    "H": Mouth(176, 24, 62, 20, 72),
}
"""Mouths of which something of the inside is seen."""


def _lips(mouth: Mouth) -> np.ndarray:
    """The outline (N, 2) px, clockwise from the left corner."""
    along = np.linspace(-1, 1, 81)
    arch = (1 - np.abs(along) ** mouth.round) ** (1 / mouth.round)
    x = _MIDDLE[0] + along * mouth.width / 2
    upper, lower = _MIDDLE[1] - mouth.up * arch, _MIDDLE[1] + mouth.down * arch
    return np.concatenate([np.stack([x, upper], 1), np.stack([x, lower], 1)[::-1]])


def _filled(points: np.ndarray, line: float = 0.0) -> np.ndarray:
    """Where a shape, with an outline around it or as an open line, covers the large canvas: bool (h, w)."""
    canvas = np.zeros((HEIGHT * _OVER, WIDTH * _OVER), np.uint8)
    corners = (points * _OVER).round().astype(np.int32)
    if line >= 0:
        cv2.fillPoly(canvas, [corners], 255)
    if line:
        cv2.polylines(canvas, [corners], line > 0, 255, round(abs(line) * _OVER), cv2.LINE_AA)
    return canvas > 127


def _oval(centre: tuple[float, float], axes: tuple[float, float]) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 90)
    return _filled(np.stack([centre[0] + axes[0] * np.cos(turn), centre[1] + axes[1] * np.sin(turn)], 1))


def open_mouth(mouth: Mouth) -> np.ndarray:
    """uint8 RGBA (HEIGHT, WIDTH, 4)."""
    lips = _lips(mouth)
    inside, ink = _filled(lips), _filled(lips, 2 * _LINE)
    x, top, bottom = _MIDDLE[0], _MIDDLE[1] - mouth.up, _MIDDLE[1] + mouth.down
    layers = [(ink, _INK), (inside, _INSIDE)]
    if mouth.tongue:
        raised = mouth.tongue > mouth.down
        axes = (mouth.width * (0.16 if raised else 0.27), mouth.tongue)
        layers.append((inside & _oval((x, bottom + mouth.tongue * 0.1), axes), _TONGUE))
    if mouth.teeth:
        edge = np.arange(HEIGHT * _OVER)[:, None] < (top + mouth.teeth) * _OVER
        layers.append((inside & edge, _TEETH))
    if mouth.clenched:
        middle = (top + bottom) / 2
        row = np.array([[x - mouth.width, middle], [x + mouth.width, middle]])
        layers.append((inside & _filled(row, -4.0), _INK))
    return _painted(layers)


def closed_mouth(width: float, bow: float, line: float) -> np.ndarray:
    """A line that hangs through by `bow` px, uint8 RGBA (HEIGHT, WIDTH, 4)."""
    along = np.linspace(-1, 1, 61)
    points = np.stack([_MIDDLE[0] + along * width / 2, _MIDDLE[1] + bow * (1 - along**2) - bow / 2], 1)
    return _painted([(_filled(points, -line), _INK)])


def _painted(layers: list[tuple[np.ndarray, tuple[int, int, int]]]) -> np.ndarray:
    """Layers, each over the one before, reduced to the size of a sprite."""
    image = np.zeros((HEIGHT * _OVER, WIDTH * _OVER, 4), np.float32)
    for where, colour in layers:
        image[where] = (*colour, 255)
    image[..., :3] *= image[..., 3:] / 255
    small = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    small[..., :3] /= np.maximum(small[..., 3:] / 255, 1e-3)
    return np.clip(small, 0, 255).round().astype(np.uint8)


def mouths() -> dict[str, np.ndarray]:
    """All nine by name, uint8 RGBA."""
    shut = {"A": closed_mouth(172, 4, 16), "X": closed_mouth(188, 16, 11)}
    return shut | {name: open_mouth(mouth) for name, mouth in OPEN.items()}


def main() -> None:
    """Write them as PNG."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in mouths().items():
        packed = [cv2.IMWRITE_PNG_COMPRESSION, 9]
        cv2.imwrite(str(folder / f"{name}.png"), cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA), packed)


if __name__ == "__main__":
    main()
