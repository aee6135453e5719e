"""Scenes of a video: where one ends by a cut, which faces each shows, and the plan whom to follow in each.

Only boxes of faces are kept, four numbers for every fifth frame, so a long video can be looked through.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np

from faces.choice import CONTINUES, Track, link, steady_tracks
from faces.detector import Detection, FaceDetector, iou
from faces.dissolves import Seen, with_dissolves
from utils import pictures
from utils.pictures import picture_of

_GREY_SIZE = (64, 36)  # enough to see a cut, too little to see a gesture
_PANORAMA = 3.0  # how many times as long as wide
_TILE = 1.5  # side of its parts, in shorter sides
_SAME_FACE = 0.4  # part of a box in a better one from which both are one face
_SMALL = 192  # px, longer side of the picture in which cuts are looked for


class Picture(Protocol):
    """What is needed of a frame: `image` uint8 RGB (H, W, 3) and `time` in seconds.

    A frame with a `picture` (see `utils.pictures`) is only converted where it is looked at.
    """

    @property
    def image(self) -> np.ndarray: ...

    @property
    def time(self) -> float: ...


def small_picture(picture: pictures.Picture) -> np.ndarray:
    """The reduced picture, uint8 RGB, in which cuts are looked for."""
    return picture.small(_SMALL)


def with_cuts(frames: Iterable[Picture], threshold: float, flash_frames: int = 2) -> Iterator[tuple[Picture, bool]]:
    """Yield every frame, and whether it begins a new scene; arguments as in `scenes`."""
    return ((seen.frame, seen.cut) for seen in scenes(frames, threshold, flash_frames))


def scenes(frames: Iterable[Picture], threshold: float, flash_frames: int = 2) -> Iterator[Seen]:
    """Yield every frame, whether it begins a new scene, and whether it is a mix of two.

    A cut changes most pixels (mean absolute difference) and the picture's structure (correlation); a gesture
    changes few pixels, a change of light keeps the structure. A short flash, after which the scene goes on, is no cut.
    The first frame does not count as a cut. Of a dissolve, see `faces.dissolves`, the end does.

    Args:
        frames: in order.
        threshold: 0..1, how different two successive frames must be. Higher = fewer cuts.
        flash_frames: longest flash; so many frames are waited for at a possible cut. 0: nothing is waited for, and
            dissolves are not looked for.
    """
    seen = _with_hard_cuts(frames, threshold, flash_frames)
    return with_dissolves(seen) if flash_frames else seen


def _with_hard_cuts(frames: Iterable[Picture], threshold: float, flash_frames: int) -> Iterator[Seen]:
    source = ((frame, _thumbnail(small_picture(picture_of(frame)))) for frame in frames)
    ahead: deque[tuple[Picture, np.ndarray]] = deque()
    last: np.ndarray | None = None
    while _fill(ahead, source, 1):
        frame, small = ahead[0]
        unlike = last is not None and difference(last, small) > threshold
        cut = False
        if unlike:
            _fill(ahead, source, 1 + flash_frames)
            cut = all(difference(last, other) > threshold for _, other in ahead)
        yield Seen(frame, small.ravel().astype(np.float32), cut)
        if cut or not unlike:
            last = small
        ahead.popleft()


def _fill(ahead: deque, source: Iterator, count: int) -> int:
    while len(ahead) < count and (item := next(source, None)) is not None:
        ahead.append(item)
    return len(ahead)


def _thumbnail(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.resize(image, _GREY_SIZE, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Of two small grey pictures: 0 for equal ones, towards 1 for unrelated ones, the mean of the two measures."""
    absolute = min(1.0, float(cv2.absdiff(a, b).mean()) / 64.0)
    if a.std() < 2.0 or b.std() < 2.0:  # a plain picture has no structure to compare
        return absolute
    correlation = float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    return (absolute + min(1.0, 1.0 - correlation)) / 2


@dataclass(frozen=True)
class Look:
    """A frame, its picture, whether it begins a scene, the faces in it, None where the detector did not look, and
    whether it shows two scenes at once, where nobody looks for faces; and its `scenery`, see `FaceFrame`."""

    frame: Picture
    picture: pictures.Picture
    cut: bool
    detections: list[Detection] | None
    mixed: bool = False
    scenery: np.ndarray | None = None


def looks(
    frames: Iterable[Picture], detector: FaceDetector, threshold: float, every: int, flash_frames: int = 2
) -> Iterator[Look]:
    """Yield every frame with what is seen in it.

    Args:
        frames: in order.
        detector: finds faces.
        threshold, flash_frames: see `scenes`.
        every: frames between two runs of the detector; it always looks at the first frame of a scene.
    """
    since = 0
    for seen in scenes(frames, threshold, flash_frames):
        since = 0 if seen.cut else since
        picture = picture_of(seen.frame)
        found = faces_in(detector, picture) if since % every == 0 and not seen.mixed else None
        yield Look(seen.frame, picture, seen.cut, found, seen.mixed, seen.small)
        since += 1


