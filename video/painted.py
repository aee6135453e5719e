"""Pictures that were painted and not decoded, as frames of a video that is to be written."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from utils.pictures import ArrayPicture
from video.stills import image_info
from video.transparency import Backdrop, over
from video.types import Frame, VideoInfo


def painted_info(name: Path, width: int, height: int, fps: Fraction | int, transparent: bool = False) -> VideoInfo:
    """What `VideoWriter` has to know of pictures that come from no file.

    Args:
        name: what they are called in sentences for the user.
        width, height: px.
        fps: frames per second.
        transparent: the pictures are RGBA, and the output is to keep that where it can.
    """
    channels = 4 if transparent else 3
    plain = image_info(name, np.broadcast_to(np.uint8(0), (height, width, channels)))
    return replace(plain, fps=Fraction(fps), is_image=False, frame_count=None)


def painted_frame(image: np.ndarray, index: int, fps: Fraction | int, backdrop: Backdrop | None = None) -> Frame:
    """A painted picture as a frame for `VideoWriter.write`.

    Args:
        image: uint8 RGB (H, W, 3) or RGBA (H, W, 4), colours not multiplied by the opacity.
        index: number of the frame, from 0.
        fps: frames per second.
        backdrop: what those who look at the frame see behind it; None: white.
    """
    image = np.ascontiguousarray(image)
    kind = "rgba" if image.shape[2] == 4 else "rgb24"
    shown = over(image, backdrop or Backdrop()) if kind == "rgba" else image
    raw = av.VideoFrame.from_ndarray(image, format=kind)
    return Frame(index, float(index / Fraction(fps)), ArrayPicture(shown), raw, index, float(1 / Fraction(fps)))
