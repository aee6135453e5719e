"""Which frames get a new mouth, and why the others do not: how sure one can be of the face in each.

The confidence of a frame, 0 to 1, is the least of several: that the mesh sits on a face, that nothing lies in front of
the mouth, that the head is not turned too far, that the lower face lies within the picture, and that the picture is as
sharp as this person's usually is. Each is 0.5 at its limit. All functions are streams; they read about a third of a
second ahead at most.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from faces.alignment import JAW, LIPS_OUTER, align_matrix, head_pose
from faces.drawn import flatly_drawn
from faces.tracker import FaceFrame
from faces.window import MOUTH_WINDOW
from utils.pictures import Picture, picture_of

NO_FACE, TOO_SMALL, TURNED, COVERED = "no_face", "too_small", "turned_away", "covered"
OUTSIDE, BLURRED, UNCLEAR, AFTER_SPEECH = "outside_picture", "blurred", "unclear", "after_speech"
MIXED = "mixed"
REASONS = {
    NO_FACE: "without a face",
    TOO_SMALL: "with a face too small",
    TURNED: "turned away",
    COVERED: "covered",
    OUTSIDE: "partly outside the picture",
    BLURRED: "blurred",
    UNCLEAR: "unclear",
    AFTER_SPEECH: "after the end of the speech",
    MIXED: "between two scenes",
}
"""Why frames are left as they were: keys for programs, words for people."""

_SOFT = {TURNED, COVERED, OUTSIDE, BLURRED, UNCLEAR}  # a matter of degree; the face itself is known
_FOREHEAD, _CHIN = 10, 152
_AGAIN = 0.1  # a face that was left out must be so much surer before it gets a new mouth again
_BLIP_S = 0.1  # doubts shorter than this do not interrupt a mouth
_GAP_S = 0.3  # mouths shorter than this between two doubts are not drawn
_POSE_SOFTNESS_DEG = 5.0
_SHARPNESS_FRAMES = 75  # frames of a person whose median sharpness is the measure
_KNOWN_FRAMES = 5  # before so many are seen, nothing counts as blurred
_SHARP = (slice(0, 120), slice(20, 140))  # rows, columns of the window: nose, cheeks and lips, not the collar


@dataclass(frozen=True)
class UsableFace:
    """Which faces get a new mouth.

    Attributes:
        min_face_px: smallest height of a face, from the upper edge of the forehead to the chin, px of the frame.
        max_yaw_deg: turn to the side at which the confidence is 0.5, degrees.
        max_pitch_deg: nod at which it is, degrees.
        min_inside: part of the lower face within the picture at which it is, 0 to 1.
        min_sharpness: sharpness in parts of the person's median at which it is, 0 to 1.
        max_cover: chance that the mouth is covered at which it is, 0 to 1; the network is sure of itself.
        min_confidence: 0..1, confidence below which a frame is left as it is.
        at_once: no frame waits for later ones, so that doubts of a frame or two are not smoothed away.
        cover: chance 0..1 that the mouth in a mouth window (uint8 RGB (160, 160, 3)) is covered; None: not looked at.
        uncovered: shots in which that is not looked at either.
    """

    min_face_px: float = 48.0
    max_yaw_deg: float = 55.0
    max_pitch_deg: float = 40.0
    min_inside: float = 0.85
    min_sharpness: float = 0.35
    max_cover: float = 0.95
    min_confidence: float = 0.5
    cover: Callable[[np.ndarray], float] | None = None
    at_once: bool = False
    uncovered: frozenset[int] = frozenset()


def in_words(counts: Mapping[str, int], separator: str = ", ") -> str:
    """Frames by reason for a person, the most frequent first: `200 turned away, 112 covered`."""
    return separator.join(f"{count} {REASONS[reason]}" for reason, count in Counter(counts).most_common())


def judged(faces: Iterable[FaceFrame], usable: UsableFace) -> Iterator[tuple[FaceFrame, str | None]]:
    """Yield every frame, in order, with the reason why it gets no new mouth; None: it gets one.

    Doubts of a frame or two, and mouths of a quarter of a second between doubts, are smoothed away.
    """
    plain = _with_hysteresis(faces, usable)
    if usable.at_once:
        return plain
    calm = _bridged(plain, _BLIP_S, lambda reason: reason in _SOFT, lambda before, after: before is after is None)
    return _bridged(
        calm, _GAP_S, lambda reason: reason is None, lambda before, after: before is not None and after is not None
    )


def _with_hysteresis(faces: Iterable[FaceFrame], usable: UsableFace) -> Iterator[tuple[FaceFrame, str | None]]:
    shot, doubted = None, False
    judge = _Judge(usable)
    for face in faces:
        if face.shot != shot:
            shot, doubted = face.shot, False
            judge = _Judge(replace(usable, cover=None) if shot in usable.uncovered else usable)
        reason, confidence = judge(face)
        limit = usable.min_confidence + (_AGAIN * (1 - usable.min_confidence) if doubted else 0.0)
        if reason in _SOFT and confidence >= limit:
            reason = None
        doubted = reason is not None
        yield face, reason


class _Judge:
    """Judges the frames of one shot, one after the other."""

    def __init__(self, usable: UsableFace):
        self._usable = usable
        self._sharpness: deque[np.ndarray] = deque(maxlen=_SHARPNESS_FRAMES)
        self._seen: np.ndarray | None = None  # the mesh that `_last` is about
        self._last: tuple[str | None, float] = (NO_FACE, 0.0)

    def __call__(self, face: FaceFrame) -> tuple[str | None, float]:
        """The weakest point of a frame and the confidence in it."""
        if face.points is None:
            return MIXED if face.mixed else NO_FACE, 0.0
        if face.points is not self._seen:  # else a still picture: nothing new to see
            self._seen, self._last = face.points, self._look(face)
        return self._last

    def _look(self, face: FaceFrame) -> tuple[str | None, float]:
        usable, points = self._usable, face.points
        if np.linalg.norm(points[_FOREHEAD, :2] - points[_CHIN, :2]) < usable.min_face_px:
            return TOO_SMALL, 0.0
        yaw, pitch, _ = head_pose(points)
        excess = max(abs(yaw) - usable.max_yaw_deg, abs(pitch) - usable.max_pitch_deg)
        picture = picture_of(face.frame)
        window = _window(picture, align_matrix(points))
        confidences = {
            UNCLEAR: face.presence,
            TURNED: _logistic(-excess / _POSE_SOFTNESS_DEG),
            OUTSIDE: _at_limit(_inside(points, picture.shape), usable.min_inside),
            BLURRED: self._confidence_of_sharpness(window),
        }
        # Of a window that the picture's edge cuts off the network says "covered"; the reason is the edge.
        if usable.cover is not None and confidences[OUTSIDE] >= usable.min_confidence:
            uncovered = _at_limit(1.0 - usable.cover(window), 1.0 - usable.max_cover)
            # The network learned from photographs, and takes the mouth of a drawing for something that lies there.
            if uncovered >= usable.min_confidence or not flatly_drawn(picture, points):
                confidences[COVERED] = uncovered
        # min() takes the first of equals: what is said of a face that is turned away and covered is: turned away.
        weakest = min(confidences, key=confidences.__getitem__)
        return weakest, confidences[weakest]

    def _confidence_of_sharpness(self, window: np.ndarray) -> float:
        sharpness = window_sharpness(window)
        usual = np.median(self._sharpness, axis=0) if len(self._sharpness) >= _KNOWN_FRAMES else sharpness
        self._sharpness.append(sharpness)
        share = float((sharpness / np.maximum(usual, 1e-6)).min())
        return _at_limit(min(1.0, share), self._usable.min_sharpness)


def window_sharpness(window: np.ndarray) -> np.ndarray:
    """Fine detail of a mouth window (160, 160, 3) across and down, grey levels (2,); motion blurs in one direction."""
    grey = cv2.GaussianBlur(cv2.cvtColor(window[_SHARP], cv2.COLOR_RGB2GRAY), (0, 0), 1.0)
    return np.array([cv2.Sobel(grey, cv2.CV_32F, *order).std() for order in ((2, 0), (0, 2))])


def _window(picture: Picture, matrix: np.ndarray) -> np.ndarray:
    """The mouth window (160, 160, 3), given image px -> canonical px (2, 3)."""
    inverse = cv2.invertAffineTransform(MOUTH_WINDOW.window_matrix(matrix))
    seen, limit = MOUTH_WINDOW.corners() @ inverse[:, :2].T + inverse[:, 2], np.array(picture.shape[::-1])
    x0, y0 = np.clip(np.floor(seen.min(0)).astype(int) - 2, 0, limit - 1)
    x1, y1 = np.clip(np.ceil(seen.max(0)).astype(int) + 2, (x0 + 1, y0 + 1), limit)
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ np.array([x0, y0], matrix.dtype)
    return MOUTH_WINDOW.warp(picture.part(int(x0), int(y0), int(x1), int(y1)), shifted)


def _inside(points: np.ndarray, shape: tuple[int, ...]) -> float:
    """Part of the points of jaw and lips (468, 3) px that lie within a picture of this shape."""
    lower = points[JAW + LIPS_OUTER, :2]
    return float(np.all((lower >= 0) & (lower < (shape[1], shape[0])), axis=1).mean())


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, x))))


def _at_limit(value: float, limit: float) -> float:
    """0..1 of a value 0..1, straight lines through 0.5 at the limit."""
    return 0.5 * value / limit if value < limit else 0.5 + 0.5 * (value - limit) / max(1.0 - limit, 1e-6)


def _bridged(
    items: Iterable[tuple[FaceFrame, str | None]],
    longest_s: float,
    odd: Callable[[str | None], bool],
    joins: Callable[[str | None, str | None], bool],
) -> Iterator[tuple[FaceFrame, str | None]]:
    """Give short runs of frames the reason of what comes before them in the shot.

    Args:
        items: frames with their reason.
        longest_s: length from which a run stays, seconds.
        odd: whether a frame with such a reason belongs to a run.
        joins: whether the frames with these reasons, before and after a run, are to be joined.
    """
    run: list[tuple[FaceFrame, str | None]] = []
    before: tuple[int, str | None] | None = None  # shot and reason of the frame before the run; None: a run that stays
    for face, reason in items:
        if before is not None and before[0] != face.shot:
            yield from run
            run, before = [], None
        if not odd(reason):
            joined = before is not None and joins(before[1], reason)
            yield from ((item[0], before[1] if joined else item[1]) for item in run)
            run, before = [], (face.shot, reason)
            yield face, reason
        elif before is None:
            yield face, reason
        else:
            run.append((face, reason))
            if face.frame.time - run[0][0].frame.time >= longest_s:
                yield from run
                run, before = [], None
    yield from run
