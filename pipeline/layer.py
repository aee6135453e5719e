"""`--layer`: only what is new, on a picture that can be seen through, to be put over any footage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from utils.helpers import InputError
from utils.pictures import Patch
from video_processor import Frame, PngSequence, VideoInfo, VideoWriter, painted_frame, painted_info

SUFFIXES = {"webm": ".webm", "mov": ".mov", "png": ".zip"}
"""Kind of layer -> file type: VP9 with opacity, ProRes 4444, a sequence of PNG pictures."""


def layer_for(output: Path) -> str:
    """The kind of layer that a file can hold.

    Raises:
        InputError: it can hold none.
    """
    for kind, suffix in SUFFIXES.items():
        if output.suffix.lower() == suffix:
            return kind
    raise InputError(
        f"A transparent layer does not fit into '{output.suffix}'; name the output .webm (VP9), .mov (ProRes 4444) or "
        ".zip (a PNG sequence)."
    )


class LayerWriter:
    """Writes patches without the frames below them; used like `VideoWriter`.

    Args:
        path: the file to write, one of `SUFFIXES`.
        info: of the video that the frames come from; the layer has its upright size and its times.
        crf: quality of VP9, see `VideoWriter`.
        audio_from: file whose sound goes along; not into a PNG sequence.
        audio_duration: seconds after which the sound is cut; None: to its end.
        tags: metadata of the whole file.
        fast: encode faster.

    Attributes:
        notes: sentences for a person.
        info: of the layer's frames.
    """

    def __init__(
        self,
        path: Path,
        info: VideoInfo,
        crf: int,
        audio_from: Path,
        audio_duration: float | None,
        tags: Mapping[str, str],
        fast: bool,
    ) -> None:
        painted = painted_info(info.path, info.width, info.height, info.fps, transparent=True)
        self.info = replace(painted, time_base=info.time_base, sample_aspect_ratio=info.sample_aspect_ratio)
        self._writer: VideoWriter | PngSequence
        if layer_for(path) == "png":
            self._writer = PngSequence(path, self.info)
        else:
            self._writer = VideoWriter(
                path, self.info, "auto", crf, audio_from=audio_from, audio_duration=audio_duration, tags=tags, fast=fast
            )
        self.notes = self._writer.notes

    def __enter__(self) -> LayerWriter:
        self._writer.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.__exit__(kind, error, trace)

    def write(self, frame: Frame, patch: Patch | None = None) -> av.VideoFrame:
        """Append a frame of which only the patch is seen; returns its picture, for reading only."""
        clear = np.zeros((self.info.height, self.info.width, 4), np.uint8)
        if patch is not None:
            height, width = patch.alpha.shape
            target = clear[patch.y : patch.y + height, patch.x : patch.x + width]
            target[..., 3] = np.round(255 * patch.alpha)
            target[..., :3] = np.where(target[..., 3:] > 0, patch.image, 0)
        painted = painted_frame(clear, frame.index, self.info.fps)
        return self._writer.write(replace(frame, raw=painted.raw, picture=painted.picture))
