"""What every method is compared with: the real video encoded once more, and the real video with a still mouth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.preprocess import face_tracker
from evaluation.reading import Reading
from faces.compositor import composite, soft_mask
from faces.mouth_shape import SHAPE_POINTS, MouthShape
from faces.mouth_windows import MouthFrame, mouth_windows
from faces.usable import UsableFace
from utils.config import Config
from video_processor import Patch, VideoReader, VideoWriter


def write_recoded(video: Path, output: Path, config: Config) -> None:
    """Write the video as the program writes results, nothing changed: what it still loses is the noise floor."""
    with VideoReader(video) as reader, VideoWriter(output, reader.info, crf=config.inference.crf) as writer:
        for frame in reader:
            writer.write(frame)


def write_frozen(video: Path, real: Reading, output: Path, config: Config) -> None:
    """Write the video with one and the same mouth window pasted into every frame, as generated ones are pasted.

    Args:
        video: the real video.
        real: its reading; gives the mouth.
        output: .mp4 to write, without sound.
        config: of the faces and of the encoder.
    """
    faces = config.faces
    mouth = resting_window(real, MouthShape.load(faces.mouth_shape_dir))
    usable = UsableFace(faces.min_face_px, faces.max_yaw_deg, faces.max_pitch_deg)
    with VideoReader(video) as reader, VideoWriter(output, reader.info, crf=config.inference.crf) as writer:
        for frame in mouth_windows(face_tracker(config).follow(reader), usable):
            writer.write(frame.frame, _paste(frame, mouth, faces.feather_px))


def resting_window(reading: Reading, shape: MouthShape) -> np.ndarray:
    """The mouth window (160, 160, 3) of the frame whose lips and jaw are nearest to the clip's resting mouth."""
    base = shape.base(shape.neutral(reading.points, reading.pose), reading.pose)
    distance = np.linalg.norm(reading.points[:, SHAPE_POINTS] - base, axis=-1).mean(axis=1)
    return reading.windows[int(np.argmin(distance))]


def _paste(frame: MouthFrame, mouth: np.ndarray, feather: float) -> Patch | None:
    if frame.reason is not None:
        return None
    return composite(frame.size, mouth, frame.window, frame.matrix, soft_mask(frame.points, feather))
