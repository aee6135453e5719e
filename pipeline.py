"""The whole way from a video and new speech to the video that speaks it: the only place where sound, faces, model and
video meet.

Frames run through five stages that work at the same time (decode, faces, generate, paste, encode), joined by bounded
queues; nothing grows with the length of the video but the speech features (0.2 MB for each second of sound).
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audio_processor import load_audio, probe_audio
from faces.compositor import composite
from faces.detector import FaceDetector, FaceMesh
from faces.mouth_windows import MouthFrame, UsableFace, mouth_windows, with_fades
from faces.person import Person, with_person
from faces.tracker import FaceChoice, FaceTracker, TrackerSettings
from latent_diffusion import LipSyncModel
from utils.config import Config
from utils.config import MediaLimits as MediaConfig
from utils.helpers import InputError
from utils.overlap import OverlappingWindows
from utils.stages import Stages
from video_processor import Frame, MediaLimits, Patch, VideoInfo, VideoWriter, fitted_frames, probe_video

CODECS, FITS, RESTS = ("h264", "ffv1"), ("bounce", "loop", "freeze", "cut"), ("keep", "cut")
SAMPLE_RATE = 16000
AFTER_SPEECH = "after the end of the speech"

_ROOT = Path(__file__).resolve().parent
_TIME_TOLERANCE = 1e-3  # seconds
_SILENCE_S = 0.5  # heard after the speech, so that the mouth closes while the last frames fade out
_HELD_BYTES = 256 * 2**20  # of frames that wait for their person to be known
_HELD_FRAMES = 75
_QUEUE_BYTES = 128 * 2**20  # of frames that wait between two stages
_BYTES_PER_PIXEL = 5  # of a frame: 3 for RGB, up to 2 for 8-bit YUV
_NO_IMAGE = np.empty((0, 0, 3), np.uint8)

ProgressCallback = Callable[[int, "int | None"], None]
_NewMouth = tuple[MouthFrame, "np.ndarray | None"]  # a frame and its generated window, None where it stays as it is


@dataclass(frozen=True)
class Options:
    """What a user may choose for one run.

    Attributes:
        steps: denoising steps.
        guidance: exaggeration of the sound's influence, 1 = none.
        seed: of the random noise.
        fit: what to do when the sound is longer than the video: bounce, loop, freeze, cut.
        rest: what to do when the video is longer than the sound: keep, cut.
        face: which face speaks, see `FaceChoice.parse`.
        codec: h264 or ffv1 (lossless).
        crf: quality of h264, 0..51.
    """

    steps: int = 2
    guidance: float = 1.0
    seed: int = 1
    fit: str = "bounce"
    rest: str = "keep"
    face: str = "largest"
    codec: str = "h264"
    crf: int = 16

    def check(self) -> None:
        """Raise InputError for a value that cannot be used."""
        for name, value, known in (("fit", self.fit, FITS), ("rest", self.rest, RESTS), ("codec", self.codec, CODECS)):
            if value not in known:
                raise InputError(f"The option {name} cannot be '{value}'; use one of {', '.join(known)}.")
        if not 1 <= self.steps <= 1000:
            raise InputError(f"The number of steps must be 1 to 1000, not {self.steps}.")
        if not 0 <= self.guidance <= 20:
            raise InputError(f"The guidance must be 0 to 20, not {self.guidance:g}.")
        if not 0 <= self.crf <= 51:
            raise InputError(f"The quality crf must be 0 to 51, not {self.crf}.")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"The seed must be 0 or more, not {self.seed}.")
        FaceChoice.parse(self.face)


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        output: the file written.
        frames: frames in it.
        generated: frames with a new mouth.
        passed_through: reason -> frames that were left as they are.
        seconds: duration of the run.
        stages: stage -> seconds of work, without waiting. Stages overlap, so they add up to more than `seconds`.
    """

    output: Path
    frames: int
    generated: int
    passed_through: dict[str, int]
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        """Frames written per second."""
        return self.frames / max(self.seconds, 1e-9)


def check_inputs(video: Path, audio: Path, output: Path, options: Options, media: MediaConfig) -> None:
    """Refuse what cannot work before anything heavy is loaded.

    Args:
        video: a video or a portrait image.
        audio: a file with the new speech.
        output: the video to write.
        options: choices.
        media: what is too big.

    Raises:
        InputError: an input is missing, damaged, too big or of the wrong kind, an option is out of range, or the
            output cannot be written or is one of the inputs.
    """
    options.check()
    for path in (video, audio):
        if path.is_file() and path.stat().st_size > media.max_file_gb * 1e9:
            raise InputError(f"The file {path} is larger than {media.max_file_gb:g} GB; give a smaller one.")
    info = probe_video(video, _limits(media))
    if probe_audio(audio).duration > media.max_duration_s:
        raise InputError(f"The sound {audio} is longer than {media.max_duration_s:g} s; give less.")
    _check_output(output, (video, audio))
    VideoWriter(output, info, options.codec)  # opens nothing yet, but knows what fits into which file


