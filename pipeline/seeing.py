"""How faces are found, chosen and judged in one run."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from faces.alignment import Geometry
from faces.choice import FaceChoice
from faces.detector import FaceDetector, FaceMesh
from faces.mouth_windows import mouth_windows
from faces.shots import FacePlan
from faces.tracker import FaceTracker, TrackerSettings
from faces.usable import REASONS, UsableFace
from models.cover import CoverJudge
from utils.config import Config
from utils.helpers import InputError
from video_processor import MediaLimits, VideoInfo, VideoReader


@dataclass(frozen=True)
class Seeing:
    """How faces are found, chosen and judged in one run.

    Attributes:
        detector, mesh, cover: the networks.
        config: the configuration.
        geometry: how the engine wants the face.
        choice: which face.
        min_confidence: see `UsableFace`.
        plan: whom to follow in each scene, where that is known.
    """

    detector: FaceDetector
    mesh: FaceMesh
    cover: CoverJudge | None
    config: Config
    geometry: Geometry
    choice: FaceChoice
    min_confidence: float
    plan: FacePlan | None = None

    def tracker(self, **more: int) -> FaceTracker:
        """A new tracker; `more`: other settings than usual."""
        faces = self.config.faces
        settings = TrackerSettings(min_presence=faces.min_presence, cut_threshold=faces.cut_threshold, **more)
        return FaceTracker(self.detector, self.mesh, self.choice, settings, self.plan)

    def usable(self) -> UsableFace:
        """Which faces can be used."""
        faces = self.config.faces
        return UsableFace(
            faces.min_face_px,
            faces.max_yaw_deg,
            faces.max_pitch_deg,
            faces.min_inside,
            faces.min_sharpness,
            faces.max_cover,
            self.min_confidence,
            self.cover,
        )


def check_picture(info: VideoInfo, seeing: Seeing, limits: MediaLimits) -> None:
    """Refuse a still picture whose face cannot be used, before any sound is heard."""
    with VideoReader(info.path, limits) as reader:
        (mouth,) = mouth_windows(seeing.tracker().follow(itertools.islice(reader, 1)), seeing.usable())
    if mouth.reason is not None:
        raise InputError(
            f"No face can be used in the picture (the frame is {REASONS[mouth.reason]}); give one that shows a face "
            "from the front, choose another one with --face, or lower --min-confidence."
        )
