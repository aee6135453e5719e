"""How the face is found that a run is about: in the usual way, with other eyes, or by a place that somebody marked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from faces.choice import CONTINUES, FaceChoice
from faces.detector import Detection, FaceMesh, iou
from faces.drawn import DrawnFaceDetector
from faces.placed import Anchor
from faces.shots import faces_in
from pipeline.judge import Judge
from pipeline.options import media_limits
from pipeline.planning import Planner
from pipeline.seeing import NoFace, Seeing, check_picture
from utils.config import Config
from utils.helpers import InputError
from video_processor import Frame, MediaLimits, Size, VideoInfo, VideoReader, probe_video

_SAMPLES = 8  # frames of a video that are looked at
_SEEN_IN = 2  # of them a face must be seen in
_FIRST_S = 4.0  # of a video whose length is not known
_STILL = "The speaker cannot be told (a still picture shows nobody speaking): the largest face was taken."
_PLACED = "No face was looked for: the mouth lies at the marked place and follows what is drawn around it."
_LOWERED = (
    "A face was found only with lowered limits, as of a drawing, a painting, a statue or somebody far away: look at "
    "the result."
)


@dataclass
class Finder:
    """Finds the face that a run is about.

    Attributes:
        config: the configuration.
        models_dir: folder of the face networks.
        mesh: finds the points of a face.
        judge: loads the network that knows whether sound and picture belong together; None: there is none.
        size: in which the pictures of the video are looked at.
        tick: called often; what it raises ends the work.
    """

    config: Config
    models_dir: Path
    mesh: FaceMesh
    judge: Callable[[], Judge | None]
    size: Size = field(default_factory=Size)
    tick: Callable[[], None] = field(default=lambda: None)

    @property
    def limits(self) -> MediaLimits:
        """What is too big."""
        return media_limits(self.config.media)

    def find(
        self, video: Path, until: Callable[[], float], fit: str, seeing: Seeing
    ) -> tuple[Seeing, tuple[str, ...]]:
        """How faces are found and judged in a run, and sentences about it.

        Args:
            video: a video or picture.
            until: seconds of it that get a new mouth.
            fit: how the video goes on when it is over.
            seeing: how faces are found as long as nobody has looked.

        Raises:
            InputError: a picture shows no face, the chosen one is nowhere, or a box marks nothing that helps.
        """
        info = probe_video(video, self.limits, self.size)
        seeing = seeing.at_size_of(info, self.size)
        if seeing.choice.is_marked:
            seeing, told = self._marked(info, seeing)
            if seeing.anchor is not None:
                return seeing, told
            seeing, notes = self._looked(info, until, fit, seeing)
            return seeing, (*told, *notes)
        try:
            return self._looked(info, until, fit, seeing)
        except NoFace as fault:
            seeing, lowered = self.with_other_eyes(info, seeing, fault)
        seeing, notes = self._looked(info, until, fit, seeing)
        return seeing, (lowered, *notes)

    def with_other_eyes(self, info: VideoInfo, seeing: Seeing, fault: NoFace) -> tuple[Seeing, str]:
        """The same seeing with eyes for faces that are no photographs, and a sentence that says so.

        Args:
            info: the video or picture.
            seeing: how no face was found.
            fault: raised where these see none either, or were the ones that were used.
        """
        if isinstance(seeing.detector, DrawnFaceDetector):
            raise fault
        detector, seen = DrawnFaceDetector(self.models_dir), 0
        for frame in self._samples(info):
            self.tick()
            seen += bool(detector.detect(frame.picture.small(detector.side)))
            if seen >= (1 if info.is_image else _SEEN_IN):
                return replace(seeing, detector=detector), _LOWERED
        raise fault

    def _looked(
        self, info: VideoInfo, until: Callable[[], float], fit: str, seeing: Seeing
    ) -> tuple[Seeing, tuple[str, ...]]:
        """With given eyes: the picture, or the plan where one is needed."""
        choice = seeing.choice
        planner = Planner(info, seeing.detector, self.mesh, self.config, self.limits, self.tick, self.size)
        if choice.rule == "index" and choice.index:
            planner.check_index(choice.index, until())
        if info.is_image:
            notes = (_STILL,) if choice.rule == "speaker" else ()
            if check_picture(info, seeing, self.limits) is None:
                return seeing, notes
            seeing, doubtful = seeing.doubted(1, 1)
            return seeing, (*notes, doubtful)
        if not choice.needs_survey:
            return seeing, ()
        planned = planner.plan(choice, fit, until(), self.judge)
        return replace(seeing, plan=planned.plan), planned.notes

    def _marked(self, info: VideoInfo, seeing: Seeing) -> tuple[Seeing, tuple[str, ...]]:
        """How the face is found that somebody has marked with a box, and sentences about it.

        In a box around a face the mesh is looked for first, in the usual way and with other eyes. Where it sees none,
        and in a box around a mouth, the place alone has to do.
        """
        choice, picture = seeing.choice, self._frame_at(info, seeing.choice.time).picture
        (height, width), (x, y, across, down) = picture.shape, choice.box
        if x >= width or y >= height:
            raise InputError(f"The box at {x:g},{y:g} lies outside of the picture ({width}x{height} px); draw it anew.")
        if choice.rule == "box":
            hint = (x / width, y / height, min((x + across) / width, 1.0), min((y + down) / height, 1.0))
            others = DrawnFaceDetector(self.models_dir, hint=hint)
            for detector, notes in ((seeing.detector, ()), (others, (_LOWERED,))):
                if any(_within(face, choice) for face in faces_in(detector, picture)):
                    return replace(seeing, detector=detector), notes
        if not seeing.lays_mouths:
            raise InputError(
                "No face is seen in the box, so no mouth can be drawn into it; lay drawn mouths there with --sprites.",
                "no-face",
            )
        return replace(seeing, anchor=Anchor.of(picture, choice)), (_PLACED,)

    def _frame_at(self, info: VideoInfo, time: float) -> Frame:
        with VideoReader(info.path, self.limits, size=self.size) as reader:
            frame = next(reader.between(0.0 if info.is_image else time, float("inf")), None)
        if frame is None:
            raise InputError(f"The video {info.path} has no frame at {time:g} s; name a time within it.")
        return frame

    def _samples(self, info: VideoInfo) -> Iterator[Frame]:
        """Some frames spread over a video; the one of a picture."""
        length = info.duration or _FIRST_S
        with VideoReader(info.path, self.limits, size=self.size) as reader:
            for start in np.linspace(0, length, 1 if info.is_image else _SAMPLES, endpoint=False):
                frame = next(reader.between(float(start), float("inf")), None)
                if frame is None:
                    return
                yield frame


def _within(face: Detection, choice: FaceChoice) -> bool:
    """Whether a face is the one in the box."""
    x, y, width, height = choice.box
    middle = (face.box[:2] + face.box[2:]) / 2
    held = x <= middle[0] <= x + width and y <= middle[1] <= y + height
    return bool(held) and iou(face.box, np.array([x, y, x + width, y + height])) >= CONTINUES
