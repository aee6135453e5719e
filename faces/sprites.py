"""Drawn mouths: a set of pictures, one for each shape, that are laid over a face.

Shapes are those of Rhubarb Lip Sync: A to F are needed, G, H and X may be left out. What stands in for them is what
Rhubarb takes then (its `getBasicShape`): A for G and X, C for H.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.helpers import InputError

BASIC, EXTENDED = "ABCDEF", "GHX"
STANDS_IN = {"G": "A", "H": "C", "X": "A"}
"""Extended shape -> the one that is shown where nobody has drawn it."""

BUNDLED = Path(__file__).resolve().parent.parent / "examples" / "mouths"
"""Our own set, free to use."""

_NAME = re.compile(r"(?:.*[-_. ])?([A-HX])\.(?:png|webp)", re.IGNORECASE)
_MOST_PX, _LEAST_PX = 4096, 4  # side of a picture
_MOST_BYTES, _MOST_FILES = 64 * 2**20, 500
_SEEN = 26  # of 255: opacity from which something counts as seen


@dataclass(frozen=True, eq=False)
class MouthSet:
    """Pictures of one size that lie on each other.

    Attributes:
        pictures: all of A to F, and some of G, H, X: uint8 RGBA (H, W, 4), colours not multiplied by the opacity.
    """

    pictures: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, source: Path) -> MouthSet:
        """Read a folder or a .zip of PNG or WebP files named A to H and X, alone or at the end: `mouth_A.png`.

        Raises:
            InputError: one sentence on what is missing or does not fit.
        """
        pictures: dict[str, np.ndarray] = {}
        for name, data in _files(source):
            if match := _NAME.fullmatch(name):
                shape = match[1].upper()
                if shape in pictures:
                    raise InputError(f"There are two pictures of the mouth {shape} in {source.name}; leave one.")
                pictures[shape] = _picture(name, data)
        missing = [shape for shape in BASIC if shape not in pictures]
        if missing:
            raise InputError(
                f"The mouths {', '.join(missing)} are missing in {source.name}; give PNG or WebP pictures named A to F "
                "(G, H and X may be left out), such as A.png or mouth_A.png."
            )
        _check_sizes(pictures)
        return cls(pictures)

    def picture(self, shape: str) -> np.ndarray:
        """What is shown for a shape."""
        return self.pictures[shape if shape in self.pictures else STANDS_IN[shape]]

    @property
    def missing(self) -> str:
        """Extended shapes that others stand in for."""
        return "".join(shape for shape in EXTENDED if shape not in self.pictures)

    @cached_property
    def place(self) -> tuple[tuple[float, float], float]:
        """Middle (x, y) and width of the closed mouth A, px: where and how large the set lies on a face."""
        columns, rows = (np.flatnonzero((self.pictures["A"][..., 3] >= _SEEN).any(axis)) for axis in (0, 1))
        middle = (columns[0] + columns[-1]) / 2, (rows[0] + rows[-1]) / 2
        return (float(middle[0]), float(middle[1])), float(columns[-1] - columns[0] + 1)


def _files(source: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file of a folder or .zip that may be a mouth."""
    if source.is_dir():
        for path in sorted(source.iterdir()):
            if path.is_file() and _NAME.fullmatch(path.name):
                if path.stat().st_size > _MOST_BYTES:
                    raise _too_large(path.name)
                yield path.name, path.read_bytes()
        return
    if not source.is_file() or not zipfile.is_zipfile(source):
        raise InputError(f"The mouths {source.name} are no folder and no .zip file; give one with pictures A to F.")
    with zipfile.ZipFile(source) as archive:
        yield from _packed(archive, source.name)


def _packed(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[str, bytes]]:
    entries = archive.infolist()
    if len(entries) > _MOST_FILES:
        raise InputError(f"There are more than {_MOST_FILES} files in {name}; pack the mouths alone.")
    for entry in entries:
        base = entry.filename.replace("\\", "/").rpartition("/")[2]
        if not _NAME.fullmatch(base) or "__MACOSX" in entry.filename:
            continue
        if entry.file_size > _MOST_BYTES:
            raise _too_large(base)
        try:
            with archive.open(entry) as file:
                yield base, file.read(_MOST_BYTES)
        except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
            raise InputError(f"The picture {base} in {name} cannot be unpacked; pack the mouths again.") from error


def _too_large(name: str) -> InputError:
    return InputError(f"The mouth {name} is larger than {_MOST_BYTES >> 20} MB; give a smaller one.")


def _picture(name: str, data: bytes) -> np.ndarray:
    """uint8 RGBA (H, W, 4) of a file; its size is looked at before it is decoded."""
    try:
        with Image.open(BytesIO(data), formats=("PNG", "WEBP")) as image:
            if not _LEAST_PX <= min(image.size) <= max(image.size) <= _MOST_PX:
                raise InputError(f"The mouth {name} must be {_LEAST_PX} to {_MOST_PX} px a side; scale all of them.")
            if not image.has_transparency_data:
                raise InputError(
                    f"The mouth {name} has no transparent parts and would hide the face; save it with an alpha channel."
                )
            picture = np.array(image.convert("RGBA"))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"The mouth {name} cannot be read; save it as PNG or WebP again.") from error
    if picture[..., 3].max() < _SEEN:
        raise InputError(f"Nothing can be seen in the mouth {name}: all of it is transparent; draw something.")
    return picture


def _check_sizes(pictures: Mapping[str, np.ndarray]) -> None:
    """Pictures of one size lie on each other; those of several do not."""
    height, width = pictures["A"].shape[:2]
    odd = [shape for shape, picture in sorted(pictures.items()) if picture.shape[:2] != (height, width)]
    if odd:
        raise InputError(
            f"The mouths {', '.join(odd)} have another size than A ({width}x{height} px); give all of them one size, "
            "so that they lie on each other."
        )


def reduced(picture: np.ndarray, shrink: float) -> np.ndarray:
    """A picture with colours multiplied by the opacity, float32 (h, w, 4) in 0 to 255, `shrink` times smaller.

    Args:
        picture: uint8 RGBA.
        shrink: 1 or more.
    """
    made = picture.astype(np.float32)
    made[..., :3] *= made[..., 3:] / 255
    if shrink <= 1:
        return made
    size = [max(1, round(side / shrink)) for side in picture.shape[1::-1]]
    return cv2.resize(made, size, interpolation=cv2.INTER_AREA)
