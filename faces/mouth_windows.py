"""From a followed face to smooth mouth windows: which frames can get a new mouth, and where it goes.

All functions are streams: they read a little ahead (about a third of a second) and keep nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from faces.alignment import (
    POINT_SMOOTHING_S,
    SMOOTHING_S,
    WINDOW_SIZE,
    align_matrix,
    head_pose,
    smooth_in_time,
    smooth_matrices,
    to_window,
    warp_window,
    window_matrix,
)
from faces.tracker import FaceFrame
from faces.usable import UsableFace, judged
from utils.pictures import picture_of

_POINT_REACH_S = 3 * POINT_SMOOTHING_S
_REACH_S = 3 * SMOOTHING_S + _POINT_REACH_S  # how far away frames still influence a frame
_TIME_TOLERANCE = 1e-6  # seconds
_CROP_MARGIN = 24  # px of the window kept around it, since smoothing moves the window a little


@dataclass(eq=False)
class MouthFrame:
    """A frame and, where its face can be used, the mouth window.

    Attributes:
        frame: the frame, as `release` of `mouth_windows` left it.
        time: seconds.
        size: height and width of the frame, px.
        shot: see `FaceFrame`.
        reason: why there is no window, see `faces.usable.REASONS`; None when there is one.
        window: uint8 RGB (160, 160, 3).
        matrix: float32 (2, 3), frame px -> window px, smoothed.
        points: float32 (468, 2), the mesh in window px, smoothed.
        yaw: degrees.
        fade: 0..1, opacity of a new mouth in this frame.
    """

    frame: Any
    time: float
    size: tuple[int, int]
    shot: int
    reason: str | None
    window: np.ndarray | None = None
    matrix: np.ndarray | None = None
    points: np.ndarray | None = None
    yaw: float = 0.0
    fade: float = 1.0


@dataclass(frozen=True)
class _Measured:
    """A usable frame that waits for its neighbours; of the picture only the face's part is kept."""

    result: MouthFrame
    mesh: np.ndarray
    matrix: np.ndarray  # image px -> canonical px
    crop: np.ndarray
    corner: tuple[int, int]


def mouth_windows(
    faces: Iterable[FaceFrame],
    usable: UsableFace,
    release: Callable[[Any], Any] = lambda frame: frame,
    ahead_s: float = _REACH_S,
) -> Iterator[MouthFrame]:
    """Yield every frame, in order, with its mouth window where the face can be used.

    Args:
        faces: the frames with the mesh of the followed face.
        usable: which faces can be used.
        release: makes a lighter copy of a frame whose picture is no longer needed.
        ahead_s: how far to wait for frames that the smoothing looks at, seconds; less than usual makes it one-sided.
    """
    run: deque[_Measured] = deque()
    done = 0  # how many of the run are out already; they stay as neighbours of the next ones
    for face, reason in judged(faces, usable):
        if run and (reason is not None or run[-1].result.shot != face.shot):
            yield from (_window(run, i) for i in range(done, len(run)))
            run, done = deque(), 0
        result = MouthFrame(release(face.frame), face.frame.time, picture_of(face.frame).shape, face.shot, reason)
        if reason is not None:
            yield result
            continue
        run.append(_measure(face, result))
        while done < len(run) and run[done].result.time + ahead_s <= result.time + _TIME_TOLERANCE:
            yield _window(run, done)
            done += 1
            while done and run[0].result.time < run[min(done, len(run) - 1)].result.time - _REACH_S:
                run.popleft()
                done -= 1
    yield from (_window(run, i) for i in range(done, len(run)))


def with_fades(frames: Iterable[MouthFrame], length: int) -> Iterator[MouthFrame]:
    """Set `fade` so that a new mouth comes and goes softly where its neighbours in the shot have none.

    At scene cuts and at the ends of the video nothing fades.

    Args:
        frames: frames in order.
        length: frames that a fade takes.
    """
    waiting: deque[MouthFrame] = deque()
    since, shot, beyond = length + 1, None, length + 1
    for frame in frames:
        if frame.shot != shot:
            yield from waiting
            waiting.clear()
            shot, since = frame.shot, beyond
        since = 0 if frame.reason is not None else min(since + 1, beyond)
        frame.fade = since / beyond
        if frame.reason is not None:
            for until, before in enumerate(reversed(waiting), 1):
                before.fade = min(before.fade, until / beyond)
        waiting.append(frame)
        if len(waiting) > length:
            yield waiting.popleft()
    yield from waiting


def _measure(face: FaceFrame, result: MouthFrame) -> _Measured:
    matrix = align_matrix(face.points)
    to_pixels = window_matrix(matrix).astype(np.float64)
    low, high = -_CROP_MARGIN, WINDOW_SIZE + _CROP_MARGIN
    corners = np.array([[low, low], [high, low], [low, high], [high, high]])
    seen = np.linalg.solve(to_pixels[:, :2], (corners - to_pixels[:, 2]).T).T
    picture = picture_of(face.frame)
    limit = np.array(picture.shape[::-1])
    x0, y0 = np.clip(np.floor(seen.min(0)).astype(int), 0, limit - 1)
    x1, y1 = np.clip(np.ceil(seen.max(0)).astype(int), (x0 + 1, y0 + 1), limit)
    result.yaw = head_pose(face.points)[0]
    crop = picture.part(int(x0), int(y0), int(x1), int(y1)).copy()
    return _Measured(result, face.points, matrix, crop, (int(x0), int(y0)))


def _window(run: deque[_Measured], index: int) -> MouthFrame:
    """Finish one frame of a run, smoothed over its neighbours."""
    item = run[index]
    near = [m for m in run if abs(m.result.time - item.result.time) <= _REACH_S]
    times = np.array([m.result.time for m in near])
    matrices = smooth_matrices(np.stack([m.matrix for m in near]), times)
    close = np.flatnonzero(np.abs(times - item.result.time) <= _POINT_REACH_S)
    points = np.stack([to_window(near[i].mesh, matrices[i]) for i in close])
    here = next(i for i, m in enumerate(near) if m is item)
    smooth = smooth_in_time(points, times[close], POINT_SMOOTHING_S)
    matrix, result = matrices[here], item.result
    in_crop = matrix.copy()
    in_crop[:, 2] += matrix[:, :2] @ np.array(item.corner, matrix.dtype)
    result.window = warp_window(item.crop, in_crop)
    result.matrix = window_matrix(matrix)
    result.points = smooth[int(np.flatnonzero(close == here)[0])].astype(np.float32)
    return result
