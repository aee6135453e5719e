"""One face followed through a stream of frames: scene cuts, tracks, the choice of the face, and its mesh.

Nothing here looks back further than one frame or ahead further than the choice of the face needs, so the
memory does not grow with the length of the video.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from faces.choice import CONTINUES, FaceChoice, link
from faces.detector import FaceDetector, FaceMesh, Roi, iou, roi_from_detection, roi_from_mesh
from faces.shots import FacePlan, Look, Picture, faces_in, looks
from utils import pictures


@dataclass(frozen=True)
class TrackerSettings:
    """Numbers of the tracker.

    Attributes:
        detect_every: frames between two runs of the face detector; between them the mesh follows by itself.
        look_ahead: frames read ahead at the start of a shot to choose the face.
        look_ahead_bytes: upper bound of the memory of these frames.
        max_missed: detector runs in a row without the face before the choice is made anew.
        min_presence: 0..1, the mesh network's certainty below which there is no face.
        cut_threshold: 0..1, see `faces.shots.scenes`.
        flash_frames: the same.
    """

    detect_every: int = 5
    look_ahead: int = 25
    look_ahead_bytes: int = 256 * 2**20
    max_missed: int = 3
    min_presence: float = 0.5
    cut_threshold: float = 0.35
    flash_frames: int = 2


@dataclass(frozen=True)
class FaceFrame:
    """A frame with the chosen face.

    Attributes:
        frame: the picture as given.
        shot: counts up at each scene cut and at each change of the followed face.
        points: mesh float32 (468, 3) px, None where the face is not seen.
        presence: 0..1, the mesh network's certainty that there is a face.
        mixed: it shows two scenes at once, so nobody is looked for.
        scenery: float32 (N,), the small grey picture in which cuts are looked for; None: nobody made one.
    """

    frame: Picture
    shot: int
    points: np.ndarray | None
    presence: float = 1.0
    mixed: bool = False
    scenery: np.ndarray | None = None


class FaceTracker:
    """Follows the chosen face of each shot.

    Args:
        detector: finds faces.
        mesh: finds the 468 points of a face.
        choice: which face of a shot; it is made among the frames ahead.
        settings: numbers.
        plan: whom to follow in each shot, instead of a choice among the frames ahead.
    """

    def __init__(
        self,
        detector: FaceDetector,
        mesh: FaceMesh,
        choice: FaceChoice,
        settings: TrackerSettings,
        plan: FacePlan | None = None,
    ):
        self._detector = detector
        self._mesh = mesh
        self._choice = choice
        self._settings = settings
        self._plan = plan
        self._presence = 1.0
        self._points: np.ndarray | None = None
        self._box: np.ndarray | None = None  # the last box of the followed face
        self._missed = 0
        self._shot = -1
        self._seen: pictures.Picture | None = None  # the picture that `_points` belong to

    def follow(self, frames: Iterable[Picture]) -> Iterator[FaceFrame]:
        """Yield every frame, in order, with the mesh of the chosen face where it is seen."""
        source = self._read(frames)
        ahead: deque[Look] = deque()
        while True:
            ahead.extend(itertools.islice(source, 0 if ahead else 1))
            if not ahead:
                return
            if ahead[0].cut or self._shot < 0:
                self._start_shot()
            if ahead[0].mixed:
                yield FaceFrame(ahead.popleft().frame, self._shot, None, mixed=True)
                continue
            if self._box is None and self._plan is not None:
                self._box = self._plan.pick(ahead[0].frame.time, ahead[0].detections or [])
            elif self._box is None:
                self._fill(ahead, source)
                self._choose(ahead)
            item = ahead.popleft()
            points = None if self._box is None else self._track(item)
            yield FaceFrame(item.frame, self._shot, points, self._presence, scenery=item.scenery)

    def _read(self, frames: Iterable[Picture]) -> Iterator[Look]:
        chosen = self._settings
        return looks(frames, self._detector, chosen.cut_threshold, chosen.detect_every, chosen.flash_frames)

    def _fill(self, ahead: deque[Look], source: Iterator[Look]) -> None:
        """Read on to the end of the shot or of the look-ahead."""
        in_budget = self._settings.look_ahead_bytes // max(1, 3 * math.prod(ahead[0].picture.shape))
        wanted = max(1, min(self._settings.look_ahead, in_budget))
        while len(ahead) < wanted and (len(ahead) == 1 or not ahead[-1].cut):
            item = next(source, None)
            if item is None:
                return
            ahead.append(item)

    def _start_shot(self) -> None:
        self._shot += 1
        self._points = self._box = None
        self._missed = 0

    def _choose(self, ahead: deque[Look]) -> None:
        """Pick a face among the frames ahead of this shot; it is followed from where it is first seen."""
        rest = itertools.takewhile(lambda item: not item.cut, itertools.islice(ahead, 1, None))
        looked = [item for item in (ahead[0], *rest) if item.detections is not None]
        track = self._choice.pick(link((item.frame.time, item.detections) for item in looked), len(looked))
        if track is not None and track.times[0] <= ahead[0].frame.time:
            self._box = track.boxes[0]

    def _track(self, item: Look) -> np.ndarray | None:
        """The mesh of the followed face in this frame."""
        if pictures.same_picture(item.picture, self._seen) and self._points is not None:
            return self._points  # a still picture or a held frame: nothing new to see
        self._seen, before = item.picture, self._points
        points = None if before is None else self._see(item, roi_from_mesh(before))
        if item.detections is not None or points is None:
            points = self._correct(item, points)
        self._points = points
        if points is not None:
            self._box, self._missed = box_of(points), 0
        return points

    def _see(self, item: Look, roi: Roi) -> np.ndarray | None:
        (x0, y0, x1, y1), (height, width) = box_of_roi(roi), item.picture.shape
        x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
        x1, y1 = min(max(x1, x0 + 1), width), min(max(y1, y0 + 1), height)
        part = item.picture.part(x0, y0, x1, y1)
        points, self._presence = self._mesh(part, replace(roi, cx=roi.cx - x0, cy=roi.cy - y0))
        points[:, :2] += np.array([x0, y0], np.float32)
        return points if self._presence >= self._settings.min_presence else None

    def _correct(self, item: Look, points: np.ndarray | None) -> np.ndarray | None:
        """Check the mesh against the detector, and find the face again where the mesh lost it."""
        detections = item.detections
        if detections is None:
            detections = faces_in(self._detector, item.picture)
        box = self._box if points is None else box_of(points)
        best = max(detections, key=lambda d: iou(d.box, box), default=None)
        if best is not None and iou(best.box, box) >= CONTINUES:
            return self._see(item, roi_from_detection(best)) if points is None else points
        if points is None:
            self._missed += item.detections is not None
            if self._missed > self._settings.max_missed:
                self._start_shot()
        return points


def box_of_roi(roi: Roi) -> tuple[int, int, int, int]:
    """The upright box (x0, y0, x1, y1) px around a turned square, and a pixel more for the sampling between pixels."""
    half = roi.size / 2 * (abs(math.cos(roi.angle)) + abs(math.sin(roi.angle))) + 2
    return math.floor(roi.cx - half), math.floor(roi.cy - half), math.ceil(roi.cx + half), math.ceil(roi.cy + half)


def box_of(points: np.ndarray) -> np.ndarray:
    """The box (x0, y0, x1, y1) px around a mesh (N, 2 or 3)."""
    return np.concatenate([points[:, :2].min(0), points[:, :2].max(0)])
