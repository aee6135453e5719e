"""Video files in and out, frame by frame: times, rotation, colour tags and sound are kept."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from PIL import Image, ImageOps, UnidentifiedImageError

from utils.helpers import InputError
from utils.media import check_readable, cut_off, decoded, open_media, start_time, video_stream

IMAGE_FPS = Fraction(25)
"""Frame rate of a video made from a still image."""

_IMAGE_TIME_BASE = Fraction(1, 12800)
# Numbers of ITU-T H.273, which FFmpeg uses too.
_BT709, _BT470BG, _SMPTE170M, _FCC, _SMPTE240M, _BT2020_NCL = 1, 5, 6, 4, 7, 9
_UNSPECIFIED = 2
_LIMITED, _FULL = 1, 2
_SWS_MATRIX = {
    _BT709: Colorspace.ITU709,
    _BT470BG: Colorspace.ITU601,
    _SMPTE170M: Colorspace.ITU601,
    _FCC: Colorspace.FCC,
    _SMPTE240M: Colorspace.SMPTE240M,
    _BT2020_NCL: Colorspace.BT2020,
}


@dataclass(frozen=True)
class MediaLimits:
    """What is too big to be meant seriously: such a file is refused before any work.

    Attributes:
        max_pixels: pixels in one frame; the default allows 8K.
        max_duration_s: seconds.
    """

    max_pixels: int = 8192 * 4352
    max_duration_s: float = 4 * 3600.0


@dataclass(frozen=True)
class Colour:
    """Colour tags of a video as H.273 numbers (2: unspecified; range: 0 unspecified, 1 limited, 2 full)."""

    range: int
    matrix: int
    primaries: int
    transfer: int


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video without reading it to its end.

    Attributes:
        path: the file.
        width: pixels, as displayed (after rotation).
        height: pixels, as displayed.
        rotation: degrees counter-clockwise by which a player turns the stored picture: 0, 90, 180, 270.
        mirrored: the picture is flipped left to right after that rotation.
        fps: average frame rate.
        time_base: seconds per tick of the stored time stamps.
        duration: seconds, None if the file does not say (and for a still image).
        frame_count: an estimate, None if unknown.
        pix_fmt: FFmpeg's name of the stored pixel format.
        colour: the colour tags as stored.
        sample_aspect_ratio: width : height of one pixel.
        has_audio: the file has at least one sound stream.
        is_image: the file is a still image.
    """

    path: Path
    width: int
    height: int
    rotation: int
    mirrored: bool
    fps: Fraction
    time_base: Fraction
    duration: float | None
    frame_count: int | None
    pix_fmt: str
    colour: Colour
    sample_aspect_ratio: Fraction
    has_audio: bool
    is_image: bool


@dataclass(frozen=True)
class Frame:
    """One picture of a video.

    Attributes:
        index: number of the frame in the sequence that is being read, from 0.
        time: seconds from the start of that sequence.
        image: uint8 RGB (H, W, 3), upright as displayed. Read-only use: it may be shared between frames.
        raw: the decoded frame as stored, not rotated.
        source_index: number of the frame in the file (differs from `index` when frames are repeated).
        duration: seconds for which the frame is shown.
    """

    index: int
    time: float
    image: np.ndarray
    raw: av.VideoFrame
    source_index: int
    duration: float


def probe_video(path: str | os.PathLike[str], limits: MediaLimits | None = None) -> VideoInfo:
    """Find out what a video or image file holds, by decoding its first frame.

    Args:
        path: a video, or a still image (JPEG, PNG, WebP, BMP, TIFF).
        limits: what is too big; None for the defaults.

    Raises:
        InputError: missing, empty, not a media file, cut off, without a video stream, too big or too long.
    """
    with VideoReader(path, limits) as reader:
        return reader.info


