"""How faces are found, chosen and judged in one run."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from faces.alignment import Geometry
from faces.choice import FaceChoice
from faces.detector import FaceDetector, FaceMesh
from faces.drawn import DrawnFaceDetector
from faces.mouth_windows import MouthFrame, mouth_windows
from faces.placed import Anchor, placed_windows
from faces.shots import FacePlan
from faces.tracker import FaceTracker, TrackerSettings
from faces.usable import COVERED, NO_FACE, REASONS, UsableFace
from faces.window import MOUTH_WINDOW
from models.cover import CoverJudge
from utils.config import Config
from utils.helpers import InputError
from video_processor import MediaLimits, Size, VideoInfo, VideoReader, moved

_ALL_COVERED = 0.8  # share of a video's good faces that may count as covered before that is not believed
_LONG_SHOT = 25  # covered frames of a scene from which its share is a measure
_TRUSTED_FROM = 0.6  # --min-confidence from which it is believed all the same


class NoFace(InputError):
    """There is no face to be seen anywhere; with other eyes there may be one."""


def no_face(where: str, told: str) -> NoFace:
    """The error.

    Args:
        where: "in the picture" and the like.
        told: what was seen instead.
    """
    return NoFace(
        f"No face can be used {where} ({told}); give a video or picture that shows a face from the front, choose "
        "another one with --face, lower --min-confidence, or mark a drawn face with --face box:X,Y,W,H and lay drawn "
        "mouths over it with --sprites.",
        "no-face",
    )


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
        size: in which the pictures of the video are looked at.
        anchor: a marked place, where that is all that is known of the face.
        lays_mouths: the engine is one that needs no more, see `engines.base.Facts`.
        uncovered: scenes in which nobody looks at what covers mouths.
    """

    detector: FaceDetector
    mesh: FaceMesh
    cover: CoverJudge | None
    config: Config
    geometry: Geometry
    choice: FaceChoice
    min_confidence: float
    plan: FacePlan | None = None
    size: Size | None = None
    anchor: Anchor | None = None
    lays_mouths: bool = False
    uncovered: frozenset[int] = frozenset()

    def at_size_of(self, info: VideoInfo, size: Size) -> Seeing:
        """The same for a video that was probed in this size: a point or a box was told in px of the file."""
        choice = self.choice
        if info.full_size is not None and choice.is_placed:
            sizes = info.full_size, (info.width, info.height)
            corner = moved(choice.box[:2], *sizes)
            end = moved((choice.box[0] + choice.box[2], choice.box[1] + choice.box[3]), *sizes)
            box = (*corner, end[0] - corner[0], end[1] - corner[1])
            choice = replace(choice, point=moved(choice.point, *sizes), box=box)
        return replace(self, choice=choice, size=size)

    def tracker(self, **more: int) -> FaceTracker:
        """A new tracker; `more`: other settings than usual."""
        faces = self.config.faces
        settings = TrackerSettings(min_presence=faces.min_presence, cut_threshold=faces.cut_threshold, **more)
        return FaceTracker(self.detector, self.mesh, self.choice, settings, self.plan)

    def mouths(
        self, frames: Iterable[Any], release: Callable[[Any], Any] = lambda frame: frame
    ) -> Iterator[MouthFrame]:
        """Every frame, in order, with its mouth window; see `faces.mouth_windows.mouth_windows`."""
        if self.anchor is not None:
            return placed_windows(frames, self.anchor, self.geometry, self.config.faces.cut_threshold, release)
        return mouth_windows(self.tracker().follow(frames), self.usable(), release, geometry=self.geometry)

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
            None if isinstance(self.detector, DrawnFaceDetector) else self.cover,  # it knows photographs alone
            uncovered=self.uncovered,
        )

    def doubts(self, counts: Mapping[str | None, int]) -> bool:
        """Whether a video's mouths count as covered so often that it is not believed.

        The network that says so was learned from drawn hands and takes blue light, grain or hands below the chin for
        covers; a video that nobody can speak in is rarer than its mistake.

        Args:
            counts: frames by reason; None: good ones.
        """
        if self.cover is None or self.min_confidence >= _TRUSTED_FROM:
            return False
        return counts.get(COVERED, 0) > _ALL_COVERED * (counts.get(COVERED, 0) + counts.get(None, 0))

    def doubted_shots(self, counts: Mapping[int, Mapping[str | None, int]]) -> frozenset[int]:
        """The scenes of which the same holds, and that are long enough to tell.

        Args:
            counts: of each scene, frames by reason; None: good ones.
        """
        return frozenset(
            shot
            for shot, found in counts.items()
            if shot not in self.uncovered and found.get(COVERED, 0) >= _LONG_SHOT and self.doubts(found)
        )

    def doubted_in(self, shots: frozenset[int], covered: int) -> tuple[Seeing, str]:
        """The same without a look at what covers mouths in these scenes, and a sentence that says so."""
        where = "one scene" if len(shots) == 1 else f"{len(shots)} scenes"
        said = (
            f"The mouth seems covered throughout {where} ({covered} frames). That may well be wrong of all of a scene: "
            f"they got a new mouth all the same; if it is right, --min-confidence {_TRUSTED_FROM:g} leaves them alone."
        )
        return replace(self, uncovered=self.uncovered | shots), said

    def doubted(self, covered: int, frames: int) -> tuple[Seeing, str]:
        """The same without a look at what covers mouths, and a sentence that says so."""
        said = (
            f"The mouth seems covered in {covered} of {frames} frames. That may well be wrong of all of a video: they "
            f"got a new mouth all the same; if it is right, --min-confidence {_TRUSTED_FROM:g} leaves them as they are."
        )
        return replace(self, cover=None), said


def check_picture(info: VideoInfo, seeing: Seeing, limits: MediaLimits) -> str | None:
    """Refuse a still picture whose face cannot be used, before any sound is heard.

    Returns:
        COVERED where that is the only doubt and not believed; else None.
    """
    with VideoReader(info.path, limits, size=seeing.size) as reader:
        (mouth,) = replace(seeing, geometry=MOUTH_WINDOW).mouths(itertools.islice(reader, 1))
    if seeing.doubts(Counter([mouth.reason])):
        return COVERED
    if mouth.reason == NO_FACE:
        raise no_face("in the picture", f"the frame is {REASONS[NO_FACE]}")
    if mouth.reason is not None:
        raise InputError(
            f"No face can be used in the picture (the frame is {REASONS[mouth.reason]}); give one that shows a face "
            "from the front, choose another one with --face, or lower --min-confidence.",
            "no-face",
        )
    return None
