"""A quick look at frames from all over a video before its mouths are drawn, for more of the person than its beginning.

The whole video is looked at, also what is not drawn since the speech is shorter, and what a preview does not show: it
is the same person, and a preview then is what the result begins with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from faces.elsewhere import Elsewhere
from faces.mouth_windows import MouthFrame
from pipeline.seeing import Seeing
from utils.config import Config
from utils.helpers import InputError
from video_processor import Frame, MediaLimits, VideoInfo, VideoReader, glimpses

_SHARE = 0.15  # of what comes after the first frames is looked at at most: a short video is soon seen as a whole
_RUN = 5  # frames on end: the smoothing of meshes looks at neighbours
_SKIPPED, _SKIPPED_PX = 400, 80 * 1280 * 720  # frames that may be decoded on the way to these, and px of them in all


def look_elsewhere(info: VideoInfo, seeing: Seeing, config: Config, limits: MediaLimits, met: int) -> Elsewhere:
    """Frames of the person after the first ones.

    Args:
        info: the video, as it is probed; a still picture or a video without a known length shows nothing more.
        seeing: how the face is found.
        config: how many frames.
        limits: what is too big.
        met: frames from which the person is got to know anyway.
    """
    found: list[MouthFrame] = []
    starts = [] if info.is_image or seeing.anchor is not None else _starts(info, met, config.inference.glimpses)
    # A fault later in the file is told when the work comes to it, if it does.
    with contextlib.suppress(InputError):
        for run in _runs(info, seeing, limits, starts):
            # Each run counts its scenes from 0.
            found += replace(seeing, uncovered=frozenset()).mouths(run, _forget)
    return Elsewhere(found, config.faces.cut_threshold)


def _runs(info: VideoInfo, seeing: Seeing, limits: MediaLimits, starts: Sequence[float]) -> Iterator[list[Frame]]:
    if starts:
        with VideoReader(info.path, limits, size=seeing.size) as reader:
            skipped = min(_SKIPPED, _SKIPPED_PX // (info.width * info.height))
            yield from glimpses(reader, starts, _RUN, skipped)


def _starts(info: VideoInfo, met: int, most: int) -> list[float]:
    """Where runs begin, in seconds, spread evenly over what comes after the first frames."""
    fps = float(info.fps)
    left = 0 if info.duration is None else int(info.duration * fps) - met
    runs = max(0, min(most, int(_SHARE * left)) // _RUN)
    return np.linspace(met / fps, met / fps + left / fps, runs, endpoint=False).tolist()


def _forget(frame: Any) -> None:
    """Nothing of a frame but its mouth window is needed."""
