"""Video files in, frame by frame: upright, deinterlaced, with their times and colours."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from utils.helpers import InputError
from utils.media import (
    MediaLimits,
    audio_stream,
    check_readable,
    cut_off,
    decoded,
    open_media,
    stream_duration,
    video_stream,
)
from utils.pictures import ArrayPicture
from video.colour import ACCURATE, SWS_MATRIX, check_colour, is_full_range, yuv_matrix
from video.fields import deinterlaced
from video.picture import DecodedPicture
from video.sidedata import has_dolby_vision, light_levels, orientation
from video.size import Size, resized
from video.stills import IMAGE_FPS, check_size, image_info, read_image
from video.tone import to_ordinary
from video.transparency import Backdrop, has_alpha, over
from video.types import Colour, Frame, VideoInfo

# Seconds that may be missing from the promised length before a file counts as cut off.
_CUT_OFF_S = 1.0
# Rates that files are meant to have; those that count time in whole milliseconds tell them only roughly.
_NOMINAL_RATES = tuple(
    Fraction(rate) for rate in (10, 12, "12.5", 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)
) + tuple(Fraction(rate * 1000, 1001) for rate in (12, 15, 24, 30, 48, 60, 120, 240))
_RATE_TOLERANCE = 1e-4
_WITHOUT_TIMES = 500  # frames at a file's start that may have no times before nothing is believed of them
_LEAST_RATE, _GREATEST_RATE = Fraction(1, 1000), Fraction(1000)
# Interlaced pictures are at most so high, and say so within the first frames.
_INTERLACED_HEIGHT, _INTERLACED_FRAMES = 1152, 5
_PROGRESSIVE = 1  # FFmpeg's AV_FIELD_PROGRESSIVE
_DOLBY_VISION_ONLY = ("dvh1", "dvhe", "dva1", "dvav")


def probe_video(
    path: str | os.PathLike[str], limits: MediaLimits | None = None, size: Size | None = None
) -> VideoInfo:
    """Find out what a video or image file holds, by decoding its first frame.

    Args:
        path: a video, or a still image (JPEG, PNG, WebP, BMP, TIFF, AVIF).
        limits: what is too big; None for the defaults.
        size: see `VideoReader`.

    Raises:
        InputError: missing, empty, not a media file, cut off, without a video stream, too big or too long, or
            with colours that cannot be kept.
    """
    with VideoReader(path, limits, size=size) as reader:
        return reader.info


class VideoReader:
    """Reads the frames of a video one by one; a still image has one frame.

    Use as a context manager. Iterating again starts over and ends the iteration before. Memory does not grow
    with the length of the video.

    Args:
        path: a video or still image.
        limits: what is too big; None for the defaults.
        backdrop: what stands behind a picture that can be seen through; raw frames come without it. None: white.
        size: the size to which pictures are brought; None: they stay as they are.

    Attributes:
        info: what `probe_video` returns.

    Raises:
        InputError: as in `probe_video`; also while iterating, when the file turns out to be cut off.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        limits: MediaLimits | None = None,
        backdrop: Backdrop | None = None,
        size: Size | None = None,
    ):
        self.path = Path(path)
        self.info: VideoInfo
        self._limits = limits or MediaLimits()
        self._backdrop = backdrop or Backdrop()
        self._size = size or Size()
        self._opened = ExitStack()
        self._image: np.ndarray | None = None
        self._origin: int | None = 0  # time stamp of the first frame, ticks
        self._rounded = False
        self._form = (0, 0, "")
        # The same for all frames: each frame's own would keep tables and threads alive as long as the frame.
        self._converters = VideoReformatter(), VideoReformatter(), VideoReformatter()

    def __enter__(self) -> VideoReader:
        check_readable(self.path)
        image = read_image(self.path, self._limits)
        if image is not None:
            self.info = self._sized(image_info(self.path, image))
            raw = av.VideoFrame.from_ndarray(image, format=self.info.pix_fmt)
            self._image = next(self._resized(iter([raw]))).to_ndarray()
        else:
            with open_media(self.path, self._limits) as container:
                self._probe(container)
            self.info = self._sized(self.info)
            if self._origin is None:
                self._origin = self._told_later()
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def __iter__(self) -> Iterator[Frame]:
        if self._image is not None:
            raw = av.VideoFrame.from_ndarray(self._image, format=self.info.pix_fmt)
            shown = over(self._image, self._backdrop) if self.info.transparent else self._image
            yield Frame(0, 0.0, ArrayPicture(shown), raw, 0, float(1 / IMAGE_FPS))
            return
        previous = -1.0
        for index, raw in enumerate(self.raw_frames()):
            # Broken files repeat time stamps; everything after us counts on time going forward.
            time = max(self.frame_time(raw, index), previous + float(self.info.time_base) if index else 0.0)
            if raw.pts is None and index:
                time = previous + float(1 / self.info.fps)
            self._check_time(time)
            previous = time
            yield Frame(index, time, self.picture(raw), raw, index, self.frame_duration(raw))

    def between(self, start: float, stop: float) -> Iterator[Frame]:
        """The frames whose time lies from `start` up to, not including, `stop` seconds; a still image has time 0.

        Decoding begins at the key frame before, so a part far into a long video is soon there.
        """
        for frame in itertools.takewhile(lambda frame: frame.time < stop, self.since(start)):
            if frame.time >= start or self._image is not None:
                yield frame

    def since(self, start: float) -> Iterator[Frame]:
        """All frames from the key frame at or before `start` seconds on; a still image has one."""
        if self._image is not None or start <= 0:
            yield from self
            return
        for index, raw in enumerate(self.raw_frames(self.pts_at(start))):
            time = self.frame_time(raw, index)
            self._check_time(time)
            yield Frame(index, time, self.picture(raw), raw, index, self.frame_duration(raw))

    def key_times(self, times: Sequence[float]) -> list[float]:
        """At which time, in seconds, `since` begins for each of these times; 0 where the file does not tell.

        Nothing is decoded.
        """
        found = []
        with open_media(self.path, self._limits) as container:
            stream = video_stream(container)
            for time in times:
                packet = None
                with contextlib.suppress(av.FFmpegError, OverflowError):
                    container.seek(self.pts_at(time), stream=stream)
                    packet = next(container.demux(stream), None)
                told = packet is not None and packet.pts is not None
                found.append(float((packet.pts - self._origin) * self.info.time_base) if told else 0.0)
        return found

    def pts_at(self, seconds: float) -> int:
        """The time stamp at a time, ticks."""
        return self._origin + int(seconds / self.info.time_base)

    def raw_frames(self, from_pts: int | None = None) -> Iterator[av.VideoFrame]:
        """Decode frames in the order of display, not converted.

        Args:
            from_pts: start at the last key frame at or before this time stamp; None: at the first frame.
        """
        self._opened.close()
        container = self._opened.enter_context(open_media(self.path, self._limits))
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        if from_pts is not None:
            # Where the file cannot do that, decoding goes on from its start.
            with contextlib.suppress(av.FFmpegError, OverflowError):
                container.seek(from_pts, stream=stream)
        frames = _all_like(decoded(container, stream), self._form)
        frame = None
        for frame in self._resized(deinterlaced(frames) if self.info.interlaced else frames):
            yield frame
        # Matroska tells each stream's length; MP4 and MOV were checked when they were opened.
        if "DURATION" in stream.metadata and frame is not None and frame.pts is not None:
            end = self.frame_time(frame, 0) + self.frame_duration(frame)
            if end < stream_duration(container, stream) - _CUT_OFF_S:
                raise InputError(cut_off(self.path))

    def frame_time(self, raw: av.VideoFrame, index: int) -> float:
        """Seconds from the first frame. `index` is used when the file stores no time stamps.

        A stamp that was rounded to a tick in which the frame rate cannot be told (Matroska: 1 ms) is put right.
        """
        if raw.pts is None:
            return float(index / self.info.fps)
        time = (raw.pts - self._origin) * self.info.time_base
        if self._rounded:
            exact = round(time * self.info.fps) / self.info.fps
            time = exact if abs(exact - time) <= self.info.time_base else time
        return float(time)

    def frame_duration(self, raw: av.VideoFrame) -> float:
        """Seconds for which the frame is shown."""
        time = (raw.duration or 0) * self.info.time_base
        whole = 1 / self.info.fps
        return float(time if time > 0 and abs(time - whole) > self.info.time_base else whole)

    def picture(self, raw: av.VideoFrame) -> DecodedPicture:
        """The upright picture of a decoded frame."""
        rotation, mirrored = self.info.rotation, self.info.mirrored
        turned = (lambda image: to_display(image, rotation, mirrored)) if rotation or mirrored else None
        convert = partial(
            _to_rgb, matrix=yuv_matrix(raw), transfer=self.info.colour.transfer, backdrop=self._backdrop
        )
        return DecodedPicture(raw, convert, self._converters, turned)

    def _probe(self, container: InputContainer) -> None:
        stream = video_stream(container)
        if stream is None:
            raise InputError(f"The file {self.path} has no video stream; give a video or a portrait image.")
        check_size(self.path, stream.width, stream.height, self._limits)
        if stream.codec_context.codec_tag.lower() in _DOLBY_VISION_ONLY:
            raise InputError(_dolby_vision(self.path))
        frames = decoded(container, stream)
        first = next(frames, None)
        if first is None:
            raise InputError(f"No picture of {self.path} can be decoded; export the video again.")
        check_size(self.path, first.width, first.height, self._limits)
        self._origin = first.pts
        self._form = (first.width, first.height, first.format.name)
        interlaced = _is_interlaced(stream, itertools.chain([first], frames))
        self.info = _video_info(self.path, container, stream, first, interlaced)
        check_colour(self.info)
        if self.info.dolby_vision and not self.info.is_hdr and self.info.bits > 8:
            raise InputError(_dolby_vision(self.path))
        ticks = 1 / self.info.fps / self.info.time_base
        self._rounded = self.info.fps in _NOMINAL_RATES and ticks.denominator > 1
        self._check_time(self.info.duration or 0.0)

    def _told_later(self) -> int:
        """The time stamp of a first frame that has none, from the first frame that has one."""
        for index, raw in enumerate(itertools.islice(self.raw_frames(), _WITHOUT_TIMES)):
            if raw.pts is not None:
                return raw.pts - round(index / self.info.fps / self.info.time_base)
        return 0

    def _sized(self, info: VideoInfo) -> VideoInfo:
        """What is known of the video, with the size to which its pictures are brought."""
        width, height = self._size.of(info.width, info.height, info.is_image)
        if (width, height) == (info.width, info.height):
            return info
        check_size(self.path, width, height, self._limits)
        return replace(info, width=width, height=height, full_size=(info.width, info.height))

    def _resized(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """The frames in the size that they get, as stored."""
        if self.info.full_size is None:
            return frames
        turned = self.info.rotation in (90, 270)
        return resized(frames, *(self.info.width, self.info.height)[:: -1 if turned else 1])

    def _check_time(self, seconds: float) -> None:
        if seconds > self._limits.max_duration_s:
            raise InputError(
                f"The video {self.path} is longer than {self._limits.max_duration_s:g} s; give a shorter one."
            )


def to_display(image: np.ndarray, rotation: int, mirrored: bool) -> np.ndarray:
    """Turn a picture (H, W, ...) as stored into the upright one that a player shows."""
    image = np.rot90(image, rotation // 90)
    return np.ascontiguousarray(image[:, ::-1] if mirrored else image)


def _video_info(
    path: Path, container: InputContainer, stream: VideoStream, first: av.VideoFrame, interlaced: bool
) -> VideoInfo:
    fps = _frame_rate(stream)
    duration = stream_duration(container, stream)
    rotation, mirrored = orientation(first)
    width, height = (first.height, first.width) if rotation in (90, 270) else (first.width, first.height)
    return VideoInfo(
        path=path,
        width=width,
        height=height,
        rotation=rotation,
        mirrored=mirrored,
        fps=fps,
        time_base=Fraction(stream.time_base),
        duration=duration,
        frame_count=stream.frames or (round(duration * fps) if duration else None),
        pix_fmt=first.format.name,
        colour=Colour(first.color_range, first.colorspace, first.color_primaries, first.color_trc),
        sample_aspect_ratio=_pixel_shape(stream),
        has_audio=audio_stream(container) is not None,
        is_image=False,
        interlaced=interlaced,
        dolby_vision=has_dolby_vision(first),
        light=light_levels(first),
        transparent=_is_transparent(first),
        bit_rate=_bit_rate(container, stream, duration),
        codec=stream.codec.canonical_name,
    )


def _bit_rate(container: InputContainer, stream: VideoStream, duration: float | None) -> int | None:
    """Of the pictures, bits per second; where the file does not say, what is left of it beside its sound."""
    if stream.bit_rate or not duration or not container.size:
        return stream.bit_rate or None
    # A sound that FFmpeg has no decoder for tells nothing of itself.
    others = sum(other.bit_rate or 0 for other in container.streams.audio if other.codec_context)
    whole = 8 * container.size / duration
    return round(max(whole - others, whole / 5))


def _frame_rate(stream: VideoStream) -> Fraction:
    """Frames per second: what the file says, or a rate that is meant by it."""
    told = [Fraction(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate]
    fps = next((rate for rate in told if _LEAST_RATE <= rate <= _GREATEST_RATE), IMAGE_FPS)
    nearest = min(_NOMINAL_RATES, key=lambda rate: abs(rate - fps))
    return nearest if abs(nearest / fps - 1) < _RATE_TOLERANCE else fps


def _is_interlaced(stream: VideoStream, frames: Iterator[av.VideoFrame]) -> bool:
    if stream.height > _INTERLACED_HEIGHT or stream.codec_context.field_order == _PROGRESSIVE:
        return next(frames).interlaced_frame
    return any(frame.interlaced_frame for frame in itertools.islice(frames, _INTERLACED_FRAMES))


def _to_rgb(
    raw: av.VideoFrame, converter: VideoReformatter, matrix: int, transfer: int, backdrop: Backdrop
) -> np.ndarray:
    """Convert a decoded frame, or a part of one, to uint8 RGB (H, W, 3), turned as stored, HDR as an ordinary picture.

    Args:
        raw: planes with their range; a part does not know how large the whole is, so the matrix is given.
        converter: what converts.
        matrix: H.273 number.
        transfer: H.273 number.
        backdrop: what stands behind it.
    """
    image = converter.reformat(
        raw,
        format="rgba" if has_alpha(raw.format) else "rgb24",
        interpolation=ACCURATE,
        src_colorspace=SWS_MATRIX.get(matrix, Colorspace.ITU709),
        src_color_range=ColorRange.JPEG if is_full_range(raw) else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        threads=1,
    )
    pixels = image.to_ndarray()
    return to_ordinary(over(pixels, backdrop) if pixels.shape[2] == 4 else pixels, transfer)


def _all_like(frames: Iterator[av.VideoFrame], form: tuple[int, int, str]) -> Iterator[av.VideoFrame]:
    """Brings frames of another width, height or pixel format (some recordings change on the way) to this one."""
    for frame in frames:
        if (frame.width, frame.height, frame.format.name) != form:
            frame = frame.reformat(*form)
        yield frame


def _dolby_vision(path: Path) -> str:
    return (
        f"The colours of {path} are Dolby Vision without a standard picture in it, which cannot be kept; "
        "export it as HDR10, HLG or SDR."
    )


def _is_transparent(first: av.VideoFrame) -> bool:
    """GIF and others always come with an opacity of each pixel, mostly full."""
    if not has_alpha(first.format):
        return False
    return bool(first.reformat(format="rgba").to_ndarray()[..., 3].min() < 255)


def _pixel_shape(stream: VideoStream) -> Fraction:
    shape = stream.sample_aspect_ratio or Fraction(1)
    return shape if Fraction(1, 20) <= shape <= 20 else Fraction(1)
