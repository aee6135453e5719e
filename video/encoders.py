"""Which encoder, pixel format and settings fit a video and its file type."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av

from utils.helpers import InputError
from video.colour import is_rgb
from video.fields import METHOD
from video.types import LightLevels, VideoInfo

CODECS = ("auto", "h264", "hevc", "ffv1", "prores")
"""What a user may ask for; "auto" is H.264, and HEVC for more than 8 bits (in WebM: VP9, and AV1).

Of what can be seen through, "auto" makes VP9 in WebM and ProRes 4444 in .mov, which keep that.
"""

MP4_LIKE = (".mp4", ".m4v", ".mov")
_SUFFIXES = (*MP4_LIKE, ".mkv", ".webm")
_OPTIONS = {
    "libx264": {"preset": "veryfast"},
    "libx265": {"preset": "veryfast"},
    "libvpx-vp9": {"b": "0", "deadline": "good", "cpu-used": "5", "row-mt": "1"},
    "libsvtav1": {"preset": "8"},
    # FFV1 does not know where chroma lies; "left" is what H.264 and its like mean when they say nothing.
    "ffv1": {"level": "3", "chroma_sample_location": "left"},
    "prores_ks": {"vendor": "apl0"},  # without it some editors refuse the file
}
_PRORES_PROFILES = {"422": "hq", "444": "4444"}
_FASTER = {
    "libx264": {"preset": "superfast"},
    "libx265": {"preset": "superfast"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "7"},
    "libsvtav1": {"preset": "10"},
}
# What gives the quality of the same `crf` of H.264 around 16, by PSNR and SSIM on faces (docs/formats.md).
_CRF_SHIFT = {"libx264": 0, "libx265": 0, "libvpx-vp9": -3, "libsvtav1": -2}
_CRF_MOST = {"libx264": 51, "libx265": 51, "libvpx-vp9": 63, "libsvtav1": 63}
_DEPTHS = {
    "libx264": (8, 10),
    "libx265": (8, 10, 12),
    "libvpx-vp9": (8,),
    "libsvtav1": (10,),
    "ffv1": (8, 10, 12),
    "prores_ks": (10,),
}
_SAMPLINGS = {"libsvtav1": ("420",), "prores_ks": ("422", "444")}
_NO_CRF = ("ffv1", "prores_ks")
# These refuse odd sizes with shared chroma; the size matters more than the format.
_EVEN_ONLY = ("libx264", "libx265")
_KEEPS_LIGHT = ("libx264", "libx265", "libsvtav1")
AUTO = "auto"
"""A quality that follows the source."""

_AUTO_CRF = 18  # of what the source does not limit, as H.264 counts
_RATE_SPARE = 1.25  # to encode anew what an encoder has made costs more for the same look
# Bits that codecs need for the same picture, those of H.264 being 1; of others nobody saves anything.
_RATE_OF = {"hevc": 1.5, "vp9": 1.5, "av1": 2.0, "mpeg4": 0.7, "mpeg2video": 0.5, "mjpeg": 0.3}
_NEEDS = {"libx264": 1.0, "libx265": 0.8, "libvpx-vp9": 0.8, "libsvtav1": 0.7}
_LEAST_RATE = 50_000  # bits per second
_LEAST_SIDE = 16  # px; HEVC's smallest
_FINEST_TICK = 10**6  # per second

# SVT-AV1 talks on standard output unless this says "errors only"; it knows no other way.
os.environ.setdefault("SVT_LOG", "1")


@dataclass(frozen=True)
class Encoding:
    """How a video is written.

    Attributes:
        encoder: FFmpeg's name.
        playable: what phones and browsers show, which is shared chroma (4:2:0) and even sizes only.
        opacity: what can be seen through stays so.
    """

    encoder: str
    playable: bool = False
    opacity: bool = False


def encoding_for(target: Path, codec: str, info: VideoInfo, flat: bool = False) -> Encoding:
    """How to write an output file with one of CODECS; `flat`: nothing of it shall be seen through.

    Raises:
        InputError: unknown, or the file type cannot hold it or this video.
    """
    encoder = _encoder_name(target, codec, info)
    playable = codec == "auto"
    if not info.transparent or flat:
        return Encoding(encoder, playable)
    if playable:
        own = {".webm": "libvpx-vp9", ".mov": "prores_ks"}.get(target.suffix.lower())
        return Encoding(own or encoder, playable, own is not None)
    return Encoding(encoder, playable, encoder in _NO_CRF)


def _encoder_name(target: Path, codec: str, info: VideoInfo) -> str:
    suffix = target.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(f"Cannot write '{suffix}' files; use .mp4, .mov, .mkv, .webm or .zip (a PNG sequence).")
    if codec not in CODECS:
        raise InputError(f"Unknown codec '{codec}'; use one of {', '.join(CODECS)}.")
    if min(info.width, info.height) < _LEAST_SIDE:
        raise InputError(f"The picture of {info.path} is too small ({info.width}x{info.height}); give a larger one.")
    if codec == "prores" and suffix not in (".mov", ".mkv"):
        raise InputError(f"ProRes does not fit into '{suffix}'; name the output .mov or .mkv.")
    if codec == "ffv1" and suffix != ".mkv":
        raise InputError(f"Lossless video (ffv1) does not fit into '{suffix}'; name the output .mkv.")
    if codec != "auto" and suffix == ".webm":
        raise InputError(f"WebM cannot hold {codec}; leave out the codec, or name the output .mp4 or .mkv.")
    if info.sample_aspect_ratio != 1 and (suffix == ".webm" or codec in ("ffv1", "prores")):
        # FFmpeg's muxers could write that, but PyAV has no way to tell them; only H.264 and HEVC say it themselves.
        raise InputError(f"The pixels of {info.path} are not square, which needs H.264 or HEVC in .mp4, .mov or .mkv.")
    if codec == "auto":
        deep = not info.is_image and info.bits > 8
        if suffix == ".webm":
            return "libsvtav1" if deep else "libvpx-vp9"
        codec = "hevc" if deep else "h264"
    return {"h264": "libx264", "hevc": "libx265", "ffv1": "ffv1", "prores": "prores_ks"}[codec]


def writable_format(info: VideoInfo, encoding: Encoding) -> str:
    """The planar YUV format nearest to the source's that the encoder takes at this size."""
    encoder = encoding.encoder
    bits = 8 if info.is_image else info.bits
    depths = _DEPTHS[encoder]
    depth = next((depth for depth in depths if depth >= bits), depths[-1])
    sampling = "420" if encoding.playable else _sampling(info)
    if encoder == "prores_ks" and encoding.opacity:
        sampling = "444"
    if sampling not in _SAMPLINGS.get(encoder, (sampling,)):
        sampling = _SAMPLINGS[encoder][0]
    if encoder in _EVEN_ONLY and not encoding.playable and (info.width % 2 or info.height % 2):
        sampling = "444"
    return f"yuv{'a' if encoding.opacity else ''}{sampling}p" + (f"{depth}le" if depth > 8 else "")


