"""Video files in and out, frame by frame: times, rotation, colour tags and sound are kept."""

from __future__ import annotations

import itertools
import math
import os
from array import array
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from PIL import Image, ImageOps, UnidentifiedImageError

from utils.helpers import InputError, atomic_path
from utils.media import (
    audio_stream,
    check_readable,
    cut_off,
    decoded,
    open_media,
    stream_duration,
    video_stream,
)
from utils.planes import blend, copy_frame
from utils.sound_track import SoundTrack

IMAGE_FPS = Fraction(25)
"""Frame rate of a video made from a still image."""

_MP4_LIKE = (".mp4", ".m4v", ".mov")
_ENCODER_OPTIONS = {
    "libx264": {"preset": "veryfast"},
    "libvpx-vp9": {"b": "0", "deadline": "good", "cpu-used": "5", "row-mt": "1"},
    # FFV1 does not know where chroma lies; "left" is what H.264 and its like mean when they say nothing.
    "ffv1": {"level": "3", "chroma_sample_location": "left"},
}
# VP9 counts quality from 0 to 63, H.264 from 0 to 51.
_CRF_SHIFT = {"libx264": 0, "libvpx-vp9": 8}
# A frame that starts this close (s) to the end of the speech is not worth showing.
_TIME_TOLERANCE = 1e-3
# Seconds that may be missing from the promised length before a file counts as cut off.
_CUT_OFF_S = 1.0
# Decoded frames held while playing backwards.
_BACKWARD_BYTES = 128 * 2**20
_BYTES_PER_PIXEL = 3
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

# Without these flags FFmpeg's conversion to RGB comes out about 1.3 levels too dark: a seam around patches.
_ACCURATE = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND


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


