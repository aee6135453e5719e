"""Open media files that strangers made, and say in one sentence what is wrong with them."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from utils.helpers import InputError
from utils.stages import stop_point

_SEE_THROUGH = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_AnyStream = TypeVar("_AnyStream", VideoStream, AudioStream)

# FFmpeg also knows formats that are lists of other files or addresses (hls, concat, image sequences).
# A file given by a user must never make us open another one, so only self-contained formats are read.
_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,mjpeg,ivf,flv,ogg,wav,w64,mp3,flac,aac,"
    "aiff,au,caf,ac3,eac3,amr,asf,gif,apng,mxf,dv,wv"
)
# A name that no protocol has: should a format want to open something else all the same, it cannot.
_NO_PROTOCOL = "none"
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)  # a path has lost the second slash
# What is read to find out what a file holds, bytes and microseconds.
_PROBE_BYTES, _PROBE_US = 16 * 2**20, 10_000_000


@dataclass(frozen=True)
class MediaLimits:
    """What is too big to be meant seriously: such a file is refused before any work.

    Attributes:
        max_pixels: pixels in one frame; the default allows 8K.
        max_duration_s: seconds.
        max_streams: pictures, sounds, subtitles and so on in one file.
    """

    max_pixels: int = 8192 * 4352
    max_duration_s: float = 4 * 3600.0
    max_streams: int = 100


def check_readable(path: Path) -> None:
    """Raise InputError unless `path` is a regular file that has at least one byte and may be read."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the path of a media file.")
    if not path.exists() and _ADDRESS.match(str(path)):
        address = _ADDRESS.sub(r"\1://", str(path), count=1)
        raise InputError(f"{address} is an address, not a file; download it and give the file's name.")
    if not path.exists():
        raise InputError(f"There is no file {path}; check the path.")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; give the path of a media file.")
    if path.stat().st_size == 0:
        raise InputError(f"The file {path} is empty (0 bytes); give a media file that plays.")
    if not os.access(path, os.R_OK):
        raise InputError(f"The file {path} may not be read; check its permissions.")


@contextlib.contextmanager
def open_media(path: str | os.PathLike[str], limits: MediaLimits | None = None) -> Iterator[InputContainer]:
    """Open a media file for reading.

    The file is handed over as an open file, never as a name, since FFmpeg gives a meaning to some names
    ("concat:", "http:", "%d"). What it is, is found by its content.

    Args:
        path: any self-contained video or audio file.
        limits: what is too big; None for the defaults.

    Raises:
        InputError: missing, a folder, empty, unreadable, not a media file, cut off, or with too many streams.
    """
    path, limits = Path(path), limits or MediaLimits()
    check_readable(path)
    with path.open("rb") as file:
        try:
            container = av.open(file, options=_reading_options(limits), metadata_errors="replace")
        except av.FFmpegError as error:
            raise InputError(_why_unreadable(path, error, limits)) from error
        except (ValueError, OverflowError, MemoryError) as error:
            raise InputError(cut_off(path)) from error
        with container:
            if len(container.streams) > limits.max_streams:
                raise InputError(_too_many_streams(path, limits))
            for stream in container.streams:
                if stream.type in ("video", "audio") and stream.codec_context:
                    stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
            _check_complete(container, path)
            yield container


def _reading_options(limits: MediaLimits) -> dict[str, str]:
    return {
        "format_whitelist": _FORMATS,
        "protocol_whitelist": _NO_PROTOCOL,
        "probesize": str(_PROBE_BYTES),
        "analyzeduration": str(_PROBE_US),
        # One more than allowed, so that a file with too many can be told from a broken one.
        "max_streams": str(limits.max_streams + 1),
        "max_pixels": str(limits.max_pixels),
    }


