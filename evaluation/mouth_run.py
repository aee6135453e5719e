"""Measures mouths: makes the program's results that are missing, reads them beside the real video.

Every clip gets its own speech, silence, another person's speech and, where portraits are asked for, one frame of it
becomes a still picture with its own speech. Results that are there already are not made again: after a change of
weights give another folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import av
import cv2
import numpy as np
import soundfile
from tqdm import tqdm

from audio_processor import SAMPLE_RATE, load_audio, probe_audio
from data.raw_clips import RawClip
from evaluation.clips import Speech
from evaluation.mouth import Row, closures, correlation, looks, movement, rest
from evaluation.mouth_reading import Mouth, read_mouth, still_place, write_still
from evaluation.reading import Place, find_place
from language_processor import LanguageProcessor, SpokenText
from models.audio_encoder import SpeechEncoder
from models.checkpoint import load_pretrained
from models.phoneme_recogniser import PhonemeRecogniser
from models.phonemes import phoneme_track
from pipeline import LipSyncPipeline
from pipeline.options import Options
from utils.config import Config
from utils.helpers import InputError, atomic_path, resolve_device

OWN, SILENT, OTHER, PORTRAIT, REAL = "own speech", "silence", "another's speech", "portrait", "real"
SHEET_FRAMES = 8
LEAST_S = 2.0  # clips with less sound say too little
_JPEG_QUALITY = 92
_FOLDERS = {OWN: "own", SILENT: "silence", OTHER: "other", PORTRAIT: "portrait"}


@dataclass(frozen=True)
class MouthSettings:
    """What all clips share.

    Attributes:
        config: of the program.
        output: folder of the results that are made.
        seconds: of each clip and of its sounds.
        portraits: also one frame of each clip as a still picture.
    """

    config: Config
    output: Path
    seconds: float = 6.0
    portraits: bool = False


@dataclass(frozen=True)
class MouthJob:
    """One clip: the real video, another person's speech for it, or a ready-made result on its own speech."""

    clip: RawClip
    speech: Speech | None = None
    result: Path | None = None


@dataclass
class Measured:
    """The outcome for one clip.

    Attributes:
        job: the clip.
        row: the measures by name.
        sheets: version -> JPEG of some of its mouths.
        left_out: why it was not measured; None if it was.
        no_portrait: why there is no portrait of it, though one was asked for; None if there is.
    """

    job: MouthJob
    row: Row = field(default_factory=dict)
    sheets: dict[str, bytes] = field(default_factory=dict)
    left_out: str | None = None
    no_portrait: str | None = None


def choose_clips(clips: list[RawClip], count: int | None) -> list[RawClip]:
    """The longest clip of each person, those with the largest pictures first: always the same ones.

    Args:
        clips: of all people.
        count: how many at most; None for all. Clips of less than two seconds are left out.

    Raises:
        InputError: no clip is long enough.
    """
    lengths = {clip.video: probe_audio(clip.audio).duration for clip in clips}
    best: dict[str, RawClip] = {}
    for clip in sorted(clips, key=lambda c: (-lengths[c.video], c.video.name)):
        if lengths[clip.video] >= LEAST_S:
            best.setdefault(clip.person, clip)
    if not best:
        raise InputError(f"No clip is {LEAST_S:g} s long; give longer ones.")
    return sorted(best.values(), key=lambda c: (-_shorter_side(c.video), c.video.name))[:count]


def _shorter_side(video: Path) -> int:
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        return min(stream.width, stream.height)


def measure_all(jobs: list[MouthJob], settings: MouthSettings) -> list[Measured]:
    """Measure clips one after another, with a progress bar; one that cannot be used comes back with the reason."""
    measurer = _Measurer(settings)
    return [measurer(job) for job in tqdm(jobs, unit="clip", mininterval=1.0)]


