"""What the mouth measures read off a video: lips in parts of the distance between the eyes, and the mouth as it stands.

Nothing is scaled: the crops are the frame's own pixels, cut where the real video's mouth lies, the same place in every
version. The lips are those of the mesh found anew in each version.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from data.preprocess import FPS, face_tracker
from evaluation.reading import MAX_LOST, MIN_FRAMES, Place, scaled_to
from faces.alignment import LIPS_INNER, POINT_SMOOTHING_S, eye_distance, smooth_in_time
from faces.footage import frames_at_25
from utils.config import Config
from utils.helpers import InputError, atomic_path
from video_processor import VideoReader

_CORNERS = (61, 291)  # of the mouth, mesh indices
_UPPER, _LOWER = [81, 13, 311], [178, 14, 402]  # the inner lips beside and in the middle, mesh indices
_MOUTH = (128.0, 172.0)  # middle of the mouth on the canonical face, px
CROP_SIDE = 1.5  # of the square that is cut out, in distances between the eyes


@dataclass(frozen=True, eq=False)
class Mouth:
    """A mouth over time, 25 frames a second.

    Attributes:
        opening: (T,) gap between the inner lips, mean of three places; below 0 where their mesh is crossed.
        width: (T,) distance between the corners of the mouth. Both in parts of the real video's eye distance.
        crops: uint8 RGB (T, S, S, 3), the frame's own pixels around the real video's mouth.
        inner: (T, 20, 2) inner contour of the lips, px of the crop.
        eye_px: distance between the eyes, px of the frame, median.
    """

    opening: np.ndarray
    width: np.ndarray
    crops: np.ndarray
    inner: np.ndarray
    eye_px: float

    def __len__(self) -> int:
        return len(self.opening)

    def cut(self, frames: int) -> Mouth:
        """Only the first frames."""
        return self._part(slice(frames))

    def without(self, frames: int) -> Mouth:
        """All but the first frames."""
        return self._part(slice(frames, None))

    def _part(self, part: slice) -> Mouth:
        return Mouth(self.opening[part], self.width[part], self.crops[part], self.inner[part], self.eye_px)


def read_mouth(video: Path, place: Place, config: Config) -> Mouth:
    """Read the mouth of one version of a clip.

    Args:
        video: the real video or another version of it, with the same frames at the same times; another size is scaled.
        place: of the face in the real video.
        config: of the faces.

    Raises:
        InputError: the video cannot be read, has fewer frames than 24, or its face is lost in more than a fifth.
    """
    eyes, corners = _eyes(place), _crop_corners(place)
    side = math.ceil(CROP_SIDE * float(np.median(eyes)))
    meshes, crops = [], []
    with VideoReader(video) as reader:
        frames = scaled_to(frames_at_25(reader), place.size)
        for number, face in enumerate(face_tracker(config, place.choice).follow(frames)):
            index = number - place.first
            if 0 <= index < len(place):
                crops.append(_cut(face.frame.image, corners[index], side))
                meshes.append(face.points)
            elif index >= len(place):
                break
    points = _filled(meshes, video)
    lips = smooth_in_time(points, np.arange(len(points)) / FPS, POINT_SMOOTHING_S)
    across = lips[:, _CORNERS[1]] - lips[:, _CORNERS[0]]
    gap, width = _gap(lips[:, _LOWER] - lips[:, _UPPER], across), np.linalg.norm(across, axis=-1)
    inner = points[:, LIPS_INNER] - corners[: len(points), None]
    eyes = eyes[: len(points)]
    return Mouth(gap / eyes, width / eyes, np.stack(crops), inner, float(np.median(eyes)))


def _gap(apart: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Gap between the inner lips (T,), px; below 0 where their mesh is crossed, as that of thin closed lips is.

    Args:
        apart: from the upper to the lower lip (T, 3, 2).
        across: from the right corner of the mouth, which lies on the left, to the left one (T, 2).
    """
    below = across[:, None, 0] * apart[..., 1] - across[:, None, 1] * apart[..., 0]
    return (np.sign(below) * np.linalg.norm(apart, axis=-1)).mean(axis=1)


def write_still(video: Path, place: Place, index: int, target: Path) -> None:
    """Write one frame of a video as a picture (PNG): frame `index` of the place."""
    with VideoReader(video) as reader:
        frame = next(f for i, f in enumerate(scaled_to(frames_at_25(reader), place.size)) if i == place.first + index)
    with atomic_path(target) as path:
        path.write_bytes(cv2.imencode(".png", np.ascontiguousarray(frame.image[..., ::-1]))[1].tobytes())


def still_place(place: Place, index: int, frames: int) -> Place:
    """Where the face of a video made of the still picture `index` lies, for so many frames."""
    return Place(0, place.size, np.stack([place.meshes[index]] * frames), np.stack([place.matrices[index]] * frames))


def _eyes(place: Place) -> np.ndarray:
    """Distance between the eyes (T,), px, smoothed as the alignment is."""
    distances = np.array([eye_distance(mesh) for mesh in place.meshes])
    return smooth_in_time(distances, np.arange(len(distances)) / FPS)


def _crop_corners(place: Place) -> np.ndarray:
    """Upper left corner (T, 2) of the crop of each frame, whole px of the frame."""
    half = CROP_SIDE * float(np.median(_eyes(place))) / 2
    inverses = [cv2.invertAffineTransform(matrix) for matrix in place.matrices]
    centres = np.array([m[:, :2] @ np.array(_MOUTH) + m[:, 2] for m in inverses])
    return np.round(centres - half)


def _cut(image: np.ndarray, corner: np.ndarray, side: int) -> np.ndarray:
    """A square of the image; what lies outside repeats its edge."""
    x, y = (int(v) for v in corner)
    rows, columns = (
        np.clip(np.arange(start, start + side), 0, limit - 1)
        for start, limit in ((y, image.shape[0]), (x, image.shape[1]))
    )
    return image[rows[:, None], columns]


def _filled(meshes: list[np.ndarray | None], video: Path) -> np.ndarray:
    """Meshes (T, 468, 2) px; a missing one is the one before it."""
    lost = sum(mesh is None for mesh in meshes)
    if len(meshes) < MIN_FRAMES:
        raise InputError(f"{video.name} has less than {MIN_FRAMES} frames of the real video's face; leave it out.")
    if lost > MAX_LOST * len(meshes):
        raise InputError(f"{video.name} lost its face in {lost} of {len(meshes)} frames; leave it out.")
    return np.stack(list(_carried(meshes)))


def _carried(meshes: Iterable[np.ndarray | None]) -> Iterator[np.ndarray]:
    meshes = list(meshes)
    last = next(mesh for mesh in meshes if mesh is not None)
    for mesh in meshes:
        last = last if mesh is None else mesh
        yield last[:, :2]