def video_stream(container: InputContainer) -> VideoStream | None:
    """The stream of moving pictures that a player would show, or None. Cover art in a sound file does not count."""
    found = [
        stream
        for stream in container.streams.video
        if stream.codec_context and not stream.disposition & stream.disposition.attached_pic
    ]
    return _preferred(found)


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The stream of sound that a player would play, or None if none can be decoded.

    That is the first one that is marked as the default, commentaries and audio descriptions left aside; or else
    simply the first one.
    """
    found = [stream for stream in container.streams.audio if stream.codec_context]
    aside = (Disposition.comment, Disposition.visual_impaired, Disposition.hearing_impaired)
    plain = [stream for stream in found if not any(stream.disposition & mark for mark in aside)]
    return _preferred(plain or found)


def _preferred(streams: list[_AnyStream]) -> _AnyStream | None:
    marked = [stream for stream in streams if stream.disposition & Disposition.default]
    return next(iter(marked or streams), None)


def start_time(container: InputContainer) -> Fraction:
    """The file's own time, in seconds, at which its clip starts: the first picture, or else the first sound.

    Sound and pictures are both counted from here, so that they stay together.
    """
    streams = [video_stream(container), audio_stream(container)]
    for stream in streams:
        if stream is not None and stream.start_time is not None:
            return stream.start_time * stream.time_base
    return Fraction(0)


def stream_duration(container: InputContainer, stream: VideoStream | AudioStream) -> float | None:
    """Length of one stream in seconds as its header tells it, None if it does not."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tagged = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if tagged:
        # Matroska writes hours:minutes:seconds, counted from the start of the file.
        hours, minutes, seconds = map(float, tagged.groups())
        start = float((stream.start_time or 0) * stream.time_base)
        return max(3600 * hours + 60 * minutes + seconds - start, 0.0)
    if container.duration:
        return max(container.duration / av.time_base - float(start_time(container)), 0.0)
    return None


def decoded(container: InputContainer, stream: VideoStream | AudioStream) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """Decode one stream from where the file stands; a damaged packet costs its frame, not the whole file."""
    own = _seeing_through(stream)
    for packet in packets(container, stream):
        with contextlib.suppress(av.FFmpegError):
            yield from packet.decode() if own is None else own.decode(packet)


def _seeing_through(stream: VideoStream | AudioStream) -> av.VideoCodecContext | None:
    """A decoder of VP8 or VP9 with opacity, which FFmpeg's own leave out; None: the stream's own will do."""
    name = _SEE_THROUGH.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        return None
    context = av.CodecContext.create(name, "r")
    context.options = stream.codec_context.options
    return context


def packets(container: InputContainer, stream: VideoStream | AudioStream) -> Iterator[av.Packet]:
    """The packets of one stream from where the file stands.

    Raises:
        InputError: the file ends before its time.
    """
    found = container.demux(stream)
    while True:
        stop_point()
        try:
            packet = next(found, None)
        except av.FFmpegError as error:
            raise InputError(cut_off(container.name)) from error
        if packet is None:
            return
        yield packet


def aligned_sound(
    container: InputContainer,
    stream: AudioStream,
    sample_rate: int,
    sample_format: str,
    layout: str | None = None,
    max_duration_s: float = math.inf,
) -> Iterator[av.AudioFrame]:
    """Decode and resample a sound stream; sample 0 is the start of the clip, gaps become silence.

    Args:
        container: an open file.
        stream: one of its sound streams.
        sample_rate: Hz of the result.
        sample_format: FFmpeg's name, for example "fltp".
        layout: FFmpeg's name of the channel layout; None to keep that of the first frame.
        max_duration_s: the longest sound that is taken, seconds.

    Raises:
        InputError: the sound, with its gaps, is longer than that.
    """
    resampler = _Resampler(start_time(container), sample_rate, sample_format, layout)
    for frame in decoded(container, stream):
        # A gap is filled with silence: one that a broken stamp promises must be seen before.
        if frame.samples and resampler.place(frame) > max_duration_s:
            raise InputError(too_long_sound(container.name, max_duration_s))
        try:
            yield from resampler.push(frame)
        except av.FFmpegError as error:
            # Its rate or channels are beyond what can be meant.
            raise InputError(cut_off(container.name)) from error
    yield from resampler.finish()


def too_long_sound(path: Path | str, seconds: float) -> str:
    """The sentence for a sound that is longer than allowed."""
    return f"The sound of {path} is longer than {seconds:g} s; give less."


