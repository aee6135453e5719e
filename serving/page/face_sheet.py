"""A picture of the faces in a picture, with numbers, so that somebody can click on the one who speaks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from faces.detector import FaceDetector
from video_processor import VideoReader

_THUMBNAIL_PX, _GAP_PX, _PER_ROW = 140, 6, 4  # of a face on the sheet, its rim, and how many stand in a row
_LABEL = (79, 70, 229)
_AROUND = 1.8  # a thumbnail's side, in sizes of the face


def find_faces(path: str, detector: FaceDetector) -> list[np.ndarray]:
    """Thumbnails of the faces in the first picture of a file, from the left; uint8 RGB.

    Raises:
        InputError: the file cannot be used.
    """
    with VideoReader(path) as reader:
        picture = next(iter(reader)).image
    found = sorted(detector.detect(picture), key=lambda face: face.box[0] + face.box[2])
    return [_thumbnail(picture, face.box) for face in found]


def write_sheet(faces: Sequence[np.ndarray], path: Path) -> None:
    """Write thumbnails with their numbers side by side, a few to a row, as a PNG."""
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(_sheet(faces), cv2.COLOR_RGB2BGR))[1].tobytes())


def face_at(x: int, y: int) -> int:
    """The number, from 0, of the face at a point of the sheet, px; there may be none with it."""
    return y // _THUMBNAIL_PX * _PER_ROW + x // _THUMBNAIL_PX


def _thumbnail(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """A face with what is around it, as a square on the sheet, uint8 RGB; `box` is x0, y0, x1, y1 in px."""
    centre, half = (box[:2] + box[2:]) / 2, _AROUND * float(max(box[2:] - box[:2])) / 2
    side = _THUMBNAIL_PX - 2 * _GAP_PX
    scale = side / (2 * half)
    matrix = np.array([[scale, 0, scale * (half - centre[0])], [0, scale, scale * (half - centre[1])]])
    face = cv2.warpAffine(picture, matrix, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    return cv2.copyMakeBorder(face, _GAP_PX, _GAP_PX, _GAP_PX, _GAP_PX, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def _sheet(faces: Sequence[np.ndarray]) -> np.ndarray:
    rows = -(-len(faces) // _PER_ROW)
    sheet = np.full((rows * _THUMBNAIL_PX, min(len(faces), _PER_ROW) * _THUMBNAIL_PX, 3), 255, np.uint8)
    for i, face in enumerate(faces):
        y, x = (_THUMBNAIL_PX * k for k in divmod(i, _PER_ROW))
        sheet[y : y + _THUMBNAIL_PX, x : x + _THUMBNAIL_PX] = face
        corner = (x + _GAP_PX, y + _GAP_PX)
        cv2.rectangle(sheet, corner, (corner[0] + 14 + 14 * len(str(i + 1)), corner[1] + 34), _LABEL, cv2.FILLED)
        place = (corner[0] + 7, corner[1] + 26)
        cv2.putText(sheet, str(i + 1), place, cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2, cv2.LINE_AA)
    return sheet
