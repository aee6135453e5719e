"""`lite` as an engine: what is said becomes shapes, shapes become drafts, drafts become pictures.

Windows of frames are cross-faded as latents, so each frame is encoded and decoded once however many windows it lies in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from engines.base import Budget, Change, Engine, Facts, Learned, Lesson, Painter, Skipped, Style
from engines.catalogue import ENTRIES
from engines.lite.learned import save_learned, with_learned
from engines.lite.model import Drafts, LipSyncModel, Running, Seen
from engines.lite.parts import Heard
from engines.lite.picture import fit_picture
from engines.lite.speech import fit_speech
from faces.bank import MouthPicker, lips_of
from faces.compositor import soft_mask
from faces.mouth_shape import RESTING_OPENING_PX, SHAPE_POINTS, mouth_opening
from faces.mouth_windows import MouthFrame
from faces.person import Liveliness, Person, meet_person, mouths_of
from faces.person_file import pack_person, unpack_person
from faces.turned import resting, seen_aside, with_own_jaw
from faces.window import GENERATED, MOUTH_WINDOW
from models.lazy_speech import LazySpeech
from models.live_speech import LiveSpeech
from models.movement_track import MovementSettings
from models.phonemes import Phoneme, lip_closure, steps_around
from models.speech_track import STEPS_PER_SECOND, Speech
from utils.config import AdaptationConfig, Config, InferenceConfig
from utils.helpers import InputError, available_cores

_MEETING_FRAMES = 75
_STILL_OPEN_PX = (2.0, 6.0)  # a still mouth counts as closed up to here, and as open from here on
_FACES = 2  # pictures that tell the generator how a person looks; as many as in training


@dataclass(frozen=True)
class Manner:
    """How `lite` draws, apart from what the user chooses for each run.

    Attributes:
        temperature: how varied the movement is, 0 = calm, 1 = as varied as people are.
        movement_steps: network passes for it.
        gain: how far the mouth moves, 1 = as people do.
        opening_gain: how far the lips part, in parts of that.
        still_gain: the same for a still picture with closed lips, in parts of it.
        closing: how far lips close at p, b and m, 0 = as predicted.
        closing_s: time in which they close before the sound and open after it, seconds.
        bank: mouths of the person that are kept at most.
        real_px: how far lips may be from those of a real picture that is taken as it is, and from where on the
            generator's picture replaces it, root mean square, px of the mouth window.
        feather: softness of the pasted region's rim, px of the mouth window.
    """

    temperature: float
    movement_steps: int
    gain: float
    opening_gain: float
    still_gain: float
    closing: float
    closing_s: float
    bank: int
    real_px: tuple[float, float]
    feather: float

    @classmethod
    def of(cls, config: Config) -> Manner:
        """As the configuration says."""
        chosen = config.inference
        feather = config.faces.feather_px
        closing = (chosen.lip_closing, chosen.lip_closing_s)
        moving = (chosen.movement_temperature, chosen.movement_steps)
        gains = (chosen.mouth_gain, chosen.opening_gain, chosen.still_gain)
        return cls(*moving, *gains, *closing, chosen.bank, chosen.real_mouth_px, feather)

    def gain_of_still(self, open_px: float) -> float:
        """How much further the mouth of a still picture moves, of how far it is open, window px."""
        low, high = _STILL_OPEN_PX
        return 1 + (self.still_gain - 1) * float(np.clip((high - open_px) / (high - low), 0, 1))

    def opacity(self, unlike: Sequence[float]) -> np.ndarray:
        """How much of the generator's picture is taken (F,), of how unlike the nearest real mouths are, px."""
        low, high = self.real_px
        return np.clip((np.asarray(unlike, np.float32) - low) / (high - low), 0, 1)


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
        meets_elsewhere=True,
        steps=chosen.steps,
        guidance=chosen.guidance,
    )


class Lite(Engine):
    """The engine.

    Args:
        model: what has been learnt.
        facts: see `lite_facts`.
        manner: how it draws.
        fitted: what is said was fitted to the person who says it, see `fit_speech`: the movement is as large as theirs.
    """

    def __init__(self, model: LipSyncModel, facts: Facts, manner: Manner, fitted: bool = False) -> None:
        self.model, self.facts, self._manner, self._fitted = model, facts, manner, fitted
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

    def meet(self, frames: Sequence[MouthFrame], elsewhere: Sequence[MouthFrame] = ()) -> Person:
        """See `Engine.meet`."""
        return meet_person(frames, self.model.mouth_shape, _FACES, self._manner.bank, elsewhere)

    def pack(self, person: Person) -> dict[str, np.ndarray]:
        """See `Engine.pack`."""
        return pack_person(person)

    def unpack(self, packed: Mapping[str, np.ndarray]) -> Person:
        """See `Engine.unpack`."""
        try:
            person = unpack_person(packed)
        except (KeyError, ValueError) as error:
            raise InputError("This host was made by another version of the program; make it again.") from error
        known = self.model.mouth_shape.num_coefficients
        if person.bank.mouths[0].shape.shape != (known,):
            raise InputError("This host was made with other weights; make it again.")
        return person

    def save(self, folder: Path) -> None:
        """See `Engine.save`."""
        save_learned(self.model, folder)

    def with_saved(self, folder: Path) -> Lite:
        """See `Engine.with_saved`."""
        return self._with(with_learned(self.model, folder))

    def painter(self, person: Person, speech: Speech, style: Style) -> Painter:
        """See `Engine.painter`; it draws latents (F, 16, 12, 12)."""
        resting = RESTING_OPENING_PX
        if self._fitted:
            person, resting = replace(person, lively=Liveliness()), _closed_px(person)
        return _LatentPainter(self.model, self._manner, person, speech, style, resting)

    def render(self, frames: Sequence[MouthFrame], drawn: np.ndarray) -> np.ndarray:
        """See `Engine.render`."""
        drafts = Drafts.join([frame.kept for frame in frames])
        return self.model.render(drafts, torch.from_numpy(drawn).to(self.device))

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
        return self if model is self.model else self._with(model), Learned(lips, picture, steps)

    def _with(self, model: LipSyncModel) -> Lite:
        """The engine with another model, whose speech may be fitted to a person."""
        layers = (one.speech_model.temporal.shape_head[-1].weight for one in (self.model, model))
        return Lite(model, self.facts, self._manner, self._fitted or not torch.equal(*layers))