class _Resampler:
    """Brings frames of sound, whatever their form, to one rate, format and layout, each at its time."""

    def __init__(self, origin: Fraction, sample_rate: int, sample_format: str, layout: str | None):
        self._origin = origin
        self._wanted = (sample_rate, sample_format)
        self._layout = layout
        self._graph: av.filter.Graph | None = None
        self._form: tuple[int, str, str] | None = None
        self._end: Fraction | None = None  # seconds
        self._written = 0  # samples

    def place(self, frame: av.AudioFrame) -> Fraction:
        """Put a frame at its time in the clip; returns its end in seconds."""
        time_base = Fraction(1, frame.sample_rate)
        # Files without time stamps simply run on.
        start = self._end or Fraction(0)
        if frame.pts is not None:
            start = frame.pts * (frame.time_base or time_base) - self._origin
        frame.pts, frame.time_base = round(start / time_base), time_base
        self._end = start + Fraction(frame.samples, frame.sample_rate)
        return self._end

    def push(self, frame: av.AudioFrame) -> Iterator[av.AudioFrame]:
        """Take in a frame that was placed."""
        form = (frame.sample_rate, frame.format.name, frame.layout.name)
        if self._graph is not None and form != self._form:
            # Some recordings change their rate or channels on the way.
            yield from self.finish()
        if self._graph is None:
            self._layout = self._layout or frame.layout.name
            self._graph, self._form = self._new_graph(form), form
        self._graph.push(frame)
        yield from self._pull()

    def finish(self) -> Iterator[av.AudioFrame]:
        """What is still on the way."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._pull()
            self._graph = None

    def _new_graph(self, form: tuple[int, str, str]) -> av.filter.Graph:
        graph = av.filter.Graph()
        graph.threads = 1
        rate, name, layout = form
        source = graph.add_abuffer(sample_rate=rate, format=name, layout=layout, time_base=Fraction(1, rate))
        # Stamps that stray by more than a video frame mean a gap or an overlap; less is the recorder's jitter.
        # Channels are mixed so that the sum cannot exceed full scale.
        target = self._wanted[0]
        settings = f"{target}:async=1:min_hard_comp=0.04:first_pts={self._written}:rematrix_maxval=1"
        formats = f"sample_fmts={self._wanted[1]}:sample_rates={target}:channel_layouts={self._layout}"
        resample, form_filter = graph.add("aresample", settings), graph.add("aformat", formats)
        graph.link_nodes(source, resample, form_filter, graph.add("abuffersink")).configure()
        return graph

    def _pull(self) -> Iterator[av.AudioFrame]:
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            self._written += frame.samples
            yield frame


def cut_off(path: Path | str) -> str:
    """The sentence for a file of which a part is missing."""
    return f"The file {path} is damaged or cut off; copy or export it again."


def _too_many_streams(path: Path, limits: MediaLimits) -> str:
    return f"The file {path} holds more than {limits.max_streams} streams; give one with a picture and a sound."


def _why_unreadable(path: Path, error: av.FFmpegError, limits: MediaLimits) -> str:
    # FFmpeg stops at its `max_streams` as if memory had run out.
    if isinstance(error, av.MemoryError):
        return _too_many_streams(path, limits)
    with path.open("rb") as file:
        head = file.read(32)
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"hevc"):
        return f"{path} is a HEIC picture, which cannot be read; save it as JPEG or PNG."
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return cut_off(path)
    return f"The file {path} is no video or sound that can be read; give an MP4, MOV, MKV, WebM or WAV file."


def _check_complete(container: InputContainer, path: Path) -> None:
    """Compare the index of an MP4 or MOV with the size of the file.

    A copy that broke off would otherwise only be noticed after hours of work, at its last frame.
    """
    if "mov" not in container.format.name.split(","):
        return
    size = path.stat().st_size
    for stream in container.streams:
        entries = stream.index_entries
        if len(entries) and entries[len(entries) - 1].pos + entries[len(entries) - 1].size > size:
            raise InputError(cut_off(path))
