"""`lite` as an engine: what is said becomes shapes, shapes become drafts, drafts become pictures.

Windows of frames are cross-faded as latents, so each frame is encoded and decoded once however many windows it lies in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from engines.base import Budget, Change, Engine, Facts, Learned, Lesson, Painter, Skipped, Style
from engines.catalogue import ENTRIES
from engines.lite.model import Drafts, LipSyncModel, Running
from engines.lite.parts import Heard
from engines.lite.picture import fit_picture
from engines.lite.speech import fit_speech
from faces.compositor import soft_mask
from faces.mouth_shape import mouth_opening
from faces.mouth_windows import MouthFrame
from faces.person import Person, meet_person
from faces.window import GENERATED, MOUTH_WINDOW
from models.lazy_speech import LazySpeech
from models.live_speech import LiveSpeech
from models.phonemes import Phoneme, lip_closure
from models.speech_track import STEPS_PER_SECOND, Speech
from utils.config import AdaptationConfig, Config, InferenceConfig
from utils.helpers import available_cores

_MEETING_FRAMES = 75


@dataclass(frozen=True)
class Manner:
    """How `lite` draws, apart from what the user chooses for each run.

    Attributes:
        gain: how far the mouth moves, 1 = as predicted.
        closing: how far lips close at p, b and m where the text is known, 0 = as predicted.
        closing_s: time in which they close before the sound and open after it, seconds.
        references: pictures of the person that are kept.
        feather: softness of the pasted region's rim, px of the mouth window.
    """

    gain: float
    closing: float
    closing_s: float
    references: int
    feather: float

    @classmethod
    def of(cls, config: Config) -> Manner:
        """As the configuration says."""
        chosen = config.inference
        feather = config.faces.feather_px
        return cls(chosen.mouth_gain, chosen.lip_closing, chosen.lip_closing_s, chosen.references, feather)


def lite_facts(chosen: InferenceConfig) -> Facts:
    """What is known of `lite`; how long its windows are is configured."""
    return Facts(
        name="lite",
        licence=ENTRIES["lite"].licence,
        needs=ENTRIES["lite"].memory,
        geometry=MOUTH_WINDOW,
        region=GENERATED,
        window=chosen.window,
        overlap=chosen.overlap,
        fast_overlap=chosen.fast_overlap,
        meeting_frames=_MEETING_FRAMES,
        steps=chosen.steps,
        guidance=chosen.guidance,
    )


class Lite(Engine):
    """The engine.

    Args:
        model: what has been learnt.
        facts: see `lite_facts`.
        manner: how it draws.
    """

    def __init__(self, model: LipSyncModel, facts: Facts, manner: Manner) -> None:
        self.model, self.facts, self._manner = model, facts, manner
        self.device = model.device

    @classmethod
    def load(cls, config: Config, device: torch.device, weights: Path) -> Lite:
        """See `Engine.load`."""
        return cls.of(LipSyncModel.load(weights, config.size, device, running(config.inference)), config)

    @classmethod
    def of(cls, model: LipSyncModel, config: Config) -> Lite:
        """The engine with a model that is loaded already."""
        return cls(model, lite_facts(config.inference), Manner.of(config))

    @property
    def is_accelerated(self) -> bool:
        """Whether OpenVINO draws the pictures."""
        return self.model.is_accelerated

    def hear(self, samples: np.ndarray, phonemes: Sequence[Phoneme] = ()) -> LazySpeech:
        """See `Engine.hear`."""
        return self.model.hear_lazily(samples, phonemes)

    def hear_live(self, chunks: Iterable[np.ndarray], ahead_s: float) -> LiveSpeech:
        """See `Engine.hear_live`."""
        return self.model.hear_live(chunks, round(ahead_s * STEPS_PER_SECOND))

    def meet(self, frames: Sequence[MouthFrame]) -> Person:
        """See `Engine.meet`."""
        return meet_person(frames, self.model.mouth_shape, self._manner.references)

    def painter(self, person: Person, speech: Speech, style: Style) -> Painter:
        """See `Engine.painter`; it draws latents (F, 16, 20, 20)."""
        return _LatentPainter(self.model, self._manner, person, speech, style)

    def render(self, frames: Sequence[MouthFrame], drawn: np.ndarray) -> np.ndarray:
        """See `Engine.render`."""
        windows = np.stack([frame.window for frame in frames])
        drafts = Drafts.join([frame.kept for frame in frames])
        return self.model.render(windows, drafts, torch.from_numpy(drawn).to(self.device))

    def opacity(self, frame: MouthFrame) -> np.ndarray:
        """See `Engine.opacity`."""
        return soft_mask(frame.points, self._manner.feather)

    def adapt(self, lesson: Lesson, settings: AdaptationConfig, budget: Budget) -> tuple[Lite, Learned]:
        """See `Engine.adapt`: how the lips follow the sound, then how the mouth looks."""
        heard = Heard(lesson, self.model.hear(lesson.samples))
        model, lips = fit_speech(self.model, heard, settings.ridge)
        picture: Change | None = None
        steps = 0
        # Whoever gives little time gets at least the speech.
        with contextlib.suppress(Skipped):
            model, picture, steps = fit_picture(model, heard, settings, budget)
        adapted = self if model is self.model else Lite(model, self.facts, self._manner)
        return adapted, Learned(lips, picture, steps)


def running(chosen: InferenceConfig) -> Running:
    """By what means pictures are drawn."""
    return Running(chosen.backend, chosen.window, chosen.threads or max(1, available_cores() // 2), chosen.compile)


class _LatentPainter:
    """Makes latents (F, 16, 20, 20) of up to a window of successive frames of a person; see `Engine.painter`."""

    def __init__(self, model: LipSyncModel, manner: Manner, person: Person, speech: Speech, style: Style) -> None:
        self._model, self._manner, self._person = model, manner, person
        self._speech, self._style = speech, style
        self._references = model.prepare_references(person.references, person.points, person.shapes)
        self._resting = float(mouth_opening(person.neutral.mouth[None])[0])
        self._unlike: np.ndarray | None = None  # of the window before

    def __call__(self, frames: Sequence[MouthFrame]) -> np.ndarray:
        times = np.array([frame.time for frame in frames])
        windows = np.stack([frame.window for frame in frames])
        fresh = next((index for index, frame in enumerate(frames) if frame.kept is None), len(frames))
        if fresh < len(frames):
            self._add_drafts(frames[fresh:], windows, times[fresh:])
        drafts = Drafts.join([frame.kept for frame in frames])
        latents = self._model.draw(
            windows,
            drafts,
            self._references,
            self._speech,
            times,
            steps=self._style.steps,
            guidance=self._style.guidance,
            seed=self._style.seed,
        )
        return latents.float().cpu().numpy()

    def _add_drafts(self, frames: Sequence[MouthFrame], windows: np.ndarray, times: np.ndarray) -> None:
        """Draft the last frames of a window."""
        now = self._model.unlikeness(windows, self._references)
        before = now if self._unlike is None else self._unlike
        # Little by little, so that the mix of references does not jump from window to window.
        part = (np.arange(1, len(frames) + 1) / len(frames))[:, None]
        points = self._wanted_points(frames, times)
        drafts = self._model.draft(windows[-len(frames) :], self._references, points, before * (1 - part) + now * part)
        for index, frame in enumerate(frames):
            frame.kept = drafts[index : index + 1]
        self._unlike = now

    def _wanted_points(self, frames: Sequence[MouthFrame], times: np.ndarray) -> np.ndarray:
        """Where lips and jaw shall be (F, P, 2), window px."""
        shape = self._model.mouth_shape
        base = shape.base(self._person.neutral, np.stack([frame.points for frame in frames]))
        manner = self._manner
        points = shape.decode(manner.gain * self._model.predict_shape(self._speech, times, self._resting), base)
        if self._speech.phonemes is not None:
            amount = manner.closing * lip_closure(self._speech.phonemes, times, manner.closing_s)
            points = shape.closed(points, base, amount)
        return shape.parted(points, base)
