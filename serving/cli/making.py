"""One video after another by loaded networks: what the command line does for one job and for a list of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from language_processor import LanguageProcessor, SpokenText
from pipeline import engine_choice
from pipeline.options import Options, check_inputs, check_output
from pipeline.tracks.formats import check_avatar, check_words, format_of, write_track
from pipeline.tracks.options import TrackOptions
from serving.cli.spoken_text import describe_voice
from utils.config import Config
from utils.helpers import InputError, resolve_device

if TYPE_CHECKING:
    from pipeline import LipSyncPipeline, Summary
    from pipeline.adaptation import AdaptationReport
    from pipeline.host import Host
    from pipeline.track import Track
    from pipeline.tracks.maker import TrackMaker


_WORTH_SAYING_S = 90.0


@dataclass(frozen=True)
class VideoJob:
    """A video to make.

    Attributes:
        video: a video or a portrait.
        audio: the new speech; None: the text is spoken.
        output: the video to write.
        options: choices.
        spoken: the text; None where there is only a sound.
        subtitles: an .srt file to write as well.
        mouths: folder or .zip of drawn mouths; None: nobody brought any.
    """

    video: Path
    audio: Path | None
    output: Path
    options: Options
    spoken: SpokenText | None
    subtitles: Path | None
    mouths: Path | None = None

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that it reads."""
        named = (self.video, self.audio, self.options.background_file(), self.mouths)
        drawn = sorted(self.mouths.iterdir()) if self.mouths is not None and self.mouths.is_dir() else ()
        return (*(path for path in named if path is not None), *drawn)


@dataclass(frozen=True)
class TrackJob:
    """A movement track to make.

    Attributes:
        audio: the sound; None: the text is spoken, or the mouth of the video is seen.
        output: the file to write.
        others: further files of the same track.
        options: choices.
        spoken: the text; None where there is only a sound.
        onto: an avatar; None = the sample head.
        video: a video whose mouth is captured; then there is neither a sound nor a text.
        face: which face of it.
    """

    audio: Path | None
    output: Path
    others: tuple[Path, ...]
    options: TrackOptions
    spoken: SpokenText | None
    onto: Path | None = None
    video: Path | None = None
    face: str = "largest"
    subtitles: None = None

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files that it reads."""
        return tuple(path for path in (self.audio, self.onto, self.video) if path is not None)

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files that it writes."""
        return (self.output, *self.others)

    def check(self) -> None:
        """Raise InputError for an option or a file name that cannot be used."""
        self.options.check()
        chosen = {output: format_of(output, self.options.format) for output in self.outputs}
        if self.onto is not None:
            check_avatar(self.onto, any(entry.avatar for entry in chosen.values()))
        for output, entry in chosen.items():
            check_words(output, entry, self.spoken is not None)
            check_output(output, self.inputs)


class Maker:
    """Makes videos and tracks; the networks are loaded when the first one is to be made.

    Args:
        config: the configuration.
        device: name of the device that computes.
        weights: folder of the trained weights.
    """

    def __init__(self, config: Config, device: str, weights: Path):
        self._config = config
        self._device = device
        self._weights = weights

    @cached_property
    def processor(self) -> LanguageProcessor:
        """What speaks texts."""
        folder = self._weights / self._config.size / "phonemes"
        return LanguageProcessor(self._weights, folder, own=self._config.language.engines)

    @cached_property
    def _pipeline(self) -> LipSyncPipeline:
        from pipeline import LipSyncPipeline  # loads large libraries, which takes seconds

        # Its hints are for developers; loading it resets the level.
        logging.getLogger("diffusers").setLevel(logging.ERROR)
        return LipSyncPipeline.load(self._config, resolve_device(self._device), self.processor)

    def make(self, job: VideoJob, progress: Callable[[int, int | None], None]) -> Summary:
        """Make one video, once it is known that nothing speaks against it.

        Raises:
            InputError: an input, an option or the text cannot be used.
        """
        check_inputs(job.video, job.audio, job.output, job.options, self._config.media, job.mouths)
        if job.options.engine is not None:
            engine_choice.check_ready(job.options.engine, self._config.inference)
        if job.spoken is not None:
            self._check_voice(job.spoken, job.audio is None)
        pipeline = self._pipeline
        ours = engine_choice.is_ours(job.options.engine or self._config.inference.engine)  # never takes so long
        if job.options.adapt:
            print(f"Adapting to the person, at most {job.options.adapt:g} s.", file=sys.stderr, flush=True)
        return pipeline.run(
            job.video, job.audio, job.output, job.options, progress, text=job.spoken, subtitles=job.subtitles,
            expect=None if ours else say_how_long, mouths=job.mouths,
        )  # fmt: skip

    def make_host(
        self, source: Path, name: str, moves: bool, options: Options, said: Callable[[str], None]
    ) -> tuple[Host, AdaptationReport | None]:
        """Prepare a host; see `LipSyncPipeline.make_host`."""
        from pipeline.host_making import HostWish  # loads large libraries

        check_inputs(source, None, Path(f"{name}.mp4"), options, self._config.media)
        return self._pipeline.make_host(HostWish(source, name, moves), options, said)

    def make_track(self, job: TrackJob) -> Track:
        """Make one movement track and write it, once it is known that nothing speaks against it.

        Raises:
            InputError: an input, an option or the text cannot be used.
        """
        job.check()
        if job.spoken is not None:
            self._check_voice(job.spoken, job.audio is None)
        if job.video is None:
            track = self._track_maker.make(job.audio, job.spoken, job.options)
        else:
            track = self._track_maker.capture(job.video, job.options, job.face)
        for output in job.outputs:
            write_track(track, output, job.onto)
        return track

    @cached_property
    def _track_maker(self) -> TrackMaker:
        from pipeline.tracks.maker import TrackMaker  # loads large libraries, which takes seconds

        logging.getLogger("diffusers").setLevel(logging.ERROR)
        return TrackMaker(self._config, resolve_device(self._device), self.processor)

    def _check_voice(self, spoken: SpokenText, speaks: bool) -> None:
        choice = self.processor.choose(spoken)
        if speaks:
            lines = [describe_voice(choice.voice, self.processor), *choice.notes]
            print("\n".join(lines), file=sys.stderr, flush=True)


def say_how_long(seconds: float) -> None:
    """Tell a person who would wait for minutes."""
    if seconds >= _WORTH_SAYING_S:
        print(f"This takes about {seconds / 60:.0f} minutes on this computer.", file=sys.stderr, flush=True)


def measure_engines(config: Config, device: str) -> None:
    """Measure the speed of all engines that are installed and were not measured yet; tells on standard error."""
    waiting = [view.name for view in engine_choice.list_engines(config.inference) if view.installed and not view.speed]
    if not waiting:
        return
    from pipeline.lip_sync import load_engine  # loads large libraries
    from pipeline.speed import measure_pace

    logging.getLogger("diffusers").setLevel(logging.ERROR)
    chosen = resolve_device(device)
    for name in waiting:
        print(f"Measuring {name}.", file=sys.stderr, flush=True)
        try:
            measure_pace(load_engine(name, config, chosen), engine_choice.shelf_of(config.inference).folder)
        except InputError as error:
            print(f"  {error}", file=sys.stderr, flush=True)
