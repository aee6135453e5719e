"""From clips to scores: makes what is missing (results, baselines), reads every version once, compares them.

Videos that are there already are not made again, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

import engines
from audio_processor import SAMPLE_RATE, load_audio
from data.preprocess import FPS
from data.raw_clips import RawClip
from evaluation.baselines import write_frozen, write_recoded
from evaluation.clips import Speech
from evaluation.features import FaceDescriptor, ImageFeatures, check_packages
from evaluation.reading import MIN_FRAMES, Place, Reading, find_place, read
from evaluation.scores import REAL, Compared, Networks, Sound, Version, compare
from evaluation.sync import Judge, PublicJudge
from pipeline import LipSyncPipeline
from pipeline.engine_choice import check_ready
from pipeline.options import Options
from utils.config import Config
from utils.helpers import InputError, resolve_device

OWN, NEW, GIVEN = "own speech", "new speech", "given results"
RECODED, UNTOUCHED, FROZEN = "real, encoded again", "untouched", "frozen mouth"
OURS, ADAPTED, RESULTS = "ours", "ours, adapted", "results"
FOLDERS = {OWN: "own_speech", NEW: "new_speech"}

_THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
STRIP_FRAMES = 6  # frames of a version on the contact sheet
STRIP_SIDE = 128  # px
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Settings:
    """What all clips share.

    Attributes:
        config: of the program.
        output: folder of the videos that are made.
        judge: folder of the judge's weights.
        public: file of the public SyncNet's weights; None: without it.
        adapt: seconds of adaptation for the clips that are chosen for it.
        engines: what draws the mouths, one after the other; none: what is configured.
    """

    config: Config
    output: Path
    judge: Path
    public: Path | None = None
    adapt: float = 0.0
    engines: tuple[str, ...] = ()

    @property
    def methods(self) -> dict[str, str | None]:
        """Name in the tables -> engine; None: the configured one."""
        return {OURS if name == engines.OURS else name: name for name in self.engines} or {OURS: None}


@dataclass(frozen=True)
class Job:
    """One clip to score.

    Attributes:
        clip: the real video.
        modes: which comparisons to make.
        speech: new speech, where it is compared.
        result: a ready-made result, where it is compared.
        adapted: also with adaptation to the speaker.
        sheet: also pictures for the contact sheet.
    """

    clip: RawClip
    modes: tuple[str, ...]
    speech: Speech | None = None
    result: Path | None = None
    adapted: bool = False
    sheet: bool = False


@dataclass
class Scored:
    """The outcome for one clip.

    Attributes:
        job: the clip.
        modes: comparison -> scores.
        identity: descriptor (128,) of the real face; None when the clip was left out.
        adaptation: comparison -> whether adaptation was skipped, and its sentence.
        strips: "comparison: version" -> JPEG of some of its mouth windows.
        left_out: why it was not scored; None if it was.
    """

    job: Job
    modes: dict[str, Compared] = field(default_factory=dict)
    identity: np.ndarray | None = None
    adaptation: dict[str, dict[str, Any]] = field(default_factory=dict)
    strips: dict[str, bytes] = field(default_factory=dict)
    left_out: str | None = None


class ClipScorer:
    """Scores clips one after another with networks that are loaded once."""

    def __init__(self, settings: Settings):
        self._settings = settings

    @cached_property
    def _networks(self) -> Networks:
        check_packages()
        settings = self._settings
        encoder = settings.config.inference.weights_dir / "whisper_tiny_en_encoder"
        syncs = {"judge": Judge(settings.judge, encoder)}
        if settings.public is not None:
            syncs["public"] = PublicJudge(settings.public)
        return Networks(ImageFeatures(), FaceDescriptor(), syncs)

    @cached_property
    def _pipeline(self) -> LipSyncPipeline:
        return LipSyncPipeline.load(self._settings.config, resolve_device("auto"))

    def __call__(self, job: Job) -> Scored:
        """Score one clip; one that cannot be used comes back with the reason."""
        try:
            return self._score(job)
        except InputError as error:
            return Scored(job, left_out=str(error))

    def _score(self, job: Job) -> Scored:
        clip = job.clip
        place = find_place(clip.video, self._settings.config)
        real = self._version(clip.video, place)
        frozen = self._version(self._frozen(clip, real.reading), place)
        own = self._sound(clip.audio)
        scored, shown = Scored(job, identity=real.early), []
        for mode in job.modes:
            sound = own if mode == OWN else self._sound(job.result or job.speech.audio)
            versions = {REAL: (real, own)}
            if mode != NEW:
                versions[RECODED] = (self._version(self._recoded(clip), place), own)
            if mode != OWN:
                versions[UNTOUCHED] = (real, sound)
            versions[FROZEN] = (frozen, sound)
            for name, video in self._results(mode, job):
                versions[name] = (self._version(video, place), sound)
                if name == ADAPTED:
                    scored.adaptation[mode] = json.loads(video.with_suffix(".json").read_text(encoding="utf-8"))
            scored.modes[mode] = compare(versions, self._networks, same_words=mode != NEW)
            if job.sheet:
                new = {f"{mode}: {name}": v.reading for name, (v, _) in versions.items() if v.reading not in shown}
                shown += new.values()
                scored.strips |= {name: strip(reading.windows) for name, reading in new.items()}
        return scored

    def _results(self, mode: str, job: Job) -> Iterator[tuple[str, Path]]:
        """The videos of the methods that are compared; those of the program are made where they are missing."""
        if mode == GIVEN:
            yield RESULTS, job.result
            return
        audio, name = _spoken(mode, job)
        for method, engine in self._settings.methods.items():
            yield method, self._generated(job.clip.video, audio, f"{FOLDERS[mode]}/{method}/{name}.mp4", engine)
        if job.adapted:
            target = f"{FOLDERS[mode]}/adapted/{name}.mp4"
            yield ADAPTED, self._generated(job.clip.video, audio, target, None, self._settings.adapt)

    def make(self, job: Job, method: str) -> None:
        """Make the videos of one clip by one engine, so that engines are loaded one after the other."""
        for mode in set(job.modes) - {GIVEN}:
            audio, name = _spoken(mode, job)
            target = f"{FOLDERS[mode]}/{method}/{name}.mp4"
            with contextlib.suppress(InputError):  # it is said when the clip is scored
                self._generated(job.clip.video, audio, target, self._settings.methods[method])

    def _generated(self, video: Path, audio: Path, name: str, engine: str | None, adapt: float = 0.0) -> Path:
        """The program's result; picture and sound both end with the shorter one, so that frames correspond.

        What adaptation did is written beside the video, after it.
        """
        target = self._settings.output / name
        if not (target.with_suffix(".json") if adapt else target).is_file():
            chosen = self._settings.config.inference
            quality = {key: getattr(chosen, key) for key in ("seed", "crf")} | {"engine": engine or chosen.engine}
            made = self._pipeline.run(video, audio, target, Options(**quality, fit="cut", rest="cut", adapt=adapt))
            if made.adaptation is not None:
                report = {"skipped": made.adaptation.skipped is not None, "said": made.adaptation.sentence()}
                target.with_suffix(".json").write_text(json.dumps(report, ensure_ascii=False), encoding="utf-8")
        return target

    def _frozen(self, clip: RawClip, real: Reading) -> Path:
        target = self._settings.output / "frozen" / f"{clip.video.stem}.mp4"
        if not target.is_file():
            write_frozen(clip.video, real, target, self._settings.config)
        return target

    def _recoded(self, clip: RawClip) -> Path:
        target = self._settings.output / "encoded_again" / f"{clip.video.stem}.mp4"
        if not target.is_file():
            write_recoded(clip.video, target, self._settings.config)
        return target

    def _version(self, video: Path, place: Place) -> Version:
        public = self._settings.public is not None
        return Version(read(video, place, self._settings.config, public), self._networks)

    def _sound(self, audio: Path) -> Sound:
        samples = load_audio(audio, SAMPLE_RATE)
        if len(samples) < MIN_FRAMES / FPS * SAMPLE_RATE:
            raise InputError(f"The sound of {audio.name} is shorter than {MIN_FRAMES / FPS:.2g} s; leave it out.")
        return Sound(samples, self._networks)


def engine_names(text: str, config: Config) -> tuple[str, ...]:
    """Engines of a list such as "lite,wav2lip".

    Raises:
        InputError: one of them does not exist or cannot be used.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        check_ready(name, config.inference)
    return names