def running(chosen: InferenceConfig) -> Running:
    """By what means pictures are drawn."""
    return Running(chosen.backend, chosen.window, chosen.threads or max(1, available_cores() // 2), chosen.compile)


def _closed_px(person: Person) -> float:
    """Gap between the inner lips of the person's resting mouth, window px."""
    return float(mouth_opening(person.neutral.mouth[None])[0])


class _LatentPainter:
    """Makes latents (F, 16, 12, 12) of up to a window of successive frames of a person; see `Engine.painter`.

    Every frame that comes may add its mouth to the person's bank. The movement is drawn for a mouth whose lips are
    `resting` px apart at rest, then made as lively as this person's: how far lips are apart at rest tells less.
    """

    def __init__(
        self, model: LipSyncModel, manner: Manner, person: Person, speech: Speech, style: Style, resting: float
    ) -> None:
        self._model, self._manner, self._neutral = model, manner, person.neutral
        self._speech, self._style = speech, style
        self._bank, self._picker = person.bank, MouthPicker()
        self._faces = model.face_tokens(person.faces)
        moving = MovementSettings(style.seed, manner.temperature, manner.movement_steps)
        self._movement, self._lively = model.movement(speech, resting, moving), person.lively
        open_px = float(mouth_opening(person.bank.mouths[0].points[None])[0]) - _closed_px(person)
        self._gain = manner.gain * (manner.gain_of_still(open_px) if self._is_still else 1.0)

    def __call__(self, frames: Sequence[MouthFrame]) -> np.ndarray:
        times = np.array([frame.time for frame in frames])
        fresh = [frame for frame in frames if frame.kept is None]
        if fresh:
            self._add_drafts(fresh, times[-len(fresh) :])
        drafts = Drafts.join([frame.kept for frame in frames])
        at_rest = None
        if self._style.guidance != 1.0:
            at_rest = self._drafts(frames, self._base(frames), MouthPicker())
        latents = self._model.draw(drafts, self._faces, self._speech, times, self._style, at_rest)
        return latents.float().cpu().numpy()

    def _add_drafts(self, frames: Sequence[MouthFrame], times: np.ndarray) -> None:
        """Draft the last frames of a window."""
        if not self._is_still:
            for mouth in mouths_of(frames, self._neutral, self._model.mouth_shape):
                self._bank = self._bank.with_mouth(mouth, self._manner.bank)
        drafts = self._drafts(frames, self._wanted_points(frames, times), self._picker)
        for index, frame in enumerate(frames):
            frame.kept = drafts[index : index + 1]

    @property
    def _is_still(self) -> bool:
        """One picture is all there is of a portrait: its frames show nothing new."""
        return len(self._bank) == 1

    def _drafts(self, frames: Sequence[MouthFrame], points: np.ndarray, picker: MouthPicker) -> Drafts:
        """Drafts of frames with lips and jaw at points (F, P, 2), window px."""
        (own, pose), base = _own(frames), self._base(frames)
        points = with_own_jaw(self._model.mouth_shape, points, own)
        picks = picker.pick(self._bank, lips_of(points - base), pose)
        seen = Seen(np.stack([frame.window for frame in frames]), own, float(mouth_opening(base[:1])[0]))
        return self._model.draft(seen, points, picks, self._manner.opacity([pick.unlike for pick in picks]))

    def _base(self, frames: Sequence[MouthFrame]) -> np.ndarray:
        """The resting mouth in the frames (F, P, 2), window px."""
        own, pose = _own(frames)
        return resting(self._model.mouth_shape, self._neutral, own, pose)

    def _wanted_points(self, frames: Sequence[MouthFrame], times: np.ndarray) -> np.ndarray:
        """Where lips and jaw shall be (F, P, 2), window px."""
        shape, manner, base = self._model.mouth_shape, self._manner, self._base(frames)
        points = shape.decode(self._gain * self._movement.shapes(times), base)
        points = shape.scaled(points, base, manner.opening_gain * self._lively.opening, self._lively.width)
        first, stop = steps_around(times, manner.closing_s)
        met = self._model.lips_met(self._speech, first, stop)
        if met is not None:
            points = shape.closed(points, base, manner.closing * lip_closure(met, first, times, manner.closing_s))
        return seen_aside(shape.parted(points, base), base, _own(frames)[1])


def _own(frames: Sequence[MouthFrame]) -> tuple[np.ndarray, np.ndarray]:
    """Lips and jaw (F, P, 2) of frames, window px, and their poses (F, 3), degrees."""
    return np.stack([frame.points[SHAPE_POINTS] for frame in frames]), np.stack([frame.pose for frame in frames])
