"""What FFmpeg hangs on a decoded frame beside its pixels: rotation, light levels, Dolby Vision."""

from __future__ import annotations

import math

import av
import numpy as np

from video.types import LightLevels


def orientation(first: av.VideoFrame) -> tuple[int, bool]:
    """Rotation (degrees counter-clockwise, a multiple of 90) and left-right flip of the display matrix."""
    matrix = _get(first, "DISPLAYMATRIX")
    if matrix is None or len(matrix) < 36:
        return round(first.rotation / 90) * 90 % 360, False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    mirrored = a * d - b * c < 0
    turn = math.atan2(-b, -a if mirrored else a)
    return round(math.degrees(turn) / 90) * 90 % 360, mirrored


def light_levels(first: av.VideoFrame) -> LightLevels:
    """The static HDR metadata that apply to a frame."""
    display, content = _get(first, "MASTERING_DISPLAY_METADATA"), _get(first, "CONTENT_LIGHT_LEVEL")
    primaries = luminance = None
    if display is not None and len(display) >= 88:
        # AVMasteringDisplayMetadata: ten fractions (x and y of red, green, blue, white; luminance), two flags.
        numbers = np.frombuffer(display, np.int32)
        values = [float(n / d) if d else 0.0 for n, d in numbers[:20].reshape(10, 2).astype(np.float64)]
        has_primaries, has_luminance = numbers[20:22].tolist()
        primaries = tuple(zip(values[0:8:2], values[1:8:2], strict=True)) if has_primaries else None
        luminance = (values[8], values[9]) if has_luminance else None
    levels = None
    if content is not None and len(content) >= 8:
        levels = tuple(min(value, 65535) for value in np.frombuffer(content, np.uint32)[:2].tolist())
    return LightLevels(primaries, luminance, levels)


def has_dolby_vision(first: av.VideoFrame) -> bool:
    """The frame carries Dolby Vision data."""
    return _get(first, "DOVI_METADATA") is not None or _get(first, "DOVI_RPU_BUFFER") is not None


def _get(frame: av.VideoFrame, name: str) -> bytes | None:
    try:
        found = frame.side_data.get(name)
    except ValueError:
        # PyAV gives up on the whole list when it holds a kind of side data that it does not know.
        return None
    return None if found is None else bytes(found)