def _limits(media: MediaConfig) -> MediaLimits:
    return MediaLimits(max_pixels=media.max_width * media.max_height, max_duration_s=media.max_duration_s)


def _check_output(output: Path, inputs: tuple[Path, ...]) -> None:
    if output.is_dir():
        raise InputError(f"The output {output} is a folder; give the name of a file.")
    if any(output.exists() and output.samefile(path) for path in inputs):
        raise InputError(f"The output {output} is also an input; give it another name.")
    folder = output.absolute().parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"Cannot write into the folder {output.parent}; choose another output folder.")


class LipSyncPipeline:
    """Loaded networks that make any number of videos, one after another.

    Args:
        model: the generator with all it needs.
        config: the configuration.
    """

    def __init__(self, model: LipSyncModel, config: Config):
        self._model = model
        self._config = config
        models_dir = _ROOT / config.faces.models_dir
        self._detector = FaceDetector(models_dir, config.faces.min_detection_score)
        self._mesh = FaceMesh(models_dir)

    @classmethod
    def load(cls, config: Config, device: torch.device) -> LipSyncPipeline:
        """Load the weights that the configuration names (relative paths: from the program's folder).

        Raises:
            InputError: weights are missing or do not fit the configuration.
        """
        weights = _ROOT / config.inference.weights_dir
        return cls(LipSyncModel.load(weights, size=config.size, device=device), config)

    def run(
        self, video: Path, audio: Path, output: Path, options: Options, progress: ProgressCallback | None = None
    ) -> Summary:
        """Make one video. The output appears under its name only when it is complete.

        Args:
            video: a video or a portrait image.
            audio: the new speech, in any sound or video file.
            output: .mp4, .mov or .mkv.
            options: choices.
            progress: called with (frames written, frames expected or None).

        Raises:
            InputError: an input cannot be used, or no face could be used anywhere in the video.
        """
        started = time.perf_counter()
        check_inputs(video, audio, output, options, self._config.media)
        job = _Job(self._model, self._detector, self._mesh, self._config, options)
        return job.run(video, audio, output, progress or (lambda done, total: None), started)


