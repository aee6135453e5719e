"""Colour tags, and conversion between the planes of a video and RGB."""

from __future__ import annotations

from dataclasses import replace

import av
from av.video.reformatter import Colorspace, Interpolation

from utils.helpers import InputError
from video.types import Colour, VideoInfo

# Numbers of ITU-T H.273, which FFmpeg uses too.
BT709, BT470BG, SMPTE170M, FCC, SMPTE240M, BT2020_NCL = 1, 5, 6, 4, 7, 9
UNSPECIFIED = 2
LIMITED, FULL = 1, 2
SWS_MATRIX = {
    BT709: Colorspace.ITU709,
    BT470BG: Colorspace.ITU601,
    SMPTE170M: Colorspace.ITU601,
    FCC: Colorspace.FCC,
    SMPTE240M: Colorspace.SMPTE240M,
    BT2020_NCL: Colorspace.BT2020,
}

_OTHER_MATRICES = {8: "YCgCo", 10: "BT.2020 constant luminance", 14: "ICtCp", 15: "IPT", 16: "YCgCo-R", 17: "YCgCo-R"}

# Without these flags FFmpeg's conversion to RGB comes out about 1.3 levels too dark: a seam around patches.
ACCURATE = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND


def is_full_range(raw: av.VideoFrame) -> bool:
    """True if luma 0 is black and the greatest value is white, False for the usual 16 to 235."""
    return raw.color_range == FULL or raw.format.name.startswith("yuvj")


def yuv_matrix(raw: av.VideoFrame) -> int:
    """The matrix between RGB and YUV of a frame (H.273 number); untagged video: by size, as players do."""
    if raw.colorspace in SWS_MATRIX:
        return raw.colorspace
    return BT709 if min(raw.width, raw.height) >= 720 else SMPTE170M


def output_colour(info: VideoInfo) -> Colour:
    """The colour tags that the written video gets."""
    if is_rgb(av.VideoFormat(info.pix_fmt)):
        return Colour(LIMITED, BT709, BT709, BT709)
    if info.pix_fmt.startswith("yuvj"):
        return replace(info.colour, range=FULL)
    return info.colour


def check_colour(info: VideoInfo) -> None:
    """Raise InputError for a video whose colours would come out wrong."""
    stored = av.VideoFormat(info.pix_fmt)
    if is_rgb(stored) or info.colour.matrix not in _OTHER_MATRICES:
        return
    raise InputError(
        f"The colours of {info.path} are stored as {_OTHER_MATRICES[info.colour.matrix]}, which cannot be kept; "
        "export it with BT.709 or BT.2020 colours."
    )


def is_rgb(stored: av.VideoFormat) -> bool:
    """The pixels are red, green and blue, or a palette of them, or grey with an opacity, which becomes that."""
    return stored.is_rgb or stored.has_palette or stored.name.startswith("ya")
