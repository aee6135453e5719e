"""Pictures that can be seen through: what stands behind them where the output cannot keep that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np

from utils.helpers import InputError
from utils.media import MediaLimits, check_readable
from utils.planes import plane_arrays, rgb_to_yuv
from video.stills import read_image
from video.tone import from_ordinary

COLOURS = {"white": (255, 255, 255), "black": (0, 0, 0)}
COLOUR_PATTERN = r"^(white|black|#[0-9a-fA-F]{6})$"
"""What a background is called that is no file."""

_REACHES = (3, 9, 33)  # px; how far colours of what is seen go on under what is not


@dataclass(frozen=True)
class Backdrop:
    """What stands behind a picture that can be seen through.

    Attributes:
        name: as people call it.
        colour: RGB, 0..255.
        picture: uint8 RGB (H, W, 3), shown so large that it fills the frame; None: the colour alone.
    """

    name: str = "white"
    colour: tuple[int, int, int] = COLOURS["white"]
    picture: np.ndarray | None = None

    @classmethod
    def parse(cls, text: str | None, limits: MediaLimits | None = None) -> Backdrop:
        """Read white, black, #rrggbb or the name of a picture; None is white.

        Raises:
            InputError: it is none of these, or the picture cannot be read.
        """
        if text is None:
            return cls()
        if re.match(COLOUR_PATTERN, text):
            colour = COLOURS.get(text) or tuple(bytes.fromhex(text[1:]))
            return cls(text, colour)
        path = Path(text)
        if text.startswith("#") or not path.exists():
            raise InputError(
                f"The background '{text}' is not known; use white, black, a colour such as #00b140 or a picture's name."
            )
        check_readable(path)
        picture = read_image(path, limits or MediaLimits())
        if picture is None:
            raise InputError(f"The background {path} is no picture; give a JPEG, PNG, WebP, BMP, TIFF or AVIF file.")
        return cls(path.name, picture=over(picture, cls()) if picture.shape[2] == 4 else picture)

    def filling(self, height: int, width: int) -> np.ndarray:
        """uint8 RGB (height, width, 3); a picture keeps its proportions, what is too much of it is cut off."""
        if self.picture is None:
            return np.broadcast_to(np.array(self.colour, np.uint8), (height, width, 3))
        return _filling(_Held(self.picture), height, width)


class _Held:
    """An array that counts as equal to itself only, so that it can be remembered by."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def __hash__(self) -> int:
        return id(self.array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.array is self.array


@lru_cache(maxsize=4)
def _filling(held: _Held, height: int, width: int) -> np.ndarray:
    have = held.array.shape
    scale = max(height / have[0], width / have[1])
    size = max(width, round(have[1] * scale)), max(height, round(have[0] * scale))
    large = cv2.resize(held.array, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (size[1] - height) // 2, (size[0] - width) // 2
    return np.ascontiguousarray(large[top : top + height, left : left + width])


def has_alpha(stored: av.VideoFormat) -> bool:
    """The pixels of a format have an opacity, or those of its palette may have one."""
    return stored.has_palette or any(part.is_alpha for part in stored.components)


def over(rgba: np.ndarray, backdrop: Backdrop) -> np.ndarray:
    """A picture uint8 RGBA (H, W, 4) before a backdrop, uint8 RGB (H, W, 3)."""
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    behind = backdrop.filling(*rgba.shape[:2]).astype(np.uint16)
    mixed = rgba[..., :3].astype(np.uint16) * alpha + behind * (255 - alpha.astype(np.uint16))
    return ((mixed + 127) // 255).astype(np.uint8)


def without_hidden(rgba: np.ndarray) -> np.ndarray:
    """The same to the eye; under what cannot be seen, colours of what can be seen near it.

    What was cut away must not come back where colour is shared between neighbours, nor be found in the file.

    Args:
        rgba: uint8 (H, W, 4).
    """
    hidden = rgba[..., 3] == 0
    if not hidden.any():
        return rgba
    weight = (~hidden).astype(np.float32)
    seen = rgba[..., :3].astype(np.float32) * weight[..., None]
    colour = np.zeros_like(seen) + seen.sum((0, 1)) / max(float(weight.sum()), 1.0)
    for reach in reversed(_REACHES):
        near = cv2.blur(weight, (reach, reach))[..., None]
        colour = np.where(near > 1e-4, cv2.blur(seen, (reach, reach)) / np.maximum(near, 1e-4), colour)
    filled = np.where(hidden[..., None], np.clip(colour + 0.5, 0, 255), rgba[..., :3]).astype(np.uint8)
    return np.dstack([filled, rgba[..., 3]])


def flattened(raw: av.VideoFrame, backdrop: Backdrop, matrix: int, full_range: bool, transfer: int) -> av.VideoFrame:
    """A decoded frame with opacity before a backdrop; red, green and blue come out as rgb24.

    Args:
        raw: the frame; planar YUV keeps its depth and chroma.
        backdrop: what is behind it.
        matrix, full_range: of the frame, see `utils.planes.rgb_to_yuv`.
        transfer: H.273 number of its curve.
    """
    if not raw.format.name.startswith("yuva"):
        return av.VideoFrame.from_ndarray(over(raw.to_ndarray(format="rgba"), backdrop), format="rgb24")
    *planes, alpha = plane_arrays(raw)
    bits = raw.format.components[0].bits
    opacity = alpha.astype(np.float32) / (2**bits - 1)
    behind = from_ordinary(backdrop.filling(raw.height, raw.width), transfer)
    colours = rgb_to_yuv(behind, matrix, full_range, bits)
    flat = av.VideoFrame(raw.width, raw.height, raw.format.name.replace("yuva", "yuv"))
    for channel, (target, plane) in enumerate(zip(plane_arrays(flat), planes, strict=True)):
        size = plane.shape[::-1]
        part = cv2.resize(opacity, size, interpolation=cv2.INTER_AREA)
        back = cv2.resize(np.ascontiguousarray(colours[..., channel]), size, interpolation=cv2.INTER_AREA)
        target[:] = np.rint(np.clip(back + part * (plane - back), 0, 2**bits - 1))
    flat.color_range, flat.colorspace = raw.color_range, raw.colorspace
    return flat
