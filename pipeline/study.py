"""A look at parts of the input video from which the engine may learn before it draws."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from audio_processor import load_audio
from engines.base import Budget, Engine, Skipped
from faces.footage import FPS, Footage, collect_footage, frames_at_25, spread_parts
from faces.mouth_windows import mouth_windows
from models.syncnet import WINDOW
from pipeline.adaptation import AdaptationReport, adapt
from pipeline.judge import SAMPLE_RATE, Judge
from pipeline.options import Options, media_limits
from pipeline.seeing import Seeing
from utils.config import Config, MediaLimits
from utils.helpers import InputError
from video_processor import VideoReader, probe_video


class Study:
    """Looks at parts of the input video and lets the engine adapt to the person in it."""

    def __init__(self, engine: Engine, seeing: Seeing, config: Config, options: Options):
        self._engine = engine
        self._seeing = seeing
        self._config = config
        self._options = options

    def run(
        self, video: Path, judge: Judge | None, tick: Callable[[], None]
    ) -> tuple[Engine, AdaptationReport]:
        """The adapted copy of the engine (itself where that was skipped), and what was done.

        Args:
            video: the input.
            judge: see `pipeline.adaptation.adapt`.
            tick: called often; what it raises ends the run.
        """
        started = time.monotonic()
        try:
            if self._engine.facts.lays_mouths:
                raise Skipped(f"the engine {self._engine.facts.name} learns nothing")
            samples = _own_sound(video, self._config.media)
            footage = self._look(video, started, tick)
            budget = Budget(started + self._options.adapt, tick)
            engine, report = adapt(self._engine, footage, samples, judge, self._config.adaptation, budget)
        except Skipped as reason:
            engine, report = self._engine, AdaptationReport(skipped=str(reason))
        return engine, replace(report, seconds=time.monotonic() - started)

    def _look(self, video: Path, started: float, tick: Callable[[], None]) -> list[Footage]:
        """Stretches of the person from all over the video, as many as the time allows."""
        settings = self._config.adaptation
        budget = Budget(started + settings.reading_share * self._options.adapt, tick)
        found: list[Footage] = []
        with VideoReader(video, media_limits(self._config.media), size=self._seeing.size) as reader:
            # A face that is told by its place has to be followed from there.
            pinned = self._seeing.choice.is_placed and self._seeing.plan is None
            duration = None if pinned else reader.info.duration
            for start, stop in spread_parts(duration, settings.read_s, settings.part_s):
                frames = itertools.takewhile(lambda _: budget.left() > 0, reader.between(start, stop))
                faces = self._seeing.tracker().follow(frames_at_25(frames, round(start * FPS)))
                found += collect_footage(mouth_windows(faces, self._seeing.usable(), _forget), WINDOW)
        return sorted(found, key=lambda stretch: stretch.first)


def _own_sound(video: Path, media: MediaLimits) -> np.ndarray:
    """The video's own sound, mono (N,) at 16 kHz; raises Skipped where there is none to learn from."""
    info = probe_video(video, media_limits(media))
    if info.is_image:
        raise Skipped("a still picture shows nobody speaking")
    if not info.has_audio:
        raise Skipped("the video has no sound of its own")
    try:
        return load_audio(video, SAMPLE_RATE, media_limits(media))
    except InputError as error:
        raise Skipped("the sound of the video cannot be read") from error


def _forget(frame: Any) -> None:
    """Nothing of a frame but its mouth window is needed to learn from it."""
