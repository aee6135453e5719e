"""How MuseTalk wants the face: a box around half of it twice, and a mask of the jaw drawn from the classes of the face.

The originals let a network tell skin, nose and mouth apart; here they are drawn from the mesh.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from faces.alignment import LIPS_INNER, LIPS_OUTER

SKIN, NOSE, MOUTH, UPPER_LIP, LOWER_LIP = 1, 10, 11, 12, 13  # classes that the originals' mask knows
PARSED = 512  # px at which classes are told apart
MARGIN = 10  # px below the box, version 1.5
_MIDDLE = 29  # of the 68 points: the bridge of the nose
_EXPAND = 1.5
_CHEEK = 90  # px at each side of the middle in which the mask may reach the rim of the face
_BLUR = 0.05  # of the expanded box

FACE_OVAL = [
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
    136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
]  # fmt: skip
NOSE_OUTLINE = [168, 417, 465, 343, 437, 420, 279, 331, 294, 327, 326, 2, 97, 98, 64, 102, 49, 198, 217, 114, 245, 193]


def face_box(points: np.ndarray, height: int) -> tuple[float, float, float, float] | None:
    """x0, y0, x1, y1 px of the crop; None where the points make none.

    Args:
        points: the 68 face points (68, 2), px.
        height: of the frame.
    """
    middle = points[_MIDDLE, 1]
    half = points[:, 1].max() - middle
    x0, x1, y1 = points[:, 0].min(), points[:, 0].max(), points[:, 1].max()
    y0 = max(0.0, middle - half)
    if x1 <= x0 or y1 <= y0:
        return None
    return float(x0), float(y0), float(x1), float(min(y1 + MARGIN, height))


def expanded(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The square around a box in which the face is parsed and blended; it may leave the frame."""
    x0, y0, x1, y1 = box
    half = int(max(x1 - x0, y1 - y0) // 2 * _EXPAND)
    x, y = (x0 + x1) // 2, (y0 + y1) // 2
    return x - half, y - half, x + half, y + half


def classes(points: np.ndarray) -> np.ndarray:
    """Map uint8 (512, 512) of what is where in the expanded box; the mesh (468, 2) is given in px of that map."""
    labels = np.zeros((PARSED, PARSED), np.uint8)
    lower = points[LIPS_INNER[10:] + LIPS_INNER[:1]]
    for outline, label in (
        (points[FACE_OVAL], SKIN),
        (points[NOSE_OUTLINE], NOSE),
        (points[LIPS_OUTER], UPPER_LIP),
        (np.concatenate([points[LIPS_OUTER[10:] + LIPS_OUTER[:1]], lower[::-1]]), LOWER_LIP),
        (points[LIPS_INNER], MOUTH),
    ):
        cv2.fillPoly(labels, [outline.round().astype(np.int32)], label)
    return labels


def jaw(labels: np.ndarray) -> np.ndarray:
    """What is new of a face, uint8 (512, 512), 0 or 255: its skin, a little more of it below, and the mouth."""
    grown = cv2.dilate((labels == SKIN).astype(np.uint8) * 255, _grow_kernel(), iterations=1)
    rim = cv2.erode(grown, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (35, 3)), iterations=2)
    middle = np.zeros(PARSED, bool)
    middle[PARSED // 2 - _CHEEK + 1 : PARSED // 2 + _CHEEK] = True
    skin = np.where(middle, grown, rim) == 255
    mouth = np.isin(labels, (MOUTH, UPPER_LIP, LOWER_LIP))
    return np.where((skin & (labels != NOSE)) | mouth, 255, 0).astype(np.uint8)


def cut_jaw(parsed: np.ndarray, box: tuple[int, int, int, int], around: tuple[int, int, int, int]) -> np.ndarray:
    """A jaw mask (512, 512), in px of the expanded box, of which only that box's lower half counts, within `box`."""
    width, height = around[2] - around[0], around[3] - around[1]
    whole = np.asarray(Image.fromarray(parsed).resize((width, height)))
    x0, y0, x1, y1 = box[0] - around[0], box[1] - around[1], box[2] - around[0], box[3] - around[1]
    mask = np.zeros_like(whole)
    mask[max(y0, 0) : y1, max(x0, 0) : x1] = whole[max(y0, 0) : y1, max(x0, 0) : x1]
    mask[: height // 2] = 0
    return mask


def softened(mask: np.ndarray) -> np.ndarray:
    """The mask of the expanded box, blurred in proportion to it."""
    side = int(_BLUR * mask.shape[1] // 2 * 2) + 1
    return cv2.GaussianBlur(mask, (side, side), 0)


def _grow_kernel() -> np.ndarray:
    """Grows downwards: a triangle, then a band."""
    kernel = np.zeros((33, 33), np.uint8)
    for row in range(10, 33):
        reach = min(row - 10, 10)
        kernel[row, 16 - reach : 17 + reach] = 1
    return kernel
