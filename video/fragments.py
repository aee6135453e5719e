"""Pictures and sound of a live session as fragments of MP4, or to any place that FFmpeg can write to.

Pictures are encoded already and only packed; sound is encoded here.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np

from utils.helpers import InputError
from video.broadcast import CLOCK, Packet, header_like

_FORMATS = {"rtmp": "flv", "rtmps": "flv", "udp": "mpegts", "srt": "mpegts", "tcp": "mpegts", "rtp": "rtp_mpegts"}
_SUFFIXES = {"flv": "flv", "mp4": "mp4", "mkv": "matroska", "ts": "mpegts"}
_BIT_RATE = 96000
_FRAGMENT_US = "39000"  # about a frame


class _Sink:
    """A file that cannot be read, only written to."""

    def __init__(self, write: Callable[[bytes], object]):
        self._write = write

    def write(self, data: bytes) -> int:
        self._write(bytes(data))
        return len(data)


class LiveMuxer:
    """Packs what a session makes. The first picture must be a key picture.

    Args:
        target: a function that takes bytes (fragments of MP4), or an address such as rtmp://..., udp://..., or a file.
        size: width and height of the pictures, px.
        fps: pictures per second.
        rate: samples per second of the sound.
        tags: metadata.

    Raises:
        InputError: nothing can be written there.
    """

    def __init__(
        self,
        target: Callable[[bytes], object] | str,
        size: tuple[int, int],
        fps: Fraction,
        rate: int,
        tags: dict[str, str],
    ):
        self._container = _opened(target)
        self._container.metadata.update(tags)
        self._video = header_like(self._container, size, fps)
        self._sound = self._container.add_stream("aac", rate=rate, layout="mono")
        self._sound.bit_rate = _BIT_RATE
        self._rate = rate
        self._start: int | None = None

    def write(self, packet: Packet | None, samples: np.ndarray, time: float) -> None:
        """Write a picture (None: there is none now) and int16 samples (N,) that belong to a time in seconds.

        Raises:
            OSError: the connection is gone (an FFmpegError).
        """
        if self._start is None:
            self._start = round(time * CLOCK)
        if packet is not None:
            made = av.Packet(packet.data)
            made.stream, made.time_base = self._video, Fraction(1, CLOCK)
            made.pts = made.dts = packet.pts - self._start
            made.is_keyframe = packet.is_key
            self._container.mux(made)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.time_base = self._rate, Fraction(1, self._rate)
        frame.pts = round((time - self._start / CLOCK) * self._rate)
        # The encoder begins with silence before the first sample, which would shift everything.
        self._container.mux([packet for packet in self._sound.encode(frame) if packet.pts is None or packet.pts >= 0])

    def close(self) -> None:
        """End the file or the connection."""
        try:
            self._container.mux(self._sound.encode(None))
        finally:
            self._container.close()


def _opened(target: Callable[[bytes], object] | str) -> Any:
    if callable(target):
        flags = {"movflags": "empty_moov+default_base_moof", "frag_duration": _FRAGMENT_US, "flush_packets": "1"}
        return av.open(_Sink(target), "w", format="mp4", options=flags)
    scheme, _, rest = target.partition("://")
    suffix = target.rpartition(".")[2].lower()
    name = _FORMATS.get(scheme) if rest else _SUFFIXES.get(suffix)
    if name is None:
        raise InputError(f"Nothing can be pushed to '{target}'; give rtmp://, srt://, udp://, or a .flv or .ts file.")
    try:
        return av.open(target, "w", format=name)
    except (av.FFmpegError, OSError) as error:
        raise InputError(f"Nothing can be pushed to '{target}' ({error.strerror}); check the address.") from error
