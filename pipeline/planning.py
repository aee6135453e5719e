"""Whom to follow in each scene of a video, where that takes a look at all of it first.

The face at a point at some later time is followed back to where its scene begins; the speaker of a scene is the face
whose lips fit the video's own sound. Both are found in a quick pass before the work: frames are decoded, faces are
looked for in every fifth, and only their boxes are kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from audio_processor import load_audio
from engines.base import Budget, Skipped
from faces.choice import FaceChoice, Track
from faces.detector import FaceDetector, FaceMesh
from faces.footage import FPS, Footage, collect_footage, frames_at_25, spread_parts
from faces.mouth_windows import mouth_windows
from faces.shots import FacePlan, Look, Shot, looks, survey
from faces.tracker import FaceTracker, TrackerSettings
from faces.usable import UsableFace
from models.syncnet import WINDOW
from pipeline.judge import Judge, lesson_of
from pipeline.seeing import no_face
from utils.config import Config
from utils.helpers import InputError
from video_processor import MediaLimits, Size, VideoInfo, VideoReader

SAMPLE_RATE = 16000
_MOST_FACES = 6  # of a scene that are listened to, the largest ones
_TIME_TOLERANCE = 1e-4  # seconds; the start of a round is not the end of the one before
_NO_NETWORK = "there is no sync network among the weights"


@dataclass(frozen=True)
class Planned:
    """The plan, and sentences about what could not be done as asked."""

    plan: FacePlan
    notes: tuple[str, ...] = ()


@dataclass
class Planner:
    """Makes plans for one video.

    Attributes:
        info: the video.
        detector: finds faces.
        mesh: finds the points of a face.
        config: the configuration.
        limits: what is too big.
        tick: called often; what it raises ends the work.
        size: in which the pictures are looked at.
    """

    info: VideoInfo
    detector: FaceDetector
    mesh: FaceMesh
    config: Config
    limits: MediaLimits
    tick: Callable[[], None] = field(default=lambda: None)
    size: Size | None = None

    def shots(self, until: float = math.inf) -> list[Shot]:
        """All scenes that begin before a time in seconds, with their faces."""
        settings = self._settings()
        with VideoReader(self.info.path, self.limits, size=self.size) as reader:
            seen = looks(reader, self.detector, settings.cut_threshold, settings.detect_every)
            return list(survey(self._ticking(seen, until)))

    def check_index(self, index: int, until: float = math.inf) -> None:
        """Look through the video until so many faces are seen at once that one has this index, from 0.

        Raises:
            InputError: there are never so many; tells how many there are.
        """
        most = 0
        settings = self._settings()
        with VideoReader(self.info.path, self.limits, size=self.size) as reader:
            seen = looks(reader, self.detector, settings.cut_threshold, settings.detect_every)
            for look in self._ticking(seen, until):
                most = max(most, len(look.detections or ()))
                if most > index:
                    return
        known = {0: "no face is seen", 1: "one face is seen"}.get(most, f"at most {most} faces are seen at once")
        raise InputError(
            f"There is no face with --face index:{index}: {known} in {self.info.path}. The leftmost is index:0; "
            "--list-faces shows all.",
            "no-such-face",
        )

    def plan(
        self,
        choice: FaceChoice,
        fit: str,
        until: float,
        judge: Callable[[], Judge | None],
    ) -> Planned:
        """Make a plan for a choice that needs one.

        Args:
            choice: a speaker, or a point at a time.
            fit: how the video goes on when it is over, see `fitted_frames`.
            until: seconds of the video that get a new mouth.
            judge: loads the network that knows whether sound and picture belong together; None: there is none.

        Raises:
            InputError: there is no face at the point at that time, or in all of the video.
        """
        shots = self.shots(max(until, choice.time))
        if not any(shot.tracks for shot in shots):
            raise no_face("anywhere in the video", "no face is seen")
        if choice.is_placed:
            chosen, notes = [(shot, _at_point(shot, choice)) for shot in shots], ()
            _check_point(choice, chosen)
        else:
            chosen, notes = self._speakers(shots, judge)
        return Planned(FacePlan(chosen, _source_time(self.info, fit)), notes)

    def _settings(self) -> TrackerSettings:
        faces = self.config.faces
        return TrackerSettings(min_presence=faces.min_presence, cut_threshold=faces.cut_threshold)

    def _ticking(self, seen: Iterator[Look], until: float) -> Iterator[Look]:
        """The looks up to the cut after `until`."""
        for look in seen:
            self.tick()
            if look.cut and look.frame.time > until:
                return
            yield look

    def _speakers(
        self, shots: list[Shot], judge: Callable[[], Judge | None]
    ) -> tuple[list[tuple[Shot, Track | None]], tuple[str, ...]]:
        """Each scene with the face that speaks, or the largest where that cannot be told; sentences about the latter.

        Where a scene shows one face, it is that one.
        """
        largest = FaceChoice()
        chosen = [(shot, largest.pick(shot.tracks, shot.looked_at)) for shot in shots]
        several = [number for number, shot in enumerate(shots) if len(shot.faces()) > 1]
        if not several:
            return chosen, ()
        network, samples, why = judge(), None, _NO_NETWORK
        if network is not None:
            samples, why = self._sound()
        if samples is None:
            return chosen, (f"The speaker cannot be told ({why}): the largest face was taken.",)
        unsure = Counter()
        for number in several:
            track, why = self._speaker(shots[number], network, samples)
            if track is None:
                unsure[why] += 1
            else:
                chosen[number] = (shots[number], track)
        told = ", ".join(f"{count} because {why}" for why, count in unsure.items())
        note = f"In {unsure.total()} of {len(several)} scenes with several faces the largest was taken: {told}."
        return chosen, (note,) if unsure else ()

    def _sound(self) -> tuple[np.ndarray | None, str]:
        """The video's own sound, or why there is none."""
        if not self.info.has_audio:
            return None, "the video has no sound of its own"
        try:
            return load_audio(self.info.path, SAMPLE_RATE, self.limits), ""
        except InputError:
            return None, "the sound of the video cannot be read"

    def _speaker(
        self, shot: Shot, judge: Judge, samples: np.ndarray
    ) -> tuple[Track | None, str]:
        """The face of a scene whose lips fit the sound best; None and why, where that is not sure."""
        faces = self.config.faces
        scores: list[tuple[float, Track]] = []
        for track in sorted(shot.faces(), key=lambda t: -t.area())[:_MOST_FACES]:
            footage = self._footage(shot, track)
            if not footage:
                continue
            lesson = lesson_of(footage, samples)
            try:
                sync = judge.sync(lesson, faces.speaker_windows, Budget(math.inf, self.tick))
            except Skipped:
                continue
            fits = abs(sync.offset) <= self.config.adaptation.max_sync_offset
            scores.append((sync.confidence if fits else 0.0, track))
        if not scores:
            return None, "no face is seen long enough"
        confidence, track = max(scores, key=lambda score: score[0])
        if confidence < faces.min_speaker_confidence:
            return None, "no lips fit the sound"
        return track, ""

    def _footage(self, shot: Shot, track: Track) -> list[Footage]:
        """Mouth windows of a face from parts spread over its scene."""
        faces = self.config.faces
        usable = UsableFace(faces.min_face_px, faces.max_yaw_deg, faces.max_pitch_deg)
        plan = FacePlan([(shot, track)])
        start, stop = max(shot.start, track.times[0]), min(shot.stop, track.times[-1] + 0.2)
        found: list[Footage] = []
        with VideoReader(self.info.path, self.limits, size=self.size) as reader:
            for begin, end in spread_parts(stop - start, faces.speaker_look_s, faces.speaker_look_s / 3):
                begin, end = start + begin, min(start + end, stop)
                tracker = FaceTracker(self.detector, self.mesh, FaceChoice(), self._settings(), plan)
                frames = frames_at_25(self._between(reader, begin, end), round(begin * FPS))
                found += collect_footage(mouth_windows(tracker.follow(frames), usable, _forget), WINDOW)
        return found

    def _between(self, reader: VideoReader, start: float, stop: float) -> Iterator:
        for frame in reader.between(start, stop):
            self.tick()
            yield frame