def _spoken(mode: str, job: Job) -> tuple[Path, str]:
    """The sound of a comparison, and the name of the video that speaks it."""
    if mode == OWN:
        return job.clip.audio, job.clip.video.stem
    return job.speech.audio, f"{job.clip.video.stem}__{job.speech.name}"


def strip(windows: np.ndarray) -> bytes:
    """Some mouth windows (T, 160, 160, 3) of a clip side by side, as JPEG."""
    chosen = windows[((np.arange(STRIP_FRAMES) + 0.5) * len(windows) / STRIP_FRAMES).astype(int)]
    small = [cv2.resize(image, (STRIP_SIDE, STRIP_SIDE), interpolation=cv2.INTER_AREA) for image in chosen]
    picture = np.ascontiguousarray(np.hstack(small)[..., ::-1])
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def score_all(jobs: list[Job], settings: Settings, workers: int) -> list[Scored]:
    """Score clips, with a progress bar.

    Args:
        jobs: the clips.
        settings: shared by all.
        workers: processes, each with one thread; with 1 the work is done in this process.

    Returns:
        The outcomes in the order of the jobs.
    """
    scorer = ClipScorer(settings)
    if len(settings.methods) > 1:
        for method in settings.methods:
            for job in tqdm(jobs, unit="clip", mininterval=1.0, desc=method):
                scorer.make(job, method)
    if workers == 1:
        return [scorer(job) for job in tqdm(jobs, unit="clip", mininterval=1.0)]
    os.environ |= {name: "1" for name in _THREAD_LIMITS}  # the new processes read them before they load the libraries
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (settings,)) as pool:
        futures = {pool.submit(_score_in_worker, job): index for index, job in enumerate(jobs)}
        outcomes = {}
        try:
            for done in tqdm(as_completed(futures), total=len(futures), unit="clip", mininterval=1.0):
                outcomes[futures[done]] = done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [outcomes[index] for index in range(len(jobs))]


_worker: ClipScorer | None = None  # of this process, where it is a worker


def _start_worker(settings: Settings) -> None:
    global _worker
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _worker = ClipScorer(settings)


def _score_in_worker(job: Job) -> Scored:
    return _worker(job)
