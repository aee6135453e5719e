"""One face followed through a stream of frames: scene cuts, tracks, the choice of the face, and its mesh.

Nothing here looks back further than one frame or ahead further than the choice of the face needs, so the
memory does not grow with the length of the video.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import cv2
import numpy as np

from faces.detector import Detection, FaceDetector, FaceMesh, Roi, iou, roi_from_detection, roi_from_mesh
from utils import pictures
from utils.helpers import InputError
from utils.pictures import picture_of

_GREY_SIZE = (64, 36)  # enough to see a cut, too little to see a gesture
_SMALL = 192  # px, longer side of the picture in which faces and cuts are looked for: the detector's size
_CONTINUES = 0.2  # overlap of a box with the previous one of the same face, some frames earlier
_SEEN_OFTEN = 0.3  # a face seen in fewer of the looked-at frames is not chosen while there are others


class Picture(Protocol):
    """What the tracker needs of a frame: `image` uint8 RGB (H, W, 3) and `time` in seconds.

    A frame with a `picture` (see `utils.pictures`) is only converted where it is looked at.
    """

    @property
    def image(self) -> np.ndarray: ...

    @property
    def time(self) -> float: ...


@dataclass(frozen=True)
class FaceChoice:
    """Which face to take when there are several.

    Attributes:
        rule: largest, left, right, index or point.
        index: for index: position from the left, 0 is the leftmost face.
        point: for point: x, y in px of the picture.
        time: for point: the second at which the face is at that point; 0 is the start.
    """

    rule: str = "largest"
    index: int = 0
    point: tuple[float, float] = (0.0, 0.0)
    time: float = 0.0

    @classmethod
    def parse(cls, text: str) -> FaceChoice:
        """Read `largest`, `left`, `right`, `index:N` or `point:X,Y` with an optional `@SECONDS`.

        Raises:
            InputError: the text is none of these.
        """
        if text in ("largest", "left", "right"):
            return cls(text)
        if match := re.fullmatch(r"index:(\d+)", text):
            return cls("index", index=int(match[1]))
        number = r"(\d+(?:\.\d+)?)"
        if match := re.fullmatch(rf"point:{number},{number}(?:@{number})?", text):
            return cls("point", point=(float(match[1]), float(match[2])), time=float(match[3] or 0))
        raise InputError(f"The face '{text}' is not known; use largest, left, right, index:N or point:X,Y[@SECONDS].")

    def pick(self, tracks: Sequence[Track], looked_at: int = 1) -> Track | None:
        """The chosen one of some tracks; None when there is none that fits.

        Args:
            tracks: faces seen in the frames ahead.
            looked_at: in how many frames faces were looked for.
        """
        steady = [t for t in tracks if len(t.boxes) >= _SEEN_OFTEN * looked_at] or list(tracks)
        if not steady:
            return None
        if self.rule == "index":
            by_place = sorted(steady, key=lambda t: t.centre()[0])
            return by_place[self.index] if self.index < len(by_place) else None
        keys = {
            "largest": lambda t: -t.area(),
            "left": lambda t: t.centre()[0],
            "right": lambda t: -t.centre()[0],
            "point": lambda t: math.dist(t.centre(self.time), self.point),
        }
        return min(steady, key=keys[self.rule])


@dataclass
class Track:
    """The boxes of one face: time in seconds and box (x0, y0, x1, y1) px of each sighting."""

    times: list[float] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    missed: int = 0

    def area(self) -> float:
        """Median area in square px."""
        return float(np.median([np.prod(box[2:] - box[:2]) for box in self.boxes]))

    def centre(self, time: float | None = None) -> tuple[float, float]:
        """Centre in px: the median, or at the sighting nearest to a time (seconds) in the track's span."""
        centres = np.array([(box[:2] + box[2:]) / 2 for box in self.boxes])
        if time is not None and self.times[0] <= time <= self.times[-1]:
            x, y = centres[int(np.argmin(np.abs(np.array(self.times) - time)))]
        else:
            x, y = np.median(centres, axis=0)
        return float(x), float(y)


