"""A mouth whose place somebody has marked in a picture, followed where no mesh can: by what is drawn around it.

The marked picture stays the measure: each frame is brought to it, so nothing drifts. Corners that are seen in both are
compared (Lucas and Kanade, 1981; pyramidal as in Bouguet, 2000), and a similarity is fitted to those that agree. After
a cut, or where the face was lost, it is looked for in the whole frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from faces.alignment import Geometry
from faces.choice import FaceChoice
from faces.mouth_windows import MouthFrame
from faces.shots import scenes
from faces.usable import MIXED, NO_FACE
from utils.pictures import Picture, picture_of, same_picture

MOUTH_CENTRE, MOUTH_WIDTH = (128.0, 150.0), 78.0
"""Where a closed mouth lies on the canonical face, and how wide it is, px."""

_MOUTH_IN_FACE = (0.5, 0.72, 0.42, 0.2)  # middle, width and height of a mouth, in parts of the box around a face
_AROUND_MOUTH = 3.0  # what is looked at around a marked mouth, in its widths
_AROUND_FACE = 1.1  # the same around a marked face, in its size
_PATCH_PX = 192  # longer side of the picture that is remembered, at most
_CORNERS, _LEAST_CORNERS = 120, 6
_BACK_PX, _OFF_PX = 1.0, 1.5  # px of the patch that a point may be off after going and coming back, and off the fit
_LIKE, _FOUND_LIKE = 0.6, 0.75  # correlation with the marked picture from which it is the same, and is found again
_SEARCH_PX, _LOOK_EVERY = 256, 5  # longer side of the frame that is searched, and how often it is, frames
_SEARCH_SCALES = np.geomspace(0.6, 1.7, 9)


def mouth_box(choice: FaceChoice) -> tuple[float, float, float, float]:
    """Middle (x, y), width and height of the mouth in a marked place, px."""
    x, y, width, height = choice.box
    if choice.rule == "mouth":
        return x + width / 2, y + height / 2, width, height
    across, down, wide, high = _MOUTH_IN_FACE
    return x + across * width, y + down * height, wide * width, high * height


@dataclass(frozen=True, eq=False)
class Anchor:
    """The marked picture.

    Attributes:
        patch: grey uint8 (h, w), what is around the mouth.
        to_frame: (2, 3), patch px -> px of the marked frame.
        to_plane: (2, 3), patch px -> px of the canonical face.
        corners: (N, 1, 2) float32, points of the patch to follow.
        still: bool (h, w), what is not the mouth itself.
    """

    patch: np.ndarray
    to_frame: np.ndarray
    to_plane: np.ndarray
    corners: np.ndarray
    still: np.ndarray

    @classmethod
    def of(cls, picture: Picture, choice: FaceChoice) -> Anchor:
        """The place that a choice marks in a picture."""
        x, y, width, height = mouth_box(choice)
        x0, y0, x1, y1 = _around(choice, picture.shape)
        grey = cv2.cvtColor(picture.part(x0, y0, x1, y1), cv2.COLOR_RGB2GRAY)
        step = max(1.0, max(grey.shape) / _PATCH_PX)
        size = (max(1, round(grey.shape[1] / step)), max(1, round(grey.shape[0] / step)))
        patch = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        to_frame = np.array([[step, 0, x0 + (step - 1) / 2], [0, step, y0 + (step - 1) / 2]], np.float64)
        scale = MOUTH_WIDTH / width
        frame_to_plane = np.array([[scale, 0, MOUTH_CENTRE[0] - scale * x], [0, scale, MOUTH_CENTRE[1] - scale * y]])
        still = np.full(patch.shape, 255, np.uint8)
        middle = ((x - to_frame[0, 2]) / step, (y - to_frame[1, 2]) / step)
        axes = (round(0.6 * width / step), round(0.75 * height / step))
        cv2.ellipse(still, (round(middle[0]), round(middle[1])), axes, 0, 0, 360, 0, cv2.FILLED)
        corners = cv2.goodFeaturesToTrack(patch, _CORNERS, 0.01, 3, mask=still)
        corners = np.zeros((0, 1, 2), np.float32) if corners is None else corners
        return cls(patch, to_frame, joined(frame_to_plane, to_frame), corners, still > 0)


def _around(choice: FaceChoice, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """What is remembered around a marked place: x0, y0, x1, y1 px, within the picture."""
    x, y, width, height = choice.box
    if choice.rule == "mouth":
        half_x = half_y = _AROUND_MOUTH / 2 * max(width, height)
    else:
        half_x, half_y = _AROUND_FACE / 2 * width, _AROUND_FACE / 2 * height
    middle, half = np.array([x + width / 2, y + height / 2]), np.array([half_x, half_y])
    limit = np.array(shape[::-1])
    low = np.clip(np.floor(middle - half).astype(int), 0, limit - 1)
    high = np.clip(np.ceil(middle + half).astype(int), low + 1, limit)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def joined(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    """The matrix (2, 3) that does the first and then the second."""
    return np.hstack([second[:, :2] @ first[:, :2], second[:, :2] @ first[:, 2:] + second[:, 2:]])


class PlaceTracker:
    """Finds a marked place in frames that follow each other."""

    def __init__(self, anchor: Anchor) -> None:
        self._anchor = anchor
        self._matrix: np.ndarray | None = anchor.to_frame
        self._seen: Picture | None = None
        self._since = 0

    def cut(self) -> None:
        """A new scene begins: what was known of the place holds only if it looks the same there."""
        self._since = 0

    def find(self, picture: Picture) -> np.ndarray | None:
        """Patch px -> frame px (2, 3); None where the place is not seen."""
        if same_picture(picture, self._seen):
            return self._matrix  # a still picture or a held frame
        self._seen = picture
        guess, self._matrix = self._matrix, None
        for start in (guess, None):
            if start is None:
                start = self._searched(picture)
            if start is not None and (found := self._fitted(picture, start)) is not None:
                self._matrix, self._since = found, 0
                return found
        return None

    def _searched(self, picture: Picture) -> np.ndarray | None:
        """About where the place is in a frame that nothing is known of; not looked for in every frame."""
        self._since += 1
        if (self._since - 1) % _LOOK_EVERY:
            return None
        small = cv2.cvtColor(picture.small(_SEARCH_PX), cv2.COLOR_RGB2GRAY)
        reduced = small.shape[1] / picture.shape[1]
        base = float(np.hypot(*self._anchor.to_frame[:, 0])) * reduced
        best, place = _FOUND_LIKE, None
        for scale in base * _SEARCH_SCALES:
            size = [round(side * scale) for side in self._anchor.patch.shape[::-1]]
            if min(size) < 8 or size[0] > small.shape[1] or size[1] > small.shape[0]:
                continue
            template = cv2.resize(self._anchor.patch, size, interpolation=cv2.INTER_AREA)
            likeness = cv2.matchTemplate(small, template, cv2.TM_CCOEFF_NORMED)
            _, top, _, (x, y) = cv2.minMaxLoc(likeness)
            if top > best:
                best, place = top, np.array([[scale, 0, x], [0, scale, y]], np.float64) / reduced
        return place

    def _fitted(self, picture: Picture, start: np.ndarray) -> np.ndarray | None:
        """The place, given about where it is; None where the frame does not look like it there."""
        matrix = start
        for _ in range(2):
            seen = self._brought(picture, matrix)
            if seen is None:
                return None
            change = self._change(seen)
            matrix = joined(matrix, change) if change is not None else matrix
        seen = self._brought(picture, matrix)
        return matrix if seen is not None and self._likeness(seen) >= _LIKE else None

    def _brought(self, picture: Picture, matrix: np.ndarray) -> np.ndarray | None:
        """The frame as the patch would see it, grey uint8 (h, w); None where that lies outside."""
        height, width = self._anchor.patch.shape
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ matrix[:, :2].T + matrix[:, 2]
        limit = np.array(picture.shape[::-1])
        low = np.clip(np.floor(corners.min(0)).astype(int) - 2, 0, limit)
        high = np.clip(np.ceil(corners.max(0)).astype(int) + 2, 0, limit)
        if np.any(high - low < 4):
            return None
        part = cv2.cvtColor(picture.part(*map(int, (*low, *high))), cv2.COLOR_RGB2GRAY)
        within = matrix.copy()
        within[:, 2] -= low
        shrink = float(np.hypot(*matrix[:, 0]))
        if shrink > 1.5:
            part = cv2.GaussianBlur(part, (0, 0), 0.35 * shrink)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(part, within, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def _change(self, seen: np.ndarray) -> np.ndarray | None:
        """From the patch to what is seen (2, 3) in patch px; None where too little can be compared."""
        corners = self._anchor.corners
        if len(corners) < _LEAST_CORNERS:
            return None
        there, ok, _ = cv2.calcOpticalFlowPyrLK(self._anchor.patch, seen, corners, None)
        back, again, _ = cv2.calcOpticalFlowPyrLK(seen, self._anchor.patch, there, None)
        good = (ok & again).ravel().astype(bool) & (np.linalg.norm(back - corners, axis=2).ravel() < _BACK_PX)
        if good.sum() < _LEAST_CORNERS:
            return None
        fit, inside = cv2.estimateAffinePartial2D(
            corners[good], there[good], method=cv2.RANSAC, ransacReprojThreshold=_OFF_PX
        )
        return None if fit is None or inside.sum() < _LEAST_CORNERS else fit

    def _likeness(self, seen: np.ndarray) -> float:
        """Correlation with the patch where it is not the mouth; of a plain patch, 1."""
        one, other = (picture[self._anchor.still].astype(np.float32) for picture in (self._anchor.patch, seen))
        one, other = one - one.mean(), other - other.mean()
        size = math.sqrt(float((one**2).sum() * (other**2).sum()))
        return float((one * other).sum()) / size if size > 0 else float(np.allclose(one, other))


def placed_windows(
    frames: Iterable[Any],
    anchor: Anchor,
    geometry: Geometry,
    cut_threshold: float,
    release: Callable[[Any], Any] = lambda frame: frame,
) -> Iterator[MouthFrame]:
    """Every frame, in order, with the window at the marked place where it is seen; there is no mesh in it.

    Args:
        frames: in order.
        anchor: the place.
        geometry: which window; that of the canonical face.
        cut_threshold: see `faces.shots.scenes`.
        release: makes a lighter copy of a frame whose picture is no longer needed.
    """
    tracker, shot = PlaceTracker(anchor), 0
    inverse = cv2.invertAffineTransform(anchor.to_plane)
    for seen in scenes(frames, cut_threshold):
        if seen.cut:
            shot += 1
            tracker.cut()
        frame, picture = seen.frame, picture_of(seen.frame)
        matrix = None if seen.mixed else tracker.find(picture)
        reason = MIXED if seen.mixed else NO_FACE if matrix is None else None
        result = MouthFrame(release(frame), frame.time, picture.shape, shot, reason)
        if matrix is not None:
            to_plane = cv2.invertAffineTransform(joined(matrix, inverse)).astype(np.float32)
            result.matrix, result.pose = geometry.window_matrix(to_plane), np.zeros(3, np.float32)
            result.window = geometry.warp(*_part(picture, to_plane, geometry))
        yield result


def _part(picture: Picture, to_plane: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """What the window shows of a picture, and the matrix of that part."""
    inverse = cv2.invertAffineTransform(geometry.window_matrix(to_plane))
    seen, limit = geometry.corners(4) @ inverse[:, :2].T + inverse[:, 2], np.array(picture.shape[::-1])
    x0, y0 = np.clip(np.floor(seen.min(0)).astype(int), 0, limit - 1)
    x1, y1 = np.clip(np.ceil(seen.max(0)).astype(int), (x0 + 1, y0 + 1), limit)
    shifted = to_plane.copy()
    shifted[:, 2] += to_plane[:, :2] @ np.array([x0, y0], to_plane.dtype)
    return picture.part(int(x0), int(y0), int(x1), int(y1)), shifted
