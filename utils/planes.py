"""Blend an RGB patch into a video frame in the frame's own planes, touching nothing else."""

from __future__ import annotations

import av
import numpy as np

# Weights of red and blue in luma by matrix, numbers of H.273 (1: BT.709, 5 and 6: BT.601, 9: BT.2020).
_LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
_SAMPLING = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}
PLANAR_FORMATS = tuple(f"yuv{name}p{depth}" for name in _SAMPLING for depth in ("", "10le", "12le"))
"""The pixel formats that `blend` works in; and the same with a plane of opacity, which it leaves alone."""


def rgb_to_yuv(image: np.ndarray, matrix: int, full_range: bool, bits: int = 8) -> np.ndarray:
    """Convert RGB to the code values of a video.

    Args:
        image: RGB (h, w, 3) in [0, 1].
        matrix: H.273 number of the YUV matrix (1, 4, 5, 6, 7 or 9).
        full_range: True if luma 0 is black.
        bits: depth of the result, 8, 10 or 12.

    Returns:
        float32 (h, w, 3): Y, Cb, Cr, not rounded.
    """
    red, blue = _LUMA_WEIGHTS[matrix]
    luma = np.array([red, 1 - red - blue, blue], np.float32)
    to_yuv = np.stack(
        [
            luma,
            (np.array([0, 0, 1], np.float32) - luma) / (2 * (1 - blue)),
            (np.array([1, 0, 0], np.float32) - luma) / (2 * (1 - red)),
        ]
    )
    if full_range:
        scale = np.full(3, 2**bits - 1, np.float32)
        offset = np.array([0, 2 ** (bits - 1), 2 ** (bits - 1)], np.float32)
    else:
        scale = np.array([219, 224, 224], np.float32) * 2 ** (bits - 8)
        offset = np.array([16, 128, 128], np.float32) * 2 ** (bits - 8)
    return image.astype(np.float32) @ (to_yuv * scale[:, None]).T + offset


def copy_frame(raw: av.VideoFrame, pix_fmt: str) -> av.VideoFrame:
    """Copy a planar frame, because the decoder still predicts from its own.

    Args:
        raw: a frame whose memory layout is that of `pix_fmt` ("yuvj420p" is laid out like "yuv420p").
        pix_fmt: one of PLANAR_FORMATS, or with opacity ("yuva420p").
    """
    copy = av.VideoFrame(raw.width, raw.height, pix_fmt)
    for target, source in zip(plane_arrays(copy), plane_arrays(raw), strict=True):
        target[:] = source
    return copy


def cropped_frame(raw: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """The upper left part of a planar frame, in one of PLANAR_FORMATS; it may be no larger than the frame."""
    part = av.VideoFrame(width, height, raw.format.name)
    for target, source in zip(plane_arrays(part), plane_arrays(raw), strict=True):
        target[:] = source[: target.shape[0], : target.shape[1]]
    return part


def plane_arrays(frame: av.VideoFrame) -> list[np.ndarray]:
    """Views (not copies) of the Y, Cb and Cr planes, and that of the opacity, uint8 or uint16 (h, w)."""
    dtype = np.dtype(np.uint16 if _is_deep(frame) else np.uint8)
    views = []
    for plane in frame.planes:
        padded = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype.itemsize)
        views.append(padded[: plane.height, : plane.width])
    return views


def blend(
    frame: av.VideoFrame,
    corner: tuple[int, int],
    image: np.ndarray,
    alpha: np.ndarray,
    matrix: int,
    full_range: bool,
) -> None:
    """Mix an image into a frame in place, where alpha is above 0.

    A chroma sample is only changed if alpha is above 0 at every pixel that shares it, so no pixel outside
    changes its colour either.

    Args:
        frame: its own copy of the pixels, in one of PLANAR_FORMATS.
        corner: x and y of the patch in the frame as stored, pixels; the patch must lie inside.
        image: RGB (h, w, 3) in [0, 1], turned as the frame is stored.
        alpha: float (h, w) in [0, 1].
        matrix: as in `rgb_to_yuv`.
        full_range: as in `rgb_to_yuv`.
    """
    x, y = corner
    height, width = alpha.shape
    bits = frame.format.components[0].bits
    planes = plane_arrays(frame)
    yuv = rgb_to_yuv(image, matrix, full_range, bits)
    _mix(planes[0][y : y + height, x : x + width], yuv[..., 0], alpha, bits)
    step_x, step_y = _SAMPLING[frame.format.name.removeprefix("yuva").removeprefix("yuv")[:3]]
    chroma, weight = _shrink(yuv[..., 1:], alpha, (x % step_x, y % step_y), (step_x, step_y))
    rows = slice(y // step_y, y // step_y + weight.shape[0])
    columns = slice(x // step_x, x // step_x + weight.shape[1])
    for channel in (0, 1):
        _mix(planes[channel + 1][rows, columns], chroma[..., channel], weight, bits)


def _is_deep(frame: av.VideoFrame) -> bool:
    return frame.format.components[0].bits > 8


def _shrink(
    chroma: np.ndarray, alpha: np.ndarray, offset: tuple[int, int], step: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Average full-size chroma (h, w, 2) and alpha (h, w) over the cells of the frame's chroma grid."""
    height, width = alpha.shape
    rows, columns = -(-(height + offset[1]) // step[1]), -(-(width + offset[0]) // step[0])
    pad_y = (offset[1], rows * step[1] - height - offset[1])
    pad_x = (offset[0], columns * step[0] - width - offset[0])
    cells = (rows, step[1], columns, step[0])
    alpha = np.pad(alpha.astype(np.float32), (pad_y, pad_x)).reshape(cells)
    chroma = np.pad(chroma, (pad_y, pad_x, (0, 0))).reshape(*cells, 2)
    weight = alpha.mean(axis=(1, 3)) * (alpha.min(axis=(1, 3)) > 0)
    total = np.maximum(alpha.sum(axis=(1, 3)), 1e-6)
    return (chroma * alpha[..., None]).sum(axis=(1, 3)) / total[..., None], weight


def _mix(plane: np.ndarray, values: np.ndarray, alpha: np.ndarray, bits: int) -> None:
    mixed = plane + alpha * (values - plane)
    plane[:] = np.where(alpha > 0, np.clip(np.rint(mixed), 0, 2**bits - 1), plane).astype(plane.dtype)
