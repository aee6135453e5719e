"""Movement tracks in the process that runs jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from language_processor import LanguageProcessor, SpokenText
from pipeline.tracks.formats import write_track
from pipeline.tracks.options import TrackOptions
from serving.problems import in_api_terms
from utils.config import Config
from utils.helpers import resolve_device
from utils.stages import in_background

if TYPE_CHECKING:
    from pipeline.track import Track
    from pipeline.tracks.maker import TrackMaker


class TrackRuns:
    """Makes tracks; their networks are loaded for the first one.

    Args:
        config: the configuration.
        device: name of the device that computes.
    """

    def __init__(self, config: Config, device: str) -> None:
        self._config, self._device = config, device

    @cached_property
    def _maker(self) -> TrackMaker:
        from pipeline.tracks.maker import TrackMaker  # loads large libraries

        weights = self._config.inference.weights_dir
        recogniser = weights / self._config.size / "phonemes"
        language = LanguageProcessor(weights, recogniser, own=self._config.language.engines)
        return TrackMaker(self._config, resolve_device(self._device), language)

    def run(self, job: dict[str, Any], progress: Callable[[int, int | None], None]) -> dict[str, Any]:
        """Make one track and write it.

        Args:
            job: see `serving.jobs.runner`; "track" holds its options.
            progress: called now and then; what it raises ends the run.

        Returns:
            What is kept of it: frames, seconds, notes.
        """
        started = time.perf_counter()
        track = in_background(lambda: self._made(job), lambda: progress(0, None))
        avatar = job.get("avatar")
        write_track(track, Path(job["output"]), avatar and Path(avatar))
        notes = [in_api_terms(note) for note in track.notes]
        return {"frames": len(track), "seconds": time.perf_counter() - started, "notes": notes}

    def _made(self, job: dict[str, Any]) -> Track:
        options, text = TrackOptions(**job["track"]), job.get("text")
        if job["video"]:
            return self._maker.capture(Path(job["video"]), options, job["face"])
        spoken = text and SpokenText(text, job["lang"], job["voice"], job["speed"], job.get("expected"))
        return self._maker.make(job["audio"] and Path(job["audio"]), spoken, options)