class _Measurer:
    """Measures clips with networks that are loaded once."""

    def __init__(self, settings: MouthSettings):
        self._settings = settings

    @cached_property
    def _pipeline(self) -> LipSyncPipeline:
        return LipSyncPipeline.load(self._settings.config, resolve_device("auto"))

    @cached_property
    def _sounds(self) -> _SoundReader:
        return _SoundReader(self._settings.config)

    def __call__(self, job: MouthJob) -> Measured:
        measured = Measured(job)
        try:
            self._measure(measured)
        except InputError as error:
            measured.left_out = str(error)
        return measured

    def _measure(self, measured: Measured) -> None:
        job, config = measured.job, self._settings.config
        place = find_place(job.clip.video, config, self._settings.seconds)
        real = read_mouth(job.clip.video, place, config)
        measured.sheets[REAL] = sheet(real)
        own = read_mouth(job.result or self._made(OWN, job), place, config)
        measured.sheets[OWN] = sheet(own)
        measured.row |= movement(own, real) | looks(own, real) | self._closures(job, own, real, place)
        if job.result is None:
            self._add_leak(measured, real, place)
        if self._settings.portraits:
            try:
                self._add_portrait(measured, real, place)
            except InputError as error:
                measured.no_portrait = str(error)

    def _add_leak(self, measured: Measured, real: Mouth, place: Place) -> None:
        """What is left of the old mouth under silence and under another person's speech."""
        config, job = self._settings.config, measured.job
        silent = read_mouth(self._made(SILENT, job), place, config)
        found = movement(silent, real)
        measured.row |= {"leak_spread": found["opening_spread"], "leak": found["correlation"]} | rest(silent, real)
        measured.sheets[SILENT] = sheet(silent)
        if job.speech is not None:
            other = read_mouth(self._made(OTHER, job), place, config)
            frames = min(len(other), len(real))
            measured.row["leak_other"] = correlation(other.opening[:frames], real.opening[:frames])
            measured.sheets[OTHER] = sheet(other)

    def _add_portrait(self, measured: Measured, real: Mouth, place: Place) -> None:
        """The frame with the most closed lips as a still picture."""
        index = int(np.argmin(real.opening))
        still = self._folder(PORTRAIT) / f"{measured.job.clip.video.stem}.png"
        if not still.is_file():
            write_still(measured.job.clip.video, place, index, still)
        video = self._made(PORTRAIT, measured.job, still)
        # The result starts with the sound, the real mouth with the first frame of its face.
        seen = still_place(place, index, place.first + len(place))
        spoken = read_mouth(video, seen, self._settings.config).without(place.first)
        found = movement(spoken, real) | {"detail": looks(spoken, real)["detail"]}
        measured.row |= {f"portrait_{name}": value for name, value in found.items()}
        measured.sheets[PORTRAIT] = sheet(spoken)

    def _closures(self, job: MouthJob, own: Mouth, real: Mouth, place: Place) -> Row:
        track = self._sounds.phonemes(self._sound(job.clip.audio, job.clip.video.stem), job.clip)
        rows = (closures(mouth, real, track, place.first) for mouth in (own, real))
        return next(rows).row() | next(rows).row("real_")

    def _made(self, version: str, job: MouthJob, still: Path | None = None) -> Path:
        """The program's result for the first seconds of a clip or for a still picture of it."""
        target = self._folder(version) / f"{job.clip.video.stem}.mp4"
        if not target.is_file():
            name, audio = (job.speech.name, job.speech.audio) if version == OTHER else (None, job.clip.audio)
            sound = self._sound(audio, name or job.clip.video.stem, silent=version == SILENT)
            chosen = self._settings.config.inference
            quality = {key: getattr(chosen, key) for key in ("steps", "guidance", "seed", "crf")}
            self._pipeline.run(still or job.clip.video, sound, target, Options(**quality, fit="cut", rest="cut"))
        return target

    def _sound(self, audio: Path, name: str, silent: bool = False) -> Path:
        """The first seconds of a sound as WAV, or as much silence."""
        target = self._folder("sounds") / f"{name}{'_silent' if silent else ''}.wav"
        if not target.is_file():
            samples = load_audio(audio, SAMPLE_RATE)[: round(self._settings.seconds * SAMPLE_RATE)]
            with atomic_path(target) as path:
                soundfile.write(path, np.zeros_like(samples) if silent else samples, SAMPLE_RATE)
        return target

    def _folder(self, version: str) -> Path:
        folder = self._settings.output / f"mouth_{self._settings.seconds:g}s" / _FOLDERS.get(version, version)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class _SoundReader:
    """Finds the phonemes of sounds: of the text where it is known, else what the phoneme recogniser hears."""

    def __init__(self, config: Config):
        weights = config.inference.weights_dir
        recogniser = weights / config.size / "phonemes"
        self._encoder = SpeechEncoder.from_pretrained(weights / "whisper_tiny_en_encoder")
        self._recogniser = load_pretrained(PhonemeRecogniser, recogniser)
        self._language = LanguageProcessor(weights, recogniser)

    def phonemes(self, sound: Path, clip: RawClip) -> np.ndarray:
        """Ids (T,) at 50 Hz of a sound."""
        samples = load_audio(sound, SAMPLE_RATE)
        features = self._encoder.features(samples)
        if clip.text and len(samples) >= len(load_audio(clip.audio, SAMPLE_RATE)):
            try:
                said = self._language.align(samples, SpokenText(clip.text, clip.language or "auto"), sound)
                return phoneme_track(said.phonemes, len(features))
            except InputError:  # of a language without a voice, or longer than its sound
                pass
        return self._recogniser.posteriors(features).argmax(axis=1)


def sheet(mouth: Mouth) -> bytes:
    """Some mouths of a clip side by side, evenly spread, the frame's own pixels, as JPEG."""
    chosen = mouth.crops[((np.arange(SHEET_FRAMES) + 0.5) * len(mouth) / SHEET_FRAMES).astype(int)]
    picture = np.ascontiguousarray(np.hstack(chosen)[..., ::-1])
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
