"""New windows for a stream of frames, in overlapping runs that are cross-faded, from whatever engine draws them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from engines.base import Engine, Style
from faces.mouth_windows import MouthFrame
from pipeline.options import Options
from utils.overlap import HoppingWindows, OverlappingWindows


@dataclass(frozen=True)
class DrawingSettings:
    """How mouths are drawn.

    Attributes:
        style: what the engine has to know of it.
        window: frames drawn at once.
        overlap: frames that two windows share.
        hop: where frames must not wait for the next window: new frames in a window; None = they wait.
    """

    style: Style
    window: int
    overlap: int
    hop: int | None = None

    @classmethod
    def of(cls, engine: Engine, options: Options) -> DrawingSettings:
        """As the engine is made and the user chose."""
        facts = engine.facts
        steps = facts.steps if options.steps is None else options.steps
        style = Style(steps, facts.guidance if options.guidance is None else options.guidance, options.seed)
        return cls(style, facts.window, facts.fast_overlap if options.fast else facts.overlap)


@dataclass(eq=False)
class Drawn:
    """A frame on its way to a new mouth.

    Attributes:
        mouth: the frame.
        made: what the engine drew for it; None for a frame that stays as it is.
        more: the next frame comes from the same window, so it is there already.
    """

    mouth: MouthFrame
    made: np.ndarray | None = None
    more: bool = False


def draw_mouths(
    frames: Iterable[tuple[MouthFrame, Any]],
    engine: Engine,
    speech: Any,
    settings: DrawingSettings,
) -> Iterator[Drawn]:
    """Draw the mouths of all frames with a person; each run of frames of one person starts afresh.

    Args:
        frames: in order, with what the engine keeps of the person in them; None: nobody.
        engine: what draws.
        speech: what is said, as the engine heard it.
        settings: how.
    """
    run, speaker = None, None
    for mouth, person in frames:
        if person is not speaker and run is not None:
            yield from _marked(run.finish())
            run = None
        if person is not None and run is None:
            run = _run(engine, person, speech, settings)
        speaker = person
        yield from [Drawn(mouth)] if run is None else _marked(run.add(mouth))
    if run is not None:
        yield from _marked(run.finish())


def render_mouths(frames: Iterable[Drawn], engine: Engine) -> Iterator[tuple[MouthFrame, np.ndarray | None]]:
    """The pictures uint8 (H, W, 3) of drawn mouths; None for frames that stay as they are."""
    waiting: list[Drawn] = []
    for frame in frames:
        if frame.made is None:
            yield frame.mouth, None
            continue
        waiting.append(frame)
        if not frame.more:
            mouths = [drawn.mouth for drawn in waiting]
            pictures = engine.render(mouths, np.stack([drawn.made for drawn in waiting]))
            yield from zip(mouths, pictures, strict=True)
            waiting = []


def _run(
    engine: Engine, person: Any, speech: Any, settings: DrawingSettings
) -> OverlappingWindows[MouthFrame] | HoppingWindows[MouthFrame]:
    painter = engine.painter(person, speech, settings.style)
    if settings.hop is None:
        return OverlappingWindows(painter, settings.window, settings.overlap)
    return HoppingWindows(painter, settings.window, min(settings.hop, settings.window))


def _marked(ready: list[tuple[MouthFrame, np.ndarray]]) -> list[Drawn]:
    """The frames of a window with what was drawn, which is copied: a view would keep that of the whole window."""
    last = len(ready) - 1
    return [Drawn(mouth, made.copy(), index < last) for index, (mouth, made) in enumerate(ready)]
