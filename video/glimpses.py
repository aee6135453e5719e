"""Short runs of frames from all over a video, at a cost that does not grow with its length."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from video.reader import VideoReader
from video.types import Frame


def glimpses(reader: VideoReader, starts: Sequence[float], length: int, skipped: int) -> Iterator[list[Frame]]:
    """Runs of successive frames, one for each start, as near after it as is cheap.

    Decoding begins at key frames, so what lies between one and the start has to be decoded as well. Beyond what comes
    before the first start only so many frames in all are; where key frames are far apart, runs begin too early, or
    follow each other closely.

    Args:
        reader: of a video; open.
        starts: seconds, rising.
        length: frames of a run; the last ones of a video may be fewer.
        skipped: frames after the first start that are decoded at most without being part of a run.
    """
    frames, reached = iter(()), -math.inf
    for number, key in enumerate(reader.key_times(starts)):
        start = starts[number]
        if key > reached:
            frames = reader.since(start)
        allowed, run = skipped // (len(starts) - number), []
        for frame in frames:
            reached = frame.time
            if reached < starts[0]:
                continue
            if not run and reached < start and allowed:
                allowed, skipped = allowed - 1, skipped - 1
                continue
            run.append(frame)
            if len(run) == length:
                break
        if run:
            yield run
