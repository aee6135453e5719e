"""Open media files that strangers made, and say in one sentence what is wrong with them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.video.stream import VideoStream

from utils.helpers import InputError

# FFmpeg also knows formats that are lists of other files or addresses (hls, concat, image sequences).
# A file given by a user must never make us open another one, so only self-contained formats are read.
_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,mjpeg,ivf,flv,ogg,wav,w64,mp3,flac,aac,"
    "aiff,au,caf,ac3,eac3,amr,asf,gif,apng,mxf,dv,wv,ape,tta,rm,avif"
)


def check_readable(path: Path) -> None:
    """Raise InputError unless `path` is a regular file that has at least one byte and may be read."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the path of a media file.")
    if not path.exists():
        raise InputError(f"There is no file {path}; check the path.")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file; give the path of a media file.")
    if path.stat().st_size == 0:
        raise InputError(f"The file {path} is empty (0 bytes); give a media file that plays.")
    if not os.access(path, os.R_OK):
        raise InputError(f"The file {path} may not be read; check its permissions.")


@contextlib.contextmanager
def open_media(path: str | os.PathLike[str]) -> Iterator[InputContainer]:
    """Open a media file for reading.

    The file is handed over as an open file, never as a name, since FFmpeg gives a meaning to some names
    ("concat:", "http:", "%d").

    Args:
        path: any self-contained video or audio file.

    Raises:
        InputError: missing, a folder, empty, unreadable, not a media file, or cut off.
    """
    path = Path(path)
    check_readable(path)
    with path.open("rb") as file:
        try:
            container = av.open(file, options={"format_whitelist": _FORMATS}, metadata_errors="replace")
        except av.FFmpegError as error:
            raise InputError(_why_unreadable(path)) from error
        with container:
            _check_complete(container, path)
            yield container


def video_stream(container: InputContainer) -> VideoStream | None:
    """The first stream of moving pictures, or None. Cover art in a sound file does not count."""
    for stream in container.streams.video:
        if stream.codec_context and not stream.disposition & stream.disposition.attached_pic:
            return stream
    return None


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The first stream of sound that can be decoded, or None."""
    return next((stream for stream in container.streams.audio if stream.codec_context), None)


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


def decoded(
    container: InputContainer, stream: VideoStream | AudioStream
) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """Decode one stream from where the file stands; a damaged packet costs its frame, not the whole file."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            raise InputError(cut_off(container.name)) from error
        if packet is None:
            return
        with contextlib.suppress(av.FFmpegError):
            yield from packet.decode()


def aligned_sound(
    container: InputContainer,
    stream: AudioStream,
    sample_rate: int,
    sample_format: str,
    layout: str | None = None,
) -> Iterator[av.AudioFrame]:
    """Decode and resample a sound stream; sample 0 is the start of the clip, gaps become silence.

    Args:
        container: an open file.
        stream: one of its sound streams.
        sample_rate: Hz of the result.
        sample_format: FFmpeg's name, for example "fltp".
        layout: FFmpeg's name of the channel layout; None to keep it.
    """
    origin = start_time(container)
    graph, next_pts = None, 0
    for frame in decoded(container, stream):
        time_base = frame.time_base or Fraction(1, frame.sample_rate)
        if graph is None:
            graph = _resampling_graph(frame, time_base, sample_rate, sample_format, layout)
        # Files without time stamps simply run on.
        frame.pts = next_pts if frame.pts is None else frame.pts - round(origin / time_base)
        next_pts = frame.pts + round(Fraction(frame.samples, frame.sample_rate) / time_base)
        graph.push(frame)
        yield from _pull(graph)
    if graph is not None:
        graph.push(None)
        yield from _pull(graph)


def _resampling_graph(
    frame: av.AudioFrame, time_base: Fraction, sample_rate: int, sample_format: str, layout: str | None
) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate, format=frame.format.name, layout=frame.layout.name, time_base=time_base
    )
    # Stamps that stray by more than a video frame mean a gap or an overlap; less is the recorder's jitter.
    resample = graph.add("aresample", f"{sample_rate}:async=1:min_hard_comp=0.04:first_pts=0")
    layout = layout or frame.layout.name
    wanted = f"sample_fmts={sample_format}:sample_rates={sample_rate}:channel_layouts={layout}"
    graph.link_nodes(source, resample, graph.add("aformat", wanted), graph.add("abuffersink")).configure()
    return graph


def _pull(graph: av.filter.Graph) -> Iterator[av.AudioFrame]:
    while True:
        try:
            yield graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return


def cut_off(path: Path | str) -> str:
    """The sentence for a file of which a part is missing."""
    return f"The file {path} is damaged or cut off; copy or export it again."


def _why_unreadable(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(12)
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
