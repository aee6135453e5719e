"""What is known of a video, of one of its frames, and of a picture that is mixed into it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from utils.pictures import Picture

PQ, HLG = 16, 18
HDR_TRANSFERS = (PQ, HLG)
"""Transfer curves of H.273 that stand for high dynamic range."""


@dataclass(frozen=True)
class Colour:
    """Colour tags of a video as H.273 numbers (2: unspecified; range: 0 unspecified, 1 limited, 2 full)."""

    range: int
    matrix: int
    primaries: int
    transfer: int


@dataclass(frozen=True)
class LightLevels:
    """Static HDR metadata (SMPTE ST 2086 and CTA-861.3).

    Attributes:
        primaries: x and y of red, green, blue and white of the display that the video was graded on; None: not told.
        luminance: least and greatest of that display, cd/m2; None: not told.
        content: greatest light of a pixel and of a frame's mean (MaxCLL, MaxFALL), cd/m2; None: not told.
    """

    primaries: tuple[tuple[float, float], ...] | None = None
    luminance: tuple[float, float] | None = None
    content: tuple[int, int] | None = None


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
        interlaced: the frames are stored as two fields of different moments; `VideoReader` deinterlaces them.
        dolby_vision: there is Dolby Vision data beside a picture that is complete without it.
        light: what the file says about the light of its HDR picture.
        transparent: something of the first frame can be seen through.
        full_size: width and height as displayed in the file, where the pictures are brought to another size.
        bit_rate: of the pictures, bits per second; None: not known.
        codec: FFmpeg's name of how the pictures are coded; empty for a still image.
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
    interlaced: bool = False
    dolby_vision: bool = False
    light: LightLevels = LightLevels()
    transparent: bool = False
    full_size: tuple[int, int] | None = None
    bit_rate: int | None = None
    codec: str = ""

    @property
    def bits(self) -> int:
        """Bits of one colour value as stored."""
        return max(part.bits for part in av.VideoFormat(self.pix_fmt).components)

    @property
    def bytes_per_pixel(self) -> float:
        """Of a decoded frame in memory."""
        return av.VideoFormat(self.pix_fmt).padded_bits_per_pixel / 8

    @property
    def is_hdr(self) -> bool:
        """The transfer curve is PQ or HLG."""
        return self.colour.transfer in HDR_TRANSFERS


@dataclass(frozen=True)
class Frame:
    """One picture of a video.

    Attributes:
        index: number of the frame in the sequence that is being read, from 0.
        time: seconds from the start of that sequence.
        picture: upright as displayed, converted as far as it is looked at. It may be shared between frames.
        raw: the decoded frame as stored, not rotated.
        source_index: number of the frame in the file (differs from `index` when frames are repeated).
        duration: seconds for which the frame is shown.
    """

    index: int
    time: float
    picture: Picture
    raw: av.VideoFrame
    source_index: int
    duration: float

    @property
    def image(self) -> np.ndarray:
        """The whole picture, uint8 RGB (H, W, 3); to be read only."""
        return self.picture.whole()
