"""Small real videos, sounds and portraits for the tests, made of scikit-image's public-domain astronaut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
import skimage.data
import soundfile
from PIL import Image

from video.priority import ordinary_threads

BITS = 8
"""Frames made with `numbered=True` carry their number in so many black or white blocks, see `read_number`."""

_BLOCK = 8
_TICKS = 30000


@cache
def portrait() -> np.ndarray:
    """The portrait, uint8 RGB (512, 512, 3): the face is near x 170..290, y 60..190."""
    return skimage.data.astronaut()


def face_frame(time: float, size: tuple[int, int] = (320, 320)) -> np.ndarray:
    """The portrait's head, swaying and zooming a little.

    Args:
        time: seconds.
        size: width and height, pixels.

    Returns:
        uint8 RGB (height, width, 3).
    """
    width, height = size
    scale = min(size) / 320 * (1 + 0.03 * np.sin(2 * np.pi * 0.5 * time))
    shift_x, shift_y = 4 * np.sin(2 * np.pi * 0.4 * time), 3 * np.cos(2 * np.pi * 0.3 * time)
    matrix = np.array(
        [[scale, 0, width / 2 - scale * (225 + shift_x)], [0, scale, height / 2 - scale * (150 + shift_y)]]
    )
    return cv2.warpAffine(portrait(), matrix, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)


def faceless_frame(time: float, size: tuple[int, int] = (320, 320)) -> np.ndarray:
    """A moving colour gradient without any face, uint8 RGB (height, width, 3)."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    channels = [x, y, 0.5 + 0.5 * np.sin(2 * np.pi * (x + time))]
    return (np.stack(channels, axis=-1) * 255).astype(np.uint8)