class VideoReader:
    """Reads the frames of a video one by one; a still image has one frame.

    Use as a context manager. Iterating again starts over and ends the iteration before. Memory does not grow
    with the length of the video.

    Args:
        path: a video or still image.
        limits: what is too big; None for the defaults.

    Attributes:
        info: what `probe_video` returns.

    Raises:
        InputError: as in `probe_video`; also while iterating, when the file turns out to be cut off.
    """

    def __init__(self, path: str | os.PathLike[str], limits: MediaLimits | None = None):
        self.path = Path(path)
        self.info: VideoInfo
        self._limits = limits or MediaLimits()
        self._opened = ExitStack()
        self._image: np.ndarray | None = None
        self._origin = 0

    def __enter__(self) -> VideoReader:
        check_readable(self.path)
        self._image = _read_image(self.path, self._limits)
        if self._image is not None:
            self.info = _image_info(self.path, self._image)
        else:
            with open_media(self.path) as container:
                self._probe(container)
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def __iter__(self) -> Iterator[Frame]:
        if self._image is not None:
            raw = av.VideoFrame.from_ndarray(self._image, format="rgb24")
            yield Frame(0, 0.0, self._image, raw, 0, float(1 / IMAGE_FPS))
            return
        previous = -1.0
        for index, raw in enumerate(self.raw_frames()):
            # Broken files repeat time stamps; everything after us counts on time going forward.
            time = max(self.frame_time(raw, index), previous + float(self.info.time_base) if index else 0.0)
            self._check_time(time)
            previous = time
            yield Frame(index, time, self.to_rgb(raw), raw, index, self.frame_duration(raw))

    def raw_frames(self, from_pts: int | None = None) -> Iterator[av.VideoFrame]:
        """Decode frames in the order of display, not converted.

        Args:
            from_pts: start at the last key frame at or before this time stamp; None: at the first frame.
        """
        self._opened.close()
        container = self._opened.enter_context(open_media(self.path))
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        if from_pts is not None:
            container.seek(from_pts, stream=stream)
        frame = None
        for frame in decoded(container, stream):
            if (frame.width, frame.height) != (stream.width, stream.height):
                frame = frame.reformat(stream.width, stream.height)
            yield frame
        self._check_end(stream, frame)

    def frame_time(self, raw: av.VideoFrame, index: int) -> float:
        """Seconds from the first frame. `index` is used when the file stores no time stamps."""
        if raw.pts is None:
            return float(index / self.info.fps)
        return float((raw.pts - self._origin) * self.info.time_base)

    def frame_duration(self, raw: av.VideoFrame) -> float:
        """Seconds for which the frame is shown."""
        return float(raw.duration * self.info.time_base) if raw.duration else float(1 / self.info.fps)

    def to_rgb(self, raw: av.VideoFrame) -> np.ndarray:
        """Convert a decoded frame to an upright uint8 RGB image (H, W, 3)."""
        image = raw.to_ndarray(
            format="rgb24",
            src_colorspace=_SWS_MATRIX.get(yuv_matrix(raw), Colorspace.ITU709),
            src_color_range=ColorRange.JPEG if is_full_range(raw) else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
        )
        return to_display(image, self.info.rotation, self.info.mirrored)

    def _probe(self, container: InputContainer) -> None:
        stream = video_stream(container)
        if stream is None:
            raise InputError(f"The file {self.path} has no video stream; give a video or a portrait image.")
        _check_size(self.path, stream.width, stream.height, self._limits)
        first = next(decoded(container, stream), None)
        if first is None:
            raise InputError(f"No picture of {self.path} can be decoded; export the video again.")
        self._origin = first.pts or 0
        self.info = _video_info(self.path, container, stream, first)
        self._check_time(self.info.duration or 0.0)

    def _check_time(self, seconds: float) -> None:
        if seconds > self._limits.max_duration_s:
            raise InputError(
                f"The video {self.path} is longer than {self._limits.max_duration_s:g} s; give a shorter one."
            )

    def _check_end(self, stream: VideoStream, last: av.VideoFrame | None) -> None:
        """Notice a Matroska file that broke off: its header says how long the stream should be."""
        promised = stream.metadata.get("DURATION")
        if not promised or last is None or last.pts is None:
            return
        hours, minutes, seconds = promised.split(":")
        end = 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        if float(last.pts * stream.time_base) + self.frame_duration(last) < end - 1.0:
            raise InputError(cut_off(self.path))