@dataclass(frozen=True)
class Patch:
    """A picture to mix into a frame.

    Attributes:
        x: column of its left edge in the upright frame, pixels; it may reach over the frame's edges.
        y: row of its upper edge, pixels.
        image: uint8 RGB (h, w, 3).
        alpha: float32 (h, w) in [0, 1]; nothing changes where it is 0.
    """

    x: int
    y: int
    image: np.ndarray
    alpha: np.ndarray


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
        # One converter for all frames: each frame's own would keep tables and threads alive as long as the frame.
        self._converter = VideoReformatter()

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

    def between(self, start: float, stop: float) -> Iterator[Frame]:
        """The frames whose time lies from `start` up to, not including, `stop` seconds; a still image has time 0.

        Decoding begins at the key frame before, so a part far into a long video is soon there.
        """
        if self._image is not None or start <= 0:
            yield from itertools.takewhile(lambda frame: frame.time < stop, self)
            return
        from_pts = self._origin + int(start / self.info.time_base)
        for index, raw in enumerate(self.raw_frames(from_pts)):
            time = self.frame_time(raw, index)
            if time >= stop:
                return
            if time >= start:
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
        # Matroska tells each stream's length; MP4 and MOV were checked when they were opened.
        if "DURATION" in stream.metadata and frame is not None and frame.pts is not None:
            end = self.frame_time(frame, 0) + self.frame_duration(frame)
            if end < stream_duration(container, stream) - _CUT_OFF_S:
                raise InputError(cut_off(self.path))

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
        image = self._converter.reformat(
            raw,
            format="rgb24",
            interpolation=_ACCURATE,
            src_colorspace=_SWS_MATRIX.get(yuv_matrix(raw), Colorspace.ITU709),
            src_color_range=ColorRange.JPEG if is_full_range(raw) else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        return to_display(image.to_ndarray(), self.info.rotation, self.info.mirrored)

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


class VideoWriter:
    """Writes frames to a video file with their times, rotation, colour tags and one sound track.

    Use as a context manager. The file appears under its name only when the block ends without an exception;
    otherwise nothing is left behind. The display matrix of the source is written again, so a rotated phone
    video stays stored as it was. Containers by suffix: .mp4, .m4v, .mov, .mkv (H.264 and the copied sound,
    else AAC) and .webm (VP9 and Opus, 8 bits).

    Args:
        path: the file to write; missing folders are made.
        info: of the video that the frames come from.
        codec: "h264" (VP9 in WebM) or "ffv1" (lossless, only .mkv): every pixel that no patch touches is then
            decoded exactly as in the source, if its pixel format is planar YUV of 8 or 10 bits.
        crf: quality of the lossy codecs, smaller is better; 16 is hard to tell from the source.
        audio_from: file whose first sound stream goes into the output; None: silent.
        audio_duration: seconds after which the sound is cut; None: to its end.
        tags: metadata of the whole file, by a name that every container knows: title, artist, comment, ...

    Raises:
        InputError: unknown suffix or codec, a container that cannot hold the codec, a folder that cannot be
            written, sound that cannot be read, or no frame at all.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        info: VideoInfo,
        codec: str = "h264",
        crf: int = 16,
        audio_from: str | os.PathLike[str] | None = None,
        audio_duration: float | None = None,
        tags: Mapping[str, str] | None = None,
    ):
        self.path = Path(path)
        self._info = info
        self._encoder = _encoder_name(self.path.suffix.lower(), codec)
        self._crf = crf
        self._audio_from = audio_from
        self._audio_duration = audio_duration
        self._tags = dict(tags or {})
        self._opened = ExitStack()
        self._pix_fmt = _writable_format(info, self._encoder)
        self._last_pts = -1

    def __enter__(self) -> VideoWriter:
        suffix = self.path.suffix.lower()
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path.absolute()))
            options = {"movflags": "faststart"} if suffix in _MP4_LIKE else {}
            self._output = stack.enter_context(av.open(str(temporary), "w", options=options))
            self._output.metadata.update(self._tags)
            self._stream = self._add_stream()
            self._sound = None
            if self._audio_from is not None:
                source = Path(self._audio_from)
                self._sound = SoundTrack(self._output, source, suffix, self._audio_duration)
                stack.callback(self._sound.close)
            stack.push(self._finish)
            self._opened = stack.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._opened.__exit__(kind, error, trace)

    def write(self, frame: Frame, patch: Patch | None = None) -> av.VideoFrame:
        """Append a frame; returns its picture as it is encoded, for reading only.

        Args:
            frame: from `VideoReader` or `fitted_frames`; its time must be after that of the one before.
            patch: what to mix into it; None leaves every pixel as it is.
        """
        raw = self._planar(frame.raw)
        if patch is not None:
            _apply(raw, patch, self._info, self._colour(frame.raw))
        time_base = self._info.time_base
        # Two frames on one tick would make the file invalid.
        raw.pts = max(round(Fraction(frame.time) / time_base), self._last_pts + 1)
        raw.time_base = time_base
        raw.duration = max(1, round(Fraction(frame.duration) / time_base))
        self._last_pts = raw.pts
        self._output.mux(self._stream.encode(raw))
        if self._sound is not None:
            self._sound.write_until(frame.time)
        return raw

    def _add_stream(self) -> VideoStream:
        info, tags = self._info, _output_colour(self._info)
        options = dict(_ENCODER_OPTIONS[self._encoder])
        if self._encoder != "ffv1":
            options["crf"] = str(self._crf + _CRF_SHIFT[self._encoder])
        stream = self._output.add_stream(self._encoder, rate=info.fps, options=options)
        context = stream.codec_context
        turned = info.rotation in (90, 270)
        context.width, context.height = (info.height, info.width) if turned else (info.width, info.height)
        context.pix_fmt = self._pix_fmt
        context.time_base = info.time_base
        context.sample_aspect_ratio = info.sample_aspect_ratio
        context.color_range, context.colorspace = tags.range, tags.matrix
        context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        context.thread_count = 0
        if info.rotation or info.mirrored:
            stream.set_display_rotation(info.rotation, hflip=info.mirrored)
        return stream

    def _colour(self, raw: av.VideoFrame) -> tuple[int, bool]:
        """YUV matrix (H.273 number) and full range or not, of the frame as it is written."""
        if raw.format.is_rgb:
            return _BT709, False
        return yuv_matrix(raw), is_full_range(raw)

    def _planar(self, raw: av.VideoFrame) -> av.VideoFrame:
        """A copy of the frame in the format that is written."""
        if raw.format.name.replace("yuvj", "yuv") != self._pix_fmt:
            matrix, full = self._colour(raw)
            same = ColorRange.JPEG if full else ColorRange.MPEG
            source = ColorRange.JPEG if raw.format.is_rgb else same
            space = _SWS_MATRIX[matrix]
            raw = raw.reformat(
                format=self._pix_fmt,
                interpolation=_ACCURATE,
                src_colorspace=space,
                dst_colorspace=space,
                src_color_range=source,
                dst_color_range=same,
            )
        copy = copy_frame(raw, self._pix_fmt)
        tags = _output_colour(self._info)
        copy.color_range, copy.colorspace = tags.range, tags.matrix
        copy.color_primaries, copy.color_trc = tags.primaries, tags.transfer
        return copy

    def _finish(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Flush the encoder and the rest of the sound, unless the block failed."""
        if kind is not None:
            return
        if self._last_pts < 0:
            raise InputError(f"There is no frame to write into {self.path}; give a longer video or speech.")
        self._output.mux(self._stream.encode(None))
        if self._sound is not None:
            self._sound.write_until(math.inf)


def fitted_frames(
    path: str | os.PathLike[str],
    duration: float | None = None,
    fit: str = "bounce",
    rest: str = "keep",
    limits: MediaLimits | None = None,
) -> Iterator[Frame]:
    """Play a video for as long as the speech lasts.

    Times go forward in the video's own frame intervals, without a jump where it turns or starts again. A
    still image is shown at 25 frames per second. Memory is bounded, also while playing backwards.

    Args:
        path: a video or still image.
        duration: seconds of speech; None: the video as it is.
        fit: when the speech is longer: "bounce" (back and forth, the turning frame is not repeated), "loop",
            "freeze" (the last frame stays) or "cut" (end with the video; give the writer `audio_duration`).
        rest: when the speech is shorter: "keep" passes the remaining frames (silent after the speech ends),
            "cut" ends with the speech.
        limits: what is too big; None for the defaults.

    Raises:
        InputError: as `VideoReader`, or an unknown word for `fit` or `rest`.
    """
    if fit not in (*_CONTINUATIONS, "cut"):
        raise InputError(f"Unknown fit '{fit}'; use bounce, loop, freeze or cut.")
    if rest not in ("keep", "cut"):
        raise InputError(f"Unknown rest '{rest}'; use keep or cut.")
    end = math.inf if duration is None else duration - _TIME_TOLERANCE
    with VideoReader(path, limits) as reader:
        shown = _Shown()
        for frame in reader:
            if rest == "cut" and frame.time >= end:
                return
            shown.add(frame)
            yield frame
        if duration is None or not shown.times or (fit == "cut" and not reader.info.is_image):
            return
        continuation = _CONTINUATIONS["freeze" if len(shown.times) == 1 else fit]
        for index, frame in enumerate(continuation(reader, shown), start=len(shown.times)):
            if frame.time >= end:
                return
            yield replace(frame, index=index)


class _Shown:
    """What must be kept of the first pass to play the video again: some bytes a frame, and the last one."""

    def __init__(self) -> None:
        self.times = array("d")
        self.pts = array("q")
        self.is_key = bytearray()
        self.has_pts = True
        self.last: Frame

    def add(self, frame: Frame) -> None:
        self.times.append(frame.time)
        self.has_pts &= frame.raw.pts is not None
        self.pts.append(frame.raw.pts or 0)
        self.is_key.append(bool(frame.raw.key_frame))
        self.last = frame


def _freeze(reader: VideoReader, shown: _Shown) -> Iterator[Frame]:
    interval = 1 / reader.info.fps
    for count in itertools.count(1):
        yield replace(shown.last, time=shown.last.time + float(count * interval), duration=float(interval))


def _loop(reader: VideoReader, shown: _Shown) -> Iterator[Frame]:
    start = length = shown.last.time + shown.last.duration
    while True:
        for frame in reader:
            yield replace(frame, time=start + frame.time)
        start += length


def _bounce(reader: VideoReader, shown: _Shown) -> Iterator[Frame]:
    start = length = shown.last.time
    while True:
        for frame in _backwards(reader, shown):
            yield replace(frame, time=start + length - frame.time)
        start += length
        for frame in itertools.islice(reader, 1, None):
            yield replace(frame, time=start + frame.time)
        start += length


_CONTINUATIONS = {"bounce": _bounce, "loop": _loop, "freeze": _freeze}


def _backwards(reader: VideoReader, shown: _Shown) -> Iterator[Frame]:
    """Frames from the last but one to the first, with their times in the file."""
    info = reader.info
    limit = max(2, _BACKWARD_BYTES // (info.width * info.height * _BYTES_PER_PIXEL))
    high = len(shown.times) - 1
    while high > 0:
        low = high - 1
        # Up to a key frame if it is near: what lies before it need not be decoded for this piece.
        while low > 0 and high - low < limit and not shown.is_key[low]:
            low -= 1
        for position, raw in reversed(_piece(reader, shown, low, high)):
            yield Frame(position, shown.times[position], reader.to_rgb(raw), raw, position, 1 / info.fps)
        high = low


def _piece(reader: VideoReader, shown: _Shown, low: int, high: int) -> list[tuple[int, av.VideoFrame]]:
    """Decode the frames low <= position < high."""
    if shown.has_pts:
        wanted = {shown.pts[position]: position for position in range(low, high)}
        piece = []
        for raw in reader.raw_frames(from_pts=shown.pts[low]):
            if raw.pts in wanted:
                piece.append((wanted[raw.pts], raw))
            if raw.pts >= shown.pts[high - 1]:
                break
        if len(piece) == high - low:
            return piece
    # No time stamps, or a file whose index leads astray: count from the start.
    return list(itertools.islice(enumerate(reader.raw_frames()), low, high))


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
    duration = stream_duration(container, stream)
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
        has_audio=audio_stream(container) is not None,
        is_image=False,
    )


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


def _encoder_name(suffix: str, codec: str) -> str:
    if suffix not in (*_MP4_LIKE, ".mkv", ".webm"):
        raise InputError(f"Cannot write '{suffix}' files; use .mp4, .mov, .mkv or .webm for the output.")
    if codec == "ffv1":
        if suffix != ".mkv":
            raise InputError(f"Lossless video (ffv1) does not fit into '{suffix}'; name the output .mkv.")
        return "ffv1"
    if codec != "h264":
        raise InputError(f"Unknown codec '{codec}'; use h264 or ffv1.")
    return "libvpx-vp9" if suffix == ".webm" else "libx264"


def _writable_format(info: VideoInfo, encoder: str) -> str:
    """The planar YUV format nearest to the source's that the encoder takes at this size."""
    stored = av.VideoFormat(info.pix_fmt, info.width * 8, info.height * 8)
    depth = "10le" if max(part.bits for part in stored.components) > 8 and encoder != "libvpx-vp9" else ""
    sampling = "444"
    if info.is_image or len(stored.components) < 3:
        sampling = "420"
    elif not stored.is_rgb:
        chroma = stored.components[1]
        shrunk = (stored.width // chroma.width, stored.height // chroma.height)
        sampling = {(2, 2): "420", (2, 1): "422"}.get(shrunk, "444")
    # x264 refuses odd sizes with shared chroma; the size matters more than the format.
    if encoder == "libx264" and (info.width % 2 or info.height % 2):
        sampling = "444"
    return f"yuv{sampling}p{depth}"


def _output_colour(info: VideoInfo) -> Colour:
    if av.VideoFormat(info.pix_fmt).is_rgb:
        return Colour(_LIMITED, _BT709, _BT709, _BT709)
    if info.pix_fmt.startswith("yuvj"):
        return replace(info.colour, range=_FULL)
    return info.colour


def _apply(frame: av.VideoFrame, patch: Patch, info: VideoInfo, colour: tuple[int, bool]) -> None:
    """Clip the patch to the frame, turn it as the frame is stored, and blend it in."""
    x0, y0 = max(patch.x, 0), max(patch.y, 0)
    x1 = min(patch.x + patch.alpha.shape[1], info.width)
    y1 = min(patch.y + patch.alpha.shape[0], info.height)
    if x0 >= x1 or y0 >= y1:
        return
    inside = np.s_[y0 - patch.y : y1 - patch.y, x0 - patch.x : x1 - patch.x]
    image, alpha = patch.image[inside], patch.alpha[inside]
    if info.mirrored:
        image, alpha, x0, x1 = image[:, ::-1], alpha[:, ::-1], info.width - x1, info.width - x0
    turns = info.rotation // 90
    image, alpha = np.rot90(image, -turns), np.rot90(alpha, -turns)
    corner = {
        0: (x0, y0),
        1: (info.height - y1, x0),
        2: (info.width - x1, info.height - y1),
        3: (y0, info.width - x1),
    }[turns]
    blend(frame, corner, image, alpha, *colour)
