"""Pictures that can be seen through as a numbered PNG sequence, packed into one .zip."""

from __future__ import annotations

import os
import zipfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np

from utils.helpers import InputError, atomic_path
from video.types import Frame, VideoInfo

_TICK = 1e-6  # seconds
_PACKED = [cv2.IMWRITE_PNG_COMPRESSION, 3]


class PngSequence:
    """Writes frames as `00000.png`, `00001.png` ... into a .zip; a picture that repeats is written again.

    Use as a context manager, as `VideoWriter`. There is no sound in it; a frame is a 1 / fps of the source each, so
    frames of a variable rate are repeated or left out.

    Args:
        path: the file to write.
        info: of the frames.

    Attributes:
        notes: sentences for a person.
    """

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".zip":
            raise InputError(f"A PNG sequence is written into a .zip, not into '{self.path.name}'.")
        rate = f"{float(info.fps):.3f}".rstrip("0").rstrip(".")
        self.notes = (f"A PNG sequence of {rate} frames a second, without sound.",)
        self._fps = float(info.fps)
        self._opened = ExitStack()
        self._count = 0

    def __enter__(self) -> PngSequence:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path.absolute()))
            self._archive = stack.enter_context(zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED))
            self._opened = stack.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._opened.__exit__(kind, error, trace)

    def write(self, frame: Frame) -> av.VideoFrame:
        """Append a frame, whose `raw` is RGBA; returns its picture."""
        until = round((frame.time + frame.duration) * self._fps + _TICK)
        if self._count < until:
            picture = np.ascontiguousarray(frame.raw.to_ndarray(format="rgba"))
            made, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGBA2BGRA), _PACKED)
            if not made:
                raise InputError(f"Cannot write {self.path}; choose another file or folder.")
            for number in range(self._count, until):
                self._archive.writestr(f"{number:05d}.png", data.tobytes())
            self._count = until
        return frame.raw