@cache
def speech_like(seconds: float, sample_rate: int = 44100, seed: int = 0) -> np.ndarray:
    """A buzz with vowel-like resonances in syllables of varying length, float32 (N,) in [-1, 1]."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    knots = np.arange(0, seconds + 1, 0.12)
    syllables = np.interp(time, knots, random.random(knots.size))
    sound = np.zeros_like(time)
    for harmonic in range(1, 30):
        frequency = harmonic * 130
        resonance = np.exp(-(((frequency - 600 - 400 * syllables) / 300) ** 2)) + 0.3 / harmonic
        sound += resonance * np.sin(harmonic * phase)
    sound *= np.clip(syllables - 0.25, 0, None)
    return (0.7 * sound / max(np.abs(sound).max(), 1e-9)).astype(np.float32)


def make_sound(path: Path, seconds: float, sample_rate: int = 44100, channels: int = 1) -> Path:
    """Write a WAV file (16-bit PCM) of speech-like sound; 0 seconds give a file without any sample."""
    samples = speech_like(seconds, sample_rate) if seconds else np.zeros(0, np.float32)
    soundfile.write(path, np.repeat(samples[:, None], channels, axis=1), sample_rate, subtype="PCM_16")
    return path


def make_portrait(path: Path, size: tuple[int, int] = (320, 320), orientation: int = 1) -> Path:
    """Write a still image of the head.

    Args:
        path: .png or .jpg.
        size: upright width and height, pixels.
        orientation: EXIF orientation 1 (upright as stored) to 8; the picture is stored turned (and flipped: 2, 4, 5, 7)
            so that a viewer that obeys the tag shows it upright.
    """
    turns, flipped = ((0, 0), (0, 1), (2, 0), (2, 1), (1, 1), (1, 0), (3, 1), (3, 0))[orientation - 1]
    upright = face_frame(0.0, size)
    image = Image.fromarray(np.ascontiguousarray(np.rot90(upright[:, ::-1] if flipped else upright, turns)))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, **({"quality": 95} if path.suffix == ".jpg" else {}))
    return path


def make_video(
    path: Path, seconds: float = 1.0, fps: Fraction | int = 25, size: tuple[int, int] = (320, 320), sound: bool = True,
    faceless: tuple[float, float] = (0.0, 0.0), rotation: int = 0, mirrored: bool = False,
    times: Sequence[float] | None = None, numbered: bool = False, codec: str = "libx264", pix_fmt: str = "yuv420p",
    full_range: bool = False, matrix: int = 1, keyframe_interval: int = 12, sound_codec: str = "aac",
    sound_delay: float = 0.0, index_first: bool = False, pixel_shape: Fraction | int = 1,
    options: dict[str, str] | None = None,
) -> Path:  # fmt: skip
    """Write a small video of the head.

    Args:
        path: the suffix chooses the container.
        seconds: length.
        fps: frames per second, for example Fraction(30000, 1001).
        size: width and height as displayed, pixels.
        sound: with speech-like sound of the same length (44.1 kHz mono).
        faceless: from and to which second there is no face.
        rotation: degrees counter-clockwise by which a player must turn the stored picture; it is stored so
            that it is upright then.
        mirrored: the stored picture is also flipped.
        times: time of each frame in seconds, instead of `seconds` and `fps` (variable frame rate).
        numbered: each frame carries its number, see `read_number`.
        codec: FFmpeg's name of the video encoder.
        pix_fmt: pixel format as stored.
        full_range: luma from 0 to 255 instead of 16 to 235.
        matrix: colour tag (H.273): 1 BT.709, 6 BT.601; primaries and transfer get the same number.
        keyframe_interval: frames.
        sound_codec: FFmpeg's name of the sound encoder.
        sound_delay: seconds after the first picture at which the sound starts.
        index_first: write an MP4's index before its pictures, as for the web.
        pixel_shape: width : height of one pixel.
        options: of the video encoder, besides the ones used anyway.
    """
    times = [float(i / fps) for i in range(round(seconds * fps))] if times is None else times
    images = (_as_stored(image, rotation, mirrored) for image in _images(times, size, faceless, numbered))
    with av.open(str(path), "w", options={"movflags": "faststart"} if index_first else {}) as container:
        stream = _picture_stream(container, codec, fps, size[::-1] if rotation in (90, 270) else size, options or {})
        context = stream.codec_context
        # AVI counts time in frames.
        context.time_base = tick = 1 / Fraction(fps) if path.suffix == ".avi" else Fraction(1, _TICKS)
        context.pix_fmt, context.gop_size, context.sample_aspect_ratio = pix_fmt, keyframe_interval, pixel_shape
        _tag_colours(context, full_range, matrix)
        if rotation or mirrored:
            stream.set_display_rotation(rotation, hflip=mirrored)
        track = container.add_stream(sound_codec, rate=44100, layout="mono") if sound else None
        frames = (_to_yuv(image, pix_fmt, full_range, matrix) for image in images)
        _write_pictures(container, stream, _timed(frames, times, tick, 1 / fps))
        if track is not None:
            _write_sound(container, track, times[-1] + float(1 / fps), sound_delay)
    return path


def _picture_stream(
    container: av.container.OutputContainer,
    codec: str,
    fps: Fraction | int,
    size: tuple[int, int],
    options: dict[str, str],
) -> av.VideoStream:
    """A stream for pictures of a stored size; small and soon written where nothing else is wanted."""
    stream = container.add_stream(codec, rate=Fraction(fps))
    stream.codec_context.width, stream.codec_context.height = size
    stream.codec_context.options = ({"crf": "18", "preset": "veryfast"} if codec == "libx264" else {}) | options
    return stream


def make_deep(
    path: Path,
    codec: str = "libx265",
    pix_fmt: str = "yuv420p10le",
    transfer: int = 16,
    options: dict[str, str] | None = None,
    size: tuple[int, int] = (320, 240),
    matrix: int = 9,
    count: int = 4,
    sample_aspect_ratio: Fraction = Fraction(1),
) -> Path:
    """A small video with more than 8 bits: a gradient finer than 8 bits can show, and the head below it.

    Args:
        path: the suffix chooses the container.
        codec: FFmpeg's name of the video encoder.
        pix_fmt: pixel format as stored.
        transfer: H.273 number of the curve: 16 PQ, 18 HLG.
        options: of the encoder.
        size: width and height, pixels.
        matrix: H.273 number; the primaries are those of BT.2020.
        count: frames, at 25 a second.
        sample_aspect_ratio: width : height of one pixel.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        context = stream.codec_context
        context.width, context.height = size
        context.pix_fmt, context.sample_aspect_ratio = pix_fmt, sample_aspect_ratio
        tags = {"color_range": 1, "colorspace": matrix, "color_primaries": 9, "color_trc": transfer}
        for name, value in tags.items():
            setattr(context, name, value)
        for index in range(count):
            image = face_frame(index / 25, size).astype(np.uint16) * 257
            image[: size[1] // 4] = np.linspace(20000, 24000, size[0]).astype(np.uint16)[None, :, None]
            frame = av.VideoFrame.from_ndarray(image, format="rgb48le").reformat(
                format=pix_fmt, dst_colorspace=9, dst_color_range=1, src_color_range=2
            )
            frame.pts, frame.time_base = index, Fraction(1, 25)
            for name, value in tags.items():
                setattr(frame, name, value)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_number(image: np.ndarray) -> int:
    """The number that `make_video(numbered=True)` drew into a frame, uint8 RGB (H, W, 3)."""
    bits = [image[-_BLOCK + 2 : -2, i * _BLOCK + 2 : (i + 1) * _BLOCK - 2].mean() > 128 for i in range(BITS)]
    return sum(1 << i for i, bit in enumerate(bits) if bit)


def lag_seconds(samples: np.ndarray, reference: np.ndarray) -> float:
    """How much later `samples` comes than `reference` (both 16 kHz): the peak of their correlation."""
    correlation = np.correlate(samples, reference, mode="full")
    return float(np.argmax(correlation) - (reference.size - 1)) / 16000


def bad_file(kind: str, folder: Path) -> Path:
    """Make an input that must be refused.

    Args:
        kind: "missing", "folder", "empty", "text" (named .mp4), "image" (a still picture), "no sound" (a
            video without it), "no picture" (a sound file with the name of a video), "zero length" (a WAV
            without samples), "no index" (an MP4 of which only the first part arrived), "broken off" (the same
            of an MP4 whose index comes first), "broken off mkv".
        folder: where to make it.
    """
    makers = {
        "missing": lambda: folder / "missing.mp4",
        "folder": lambda: folder,
        "empty": lambda: _write(folder / "empty.mp4", b""),
        "text": lambda: _write(folder / "text.mp4", b"This is no video at all.\n" * 100),
        "image": lambda: make_portrait(folder / "portrait.png"),
        "no sound": lambda: make_video(folder / "mute.mp4", 0.2, sound=False),
        "no picture": lambda: make_sound(folder / "sound.wav", 0.5).rename(folder / "sound.mp4"),
        "zero length": lambda: make_sound(folder / "zero.wav", 0.0),
        "no index": lambda: _cut(make_video(folder / "whole.mp4"), folder / "no_index.mp4"),
        "broken off": lambda: _cut(make_video(folder / "whole.mp4", index_first=True), folder / "broken.mp4"),
        "broken off mkv": lambda: _cut(make_video(folder / "whole.mkv", 4.0), folder / "broken.mkv"),
    }
    return makers[kind]()


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _cut(source: Path, target: Path) -> Path:
    """Copy only the first half of a file, as a broken-off download does."""
    data = source.read_bytes()
    return _write(target, data[: len(data) // 2])


def _images(
    times: Sequence[float], size: tuple[int, int], faceless: tuple[float, float], numbered: bool
) -> Iterator[np.ndarray]:
    """The pictures of `make_video` as they are displayed."""
    for index, time in enumerate(times):
        image = (faceless_frame if faceless[0] <= time < faceless[1] else face_frame)(time, size)
        if numbered:
            _draw_number(image, index)
        yield image


def _as_stored(image: np.ndarray, rotation: int, mirrored: bool) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(image[:, ::-1] if mirrored else image, -rotation // 90))


def _timed(
    frames: Iterable[av.VideoFrame], times: Sequence[float], tick: Fraction, duration: Fraction | float
) -> Iterator[av.VideoFrame]:
    for frame, time in zip(frames, times, strict=True):
        frame.pts, frame.time_base = round(Fraction(time) / tick), tick
        frame.duration = round(duration / tick)
        yield frame


def _write_pictures(
    container: av.container.OutputContainer, stream: av.VideoStream, frames: Iterable[av.VideoFrame]
) -> None:
    if stream.codec_context.name == "libsvtav1":
        with ordinary_threads():
            stream.codec_context.open()
    for frame in frames:
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _draw_number(image: np.ndarray, number: int) -> None:
    for i in range(BITS):
        image[-_BLOCK:, i * _BLOCK : (i + 1) * _BLOCK] = 255 if number >> i & 1 else 0


def _tag_colours(context: av.VideoCodecContext, full_range: bool, matrix: int) -> None:
    context.color_range = 2 if full_range else 1
    context.colorspace = context.color_primaries = context.color_trc = matrix


def _to_yuv(image: np.ndarray, pix_fmt: str, full_range: bool, matrix: int) -> av.VideoFrame:
    space = {1: "ITU709", 6: "ITU601"}[matrix]
    return av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
        format=pix_fmt,
        src_colorspace=space,
        dst_colorspace=space,
        src_color_range="JPEG",
        dst_color_range="JPEG" if full_range else "MPEG",
    )


def _write_sound(
    container: av.container.OutputContainer, track: av.AudioStream, seconds: float, delay: float
) -> None:
    samples = (speech_like(seconds) * 32767).astype(np.int16)
    for start in range(0, samples.size, 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="s16", layout="mono")
        frame.sample_rate, frame.time_base = 44100, Fraction(1, 44100)
        frame.pts = start + round(delay * 44100)
        container.mux(track.encode(frame))
    container.mux(track.encode(None))
