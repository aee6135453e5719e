"""A live picture as H.264, encoded once for all who watch, as fast as the encoders can."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from video.colour import BT709

CLOCK = 90000
"""Ticks per second of the packets' times."""

_KEY_S = 2.0  # a listener who lost something waits for at most so long
_X264 = {
    "preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "crf": "21", "maxrate": "6M", "bufsize": "3M",
    "forced-idr": "1",
}  # fmt: skip
_OPENH264 = {"b": "4M", "allow_skip_frames": "0"}


@dataclass(frozen=True)
class Packet:
    """An encoded picture.

    Attributes:
        data: Annex B, with the headers before every key picture.
        is_key: it can be decoded without those before it.
        pts: time in ticks of `CLOCK`.
    """

    data: bytes
    is_key: bool
    pts: int


class LiveEncoder:
    """Encodes pictures of one size, in order, without holding any back.

    Args:
        width, height: of the pictures, even px.
        fps: pictures per second.
    """

    def __init__(self, width: int, height: int, fps: Fraction):
        codec, options = _fastest()
        self._context = av.CodecContext.create(codec, "w")
        self._context.width, self._context.height, self._context.pix_fmt = width, height, "yuv420p"
        self._context.time_base, self._context.framerate = Fraction(1, CLOCK), fps
        self._context.gop_size, self._context.max_b_frames = max(1, round(_KEY_S * fps)), 0
        self._context.thread_count = 1
        self._context.color_range = ColorRange.MPEG
        self._context.colorspace = self._context.color_primaries = self._context.color_trc = BT709
        self._context.options = options
        self._wants_key = True

    def request_key(self) -> None:
        """Make the next picture one that a new listener can begin with."""
        self._wants_key = True

    def encode(self, picture: av.VideoFrame, time: float) -> Packet | None:
        """A picture (yuv420p) that is shown at a time in seconds; times rise. None: the encoder left it out."""
        picture.pts, picture.time_base = round(time * CLOCK), Fraction(1, CLOCK)
        picture.pict_type = PictureType.I if self._wants_key else PictureType.NONE
        self._wants_key = False
        packets = self._context.encode(picture)
        data = b"".join(bytes(packet) for packet in packets)
        return Packet(data, any(packet.is_keyframe for packet in packets), picture.pts) if data else None


def header_like(container: OutputContainer, size: tuple[int, int], fps: Fraction) -> VideoStream:
    """A stream of a container for packets of a `LiveEncoder`: its header is what such an encoder writes."""
    codec, options = _fastest()
    stream = container.add_stream(codec, rate=fps, options=options)
    stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
    context = stream.codec_context
    context.time_base, context.max_b_frames, context.color_range = Fraction(1, CLOCK), 0, ColorRange.MPEG
    context.colorspace = context.color_primaries = context.color_trc = BT709
    return stream


def _fastest() -> tuple[str, dict[str, str]]:
    """The encoder that this build of FFmpeg has, and its fastest settings."""
    if "libx264" in av.codecs_available:
        return "libx264", dict(_X264)
    return "libopenh264", dict(_OPENH264)
