"""How long a track of a long sound takes, and how much memory."""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from pipeline.tracks.formats import FORMATS, write_track
from pipeline.tracks.maker import TrackMaker
from pipeline.tracks.options import TrackOptions
from utils.helpers import available_cores
from voices.espeak import EspeakEngine

RATE = 22050
_WORDS = "The quick brown fox jumps over the lazy dog, and nobody knows why it bothers. "


@dataclass(frozen=True)
class Speed:
    """What a track took.

    Attributes:
        minutes: of sound.
        cores: that the process may use.
        load_s: seconds for a short track first, the networks' loading included.
        seconds: for the track.
        writing_s: seconds for all formats without words.
        before_mb, peak_mb: most memory of the process after the short track, and at the end.
    """

    minutes: float
    cores: int
    load_s: float
    seconds: float
    writing_s: float
    before_mb: float
    peak_mb: float


def measure_speed(maker: TrackMaker, minutes: float) -> Speed:
    """Make a track of so many minutes of speech, after one of ten seconds."""
    voice = EspeakEngine().speak_variant(_WORDS * 3, "en", "f2").samples
    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder) / "short.wav", Path(folder) / "long.wav"
        soundfile.write(short, voice[: 10 * RATE], RATE)
        soundfile.write(long, np.resize(voice, round(60 * minutes * RATE)), RATE)
        started = time.perf_counter()
        maker.make(short, None, TrackOptions())
        loaded, before = time.perf_counter(), _peak_mb()
        track = maker.make(long, None, TrackOptions())
        made = time.perf_counter()
        for entry in FORMATS.values():
            if not entry.words:
                write_track(track, Path(folder) / f"out{entry.endings[0]}")
        written = time.perf_counter()
    times = (loaded - started, made - loaded, written - made)
    return Speed(minutes, available_cores(), *(round(t, 1) for t in times), round(before), round(_peak_mb()))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