def faces_in(detector: FaceDetector, picture: pictures.Picture) -> list[Detection]:
    """The faces of a picture, in its px; a panorama is looked at in overlapping parts, or they would be too small."""
    height, width = picture.shape
    short, long = min(height, width), max(height, width)
    if long <= _PANORAMA * short:
        return _detected(detector, picture.small(detector.side), picture.shape)
    side = round(_TILE * short)
    count = -(-(long - side) // short) + 1
    found: list[Detection] = []
    for start in np.linspace(0, long - side, count).round().astype(int).tolist():
        x, y = (start, 0) if width > height else (0, start)
        part = picture.part(x, y, min(x + side, width), min(y + side, height))
        small = pictures.ArrayPicture(part).small(detector.side)
        at = np.array([x, y], np.float32)
        found += [
            replace(face, box=face.box + np.tile(at, 2), keypoints=face.keypoints + at)
            for face in _detected(detector, small, part.shape[:2])
        ]
    return _distinct(found)


def _distinct(found: list[Detection]) -> list[Detection]:
    """Each face once, best first: parts overlap, and at an edge half a face may be seen."""
    kept: list[Detection] = []
    for face in sorted(found, key=lambda face: -face.score * float(np.prod(face.box[2:] - face.box[:2])) ** 0.5):
        if all(_inside(face.box, other.box) < _SAME_FACE for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda face: -face.score)


def _inside(box: np.ndarray, other: np.ndarray) -> float:
    """Which part of a box lies in another one."""
    inner = np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None)
    return float(np.prod(inner) / max(np.prod(box[2:] - box[:2]), 1e-6))


def _detected(detector: FaceDetector, small: np.ndarray, shape: tuple[int, int]) -> list[Detection]:
    """Faces found in a reduced picture (h, w, 3), in px of the one of `shape` (H, W) that it was made of."""
    scale = np.array([shape[1] / small.shape[1], shape[0] / small.shape[0]], np.float32)
    return [
        replace(found, box=found.box * np.tile(scale, 2), keypoints=found.keypoints * scale)
        for found in detector.detect(small)
    ]


@dataclass(frozen=True)
class Shot:
    """A scene between two cuts.

    Attributes:
        start: time of its first frame, seconds.
        stop: time of the first frame after it, or of its last frame at the end of the video.
        looked_at: in how many frames faces were looked for.
        tracks: the faces.
    """

    start: float
    stop: float
    looked_at: int
    tracks: list[Track]

    def faces(self) -> list[Track]:
        """The faces that are more than passers-by, from left to right."""
        return sorted(steady_tracks(self.tracks, self.looked_at), key=lambda track: track.centre()[0])


def survey(seen: Iterable[Look]) -> Iterator[Shot]:
    """Join looks at all frames of a video to its scenes."""
    start, last = None, 0.0
    sightings: list[tuple[float, Sequence[Detection]]] = []
    for look in seen:
        if look.cut:
            yield Shot(start, look.frame.time, len(sightings), link(sightings))
            sightings = []
        if start is None or look.cut:
            start = look.frame.time
        if look.detections is not None:
            sightings.append((look.frame.time, look.detections))
        last = look.frame.time
    if start is not None:
        yield Shot(start, last, len(sightings), link(sightings))


@dataclass(frozen=True)
class FacePlan:
    """Whom to follow in each scene.

    Attributes:
        chosen: the scenes in order, each with the face to follow; None: nobody.
        source_time: the time in the video (seconds) of a frame's time, which goes on where a video is played again.
    """

    chosen: Sequence[tuple[Shot, Track | None]]
    source_time: Callable[[float], float] = float

    def pick(self, time: float, detections: Sequence[Detection]) -> np.ndarray | None:
        """The box (4,) px of the planned face among those seen at a time; None if it is not there."""
        time = self.source_time(time)
        planned = self._box_at(time)
        if planned is None:
            return None
        best = max(detections, key=lambda d: iou(d.box, planned), default=None)
        return None if best is None or iou(best.box, planned) < CONTINUES else best.box

    def _box_at(self, time: float) -> np.ndarray | None:
        """Where the planned face is. At a cut both scenes are asked, the later one first: times are rounded."""
        for shot, track in reversed(self.chosen):
            if shot.start - 1e-3 <= time and track is not None and (box := track.box_at(time)) is not None:
                return box
            if shot.start + 1e-3 < time:
                return None
        return None