def to_display(image: np.ndarray, rotation: int, mirrored: bool) -> np.ndarray:
    """Turn a picture (H, W, ...) as stored into the upright one that a player shows."""
    image = np.rot90(image, rotation // 90)
    return np.ascontiguousarray(image[:, ::-1] if mirrored else image)


def is_full_range(raw: av.VideoFrame) -> bool:
    """True if luma 0 is black and the greatest value is white, False for the usual 16 to 235."""
    return raw.color_range == _FULL or raw.format.name.startswith("yuvj")


def yuv_matrix(raw: av.VideoFrame) -> int:
    """The matrix between RGB and YUV of a frame (H.273 number); untagged video: by size, as players do."""
    if raw.colorspace in _SWS_MATRIX:
        return raw.colorspace
    return _BT709 if min(raw.width, raw.height) >= 720 else _SMPTE170M


def _read_image(path: Path, limits: MediaLimits) -> np.ndarray | None:
    """A still image as upright uint8 RGB (H, W, 3), or None if the file is something else."""
    try:
        with Image.open(path, formats=("JPEG", "PNG", "WEBP", "BMP", "TIFF")) as image:
            if getattr(image, "n_frames", 1) > 1:
                return None
            _check_size(path, image.width, image.height, limits)
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError:
        return None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"The image {path} is damaged or cut off; save it again.") from error


def _image_info(path: Path, image: np.ndarray) -> VideoInfo:
    return VideoInfo(
        path=path,
        width=image.shape[1],
        height=image.shape[0],
        rotation=0,
        mirrored=False,
        fps=IMAGE_FPS,
        time_base=_IMAGE_TIME_BASE,
        duration=None,
        frame_count=1,
        pix_fmt="rgb24",
        colour=Colour(_LIMITED, _BT709, _BT709, _BT709),
        sample_aspect_ratio=Fraction(1),
        has_audio=False,
        is_image=True,
    )


def _video_info(
    path: Path, container: InputContainer, stream: VideoStream, first: av.VideoFrame
) -> VideoInfo:
    fps = stream.average_rate or stream.guessed_rate or IMAGE_FPS
    duration = _duration(container, stream)
    rotation, mirrored = _orientation(first)
    width, height = (stream.height, stream.width) if rotation in (90, 270) else (stream.width, stream.height)
    return VideoInfo(
        path=path,
        width=width,
        height=height,
        rotation=rotation,
        mirrored=mirrored,
        fps=Fraction(fps),
        time_base=Fraction(stream.time_base),
        duration=duration,
        frame_count=stream.frames or (round(duration * fps) if duration else None),
        pix_fmt=first.format.name,
        colour=Colour(first.color_range, first.colorspace, first.color_primaries, first.color_trc),
        sample_aspect_ratio=stream.sample_aspect_ratio or Fraction(1),
        has_audio=bool(container.streams.audio),
        is_image=False,
    )


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return max(container.duration / av.time_base - float(start_time(container)), 0.0)
    return None


def _orientation(first: av.VideoFrame) -> tuple[int, bool]:
    """Rotation (degrees counter-clockwise, a multiple of 90) and left-right flip of the display matrix."""
    try:
        matrix = first.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV gives up on the whole list when it holds a kind of side data that it does not know.
        return round(first.rotation / 90) * 90 % 360, False
    if matrix is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    mirrored = a * d - b * c < 0
    turn = math.atan2(-b, -a if mirrored else a)
    return round(math.degrees(turn) / 90) * 90 % 360, mirrored


def _check_size(path: Path, width: int, height: int, limits: MediaLimits) -> None:
    if width * height > limits.max_pixels:
        raise InputError(
            f"The picture of {path} is too large ({width}x{height}); at most {limits.max_pixels} pixels work."
        )
