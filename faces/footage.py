"""Stretches of frames of one person on end, 25 a second: what the networks learn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from faces.mouth_windows import MouthFrame
from faces.shots import Picture

FPS = 25


@dataclass(frozen=True)
class Frame25:
    """The picture shown at a moment `time`, a multiple of 1/25 s."""

    image: np.ndarray
    time: float


def frames_at_25(frames: Iterable[Picture], first: int = 0) -> Iterator[Frame25]:
    """The picture shown at each multiple of 1/25 s, whatever the source's frame rate.

    Args:
        frames: pictures in the order of their times.
        first: number of the first multiple that is wanted.
    """
    previous, count = None, first
    for frame in frames:
        while previous is not None and count / FPS < frame.time - 0.5 / FPS:
            yield Frame25(previous, count / FPS)
            count += 1
        previous = frame.image
    if previous is not None:
        yield Frame25(previous, count / FPS)


@dataclass(frozen=True)
class Footage:
    """Frames of one person on end, 25 a second.

    Attributes:
        first: number of the first frame, counted from the start of the video.
        windows: uint8 RGB (T, 160, 160, 3), mouth windows.
        points: float32 (T, 468, 2), the meshes in window px.
        pose: float32 (T, 3), yaw, pitch and roll, degrees.
    """

    first: int
    windows: np.ndarray
    points: np.ndarray
    pose: np.ndarray

    def __len__(self) -> int:
        return len(self.windows)


def collect_footage(mouths: Iterable[MouthFrame], shortest: int) -> Iterator[Footage]:
    """Join frames to stretches without a gap, a cut or an unusable face.

    Args:
        mouths: frames at multiples of 1/25 s, in order.
        shortest: frames that a stretch must have; shorter ones are left out.
    """
    run: list[MouthFrame] = []
    for mouth in mouths:
        if run and (mouth.reason is not None or mouth.shot != run[-1].shot):
            yield from _joined(run, shortest)
            run = []
        if mouth.reason is None:
            run.append(mouth)
    yield from _joined(run, shortest)


def _joined(run: list[MouthFrame], shortest: int) -> Iterator[Footage]:
    if len(run) >= max(shortest, 1):
        windows, points, pose = (np.stack([getattr(m, name) for m in run]) for name in ("window", "points", "pose"))
        yield Footage(round(run[0].time * FPS), windows, points, pose)


def spread_parts(duration: float | None, wanted: float, length: float) -> list[tuple[float, float]]:
    """Which parts (start, stop) in seconds of a video to look at, spread evenly over it.

    Every other one comes first, so that whoever stops early has still seen all of it.

    Args:
        duration: of the video, seconds; None where it is not known.
        wanted: seconds in all.
        length: of a part, seconds.
    """
    if duration is None or duration <= wanted:
        return [(0.0, wanted)]
    count = max(1, round(wanted / length))
    starts = np.floor(np.linspace(0.0, duration - length, count) * FPS) / FPS
    parts = [(float(start), float(start) + length) for start in starts]
    return parts[::2] + parts[1::2]
