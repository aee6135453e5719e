"""Video files out: frames with their times, rotation, colour tags and one sound track."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from utils.helpers import InputError, atomic_path, available_cores
from utils.media import cut_off
from utils.pictures import Patch
from utils.planes import blend, copy_frame, cropped_frame, plane_arrays
from utils.sound_track import SoundTrack, fits
from video.colour import ACCURATE, BT709, SWS_MATRIX, is_full_range, is_rgb, output_colour, yuv_matrix
from video.encoders import (
    MP4_LIKE,
    encoder_options,
    encoding_for,
    time_base_for,
    what_changes,
    writable_format,
    written_size,
)
from video.extras import Extras
from video.priority import ordinary_threads
from video.tone import from_ordinary
from video.transparency import Backdrop, flattened, has_alpha, without_hidden
from video.types import Frame, VideoInfo

_LONGEST_WAIT_S = 600  # from decoding a frame until it is shown


class VideoWriter:
    """Writes frames to a video file with their times, rotation, colour tags and one sound track.

    Use as a context manager. The file appears under its name only when the block ends without an exception;
    otherwise nothing is left behind. The display matrix of the source is written again, so a rotated phone
    video stays stored as it was. Containers by suffix: .mp4, .m4v, .mov, .mkv (the copied sound, else AAC) and
    .webm (VP9 or AV1, and Opus).

    Args:
        path: the file to write; missing folders are made.
        info: of the video that the frames come from.
        codec: "auto" (H.264 for 8 bits, HEVC for more; in WebM VP9 and AV1; always 4:2:0, and even sizes in H.264 and
            HEVC, as phones and browsers want), "h264", "hevc" (the source's chroma and size), "prores" (.mov and .mkv)
            or "ffv1" (lossless, only .mkv): every pixel that no patch touches is then decoded exactly as in the
            source, if its pixel format is planar YUV of 8, 10 or 12 bits.
        crf: quality of the lossy codecs, smaller is better; 16 is hard to tell from the source. "auto": no more bits a
            second than the source needs.
        audio_from: file whose first sound stream goes into the output; None: silent.
        audio_duration: seconds after which the sound is cut; None: to its end.
        tags: metadata of the whole file, by a name that every container knows: title, artist, comment, ...
        fast: encode faster into a larger file of the same quality.
        backdrop: what stands behind a picture that can be seen through. None: it stays so where file and codec can
            hold that (VP9 in .webm, ProRes 4444 in .mov, FFV1), else white.
        copy_from: video whose title and the like, chapters, subtitles and timecode go into the output; a comment in
            `tags` is put below its own. None: nothing.

    Attributes:
        notes: sentences about what of the source is not, or not simply, kept.

    Raises:
        InputError: unknown suffix or codec, a container that cannot hold the codec or the video's pixels, a folder
            that cannot be written, sound that cannot be read, or no frame at all.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        info: VideoInfo,
        codec: str = "auto",
        crf: int | str = 16,
        audio_from: str | os.PathLike[str] | None = None,
        audio_duration: float | None = None,
        tags: Mapping[str, str] | None = None,
        fast: bool = False,
        backdrop: Backdrop | None = None,
        copy_from: str | os.PathLike[str] | None = None,
    ):
        self.path = Path(path)
        self._info = info
        self._encoding = encoding_for(self.path, codec, info, flat=backdrop is not None)
        self._backdrop = backdrop or Backdrop()
        self._crf = crf
        self._fast = fast
        self._audio_from = audio_from
        self._audio_duration = audio_duration
        self._tags = dict(tags or {})
        self._copy_from = copy_from
        self._extras: Extras | None = None
        self.notes = what_changes(info, self._encoding, self._backdrop.name)
        self._opened = ExitStack()
        self._pix_fmt = writable_format(info, self._encoding)
        self._size = written_size(info, self._encoding)
        self._converted: tuple[av.VideoFrame | None, av.VideoFrame | None] = None, None
        self._time_base = time_base_for(info)
        self._last_pts = -1

    def __enter__(self) -> VideoWriter:
        suffix = self.path.suffix.lower()
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path.absolute()))
            options = {"movflags": "faststart"} if suffix in MP4_LIKE else {}
            self._output = stack.enter_context(self._container(temporary, options))
            self._output.metadata.update(self._tags)
            self._stream = self._add_stream()
            self._sound = None
            if self._copy_from is not None:
                self._extras = Extras(self._output, self._stream, Path(self._copy_from), suffix, self._tags)
                stack.callback(self._extras.close)
                self.notes += self._extras.notes
            if self._audio_from is not None:
                source = Path(self._audio_from)
                self._sound = SoundTrack(self._output, source, suffix, self._audio_duration)
                stack.callback(self._sound.close)
                with self._blamed():
                    self._output.start_encoding()
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
        raw = self._finished(raw)
        time_base = self._time_base
        # Two frames on one tick would make the file invalid.
        raw.pts = max(round(Fraction(frame.time) / time_base), self._last_pts + 1)
        raw.time_base = time_base
        raw.duration = max(1, round(Fraction(frame.duration) / time_base))
        self._last_pts = raw.pts
        # Packets wait for those of the other stream, so both may fail in either.
        with self._blamed():
            self._output.mux(_timed(self._stream.encode(raw)))
            if self._sound is not None:
                self._sound.write_until(frame.time)
            if self._extras is not None:
                self._extras.write_until(frame.time)
        return raw

    @contextmanager
    def _container(self, path: Path, options: dict[str, str]) -> Iterator[OutputContainer]:
        container = av.open(str(path), "w", options=options)
        try:
            yield container
        except BaseException:
            # What is missing at its end does not matter any more.
            with suppress(av.FFmpegError):
                container.close()
            raise
        with self._blamed():
            container.close()

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """Say what it is that a container does not take: the sound, if it does not take that alone, else the picture.
        What the disk does not take is told apart by FFmpeg itself."""
        try:
            yield
        except (av.ArgumentError, av.InvalidDataError) as error:
            suffix = self.path.suffix.lower()
            if self._audio_from is not None and not fits(Path(self._audio_from), suffix, self._audio_duration):
                raise InputError(cut_off(self._audio_from)) from error
            raise InputError(
                f"The pictures cannot be written as {self._encoding.encoder} into {suffix} ({error.strerror}): convert "
                "the video first, or choose another codec or container."
            ) from error

    def _add_stream(self) -> VideoStream:
        info, tags = self._info, output_colour(self._info)
        encoder = self._encoding.encoder
        options = encoder_options(info, self._encoding, self._crf, self._fast)
        stream = self._output.add_stream(encoder, rate=info.fps, options=options)
        context = stream.codec_context
        context.width, context.height = self._size
        context.pix_fmt = self._pix_fmt
        context.time_base = self._time_base
        if encoder == "libx265" and self.path.suffix.lower() in MP4_LIKE:
            context.codec_tag = "hvc1"  # Apple's players take no other
        context.sample_aspect_ratio = info.sample_aspect_ratio
        context.color_range, context.colorspace = tags.range, tags.matrix
        context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        # All cores would only make each other wait: the other half is busy with making the frames.
        context.thread_count = max(1, available_cores() // 2)
        if info.rotation or info.mirrored:
            stream.set_display_rotation(info.rotation, hflip=info.mirrored)
        if encoder == "libsvtav1":
            with ordinary_threads():
                context.open()
        return stream

    def _colour(self, raw: av.VideoFrame) -> tuple[int, bool]:
        """YUV matrix (H.273 number) and full range or not, of the frame as it is written."""
        if is_rgb(raw.format):
            return BT709, False
        return yuv_matrix(raw), is_full_range(raw)

    def _planar(self, raw: av.VideoFrame) -> av.VideoFrame:
        """A copy of the frame in the format that is written; one that comes again is not converted again."""
        if raw is not self._converted[0]:
            self._converted = raw, self._reformatted(raw)
        return copy_frame(self._converted[1], self._pix_fmt)

    def _reformatted(self, raw: av.VideoFrame) -> av.VideoFrame:
        """The frame in the format that is written, before the backdrop where nothing may be seen through."""
        if has_alpha(raw.format):
            if not self._encoding.opacity:
                raw = flattened(raw, self._backdrop, *self._colour(raw), self._info.colour.transfer)
            elif is_rgb(raw.format):
                raw = av.VideoFrame.from_ndarray(without_hidden(raw.to_ndarray(format="rgba")), format="rgba")
        if raw.format.name.replace("yuvj", "yuv") != self._pix_fmt:
            matrix, full = self._colour(raw)
            same = ColorRange.JPEG if full else ColorRange.MPEG
            source = ColorRange.JPEG if is_rgb(raw.format) else same
            space = SWS_MATRIX[matrix]
            raw = raw.reformat(
                format=self._pix_fmt,
                interpolation=ACCURATE,
                src_colorspace=space,
                dst_colorspace=space,
                src_color_range=source,
                dst_color_range=same,
            )
        return raw

    def _finished(self, raw: av.VideoFrame) -> av.VideoFrame:
        """The frame in the size and with the tags that are written."""
        if (raw.width, raw.height) != self._size:
            raw = cropped_frame(raw, *self._size)
        tags = output_colour(self._info)
        raw.color_range, raw.colorspace = tags.range, tags.matrix
        raw.color_primaries, raw.color_trc = tags.primaries, tags.transfer
        return raw

    def _finish(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Flush the encoder and the rest of the sound, unless the block failed."""
        if kind is not None:
            return
        if self._last_pts < 0:
            raise InputError(f"There is no frame to write into {self.path}; give a longer video or speech.")
        with self._blamed():
            self._output.mux(_timed(self._stream.encode(None)))
            if self._sound is not None:
                self._sound.write_until(math.inf)


def _timed(packets: list[av.Packet]) -> list[av.Packet]:
    """The same, decoded at times that can be: of clips of one or two frames x265 leaves them to chance."""
    for packet in packets:
        if packet.dts is None or not 0 <= (packet.pts - packet.dts) * packet.time_base < _LONGEST_WAIT_S:
            packet.dts = packet.pts
    return packets


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
    *_, opacity = plane_arrays(frame)
    if has_alpha(frame.format):
        rows, columns = (slice(at, at + size) for at, size in zip(corner[::-1], alpha.shape, strict=True))
        alpha = alpha * (opacity[rows, columns] / np.float32(2 ** frame.format.components[3].bits - 1))
    blend(frame, corner, from_ordinary(image, info.colour.transfer), alpha, *colour)
