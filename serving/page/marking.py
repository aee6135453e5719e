"""The place of a mouth that somebody marks on the page, where no face is found: a box by mouse or touch."""

from __future__ import annotations

from pathlib import Path

import cv2

from utils.helpers import InputError
from video_processor import VideoReader, probe_video

_SHOWN_PX = 720  # longer side of the picture in which it is marked
_LEAST_PX = 8
MARKS = ("mouth:", "box:")
"""How a face begins that is a marked place, see `FaceChoice.parse`."""


def script() -> str:
    """What draws the box, for the head of the page."""
    return f"<script>{(Path(__file__).resolve().parent / 'mark.js').read_text(encoding='utf-8')}</script>"


def write_first_picture(source: str, target: Path) -> None:
    """Write the first picture of a video, or a portrait, reduced, as a PNG.

    Raises:
        InputError: the file cannot be used.
    """
    with VideoReader(source) as reader:
        picture = next(iter(reader)).picture.small(_SHOWN_PX)
    target.write_bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())


def marked_place(text: str, source: str) -> str:
    """What was marked as `FaceChoice.parse` reads it.

    Args:
        text: left, top, width and height in parts of the picture, 0 to 1.
        source: the video or portrait.

    Raises:
        InputError: the file cannot be used, or the text is no box.
    """
    try:
        x, y, width, height = (min(max(float(part), 0.0), 1.0) for part in text.split(","))
    except ValueError as error:
        raise InputError("The box cannot be read; draw it anew.") from error
    info = probe_video(Path(source))
    sides = max(round(width * info.width), _LEAST_PX), max(round(height * info.height), _LEAST_PX)
    return f"mouth:{round(x * info.width)},{round(y * info.height)},{sides[0]},{sides[1]}"
