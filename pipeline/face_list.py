"""`--list-faces`: which faces a video shows, as a numbered contact sheet and as words that `--face` takes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from faces.detector import FaceDetector
from faces.listing import ListedFace, contact_sheet, cut_out, find_faces
from pipeline.options import media_limits
from utils.config import Config
from utils.helpers import InputError, atomic_path
from video_processor import MediaLimits, VideoReader

MOST_FACES = 120
"""More than a person can choose from on one sheet; the first ones are listed."""

SHEET_TYPES = (".png", ".jpg", ".jpeg")
_ROOT = Path(__file__).resolve().parent.parent


def list_faces(video: Path, sheet: Path, config: Config) -> list[ListedFace]:
    """Find the faces of a video or portrait, and write the sheet that shows them.

    Args:
        video: the input.
        sheet: .png or .jpg to write.
        config: the configuration.

    Returns:
        The faces in the order of their numbers on the sheet, at most `MOST_FACES`.

    Raises:
        InputError: the video cannot be read, there is no face in it, or the sheet cannot be written.
    """
    if sheet.suffix.lower() not in SHEET_TYPES:
        raise InputError(f"The sheet of faces cannot be written as '{sheet.name}'; name it .png or .jpg.")
    if sheet.exists() and sheet.samefile(video):
        raise InputError(f"The sheet {sheet} is also the input; give it another name.")
    detector = FaceDetector(_ROOT / config.faces.models_dir, config.faces.min_detection_score)
    limits = media_limits(config.media)
    with VideoReader(video, limits) as reader:
        found = find_faces(reader, detector, config.faces.cut_threshold)
        faces = list(itertools.islice(found, MOST_FACES))
    if not faces:
        raise InputError(f"There is no face in {video}; give a video or picture that shows one from the front.")
    _write_sheet(sheet, contact_sheet(faces, _pictures(video, faces, limits)))
    return faces


def _pictures(video: Path, faces: Sequence[ListedFace], limits: MediaLimits) -> list[np.ndarray]:
    """Each face where it is shown best; a second reading, so that no frame has to wait in memory for the choice."""
    shown: dict[int, np.ndarray] = {}
    with VideoReader(video, limits) as reader:
        for frame in reader:
            shown |= {i: cut_out(frame.image, face.box) for i, face in enumerate(faces) if face.time == frame.time}
            if len(shown) == len(faces):
                break
    return [shown[index] for index in range(len(faces))]


def _write_sheet(path: Path, sheet: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
            raise InputError(f"Cannot write {path}; choose another file or folder.")


def face_lines(faces: Sequence[ListedFace], sheet: Path) -> str:
    """The faces for a person to read: number, where and when, and what to write after `--face`."""
    lines = [
        f"{number:>3}  shot {face.shot}, {face.start:.1f} to {face.end:.1f} s, "
        f"{face.size} px high: --face {face.choice}"
        for number, face in enumerate(faces, start=1)
    ]
    if len(faces) == MOST_FACES:
        lines.append(f"There may be more: only the first {MOST_FACES} are listed.")
    return "\n".join([*lines, f"Written: {sheet}"])
