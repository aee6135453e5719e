"""The whole way from a video and new speech to the video that speaks it: the only place where sound, faces, engine and
video meet. One run is in `pipeline/job.py`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import engines
from audio_processor import load_audio, probe_audio
from engines.base import Engine
from faces.choice import FaceChoice
from faces.detector import FaceDetector, FaceMesh
from language_processor import LanguageProcessor, SpokenText, Utterance
from models.cover import CoverJudge
from models.phonemes import Phoneme
from pipeline.adaptation import AdaptationReport
from pipeline.drawing import DrawingSettings
from pipeline.engine_choice import check_ready, shelf_of, with_engine_weights
from pipeline.finding import Finder
from pipeline.host import Host, check_name
from pipeline.host_making import HostMaker, HostWish
from pipeline.host_sources import host_size
from pipeline.job import SAMPLE_RATE, CoverDoubted, Job, ProgressCallback, ShowMouths, Summary
from pipeline.judge import Judge
from pipeline.live import LiveFrame, LiveSettings, live_frames
from pipeline.options import Options, check_inputs, media_limits
from pipeline.preview import Preview
from pipeline.seeing import NoFace, Seeing
from pipeline.speed import Pace, known_pace, measure_pace
from pipeline.study import Study
from pipeline.tracks.maker import TrackMaker
from utils.config import Config, load_config
from utils.helpers import InputError, atomic_path, resolve_device, temporary_folder
from utils.stages import in_background
from video_processor import MediaLimits, Size, probe_video
from voices.subtitles import srt

_ROOT = Path(__file__).resolve().parent.parent


class LipSyncPipeline:
    """Loaded networks that make any number of videos, one after another.

    Args:
        engine: what draws the mouths; a run that asks for another one by its name makes the pipeline load that.
        config: the configuration.
        language: speaks texts and finds them in sounds; needed only where a text is given.
    """

    def __init__(self, engine: Engine, config: Config, language: LanguageProcessor | None = None):
        self._engine = engine
        self._chosen = engine.facts.name
        self._config = config
        self._language = language
        models_dir = _ROOT / config.faces.models_dir
        self._detector = FaceDetector(models_dir, config.faces.min_detection_score)
        self._mesh = FaceMesh(models_dir)
        self._tracks: TrackMaker | None = None
        self._cover = CoverJudge(_ROOT / config.faces.cover_dir) if config.faces.cover_dir else None

    @classmethod
    def load(
        cls,
        config: Config | None = None,
        device: torch.device | None = None,
        language: LanguageProcessor | None = None,
        *,
        engine: str | None = None,
        weights: Path | None = None,
    ) -> LipSyncPipeline:
        """Load the weights that the configuration names (relative paths: from the program's folder).

        Args:
            config: the configuration; None: the file that comes with the program.
            device: where the networks compute; None: on a GPU if there is one.
            language: speaks texts; None: one with all voices that are installed.
            engine: what draws the mouths; None: what the configuration names.
            weights: folder of the weights of engines other than `lite`; None: what the configuration names.

        Raises:
            InputError: weights are missing or do not fit the configuration.
        """
        config = with_engine_weights(config or load_config(_ROOT / "model_config.yaml"), weights)
        device = device or resolve_device("auto")
        folder = _ROOT / config.inference.weights_dir
        if language is None:
            language = LanguageProcessor(folder, folder / config.size / "phonemes", own=config.language.engines)
        name = engine or config.inference.engine
        pipeline = cls(load_engine(name, config, device), config, language)
        pipeline._chosen = name
        return pipeline

    def run(
        self,
        video: Path,
        audio: Path | None,
        output: Path,
        options: Options,
        progress: ProgressCallback | None = None,
        *, text: SpokenText | None = None, phonemes: Sequence[Phoneme] = (), subtitles: Path | None = None,
        preview: Preview | None = None, expect: Callable[[float], None] | None = None, mouths: Path | None = None,
    ) -> Summary:  # fmt: skip
        """Make one video. The output appears under its name only when it is complete.

        Args:
            video: a video or a portrait image.
            audio: the new speech, in any sound or video file; None: the text is spoken.
            output: .mp4, .mov or .mkv.
            options: choices.
            progress: called every moment with (frames written, frames expected or None); what it raises ends the run.
            text: what is said in the sound, or is to be spoken.
            phonemes: what is said when, where that is known; without `text` only.
            subtitles: an .srt file to write beside the result; needs `text`.
            preview: the first seconds, to be written as soon as they are made, for those who wait.
            expect: told about how many seconds drawing will take on this computer, before it begins.
            mouths: folder or .zip of drawn mouths for the engine `sprites`, see `faces.sprites`; None: bundled ones.

        Raises:
            InputError: an input cannot be used, or no face could be used anywhere in the video.
        """
        started, progress = time.perf_counter(), progress or (lambda done, total: None)
        tick = functools.partial(progress, 0, None)
        in_background(lambda: self._prepare(video, audio, output, options, mouths), tick)
        with temporary_folder() as folder:
            known = Utterance(audio, tuple(phonemes))
            said = known if text is None else in_background(lambda: self._say(text, audio, folder), tick)
            if expect is not None:
                expect(in_background(lambda: self.expected_seconds(video, said.audio, options), tick))
            summary = self._make(video, said, output, options, progress, started, preview, mouths)
        _write_subtitles(subtitles, said)
        return summary

    def stream(
        self, frames: Iterable[LiveFrame], sound: Iterable[np.ndarray] | np.ndarray, options: Options
    ) -> Iterator[LiveFrame]:
        """New mouths for frames that are still arriving: every frame comes out, in order.

        No frame waits for a picture or a sound that is later than `live_look_ahead` after it. The first second of a
        shot passes unchanged while the person is got to know. Frames that are not drawn read no sound.

        Args:
            frames: pictures of one size with rising times; read in a thread of their own.
            sound: the speech, mono at 16 kHz, float in [-1, 1]: chunks of any length in the order of time, or all of
                it. Time 0 is its first sample; after its end there is silence.
            options: steps, guidance, seed, face and min_confidence count; the rest belongs to files. A speaker is not
                looked for: the largest face is taken.

        Raises:
            InputError: an option cannot be used.
        """
        options.check()
        live = self._config.live
        seeing = self._plainly(options)
        tracker, usable = seeing.tracker(look_ahead=1, flash_frames=0), replace(seeing.usable(), at_once=True)
        chunks = [sound] if isinstance(sound, np.ndarray) else sound
        drawing = DrawingSettings.of(self._engine, options)
        return live_frames(frames, chunks, self._engine, tracker, usable, drawing, LiveSettings(**live.model_dump()))

    def live_look_ahead(self, fps: float) -> float:
        """Seconds for which `stream` waits at most, apart from the time for computing, at a frame rate."""
        return LiveSettings(**self._config.live.model_dump()).look_ahead(fps)

    def make_host(
        self, wish: HostWish, options: Options, tick: Callable[[str], None] = lambda said: None
    ) -> tuple[Host, AdaptationReport | None]:
        """Prepare a host in the configured folder, see `pipeline.host`; and what was learnt for it, where asked to.

        Args:
            wish: of what, and its name.
            options: steps, guidance, seed, face, min_confidence, size and adapt count.
            tick: called often with a sentence about what is done; what it raises ends the work.

        Raises:
            InputError: the source or an option cannot be used, or there is a host of that name.
        """
        options.check()
        check_name(wish.name)
        settings, limits = self._config.hosts, media_limits(self._config.media)
        size = host_size(wish.source, limits, options.picture_size() if options.size else None, settings.max_px)
        finder = self._finder(functools.partial(tick, "looking for the face"), size)
        seeing, _ = finder.find(wish.source, lambda: settings.look_s, options.fit, self._plainly(options))
        if seeing.anchor is not None:
            raise InputError("A host needs a face that is seen, not only a marked place; give another picture.")
        engine, report = self._engine, None
        if options.adapt:
            study = Study(engine, seeing, self._config, options)
            engine, report = study.run(wish.source, self._judge(), lambda: tick("learning"))
        maker = HostMaker(engine, seeing, settings, limits, options, tick, learned=engine is not self._engine)
        return maker.make(wish, _ROOT / settings.dir), report

    def drawing_speed(self) -> float:
        """Frames per second that this computer draws, measured if need be."""
        return self._pace().fps

    def _pace(self) -> Pace:
        folder = shelf_of(self._config.inference).folder
        name, device = self._engine.facts.name, self._engine.device.type
        return known_pace(name, folder, device) or measure_pace(self._engine, folder)

    @property
    def engine(self) -> Engine:
        """What draws the mouths."""
        return self._engine

    def _say(self, text: SpokenText, audio: Path | None, folder: Path) -> Utterance:
        """The text in the given sound, or spoken into a file in `folder`."""
        if self._language is None:
            raise ValueError("This pipeline was made without a LanguageProcessor, so it cannot take a text.")
        if audio is None:
            return self._language.speak_to_file(text, folder / "speech.wav", self._config.media.max_duration_s)
        samples = load_audio(audio, SAMPLE_RATE, media_limits(self._config.media))
        return self._language.align(samples, text, audio)

    def _make(
        self,
        video: Path,
        said: Utterance,
        output: Path,
        options: Options,
        progress: ProgressCallback,
        started: float,
        preview: Preview | None,
        mouths: Path | None,
    ) -> Summary:
        limits, size = media_limits(self._config.media), options.picture_size(self._config.inference.still_side)
        finder = self._finder(functools.partial(progress, 0, None), size)
        until = functools.partial(_seconds_of, said.audio, limits)
        engine, report = self._engine.dressed(mouths, options.erases), None
        seeing, found = finder.find(video, until, options.fit, self._plainly(options))
        notes = [*said.notes, *found]
        if options.adapt:
            study = Study(engine, seeing, self._config, options)
            engine, report = study.run(video, self._judge(), finder.tick)
        while True:
            try:
                job = Job(engine, seeing, self._config, options, preview, self._mouths_of(engine))
                summary = job.run(video, said, output, progress, started)
                return replace(summary, adaptation=report, notes=(*summary.notes, *notes))
            except CoverDoubted as doubt:
                if doubt.shots:
                    seeing, told = seeing.doubted_in(doubt.shots, doubt.covered)
                else:
                    seeing, told = seeing.doubted(doubt.covered, doubt.frames)
            except NoFace as fault:
                seeing, told = finder.with_other_eyes(probe_video(video, limits, size), seeing, fault)
            notes.append(told)

    def _finder(self, tick: Callable[[], None], size: Size) -> Finder:
        """What finds the face that is asked for."""
        return Finder(self._config, _ROOT / self._config.faces.models_dir, self._mesh, self._judge, size, tick)

    def _mouths_of(self, engine: Engine) -> ShowMouths | None:
        """Finds out which mouth is shown when, for an engine that lays mouths."""
        if not engine.facts.lays_mouths:
            return None
        if self._tracks is None:
            self._tracks = TrackMaker(self._config, engine.device)
        return self._tracks.cues

    def expected_seconds(self, video: Path, audio: Path, options: Options) -> float:
        """About how long a run will draw on this computer, by the speed of its engine, which is measured if need be.

        Raises:
            InputError: an input cannot be used, or the engine cannot be loaded.
        """
        self._choose(options.engine)
        limits, pace = media_limits(self._config.media), self._pace()
        info = probe_video(video, limits)
        seconds = probe_audio(audio, limits).duration
        if options.fit == "cut" and not info.is_image:
            seconds = min(seconds, info.duration or seconds)
        return float(seconds * info.fps) * pace.seconds(options.steps, options.guidance)

    def _prepare(
        self, video: Path, audio: Path | None, output: Path, options: Options, mouths: Path | None
    ) -> None:
        """Refuse what cannot work, and load the engine that is asked for."""
        check_inputs(video, audio, output, options, self._config.media, mouths)
        self._choose(options.engine)

    def _choose(self, name: str | None) -> None:
        """Load another engine where a run asks for it; the one before is given up first, memory holds one only."""
        if name is None or name == self._chosen:
            return
        device = self._engine.device
        check_ready(name, self._config.inference)
        before, self._engine = self._chosen, None
        try:
            self._engine, self._chosen = load_engine(name, self._config, device), name
        finally:
            if self._engine is None:
                self._engine = load_engine(before, self._config, device)

    def _plainly(self, options: Options) -> Seeing:
        """How faces are found in this run, as long as nobody has looked at the video."""
        choice = FaceChoice.parse(options.face)
        return Seeing(
            self._detector,
            self._mesh,
            None if self._engine.facts.lays_mouths else self._cover,
            self._config,
            self._engine.facts.geometry,
            choice,
            options.min_confidence,
            lays_mouths=self._engine.facts.lays_mouths,
        )

    def _judge(self) -> Judge | None:
        """What knows whether sound and picture belong together; None where it has no weights."""
        return Judge.load(_ROOT / self._config.inference.weights_dir, self._config.size, self._engine.device)


def _write_subtitles(path: Path | None, said: Utterance) -> None:
    if path is not None:
        with atomic_path(path) as temporary:
            temporary.write_text(srt(said.sentences, said.phonemes), encoding="utf-8")


def _seconds_of(audio: Path, limits: MediaLimits) -> float:
    return probe_audio(audio, limits).duration


def load_engine(name: str, config: Config, device: torch.device) -> Engine:
    """An engine with the weights that the configuration names for it; see `engines.load`."""
    chosen = config.inference
    folder = chosen.weights_dir if name == engines.OURS else chosen.engine_weights
    return engines.load(name, config, device, _ROOT / folder)
