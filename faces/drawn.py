"""Faces that the usual limits miss: drawn, painted or carved ones, tilted ones, and small ones in large pictures.

The detector learned from photographs and is less sure of a drawing; the mesh network takes many drawings for a face,
but only from a square that fits well. So the detector's limit is lowered, it looks at parts of the picture as well, and
what it proposes counts when the mesh sees a face there and goes on seeing it from its own square. Slower, and more
easily fooled by a pattern: for pictures and videos in which nothing was found in the usual way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from faces.detector import ROI_SCALE, Detection, FaceDetector, Roi, iou, roi_from_detection, roi_from_mesh
from utils.pictures import Picture

_LOW_SCORE = 0.2  # of the detector, 0..1
_LEAST_PRESENCE = 0.8  # of the mesh, 0..1, from its own square
_ROI_SCALES = (1.0, 0.85, 1.2)  # squares around the detector's that are tried
_PARTS = ((1.0, 6), (0.5, 3), (0.25, 2))  # side of the parts, of the picture's longer side; candidates tried in each
_LEAST_PART_PX = 160  # the networks see no more in what would have to be enlarged
_SAME = 0.3  # overlap of two boxes of one face
_FLAT = 0.4  # part of a face from which it counts as flatly drawn; of 154 people's frames 0.29 at most, drawings 0.7
_FLAT_SIDE, _FLAT_SLOPE = 200, 1 / 80  # px to which a face is reduced; slope, in deviations of its greys per px
_UNDER_NOSE = 2  # mesh index
_EYES, _NOSE, _LIPS, _EARS = ((33, 133), (362, 263)), 1, (13, 14), (234, 454)  # mesh indices


def flatly_drawn(picture: Picture, points: np.ndarray) -> bool:
    """Whether a face consists of even areas with lines between them, as in a cartoon or an anime film.

    Skin in a photograph is shaded nearly everywhere, also when it is dark or compressed. Paintings, statues and 3-D
    renders are shaded as well: of them nobody can tell that way. Only what is above the mouth is looked at.

    Args:
        picture: where the face is.
        points: its mesh (468, 3) px.
    """
    (x0, y0), (x1, _) = points[:, :2].min(0), points[:, :2].max(0)
    height, width = picture.shape
    box = np.clip([x0, y0, x1, points[_UNDER_NOSE, 1]], 0, [width, height, width, height]).astype(int)
    if box[2] - box[0] < 3 or box[3] - box[1] < 3:
        return False
    grey = cv2.cvtColor(picture.part(*box.tolist()), cv2.COLOR_RGB2GRAY).astype(np.float32)
    scale = min(1.0, _FLAT_SIDE / max(grey.shape))
    grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)) / 8
    return float((slope < _FLAT_SLOPE * grey.std()).mean()) > _FLAT


class DrawnFaceDetector(FaceDetector):
    """Finds what `FaceDetector` finds, and faces that are no photographs.

    Args:
        model_dir: folder with the .tflite files.
        min_score: candidates at or below this probability are dropped, 0 to 1.
        hint: x0, y0, x1, y1 in parts of the picture's width and height, where somebody says that there is a face.
    """

    side = 768

    def __init__(
        self, model_dir: Path, min_score: float = _LOW_SCORE, hint: tuple[float, float, float, float] | None = None
    ):
        super().__init__(model_dir, min_score)
        self._hint = hint

    def detect(self, image: np.ndarray) -> list[Detection]:
        """See `FaceDetector.detect`; boxes are those of the mesh, scores its certainty."""
        found = self._hinted(image)
        for share, most in _PARTS:
            if found or share * max(image.shape[:2]) < _LEAST_PART_PX and share < 1:
                break  # smaller parts show smaller faces; whoever is drawn large is the one
            for x, y, part in _parts(image, share):
                for candidate in self._candidates(part)[:most]:
                    face = self._seen(image, _moved(candidate, x, y))
                    if face is not None and all(iou(face.box, other.box) < _SAME for other in found):
                        found.append(face)
        return sorted(found, key=lambda face: -face.score)

    def _hinted(self, image: np.ndarray) -> list[Detection]:
        if self._hint is None:
            return []
        height, width = image.shape[:2]
        x0, y0, x1, y1 = np.array(self._hint) * (width, height, width, height)
        roi = Roi((x0 + x1) / 2, (y0 + y1) / 2, ROI_SCALE * max(x1 - x0, y1 - y0), 0.0)
        seen = (self.settled(image, _scaled(roi, scale)) for scale in _ROI_SCALES)
        return [face for face in seen if face is not None][:1]

    def _candidates(self, part: np.ndarray) -> list[Detection]:
        every = (found for network in self._networks for found in network.candidates(part, self.min_score))
        return sorted(every, key=lambda found: -found.score)

    def _seen(self, image: np.ndarray, candidate: Detection) -> Detection | None:
        """The face as the mesh sees it, None where it sees none."""
        for scale in _ROI_SCALES:
            face = self.settled(image, _scaled(roi_from_detection(candidate), scale))
            if face is not None:
                return face
        return None

    def settled(self, image: np.ndarray, roi: Roi) -> Detection | None:
        """The face that the mesh sees from a square, and twice more from its own one; None where it loses it.

        Args:
            image: uint8 RGB (H, W, 3).
            roi: where to begin.
        """
        presence = 0.0
        for least in (_LEAST_PRESENCE / 2, _LEAST_PRESENCE, _LEAST_PRESENCE):
            points, presence = self._mesh(image, roi)
            if presence < least:
                return None
            roi = roi_from_mesh(points)
        return _as_detection(points, presence)


def _parts(image: np.ndarray, share: float) -> Iterator[tuple[int, int, np.ndarray]]:
    """Overlapping squares of a picture, or all of it: left, top, and the part."""
    height, width = image.shape[:2]
    side = max(round(share * max(height, width)), _LEAST_PART_PX)
    for y in _starts(height, side):
        for x in _starts(width, side):
            yield x, y, image[y : y + side, x : x + side]


def _starts(length: int, side: int) -> list[int]:
    """Where squares of a side begin that cover a length and overlap by at least a third of a side."""
    if side >= length:
        return [0]
    count = math.ceil((length - side) / (2 / 3 * side)) + 1
    return [round(at) for at in np.linspace(0, length - side, count)]


def _moved(face: Detection, x: int, y: int) -> Detection:
    offset = np.array([x, y], np.float32)
    return replace(face, box=face.box + np.tile(offset, 2), keypoints=face.keypoints + offset)


def _scaled(roi: Roi, scale: float) -> Roi:
    return replace(roi, size=roi.size * scale)


def _as_detection(points: np.ndarray, presence: float) -> Detection:
    """A mesh (468, 3) as a detection whose square for the mesh is the mesh's own."""
    roi = roi_from_mesh(points)
    half = roi.size / 3  # `roi_from_detection` makes it 1.5 times larger
    box = np.array([roi.cx - half, roi.cy - half, roi.cx + half, roi.cy + half], np.float32)
    places = [points[list(pair), :2].mean(0) for pair in _EYES]
    places += [points[_NOSE, :2], points[list(_LIPS), :2].mean(0), *(points[ear, :2] for ear in _EARS)]
    return Detection(box, presence, np.stack(places).astype(np.float32))
