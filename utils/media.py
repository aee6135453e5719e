"""Open media files that strangers made, and say in one sentence what is wrong with them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
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
        if not stream.disposition & stream.disposition.attached_pic:
            return stream
    return None


def start_time(container: InputContainer) -> Fraction:
    """The file's own time, in seconds, at which its clip starts: the first picture, or else the first sound.

    Sound and pictures are both counted from here, so that they stay together.
    """
    streams = [video_stream(container), *container.streams.audio[:1]]
    for stream in streams:
        if stream is not None and stream.start_time is not None:
            return stream.start_time * stream.time_base
    return Fraction(0)


def cut_off(path: Path) -> str:
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