def link(sightings: Iterable[tuple[float, Sequence[Detection]]], max_missed: int = 2) -> list[Track]:
    """Join detections of successive frames to tracks: best overlap first, one detection to one track.

    Args:
        sightings: (time in seconds, detections) of the frames in which faces were looked for.
        max_missed: a track that finds no box in more than this many of them in a row is closed.

    Returns:
        All tracks, closed ones too, in the order of their first sighting.
    """
    tracks: list[Track] = []
    for time, detections in sightings:
        live = [t for t in tracks if t.missed <= max_missed]
        pairs = sorted(
            ((iou(t.boxes[-1], d.box), i, j) for i, t in enumerate(live) for j, d in enumerate(detections)),
            reverse=True,
        )
        used_tracks: set[int] = set()
        used_detections: set[int] = set()
        for overlap, i, j in pairs:
            if overlap < _CONTINUES or i in used_tracks or j in used_detections:
                continue
            live[i].times.append(time)
            live[i].boxes.append(detections[j].box)
            live[i].missed = 0
            used_tracks.add(i)
            used_detections.add(j)
        for i, track in enumerate(live):
            track.missed += i not in used_tracks
        tracks += [Track([time], [d.box]) for j, d in enumerate(detections) if j not in used_detections]
    return tracks


class CutDetector:
    """Tells a scene cut by two cheap measures on a tiny grey picture.

    A cut changes most pixels (mean absolute difference) and the picture's structure (correlation); a gesture
    changes few pixels, a change of light keeps the structure.

    Args:
        threshold: 0..1, how different two successive frames must be. Higher = fewer cuts.
    """

    def __init__(self, threshold: float = 0.35):
        self.threshold = threshold
        self._last: np.ndarray | None = None

    def is_cut(self, image: np.ndarray) -> bool:
        """Whether this picture (uint8 RGB) begins a new scene. The first picture does not count as a cut."""
        small = cv2.cvtColor(cv2.resize(image, _GREY_SIZE, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        last, self._last = self._last, small
        return last is not None and self._difference(last, small) > self.threshold

    @staticmethod
    def _difference(a: np.ndarray, b: np.ndarray) -> float:
        """0 for equal pictures, towards 1 for unrelated ones: the mean of the two measures."""
        absolute = min(1.0, float(cv2.absdiff(a, b).mean()) / 64.0)
        if a.std() < 2.0 or b.std() < 2.0:  # a plain picture has no structure to compare
            return absolute
        correlation = float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        return (absolute + min(1.0, 1.0 - correlation)) / 2


@dataclass(frozen=True)
class TrackerSettings:
    """Numbers of the tracker.

    Attributes:
        detect_every: frames between two runs of the face detector; between them the mesh follows by itself.
        look_ahead: frames read ahead at the start of a shot to choose the face.
        look_ahead_bytes: upper bound of the memory of these frames.
        max_missed: detector runs in a row without the face before the choice is made anew.
        min_presence: 0..1, the mesh network's certainty below which there is no face.
        cut_threshold: 0..1, see `CutDetector`.
    """

    detect_every: int = 5
    look_ahead: int = 25
    look_ahead_bytes: int = 256 * 2**20
    max_missed: int = 3
    min_presence: float = 0.5
    cut_threshold: float = 0.35


@dataclass(frozen=True)
class FaceFrame:
    """A frame with the chosen face.

    Attributes:
        frame: the picture as given.
        shot: counts up at each scene cut and at each change of the followed face.
        points: mesh float32 (468, 3) px, None where the face is not seen.
    """

    frame: Picture
    shot: int
    points: np.ndarray | None


@dataclass
class _Ahead:
    """A frame that was read and not yet followed; `detections` is None where the detector did not look."""

    frame: Picture
    picture: pictures.Picture
    cut: bool
    detections: list[Detection] | None


class FaceTracker:
    """Follows the chosen face of each shot.

    Args:
        detector: finds faces.
        mesh: finds the 468 points of a face.
        choice: which face.
        settings: numbers.
    """

    def __init__(self, detector: FaceDetector, mesh: FaceMesh, choice: FaceChoice, settings: TrackerSettings):
        self._detector = detector
        self._mesh = mesh
        self._choice = choice
        self._settings = settings
        self._points: np.ndarray | None = None
        self._box: np.ndarray | None = None  # the last box of the followed face
        self._missed = 0
        self._shot = -1
        self._seen: pictures.Picture | None = None  # the picture that `_points` belong to

    def follow(self, frames: Iterable[Picture]) -> Iterator[FaceFrame]:
        """Yield every frame, in order, with the mesh of the chosen face where it is seen."""
        source = self._read(frames)
        ahead: deque[_Ahead] = deque()
        while True:
            ahead.extend(itertools.islice(source, 0 if ahead else 1))
            if not ahead:
                return
            if ahead[0].cut or self._shot < 0:
                self._start_shot()
            if self._box is None:
                self._fill(ahead, source)
                self._choose(ahead)
            item = ahead.popleft()
            points = None if self._box is None else self._track(item)
            yield FaceFrame(item.frame, self._shot, points)

    def _read(self, frames: Iterable[Picture]) -> Iterator[_Ahead]:
        cuts = CutDetector(self._settings.cut_threshold)
        since = 0
        for frame in frames:
            picture = picture_of(frame)
            small = picture.small(_SMALL)
            cut = cuts.is_cut(small)
            since = 0 if cut else since
            look = since % self._settings.detect_every == 0
            detections = detected(self._detector, small, picture.shape) if look else None
            yield _Ahead(frame, picture, cut, detections)
            since += 1

    def _fill(self, ahead: deque[_Ahead], source: Iterator[_Ahead]) -> None:
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

    def _choose(self, ahead: deque[_Ahead]) -> None:
        """Pick a face among the frames ahead of this shot; it is followed from where it is first seen."""
        rest = itertools.takewhile(lambda item: not item.cut, itertools.islice(ahead, 1, None))
        looked = [item for item in (ahead[0], *rest) if item.detections is not None]
        track = self._choice.pick(link((item.frame.time, item.detections) for item in looked), len(looked))
        if track is not None and track.times[0] <= ahead[0].frame.time:
            self._box = track.boxes[0]

    def _track(self, item: _Ahead) -> np.ndarray | None:
        """The mesh of the followed face in this frame."""
        if _same(item.picture, self._seen) and self._points is not None:
            return self._points  # a still picture or a held frame: nothing new to see
        self._seen, before = item.picture, self._points
        points = None if before is None else self._see(item, roi_from_mesh(before))
        if item.detections is not None or (before is not None and points is None):
            points = self._correct(item, points)
        self._points = points
        if points is not None:
            self._box, self._missed = box_of(points), 0
        return points

    def _see(self, item: _Ahead, roi: Roi) -> np.ndarray | None:
        (x0, y0, x1, y1), (height, width) = box_of_roi(roi), item.picture.shape
        x0, y0 = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
        x1, y1 = min(max(x1, x0 + 1), width), min(max(y1, y0 + 1), height)
        part = item.picture.part(x0, y0, x1, y1)
        points, presence = self._mesh(part, replace(roi, cx=roi.cx - x0, cy=roi.cy - y0))
        points[:, :2] += np.array([x0, y0], np.float32)
        return points if presence >= self._settings.min_presence else None

    def _correct(self, item: _Ahead, points: np.ndarray | None) -> np.ndarray | None:
        """Check the mesh against the detector, and find the face again where the mesh lost it."""
        detections = item.detections
        if detections is None:
            detections = detected(self._detector, item.picture.small(_SMALL), item.picture.shape)
        box = self._box if points is None else box_of(points)
        best = max(detections, key=lambda d: iou(d.box, box), default=None)
        if best is not None and iou(best.box, box) >= _CONTINUES:
            return self._see(item, roi_from_detection(best)) if points is None else points
        if points is None:
            self._missed += 1
            if self._missed > self._settings.max_missed:
                self._start_shot()
        return points


def detected(detector: FaceDetector, small: np.ndarray, shape: tuple[int, int]) -> list[Detection]:
    """Faces found in a reduced picture (h, w, 3), in px of the one of `shape` (H, W) that it was made of."""
    scale = np.array([shape[1] / small.shape[1], shape[0] / small.shape[0]], np.float32)
    return [
        replace(found, box=found.box * np.tile(scale, 2), keypoints=found.keypoints * scale)
        for found in detector.detect(small)
    ]


def box_of_roi(roi: Roi) -> tuple[int, int, int, int]:
    """The upright box (x0, y0, x1, y1) px around a turned square, and a pixel more for the sampling between pixels."""
    half = roi.size / 2 * (abs(math.cos(roi.angle)) + abs(math.sin(roi.angle))) + 2
    return math.floor(roi.cx - half), math.floor(roi.cy - half), math.ceil(roi.cx + half), math.ceil(roi.cy + half)


def _same(picture: pictures.Picture, other: pictures.Picture | None) -> bool:
    """Whether two pictures are one and the same, converted or not."""
    if isinstance(picture, pictures.ArrayPicture) and isinstance(other, pictures.ArrayPicture):
        return picture.whole() is other.whole()
    return picture is other


def box_of(points: np.ndarray) -> np.ndarray:
    """The box (x0, y0, x1, y1) px around a mesh (N, 2 or 3)."""
    return np.concatenate([points[:, :2].min(0), points[:, :2].max(0)])
