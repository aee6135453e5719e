"""From a followed face to smooth windows: which frames can get a new mouth, and where it goes.

All functions are streams: they read a little ahead (about a third of a second) and keep nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from faces.alignment import POINT_SMOOTHING_S, Geometry, head_pose, smooth_in_time
from faces.tracker import FaceFrame
from faces.usable import UsableFace, judged
from faces.window import MOUTH_WINDOW
from utils.pictures import picture_of

_POINT_REACH_S = 3 * POINT_SMOOTHING_S
_TIME_TOLERANCE = 1e-6  # seconds
_CROP_MARGIN = 0.15  # of the window, kept around it, since smoothing moves the window a little


@dataclass(eq=False)
class MouthFrame:
    """A frame and, where its face can be used, the mouth window.

    Attributes:
        frame: the frame, as `release` of `mouth_windows` left it.
        time: seconds.
        size: height and width of the frame, px.
        shot: see `FaceFrame`.
        reason: why there is no window, see `faces.usable.REASONS`; None when there is one.
        window: uint8 RGB (H, W, 3), in the geometry that was asked for.
        matrix: float32 (2, 3), frame px -> window px, smoothed.
        points: float32 (468, 2), the mesh in window px, smoothed.
        pose: float32 (3,), yaw, pitch and roll in degrees, smoothed.
        fade: 0..1, opacity of a new mouth in this frame.
        kept: what an engine keeps of this frame for itself, see `engines.base.Painter`.
        scenery: see `FaceFrame`.
    """

    frame: Any
    time: float
    size: tuple[int, int]
    shot: int
    reason: str | None
    window: np.ndarray | None = None
    matrix: np.ndarray | None = None
    points: np.ndarray | None = None
    pose: np.ndarray | None = None
    fade: float = 1.0
    kept: Any = None
    scenery: np.ndarray | None = None


@dataclass(frozen=True)
class _Measured:
    """A usable frame that waits for its neighbours; of the picture only the face's part is kept."""

    result: MouthFrame
    mesh: np.ndarray
    pose: np.ndarray
    matrix: np.ndarray  # image px -> px of the geometry's plane
    crop: np.ndarray
    corner: tuple[int, int]


def mouth_windows(
    faces: Iterable[FaceFrame],
    usable: UsableFace,
    release: Callable[[Any], Any] = lambda frame: frame,
    ahead_s: float | None = None,
    geometry: Geometry = MOUTH_WINDOW,
) -> Iterator[MouthFrame]:
    """Yield every frame, in order, with its mouth window where the face can be used.

    Args:
        faces: the frames with the mesh of the followed face.
        usable: which faces can be used.
        release: makes a lighter copy of a frame whose picture is no longer needed.
        ahead_s: how far to wait for frames that the smoothing looks at, seconds; less than usual makes it one-sided.
            None = as far as it looks.
        geometry: which window.
    """
    reach = geometry.reach_s + _POINT_REACH_S  # how far away frames still influence a frame
    ahead_s = reach if ahead_s is None else ahead_s
    run: deque[_Measured] = deque()
    done = 0  # how many of the run are out already; they stay as neighbours of the next ones
    for face, reason in judged(faces, usable):
        if run and (reason is not None or run[-1].result.shot != face.shot):
            yield from (_window(run, i, geometry) for i in range(done, len(run)))
            run, done = deque(), 0
        size = picture_of(face.frame).shape
        result = MouthFrame(release(face.frame), face.frame.time, size, face.shot, reason, scenery=face.scenery)
        if reason is not None:
            yield result
            continue
        run.append(_measure(face, result, geometry))
        while done < len(run) and run[done].result.time + ahead_s <= result.time + _TIME_TOLERANCE:
            yield _window(run, done, geometry)
            done += 1
            while done and run[0].result.time < run[min(done, len(run) - 1)].result.time - reach:
                run.popleft()
                done -= 1
    yield from (_window(run, i, geometry) for i in range(done, len(run)))


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


def _measure(face: FaceFrame, result: MouthFrame, geometry: Geometry) -> _Measured:
    matrix = geometry.align(face.points, result.size)
    to_pixels = geometry.window_matrix(matrix).astype(np.float64)
    corners = geometry.corners(_CROP_MARGIN * max(geometry.height, geometry.width))
    seen = np.linalg.solve(to_pixels[:, :2], (corners - to_pixels[:, 2]).T).T
    picture = picture_of(face.frame)
    limit = np.array(picture.shape[::-1])
    x0, y0 = np.clip(np.floor(seen.min(0)).astype(int), 0, limit - 1)
    x1, y1 = np.clip(np.ceil(seen.max(0)).astype(int), (x0 + 1, y0 + 1), limit)
    crop = picture.part(int(x0), int(y0), int(x1), int(y1)).copy()
    pose = np.array(head_pose(face.points), np.float32)
    return _Measured(result, face.points, pose, matrix, crop, (int(x0), int(y0)))


def _window(run: deque[_Measured], index: int, geometry: Geometry) -> MouthFrame:
    """Finish one frame of a run, smoothed over its neighbours."""
    item = run[index]
    near = [m for m in run if abs(m.result.time - item.result.time) <= geometry.reach_s + _POINT_REACH_S]
    times = np.array([m.result.time for m in near])
    matrices = geometry.smooth(np.stack([m.matrix for m in near]), times)
    poses = smooth_in_time(np.stack([m.pose for m in near]), times)
    close = np.flatnonzero(np.abs(times - item.result.time) <= _POINT_REACH_S)
    points = np.stack([geometry.to_window(near[i].mesh, matrices[i]) for i in close])
    here = next(i for i, m in enumerate(near) if m is item)
    smooth = smooth_in_time(points, times[close], POINT_SMOOTHING_S)
    matrix, result = matrices[here], item.result
    in_crop = matrix.copy()
    in_crop[:, 2] += matrix[:, :2] @ np.array(item.corner, matrix.dtype)
    result.window = geometry.warp(item.crop, in_crop)
    result.matrix, result.pose = geometry.window_matrix(matrix), poses[here]
    result.points = smooth[int(np.flatnonzero(close == here)[0])].astype(np.float32)
    return result
