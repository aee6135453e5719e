"""New mouths for frames while they arrive, with bounded delay: the base of live avatars.

A frame comes out as soon as the frames and the sound that its mouth depends on have arrived, see `LiveSettings`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engines.base import Engine
from faces.mouth_windows import MouthFrame, mouth_windows
from faces.person import with_person_at_once
from faces.tracker import FaceTracker
from faces.usable import UsableFace
from models.speech_track import STEPS_PER_SECOND
from pipeline.drawing import DrawingSettings, Drawn, draw_mouths, render_mouths
from utils.helpers import torch_threads
from utils.pictures import Patch
from utils.stages import Stages


@dataclass(frozen=True)
class LiveFrame:
    """A picture with its time.

    Attributes:
        image: uint8 RGB (H, W, 3).
        time: seconds from the start of the sound, rising.
    """

    image: np.ndarray
    time: float


@dataclass(frozen=True)
class LiveSettings:
    """What a live frame waits for.

    Attributes:
        hop: frames that are drawn at once.
        smoothing_ahead_s: how far the smoothing of the face's place looks ahead, seconds.
        sound_ahead_s: sound after a frame that is heard before its mouth is drawn, seconds.
        meeting_frames: frames of a shot that pass unchanged until the person is known.
        fade_frames: frames over which the new mouth then fades in.
    """

    hop: int
    smoothing_ahead_s: float
    sound_ahead_s: float
    meeting_frames: int
    fade_frames: int

    def look_ahead(self, fps: float) -> float:
        """Seconds: no frame waits for a frame or a sound that is later than this after it.

        The last frame of a hop waits for the smoothing (whole frames) or the sound, the first one for the last one.
        """
        frames = np.ceil(self.smoothing_ahead_s * fps - 1e-6) / fps
        sound = self.sound_ahead_s + 2 / STEPS_PER_SECOND  # whole steps, and the one within which the frame lies
        return (self.hop - 1) / fps + max(float(frames), sound)


def live_frames(
    frames: Iterable[LiveFrame],
    sound: Iterable[np.ndarray],
    engine: Engine,
    tracker: FaceTracker,
    usable: UsableFace,
    drawing: DrawingSettings,
    settings: LiveSettings,
) -> Iterator[LiveFrame]:
    """Every frame, in order, with its new mouth where the face can be used.

    Leaving the iterator stops the work; a source of frames or sound that blocks is waited for.

    Args:
        frames: pictures of one size, in order.
        sound: mono chunks at 16 kHz.
        engine, tracker, usable, drawing: as for a file.
        settings: what a frame waits for.
    """
    speech = engine.hear_live(sound, settings.sound_ahead_s)
    drawing = replace(drawing, hop=settings.hop)

    def see(_: Iterator[Any]) -> Iterator[tuple[MouthFrame, Any]]:
        ahead, geometry = settings.smoothing_ahead_s, engine.facts.geometry
        mouths = mouth_windows(tracker.follow(frames), usable, ahead_s=ahead, geometry=geometry)
        count = min(settings.meeting_frames, engine.facts.meeting_frames)
        yield from with_person_at_once(mouths, engine.meet, count, settings.fade_frames)

    def draw(seen: Iterator[tuple[MouthFrame, Any]]) -> Iterator[Drawn]:
        yield from draw_mouths(seen, engine, speech, drawing)

    def finish(drawn: Iterator[Drawn]) -> Iterator[LiveFrame]:
        for mouth, picture in render_mouths(drawn, engine):
            patch = None if picture is None else engine.paste(mouth, picture)
            yield LiveFrame(with_mouth(mouth.frame.image, patch), mouth.time)

    stages = Stages({"faces": see, "generate": draw, "finish": finish}, depth=2 * settings.hop)
    alone = torch_threads(1) if engine.is_accelerated else nullcontext()
    with alone, stages as results:
        yield from results


def with_mouth(image: np.ndarray, patch: Patch | None) -> np.ndarray:
    """The picture uint8 RGB (H, W, 3) with the new mouth; the given one is not changed."""
    if patch is None:
        return image
    result = image.copy()
    height, width = patch.alpha.shape
    part = result[patch.y : patch.y + height, patch.x : patch.x + width]
    part[:] = np.round(part + patch.alpha[..., None] * (patch.image.astype(np.float32) - part))
    return result