def written_size(info: VideoInfo, encoding: Encoding) -> tuple[int, int]:
    """Width and height of the picture that is written, as stored; see `writable_format`."""
    size = (info.height, info.width) if info.rotation in (90, 270) else (info.width, info.height)
    return (size[0] // 2 * 2, size[1] // 2 * 2) if encoding.playable and encoding.encoder in _EVEN_ONLY else size


def encoder_options(info: VideoInfo, encoding: Encoding, crf: int | str, fast: bool = False) -> dict[str, str]:
    """Settings of the encoder for one video.

    Args:
        info: of its source.
        encoding: how it is written.
        crf: as H.264 counts it, 0 to 51; "auto": good, and no more bits a second than the source needs.
        fast: makes a larger file sooner.
    """
    encoder, most = encoding.encoder, None
    if crf == AUTO:
        crf, most = _AUTO_CRF, wanted_rate(info, encoding)
    if encoding.playable and encoder == "libx264":
        crf = max(crf, 1)  # 0 is lossless, in a profile of its own that phones and browsers refuse
    options = _OPTIONS[encoder] | (_FASTER.get(encoder, {}) if fast else {})
    if encoder == "prores_ks":
        sampling = writable_format(info, encoding).removeprefix("yuva").removeprefix("yuv")[:3]
        return options | {"profile": _PRORES_PROFILES[sampling]}
    if encoder in _NO_CRF:
        return options
    if encoding.opacity:
        options["auto-alt-ref"] = "0"  # the encoder cannot do both
    options["crf"] = str(min(max(crf + _CRF_SHIFT[encoder], 0), _CRF_MOST[encoder]))
    if most is not None:
        options |= {"maxrate": str(most), "bufsize": str(2 * most)}
        options |= {"b": str(most)} if encoder == "libvpx-vp9" else {}
    own = _light_options(info.light, encoder) if info.is_hdr else []
    if encoder == "libx265":
        own = ["log-level=error", *own, *(["hdr10=1"] if own else [])]
    if own:
        options[f"{encoder.removeprefix('lib')}-params"] = ":".join(own)
    return options


def wanted_rate(info: VideoInfo, encoding: Encoding) -> int | None:
    """Bits per second that show about what the source shows: its own, more from a newer codec to an older one.

    None where the source does not tell: a picture, or a file without a length.
    """
    if info.bit_rate is None or encoding.encoder in _NO_CRF:
        return None
    full = info.full_size or (info.width, info.height)
    pixels = info.width * info.height / (full[0] * full[1])
    ratio = _RATE_OF.get(info.codec, 1.0) * min(pixels, 1.0) ** 0.75
    return max(_LEAST_RATE, round(info.bit_rate * ratio * _RATE_SPARE / _NEEDS[encoding.encoder]))


def time_base_for(info: VideoInfo) -> Fraction:
    """Seconds per tick of the written stamps: fine enough for the source's stamps and for its frame rate."""
    ticks = math.lcm(info.time_base.denominator, info.fps.numerator)
    if ticks <= _FINEST_TICK:
        return Fraction(1, ticks)
    return max(Fraction(1, info.time_base.denominator), Fraction(1, _FINEST_TICK))


def what_changes(info: VideoInfo, encoding: Encoding, background: str) -> tuple[str, ...]:
    """Sentences for the user about what of the source is not, or not simply, kept.

    `background`: what people call that which stands behind a picture that can be seen through.
    """
    encoder, notes = encoding.encoder, []
    written = av.VideoFormat(writable_format(info, encoding))
    size = written_size(info, encoding)
    stored = written_size(info, replace(encoding, playable=False))
    if size != stored:
        lost = " and ".join(word for word, i in (("column", 0), ("row", 1)) if size[i] != stored[i])
        notes.append(
            f"The size {stored[0]}x{stored[1]} became {size[0]}x{size[1]} (the last {lost} is cut off): "
            "players want even numbers."
        )
    if info.full_size is not None:
        full = "x".join(map(str, info.full_size))
        notes.append(f"The size {full} was brought to {info.width}x{info.height}; --size chooses another one.")
    if info.interlaced:
        notes.append(f"The video is interlaced: it was deinterlaced ({METHOD}), one frame for each.")
    if info.transparent:
        notes.append(_about_opacity(encoding, background))
    if info.is_hdr:
        curve = {16: "PQ", 18: "HLG"}[info.colour.transfer]
        notes.append(f"HDR ({curve}) was kept: {written.components[0].bits} bits and the colour tags.")
    if not info.is_image and info.bits > written.components[0].bits:
        notes.append(f"{info.bits} bits a colour became {written.components[0].bits}.")
    if info.is_hdr and info.light != LightLevels() and encoder not in _KEEPS_LIGHT:
        notes.append("The light levels of the HDR picture (mastering display, MaxCLL) were not kept.")
    if info.dolby_vision:
        notes.append("The Dolby Vision data was left out; the picture under it was kept.")
    return tuple(notes)


def _about_opacity(encoding: Encoding, background: str) -> str:
    if not encoding.opacity:
        return (
            f"The transparent parts show {background} (--background). To keep them so, leave that option out and "
            "write .webm (VP9), .mov (ProRes 4444) or .zip (PNG pictures)."
        )
    if encoding.encoder == "libvpx-vp9":
        return "Transparency was kept (VP9 with alpha: Chrome, Firefox and OBS show it, Safari shows it opaque)."
    return f"Transparency was kept ({'ProRes 4444' if encoding.encoder == 'prores_ks' else 'FFV1 with alpha'})."


def _sampling(info: VideoInfo) -> str:
    stored = av.VideoFormat(info.pix_fmt, info.width * 8, info.height * 8)
    if info.is_image or len(stored.components) < 3:
        return "420"
    if is_rgb(stored):
        return "444"
    chroma = stored.components[1]
    shrunk = (stored.width // chroma.width, stored.height // chroma.height)
    return {(2, 2): "420", (2, 1): "422"}.get(shrunk, "444")


def _light_options(light: LightLevels, encoder: str) -> list[str]:
    """Static HDR metadata in the encoder's own words."""
    options = []
    if light.primaries and light.luminance:
        (red, green, blue, white), (least, greatest) = light.primaries, light.luminance
        if encoder == "libsvtav1":
            points = "".join(f"{n}({x:.5f},{y:.5f})" for n, (x, y) in _named(red, green, blue, white))
            options.append(f"mastering-display={points}L({greatest:.4f},{least:.4f})")
        else:
            # Whole numbers: chromaticity in 0.00002, luminance in 0.0001 cd/m2.
            points = "".join(f"{n}({x * 5e4:.0f},{y * 5e4:.0f})" for n, (x, y) in _named(red, green, blue, white))
            name = "mastering-display" if encoder == "libx264" else "master-display"
            options.append(f"{name}={points}L({greatest * 1e4:.0f},{least * 1e4:.0f})")
    if light.content:
        name = {"libx264": "cll", "libx265": "max-cll", "libsvtav1": "content-light"}.get(encoder)
        options += [f"{name}={light.content[0]},{light.content[1]}"] if name else []
    return options if encoder in _KEEPS_LIGHT else []


def _named(*points: tuple[float, float]) -> list[tuple[str, tuple[float, float]]]:
    red, green, blue, white = points
    return [("G", green), ("B", blue), ("R", red), ("WP", white)]
