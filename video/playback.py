"""Play a video for as long as the speech lasts: back and forth, again and again, or holding the last frame."""

from __future__ import annotations

import itertools
import math
import os
from array import array
from collections.abc import Iterator
from dataclasses import replace

import av

from utils.helpers import InputError
from utils.media import MediaLimits
from video.reader import VideoReader
from video.size import Size
from video.transparency import Backdrop
from video.types import Frame

# A frame that starts this close (s) to the end of the speech is not worth showing.
_TIME_TOLERANCE = 1e-3
# Decoded frames held while playing backwards.
_BACKWARD_BYTES = 128 * 2**20
_BYTES_PER_PIXEL = 3


def fitted_frames(
    path: str | os.PathLike[str],
    duration: float | None = None,
    fit: str = "bounce",
    rest: str = "keep",
    limits: MediaLimits | None = None,
    backdrop: Backdrop | None = None,
    size: Size | None = None,
) -> Iterator[Frame]:
    """Play a video for as long as the speech lasts. Times go forward in the video's own frame intervals,
    without a jump at a turn or a new start; a still image has 25 frames per second. Memory is bounded.

    Args:
        path: a video or still image.
        duration: seconds of speech; None: the video as it is.
        fit: when the speech is longer: "bounce" (back and forth, the turning frame is not repeated), "loop",
            "freeze" (the last frame stays) or "cut" (end with the video; give the writer `audio_duration`).
        rest: when the speech is shorter: "keep" passes the remaining frames (silent then), "cut" ends with the speech.
        limits, backdrop, size: see `VideoReader`.

    Raises:
        InputError: as `VideoReader`, or an unknown word for `fit` or `rest`.
    """
    _check_words(fit, rest)
    end = math.inf if duration is None else duration - _TIME_TOLERANCE
    with VideoReader(path, limits, backdrop, size) as reader:
        shown = _Shown()
        for frame in reader:
            if rest == "cut" and frame.time >= end:
                return
            shown.add(frame)
            yield frame
        if duration is None or not shown.times or (fit == "cut" and not reader.info.is_image):
            return
        continuation = _CONTINUATIONS["freeze" if len(shown.times) == 1 else fit]
        for index, frame in enumerate(continuation(reader, shown), start=len(shown.times)):
            if frame.time >= end:
                return
            yield replace(frame, index=index)


def _check_words(fit: str, rest: str) -> None:
    if fit not in (*_CONTINUATIONS, "cut"):
        raise InputError(f"Unknown fit '{fit}'; use bounce, loop, freeze or cut.")
    if rest not in ("keep", "cut"):
        raise InputError(f"Unknown rest '{rest}'; use keep or cut.")


class _Shown:
    """What must be kept of the first pass to play the video again: some bytes a frame, and the last one."""

    def __init__(self) -> None:
        self.times = array("d")
        self.pts = array("q")
        self.is_key = bytearray()
        self.has_pts = True
        self.last: Frame

    def add(self, frame: Frame) -> None:
        self.times.append(frame.time)
        self.has_pts &= frame.raw.pts is not None
        self.pts.append(frame.raw.pts or 0)
        self.is_key.append(bool(frame.raw.key_frame))
        self.last = frame

    def key_before(self, position: int) -> int:
        """The last key frame before a position, or the first frame."""
        return max(self.is_key.rfind(1, 0, position), 0)


def _freeze(reader: VideoReader, shown: _Shown) -> Iterator[Frame]:
    interval = 1 / reader.info.fps
    for count in itertools.count(1):
        yield replace(shown.last, time=shown.last.time + float(count * interval), duration=float(interval))


def _loop(reader: VideoReader, shown: _Shown) -> Iterator[Frame]:
    start = length = shown.last.time + shown.last.duration
    while True:
        for frame in reader:
            yield replace(frame, time=start + frame.time)
        start += length


def _bounce(reader: VideoReader, shown: _Shown) -> Iterator[Frame]:
    start = length = shown.last.time
    while True:
        for frame in _backwards(reader, shown):
            yield replace(frame, time=start + length - frame.time)
        start += length
        for frame in itertools.islice(reader, 1, None):
            yield replace(frame, time=start + frame.time)
        start += length


_CONTINUATIONS = {"bounce": _bounce, "loop": _loop, "freeze": _freeze}


def _backwards(reader: VideoReader, shown: _Shown) -> Iterator[Frame]:
    """Frames from the last but one to the first, with their times in the file."""
    info = reader.info
    limit = max(2, _BACKWARD_BYTES // (info.width * info.height * _BYTES_PER_PIXEL))
    high = len(shown.times) - 1
    while high > 0:
        low = high - 1
        # Up to a key frame if it is near: what lies before it need not be decoded for this piece.
        while low > 0 and high - low < limit and not shown.is_key[low]:
            low -= 1
        for position, raw in reversed(_piece(reader, shown, low, high)):
            yield Frame(position, shown.times[position], reader.picture(raw), raw, position, 1 / info.fps)
        high = low


def _piece(reader: VideoReader, shown: _Shown, low: int, high: int) -> list[tuple[int, av.VideoFrame]]:
    """Decode the frames low <= position < high."""
    if shown.has_pts:
        # Some files (B-frames before the key frame in storage) are only found from the key frame before.
        for start in dict.fromkeys((low, shown.key_before(low))):
            piece = _found(reader, shown, start, (low, high))
            if len(piece) == high - low:
                return piece
    # No time stamps, or a file whose index leads astray: count from the start.
    return list(itertools.islice(enumerate(reader.raw_frames()), low, high))


def _found(
    reader: VideoReader, shown: _Shown, start: int, wanted: tuple[int, int]
) -> list[tuple[int, av.VideoFrame]]:
    """Those of the wanted frames that are met when decoding begins at the frame `start`."""
    positions = {shown.pts[position]: position for position in range(*wanted)}
    last = shown.pts[wanted[1] - 1]
    piece = []
    for raw in reader.raw_frames(from_pts=shown.pts[start]):
        if raw.pts in positions:
            piece.append((positions.pop(raw.pts), raw))
        if raw.pts is not None and raw.pts >= last:
            break
    return piece
