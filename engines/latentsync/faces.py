"""How LatentSync wants the face: a similarity from three points onto a canvas, a square made of it, a fixed mask.

`mask.png` is the outline of LatentSync's own mask (Apache-2.0): white = kept, black = painted by the network.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional

MASK = Path(__file__).with_name("mask.png")
MASK_SIDE = 256
GREY = 127  # beyond the picture
_TEMPLATE = np.array([(17, 20), (58, 20), (37.5, 40)])  # left brow, right brow, nose
_CANVAS = (75, 100)  # width, height, in units of the template
_UNITS = 2.8  # px of a unit at 256 px


def ratio(side: int) -> float:
    """Canvas px of a unit of the template, for a network that works at so many px."""
    return _UNITS * side / MASK_SIDE


def canvas_size(side: int) -> tuple[int, int]:
    """Width and height of the canvas, px: 210 x 280 for 256."""
    return int(_CANVAS[0] * ratio(side)), int(_CANVAS[1] * ratio(side))


def align_three(points: np.ndarray, side: int) -> np.ndarray:
    """Frame px -> canvas px, float32 (2, 3).

    Args:
        points: (3, 2) frame px: middles of the left and the right brow and of the nose, left as seen.
        side: px at which the network works.
    """
    points, template = np.asarray(points, np.float64), _TEMPLATE * ratio(side)
    middle, target = points.mean(0), template.mean(0)
    away, wanted = points - middle, template - target
    spread, wanted_spread = away.std(ddof=1), wanted.std(ddof=1)
    u, _, vt = np.linalg.svd(away.T @ wanted)
    rotation = vt.T @ u.T
    if np.linalg.det(rotation) < 0:
        rotation = np.column_stack([vt.T[:, 0], -vt.T[:, 1]]) @ u.T
    turned = wanted_spread / spread * rotation
    # The originals add what is left of the nose, in units of the spread, to the shift in px: less than a pixel.
    rest = wanted[2] / wanted_spread - away[2] / spread
    return np.hstack([turned, (target - turned @ middle + rest)[:, None]]).astype(np.float32)


def cut_canvas(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The canvas uint8 (height, width, 3) of an RGB image, given image px -> canvas px (2, 3); truncated as theirs."""
    return cv2.warpAffine(
        image.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
        borderValue=(GREY,) * 3,
    ).astype(np.uint8)  # fmt: skip


def square(canvas: np.ndarray, side: int) -> np.ndarray:
    """What the network sees, uint8 (side, side, 3), of a canvas; it is squeezed in height."""
    return cv2.resize(canvas, (side, side), interpolation=cv2.INTER_LANCZOS4)


def unsquare(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """Canvases (N, 3, height, width) of squares (N, 3, side, side)."""
    width, height = canvas_size(side)
    return functional.interpolate(pictures, (height, width), mode="bicubic", antialias=True, align_corners=False)


@lru_cache(maxsize=2)
def keep_mask(side: int) -> np.ndarray:
    """float32 (side, side): 1 = keep, 0 = paint. Binary at 256; at other sizes its edges are grey, as theirs."""
    mask = cv2.imread(str(MASK), cv2.IMREAD_GRAYSCALE)
    if side != MASK_SIDE:
        mask = cv2.resize(mask, (side, side), interpolation=cv2.INTER_LANCZOS4)
    return mask.astype(np.float32) / 255


@lru_cache(maxsize=2)
def painted_opacity(side: int, feather: int = 10) -> np.ndarray:
    """How opaque the canvas (height, width) is pasted, float32 in [0, 1].

    The originals paste all of the canvas, and with it a resampled copy of the whole face. Here 1 where the network
    painted, falling to 0 over `feather` px (at 256) around it, and within their soft rectangle.
    """
    width, height = canvas_size(side)
    painted = cv2.resize((keep_mask(side) < 1).astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    away = cv2.distanceTransform(1 - painted, cv2.DIST_L2, 5)
    ramp = np.clip(1 - away / (feather * side / MASK_SIDE), 0, 1)
    return ((ramp * ramp * (3 - 2 * ramp)) * rectangle_opacity(side)).astype(np.float32)


def rectangle_opacity(side: int) -> np.ndarray:
    """The originals' soft rectangle (height, width), made on the canvas instead of in the frame."""
    width, height = canvas_size(side)
    reach = int(np.sqrt(width * height)) // 20
    opacity = np.zeros((height, width), np.float32)
    opacity[reach + 1 : height - reach - 1, reach + 1 : width - reach - 1] = 1
    return cv2.GaussianBlur(opacity, (2 * reach + 1,) * 2, 0)
