"""The order of adaptation: listen, check that sound and picture fit, learn the speech, learn the picture."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from faces.footage import FPS, Footage
from latent_diffusion import LipSyncModel
from models.syncnet import SyncNetV2, SyncResult
from pipeline.adaptation.parts import Budget, Change, Heard, Skipped
from pipeline.adaptation.picture import fit_picture
from pipeline.adaptation.sound import check_sync, listen, own_sync
from pipeline.adaptation.speech import fit_speech
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
    model: LipSyncModel,
    footage: Sequence[Footage],
    samples: np.ndarray,
    judge: SyncNetV2 | None,
    settings: AdaptationConfig,
    budget: Budget,
) -> tuple[LipSyncModel, AdaptationReport]:
    """Fit a copy of the model to the person in a video.

    Args:
        model: stays as it is.
        footage: stretches of the person, at least 16 frames each.
        samples: the video's own sound, mono (N,) at 16 kHz, from the first frame on.
        judge: tells whether sound and picture belong together; None where there are no weights of it.
        settings: see the configuration.
        budget: how long it may take.

    Returns:
        The adapted copy, or `model` itself where adaptation was skipped; and what was done.
    """
    started = time.monotonic()
    learner = _Learner(model, AdaptationReport(footage_s=sum(len(f) for f in footage) / FPS))
    try:
        learner.learn(footage, samples, judge, settings, budget)
    except Skipped as reason:
        learner.report = replace(learner.report, skipped=str(reason))
    return learner.model, replace(learner.report, seconds=time.monotonic() - started)


class _Learner:
    """The model so far, and what has been done to it."""

    def __init__(self, model: LipSyncModel, report: AdaptationReport) -> None:
        self.model, self.report = model, report

    def learn(
        self,
        footage: Sequence[Footage],
        samples: np.ndarray,
        judge: SyncNetV2 | None,
        settings: AdaptationConfig,
        budget: Budget,
    ) -> None:
        """All steps in order; raises Skipped where nothing could be changed."""
        if self.report.footage_s < settings.min_footage_s:
            raise Skipped(
                f"only {self.report.footage_s:.1f} s of a usable face could be looked at, "
                f"{settings.min_footage_s:g} s are needed"
            )
        if judge is None:
            raise Skipped("there are no weights of the network that checks whether sound and picture belong together")
        heard = listen(self.model, footage, samples)
        sync = own_sync(heard, judge, settings.sync_windows, budget)
        self.report = replace(self.report, sync=sync)
        check_sync(sync, settings)
        self._learn_both(replace(heard, offset=sync.offset), settings, budget)

    def _learn_both(self, heard: Heard, settings: AdaptationConfig, budget: Budget) -> None:
        self.model, lips = fit_speech(self.model, heard, settings.ridge)
        self.report = replace(self.report, lips_px=lips)
        # Whoever gives little time gets at least the speech.
        with contextlib.suppress(Skipped):
            self.model, picture, steps = fit_picture(self.model, heard, settings, budget)
            self.report = replace(self.report, picture_db=picture, steps=steps)
        if not any(change.kept for change in (lips, self.report.picture_db) if change is not None):
            raise Skipped(f"learning from the video did not help ({self.report.changes()})")
