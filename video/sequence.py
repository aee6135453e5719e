"""Pictures, also such that can be seen through, as a numbered PNG sequence, packed into one .zip."""

from __future__ import annotations

import os
import zipfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange

from utils.helpers import InputError, atomic_path
from utils.pictures import Patch
from video.colour import ACCURATE, SWS_MATRIX, is_full_range, is_rgb, yuv_matrix
from video.tone import to_ordinary
from video.transparency import Backdrop, over, without_hidden
from video.types import Frame, VideoInfo

SEQUENCE = ".zip"
"""File type of a PNG sequence."""

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
        if self.path.suffix.lower() != SEQUENCE:
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


class FrameSequence:
    """Whole frames, upright and with their opacity, as a PNG sequence in a .zip; used like `VideoWriter`.

    Args:
        path: the file to write.
        info: of the video that the frames come from.
        backdrop: what stands behind a picture that can be seen through; None: it stays so.

    Attributes:
        info: of the pictures that are written.
        notes: sentences for a person.
    """

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo, backdrop: Backdrop | None = None) -> None:
        self.info = replace(info, rotation=0, mirrored=False, pix_fmt="rgba")
        self._source, self._backdrop = info, backdrop
        self._sequence = PngSequence(path, self.info)
        kept = ("Transparency was kept.",) if info.transparent and backdrop is None else ()
        self.notes = (*self._sequence.notes, *kept)
        self._seen: tuple[av.VideoFrame | None, np.ndarray | None] = None, None

    def __enter__(self) -> FrameSequence:
        self._sequence.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._sequence.__exit__(kind, error, trace)

    def write(self, frame: Frame, patch: Patch | None = None) -> av.VideoFrame:
        """Append a frame; see `VideoWriter.write`."""
        if frame.raw is not self._seen[0]:
            self._seen = frame.raw, self._upright(frame.raw)
        picture = self._seen[1]
        if patch is not None:
            picture = picture.copy()
            _mix(picture, patch)
        return self._sequence.write(replace(frame, raw=av.VideoFrame.from_ndarray(picture, format="rgba")))

    def _upright(self, raw: av.VideoFrame) -> np.ndarray:
        """uint8 RGBA (H, W, 4) as a player shows it."""
        rgba = raw.reformat(
            format="rgba",
            interpolation=ACCURATE,
            src_colorspace=SWS_MATRIX[yuv_matrix(raw)],
            src_color_range=ColorRange.JPEG if is_rgb(raw.format) or is_full_range(raw) else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
        ).to_ndarray()
        rgba[..., :3] = to_ordinary(rgba[..., :3], self._source.colour.transfer)
        if self._backdrop is not None:
            rgba = np.dstack([over(rgba, self._backdrop), np.full(rgba.shape[:2], 255, np.uint8)])
        shown = np.rot90(rgba, self._source.rotation // 90)
        return without_hidden(np.ascontiguousarray(shown[:, ::-1] if self._source.mirrored else shown))


def _mix(picture: np.ndarray, patch: Patch) -> None:
    """Mix a patch into an upright RGBA picture in place, as far as that is opaque."""
    height, width = picture.shape[:2]
    x0, y0 = max(patch.x, 0), max(patch.y, 0)
    x1, y1 = min(patch.x + patch.alpha.shape[1], width), min(patch.y + patch.alpha.shape[0], height)
    if x0 >= x1 or y0 >= y1:
        return
    inside = np.s_[y0 - patch.y : y1 - patch.y, x0 - patch.x : x1 - patch.x]
    part = picture[y0:y1, x0:x1]
    alpha = patch.alpha[inside][..., None] * (part[..., 3:] / np.float32(255))
    part[..., :3] = np.rint(part[..., :3] + alpha * (patch.image[inside] - part[..., :3].astype(np.float32)))