class _Job:
    """One run: its stages and what they share."""

    def __init__(self, model: LipSyncModel, detector: FaceDetector, mesh: FaceMesh, config: Config, options: Options):
        self._model = model
        self._config = config
        self._options = options
        settings = TrackerSettings(min_presence=config.faces.min_presence, cut_threshold=config.faces.cut_threshold)
        self._tracker = FaceTracker(detector, mesh, FaceChoice.parse(options.face), settings)
        self._limits = _limits(config.media)
        self._info: VideoInfo
        self._features: np.ndarray
        self._speech_end = 0.0  # seconds

    def run(self, video: Path, audio: Path, output: Path, progress: ProgressCallback, started: float) -> Summary:
        """See `LipSyncPipeline.run`; `started` is the clock's value at its start."""
        self._info = probe_video(video, self._limits)
        samples = load_audio(audio, SAMPLE_RATE)
        self._speech_end = len(samples) / SAMPLE_RATE
        silence = np.zeros(round(_SILENCE_S * SAMPLE_RATE), np.float32)
        self._features = self._model.speech_features(np.concatenate([samples, silence])).astype(np.float16)
        stages = Stages(
            {"decode": self._decode, "faces": self._faces, "generate": self._generate, "paste": self._paste},
            depth=self._frames_within(
                _QUEUE_BYTES, self._config.inference.queue_windows * self._config.inference.window
            ),
        )
        counts, encoding = self._write(stages, audio, output, progress)
        generated = counts.pop(None, 0)
        return Summary(
            output=output,
            frames=generated + sum(counts.values()),
            generated=generated,
            passed_through=dict(counts),
            seconds=time.perf_counter() - started,
            stages={**stages.seconds, "encode": encoding},
        )

    def _write(
        self, stages: Stages, audio: Path, output: Path, progress: ProgressCallback
    ) -> tuple[Counter[str | None], float]:
        """Write all results; returns how many frames there are by reason (None: new mouth) and the seconds."""
        counts: Counter[str | None] = Counter()
        seconds, total = 0.0, self._expected_frames()
        # Leaving the block in either way stops the stages first, then completes or removes the file.
        with self._writer(audio, output) as writer, stages as results:
            for mouth, patch in results:
                begun = time.perf_counter()
                writer.write(mouth.frame, patch)
                seconds += time.perf_counter() - begun
                counts[mouth.reason] += 1
                progress(counts.total(), total)
            if None not in counts:
                raise InputError(_no_face(counts))
        return counts, seconds

    def _writer(self, audio: Path, output: Path) -> VideoWriter:
        length = self._info.duration if self._options.fit == "cut" else None
        return VideoWriter(
            output, self._info, self._options.codec, self._options.crf, audio_from=audio, audio_duration=length
        )

    def _expected_frames(self) -> int | None:
        spoken = round(self._speech_end * self._info.fps)
        count = self._info.frame_count
        if self._info.is_image or count is None:
            return spoken if self._info.is_image else None
        if count > spoken:
            return count if self._options.rest == "keep" else spoken
        return count if self._options.fit == "cut" else spoken

    def _frames_within(self, memory: int, most: int) -> int:
        """How many frames, raw and as RGB, fit into so many bytes; at least 4 and at most `most`."""
        frame = self._info.width * self._info.height * _BYTES_PER_PIXEL
        return int(min(max(memory // frame, 4), most))

    def _decode(self, _: Iterator[Any]) -> Iterator[Frame]:
        options = self._options
        yield from fitted_frames(self._info.path, self._speech_end, options.fit, options.rest, self._limits)

    def _faces(self, frames: Iterator[Frame]) -> Iterator[tuple[MouthFrame, Person | None]]:
        settings = self._config.faces
        usable = UsableFace(settings.min_face_px, settings.max_yaw_deg, settings.max_pitch_deg)
        mouths = with_fades(self._mouths(frames, usable), settings.fade_frames)
        held = self._frames_within(_HELD_BYTES, _HELD_FRAMES)
        yield from with_person(mouths, self._model.mouth_shape, self._config.inference.references, held)

    def _mouths(self, frames: Iterator[Frame], usable: UsableFace) -> Iterator[MouthFrame]:
        """Mouth windows while there is speech; after it the frames are not even looked at."""
        silent: list[Frame] = []
        shot = 0
        for mouth in mouth_windows(self._tracker.follow(self._while_speaking(frames, silent)), usable, _release):
            shot = mouth.shot
            yield mouth
        for frame in itertools.chain(silent, frames):
            yield MouthFrame(_release(frame), frame.time, frame.image.shape[:2], shot, AFTER_SPEECH)

    def _while_speaking(self, frames: Iterator[Frame], silent: list[Frame]) -> Iterator[Frame]:
        """Frames up to the end of the speech and of the fade; the first one after it goes into `silent`."""
        end = self._speech_end + min(float(self._config.faces.fade_frames / self._info.fps), _SILENCE_S)
        for frame in frames:
            if frame.time >= end - _TIME_TOLERANCE:
                silent.append(frame)
                return
            yield frame

    def _generate(self, frames: Iterator[tuple[MouthFrame, Person | None]]) -> Iterator[_NewMouth]:
        """Frames with their new mouths in overlapping windows; each run of frames of one person starts afresh."""
        run, speaker = None, None
        for mouth, person in frames:
            if person is not speaker and run is not None:
                yield from run.finish()
                run = None
            if person is not None and run is None:
                make, settings = self._window_maker(person), self._config.inference
                run = OverlappingWindows(make, settings.window, settings.overlap)
            speaker = person
            yield from [(mouth, None)] if run is None else run.add(mouth)
        if run is not None:
            yield from run.finish()

    def _window_maker(self, person: Person) -> Callable[[list[MouthFrame]], np.ndarray]:
        """A function that generates the mouths (F, 160, 160, 3) of up to `window` successive frames of a person."""
        references = self._model.prepare_references(person.references, person.points, person.shapes)
        shape, options = self._model.mouth_shape, self._options

        def make(frames: list[MouthFrame]) -> np.ndarray:
            times = np.array([frame.time for frame in frames])
            base = shape.base(person.neutral, np.stack([frame.points for frame in frames]))
            coefficients = self._config.inference.mouth_gain * self._model.predict_shape(self._features, times)
            return self._model.generate(
                np.stack([frame.window for frame in frames]),
                references,
                shape.decode(coefficients, base),
                self._features,
                times,
                steps=options.steps,
                guidance=options.guidance,
                seed=options.seed,
            )

        return make

    def _paste(self, mouths: Iterator[_NewMouth]) -> Iterator[tuple[MouthFrame, Patch | None]]:
        for mouth, generated in mouths:
            patch = None
            if generated is not None:
                patch = composite(
                    mouth.size,
                    generated,
                    mouth.window,
                    mouth.matrix,
                    mouth.points,
                    fade=mouth.fade,
                    feather=self._config.faces.feather_px,
                )
            yield mouth, patch


def _release(frame: Frame) -> Frame:
    """The frame without its RGB picture: what waits in the queues needs only the raw one."""
    return replace(frame, image=_NO_IMAGE)


def _no_face(counts: Counter[str | None]) -> str:
    reasons = ", ".join(f"{reason} in {count} frames" for reason, count in counts.most_common())
    return (
        f"No face can be used anywhere in the video ({reasons}); give a video or picture that shows a face "
        "from the front, or choose another one with --face."
    )
