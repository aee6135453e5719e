"""New mouths for a stream of mouth windows: what is said becomes shapes, shapes become drafts, drafts become pictures.

The generator draws windows of frames that overlap and are cross-faded as latents, so each frame is encoded and decoded
once however many windows it lies in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from faces.mouth_shape import mouth_opening
from faces.mouth_windows import MouthFrame
from faces.person import Person
from latent_diffusion import Drafts, LipSyncModel
from models.phonemes import lip_closure
from models.speech_track import Speech
from utils.overlap import HoppingWindows, OverlappingWindows


@dataclass(frozen=True)
class DrawingSettings:
    """How mouths are drawn.

    Attributes:
        steps: network passes.
        guidance: exaggeration of what the speech asks for; 1 = off.
        seed: of the noise.
        gain: how far the mouth moves, 1 = as predicted.
        closing: how far lips close at p, b and m where the text is known, 0 = as predicted.
        closing_s: time in which they close before the sound and open after it, seconds.
        window: frames drawn at once.
        overlap: frames that two windows share.
        hop: where frames must not wait for the next window: new frames in a window; None = they wait.
    """

    steps: int
    guidance: float
    seed: int
    gain: float
    closing: float
    closing_s: float
    window: int
    overlap: int
    hop: int | None = None


@dataclass(eq=False)
class Drawn:
    """A frame on its way to a new mouth.

    Attributes:
        mouth: the frame.
        draft: of this frame alone; None for a frame that stays as it is.
        latents: (16, 20, 20) of the new mouth; None for a frame that stays as it is.
        more: the next frame comes from the same window, so it is there already.
    """

    mouth: MouthFrame
    draft: Drafts | None = None
    latents: np.ndarray | None = None
    more: bool = False


def draw_mouths(
    frames: Iterable[tuple[MouthFrame, Person | None]],
    model: LipSyncModel,
    speech: Speech,
    settings: DrawingSettings,
) -> Iterator[Drawn]:
    """Draw the mouths of all frames with a person; each run of frames of one person starts afresh.

    Args:
        frames: in order, with the person in them.
        model: what draws.
        speech: what is said.
        settings: how.
    """
    run, speaker = None, None
    for mouth, person in frames:
        if person is not speaker and run is not None:
            yield from _marked(run.finish())
            run = None
        if person is not None and run is None:
            make = _WindowMaker(model, speech, settings, person)
            if settings.hop is None:
                run = OverlappingWindows(make, settings.window, settings.overlap)
            else:
                run = HoppingWindows(make, settings.window, settings.hop)
        speaker = person
        yield from [Drawn(mouth)] if run is None else _marked(run.add(Drawn(mouth)))
    if run is not None:
        yield from _marked(run.finish())


def render_mouths(frames: Iterable[Drawn], model: LipSyncModel) -> Iterator[tuple[MouthFrame, np.ndarray | None]]:
    """The pictures uint8 (160, 160, 3) of drawn mouths; None for frames that stay as they are."""
    waiting: list[Drawn] = []
    for frame in frames:
        if frame.latents is None:
            yield frame.mouth, None
            continue
        waiting.append(frame)
        if not frame.more:
            windows = np.stack([drawn.mouth.window for drawn in waiting])
            latents = torch.from_numpy(np.stack([drawn.latents for drawn in waiting]))
            drafts = Drafts.join([drawn.draft for drawn in waiting])
            pictures = model.render(windows, drafts, latents.to(model.device))
            yield from ((drawn.mouth, picture) for drawn, picture in zip(waiting, pictures, strict=True))
            waiting = []


def _marked(ready: list[tuple[Drawn, np.ndarray]]) -> list[Drawn]:
    """The frames of a window with their latents, which are copied: a view would keep those of the window."""
    for index, (drawn, latents) in enumerate(ready):
        drawn.latents, drawn.more = latents.copy(), index + 1 < len(ready)
    return [drawn for drawn, _ in ready]


class _WindowMaker:
    """Makes latents (F, 16, 20, 20) of up to `window` successive frames of a person.

    Args:
        model, speech, settings: see `draw_mouths`.
        person: who is seen.
    """

    def __init__(self, model: LipSyncModel, speech: Speech, settings: DrawingSettings, person: Person):
        self._model, self._speech, self._settings, self._person = model, speech, settings, person
        self._references = model.prepare_references(person.references, person.points, person.shapes)
        self._resting = float(mouth_opening(person.neutral.mouth[None])[0])
        self._unlike: np.ndarray | None = None  # of the window before

    def __call__(self, frames: list[Drawn]) -> np.ndarray:
        times = np.array([frame.mouth.time for frame in frames])
        windows = np.stack([frame.mouth.window for frame in frames])
        fresh = next((index for index, frame in enumerate(frames) if frame.draft is None), len(frames))
        if fresh < len(frames):
            self._add_drafts(frames[fresh:], windows, times[fresh:])
        drafts = Drafts.join([frame.draft for frame in frames])
        settings = self._settings
        latents = self._model.draw(
            windows,
            drafts,
            self._references,
            self._speech,
            times,
            steps=settings.steps,
            guidance=settings.guidance,
            seed=settings.seed,
        )
        return latents.float().cpu().numpy()

    def _add_drafts(self, frames: list[Drawn], windows: np.ndarray, times: np.ndarray) -> None:
        """Draft the last frames of a window."""
        now = self._model.unlikeness(windows, self._references)
        before = now if self._unlike is None else self._unlike
        # Little by little, so that the mix of references does not jump from window to window.
        part = (np.arange(1, len(frames) + 1) / len(frames))[:, None]
        points = self._wanted_points(frames, times)
        drafts = self._model.draft(
            windows[-len(frames) :], self._references, points, before * (1 - part) + now * part
        )
        for index, frame in enumerate(frames):
            frame.draft = drafts[index : index + 1]
        self._unlike = now

    def _wanted_points(self, frames: list[Drawn], times: np.ndarray) -> np.ndarray:
        """Where lips and jaw shall be (F, P, 2), window px."""
        shape = self._model.mouth_shape
        base = shape.base(self._person.neutral, np.stack([frame.mouth.points for frame in frames]))
        settings = self._settings
        points = shape.decode(settings.gain * self._model.predict_shape(self._speech, times, self._resting), base)
        if self._speech.phonemes is not None:
            amount = settings.closing * lip_closure(self._speech.phonemes, times, settings.closing_s)
            points = shape.closed(points, base, amount)
        return shape.parted(points, base)
