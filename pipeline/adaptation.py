"""Adaptation: before generating, a copy of the engine learns from the input video with its own sound.

It needs a video whose sound belongs to its picture; the judge decides that first. What is learnt is the engine's own
matter; it is used only if it comes out better on frames that were left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engines.base import Budget, Change, Engine, Lesson, Skipped
from faces.footage import FPS, Footage
from models.syncnet import SyncResult
from pipeline.judge import Judge, check_sync, lesson_of
from utils.config import AdaptationConfig


@dataclass(frozen=True)
class AdaptationReport:
    """What adapting to the person did.

    Attributes:
        seconds: how long it took.
        footage_s: seconds of the person that were looked at.
        skipped: why nothing was changed; None when something was.
        sync: how well the video's own sound fits its picture; None where that was not measured.
        lips_px: mean error of the predicted lip points, px of the mouth window (72 px are between the eyes).
        picture_db: PSNR of the drawn mouth, dB.
        steps: training steps of the picture.
    """

    seconds: float = 0.0
    footage_s: float = 0.0
    skipped: str | None = None
    sync: SyncResult | None = None
    lips_px: Change | None = None
    picture_db: Change | None = None
    steps: int = 0

    def sentence(self) -> str:
        """What was done, for a person."""
        if self.skipped is not None:
            return f"Adaptation skipped: {self.skipped}."
        return (
            f"Adapted in {self.seconds:.0f} s to {self.footage_s:.0f} s of the person; on frames not learnt from: "
            f"{self.changes()}."
        )

    def changes(self) -> str:
        """The measures before and after, and which of the two parts was kept."""
        parts = []
        if self.lips_px is not None:
            parts.append(f"error of the lips from {_told(self.lips_px, '.2f', 'px')}")
        if self.picture_db is not None:
            parts.append(f"picture from {_told(self.picture_db, '.1f', 'dB')} in {self.steps} steps")
        return "; ".join(parts)


def _told(change: Change, digits: str, unit: str) -> str:
    not_kept = "" if change.kept else " (not kept)"
    return f"{change.before:{digits}} to {change.after:{digits}} {unit}{not_kept}"


def adapt(
    engine: Engine,
    footage: Sequence[Footage],
    samples: np.ndarray,
    judge: Judge | None,
    settings: AdaptationConfig,
    budget: Budget,
) -> tuple[Engine, AdaptationReport]:
    """Fit a copy of the engine to the person in a video.

    Args:
        engine: stays as it is.
        footage: stretches of the person, at least 16 frames each.
        samples: the video's own sound, mono (N,) at 16 kHz, from the first frame on.
        judge: tells whether sound and picture belong together; None where there are no weights of it.
        settings: see the configuration.
        budget: how long it may take.

    Returns:
        The adapted copy, or `engine` itself where adaptation was skipped; and what was done.
    """
    started = time.monotonic()
    report = AdaptationReport(footage_s=sum(len(f) for f in footage) / FPS)
    try:
        lesson = _lesson(footage, samples, judge, report.footage_s, settings)
        sync = judge.sync(lesson, settings.sync_windows, budget)
        report = replace(report, sync=sync)
        check_sync(sync, settings)
        engine, learned = engine.adapt(replace(lesson, offset=sync.offset), settings, budget)
        report = replace(
            report, lips_px=learned.lips_px, picture_db=learned.picture_db, steps=learned.steps
        )
        if not any(change.kept for change in (learned.lips_px, learned.picture_db) if change is not None):
            raise Skipped(f"learning from the video did not help ({report.changes()})")
    except Skipped as reason:
        report = replace(report, skipped=str(reason))
    return engine, replace(report, seconds=time.monotonic() - started)


def _lesson(
    footage: Sequence[Footage], samples: np.ndarray, judge: Judge | None, footage_s: float, settings: AdaptationConfig
) -> Lesson:
    """The stretches with their sound; raises Skipped where there is too little of them, or nobody to judge them."""
    if footage_s < settings.min_footage_s:
        raise Skipped(
            f"only {footage_s:.1f} s of a usable face could be looked at, {settings.min_footage_s:g} s are needed"
        )
    if judge is None:
        raise Skipped("there are no weights of the network that checks whether sound and picture belong together")
    return lesson_of(footage, samples)
