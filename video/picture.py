"""The RGB picture of a decoded frame, converted as far as somebody looks at it.

Converting a whole 720p frame takes longer than following the face in it, and nobody needs more than the face.
"""

from __future__ import annotations

from collections.abc import Callable

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from utils.pictures import ArrayPicture, reduced_size
from utils.planes import PLANAR_FORMATS, plane_arrays
from video.colour import FULL, LIMITED, is_full_range

Convert = Callable[[av.VideoFrame, VideoReformatter], np.ndarray]
_STEP = 32  # px; parts begin and end on multiples, so that the converter sees few sizes
_SPARE = 0.06  # of a part's size, converted around it: the next one wanted of this frame is a little elsewhere


class DecodedPicture:
    """See `utils.pictures.Picture`.

    Args:
        raw: a frame as decoded.
        convert: makes uint8 RGB (H, W, 3) of a frame, or of a part of it, with a given converter, as stored.
        converters: for whole pictures, parts and small ones; each remembers the size that it was used for last.
        upright: None where the stored picture is upright; else what turns it.
    """

    def __init__(
        self,
        raw: av.VideoFrame,
        convert: Convert,
        converters: tuple[VideoReformatter, VideoReformatter, VideoReformatter],
        upright: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        self._raw, self._convert, self._converters, self._upright = raw, convert, converters, upright
        self._in_parts = upright is None and _format(raw) in PLANAR_FORMATS
        self._whole: np.ndarray | None = None
        self._part: tuple[int, int, np.ndarray] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return (self._raw.height, self._raw.width) if self._in_parts else self.whole().shape[:2]

    def whole(self) -> np.ndarray:
        if self._whole is None:
            stored = self._convert(self._raw, self._converters[0])
            self._whole = stored if self._upright is None else self._upright(stored)
        return self._whole

    def part(self, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        if not self._in_parts or self._whole is not None:
            return self.whole()[y0:y1, x0:x1]
        if self._part is None or not _holds(self._part, (x0, y0, x1, y1)):
            self._part = self._converted_part(x0, y0, x1, y1)
        left, top, image = self._part
        return image[y0 - top : y1 - top, x0 - left : x1 - left]

    def small(self, side: int) -> np.ndarray:
        if not self._in_parts:
            return ArrayPicture(self.whole()).small(side)
        height, width = reduced_size(self.shape, side)
        name = _format(self._raw)
        reduced = av.VideoFrame(width, height, name[:3] + "444" + name[6:])
        for target, plane in zip(plane_arrays(reduced), plane_arrays(self._raw), strict=True):
            while min(plane.shape[0] // height, plane.shape[1] // width) >= 4:  # halving is fast, odd factors are not
                half = (plane.shape[1] // 2, plane.shape[0] // 2)
                plane = cv2.resize(plane, half, interpolation=cv2.INTER_AREA)
            target[:] = cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA)
        return self._convert(_tagged(reduced, self._raw), self._converters[2])

    def _converted_part(self, x0: int, y0: int, x1: int, y1: int) -> tuple[int, int, np.ndarray]:
        height, width = self.shape
        spare = round(_SPARE * max(x1 - x0, y1 - y0))
        left, top = (max(0, (edge - spare) // _STEP * _STEP) for edge in (x0, y0))
        right, bottom = (
            min(size, -(-(edge + spare) // _STEP) * _STEP) for edge, size in ((x1, width), (y1, height))
        )
        part = av.VideoFrame(right - left, bottom - top, _format(self._raw))
        for target, plane in zip(plane_arrays(part), plane_arrays(self._raw), strict=True):
            # Chroma planes are smaller; the corner is on a multiple of their step.
            y, x = _scaled(top, plane.shape[0], height), _scaled(left, plane.shape[1], width)
            target[:] = plane[y : y + target.shape[0], x : x + target.shape[1]]
        return left, top, self._convert(_tagged(part, self._raw), self._converters[1])


def _scaled(position: int, plane_size: int, size: int) -> int:
    """A luma position in a plane that may have half the size (rounded up)."""
    return position if plane_size == size else position // 2


def _holds(part: tuple[int, int, np.ndarray], box: tuple[int, int, int, int]) -> bool:
    left, top, image = part
    return left <= box[0] and top <= box[1] and box[2] <= left + image.shape[1] and box[3] <= top + image.shape[0]


def _format(raw: av.VideoFrame) -> str:
    """The format's name, full range or not."""
    return raw.format.name.replace("yuvj", "yuv")


def _tagged(frame: av.VideoFrame, like: av.VideoFrame) -> av.VideoFrame:
    """The frame with the range of another one."""
    frame.color_range = FULL if is_full_range(like) else LIMITED
    return frame