def _forget(frame: object) -> None:
    """Nothing of a frame but its mouth window is needed to compare it with a sound."""


def _at_point(shot: Shot, choice: FaceChoice) -> Track | None:
    """The face of a scene at a point: at its time if the scene shows it then, else the nearest."""
    if not shot.start <= choice.time < shot.stop + 1e-3:
        return choice.pick(shot.tracks, shot.looked_at)
    there = [(track, box) for track in shot.tracks if (box := track.box_at(choice.time)) is not None]
    inside = [(track, box) for track, box in there if _holds(box, choice.point)]
    nearest = min(inside, key=lambda item: math.dist((item[1][:2] + item[1][2:]) / 2, choice.point), default=None)
    return None if nearest is None else nearest[0]


def _holds(box: np.ndarray, point: tuple[float, float]) -> bool:
    """Whether a point lies in a box (4,) made half as large again: the detector leaves out forehead and chin."""
    margin = (box[2:] - box[:2]) / 4
    return bool(np.all(box[:2] - margin <= point) and np.all(point <= box[2:] + margin))


def _check_point(choice: FaceChoice, chosen: list[tuple[Shot, Track | None]]) -> None:
    for shot, track in chosen:
        if shot.start <= choice.time < shot.stop + 1e-3 and track is not None:
            return
    x, y = choice.point
    raise InputError(
        f"There is no face at the point {x:g},{y:g} at {choice.time:g} s; --list-faces shows which faces there are.",
        "no-such-face",
    )


def _source_time(info: VideoInfo, fit: str) -> Callable[[float], float]:
    """From the time of a frame of the result to its time in the video; see `fitted_frames`."""
    if info.duration is None or fit in ("cut", "freeze"):
        return float
    length, step = info.duration, float(1 / info.fps)
    if fit == "loop":
        return lambda time: (time + _TIME_TOLERANCE) % length
    turn = max(length - step, step)  # the last frame is shown once, then it goes back
    return lambda time: turn - abs(time % (2 * turn) - turn)
