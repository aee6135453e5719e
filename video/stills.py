"""Still images as one upright frame."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from utils.helpers import InputError
from utils.media import MediaLimits
from video.types import Colour, VideoInfo

IMAGE_FPS = Fraction(25)
"""Frame rate of a video made from a still image."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF")
_IMAGE_TIME_BASE = Fraction(1, 12800)
# What Pillow has been seen to raise on damaged files besides its own errors.
_DAMAGED = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError, TypeError),
    *(ValueError, struct.error, zlib.error),
)


def read_image(path: Path, limits: MediaLimits) -> np.ndarray | None:
    """A still image as upright uint8 RGB (H, W, 3), or None if the file is something else (also an animated PNG).

    Where something of it can be seen through it is RGBA (H, W, 4); of several pages or pictures the first is taken.

    Raises:
        InputError: larger than the limits, damaged, or of a kind that has no plain colours.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            check_size(path, image.width, image.height, limits)
            if image.format == "PNG" and getattr(image, "is_animated", False):
                return None
            upright = ImageOps.exif_transpose(image)
            return _with_opacity(np.array(_eight_bits(upright, path)), upright)
    except UnidentifiedImageError:
        return None
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"The picture of {path} is too large; at most {limits.max_pixels} pixels work.") from error
    except MemoryError as error:
        raise InputError(f"The image {path} needs more memory than there is; give a smaller one.") from error
    except _DAMAGED as error:
        raise InputError(f"The image {path} is damaged or cut off; save it again.") from error


def _with_opacity(colours: np.ndarray, image: Image.Image) -> np.ndarray:
    """The colours, and the opacity of the image they come from where it is not full everywhere."""
    if not image.has_transparency_data:
        return colours
    opacity = np.asarray(image.convert("RGBA"))[..., 3]
    return np.dstack([colours, opacity]) if opacity.min() < 255 else colours


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """The picture as sRGB of 8 bits a channel."""
    if image.mode == "F":
        raise InputError(f"The image {path} has no plain colours (floating point); save it as PNG or JPEG.")
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits at 255 instead of scaling.
        deep = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.clip(deep >> 8, 0, 255).astype(np.uint8))
    profile = image.info.get("icc_profile")
    image = image.convert("RGB") if image.mode in ("RGBA", "RGBX") else image
    if profile and image.mode in ("RGB", "CMYK", "L"):
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return image.convert("RGB")


def image_info(path: Path, image: np.ndarray) -> VideoInfo:
    """What is known of a still image, uint8 RGB (H, W, 3) or RGBA (H, W, 4)."""
    transparent = image.shape[2] == 4
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
        pix_fmt="rgba" if transparent else "rgb24",
        colour=Colour(range=1, matrix=1, primaries=1, transfer=1),
        sample_aspect_ratio=Fraction(1),
        has_audio=False,
        is_image=True,
        transparent=transparent,
    )


def check_size(path: Path, width: int, height: int, limits: MediaLimits) -> None:
    """Raise InputError for a picture that is larger than the limits, or has no size."""
    if width < 1 or height < 1:
        raise InputError(f"The picture of {path} has no size; export the file again.")
    if width * height > limits.max_pixels:
        raise InputError(
            f"The picture of {path} is too large ({width}x{height}); at most {limits.max_pixels} pixels work."
        )
