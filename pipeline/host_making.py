"""Prepares a host, see `pipeline.host`: everything that can be computed before anybody speaks."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from engines.base import Engine
from faces.alignment import Geometry
from faces.motion import is_frontal
from faces.mouth_windows import MouthFrame, mouth_windows
from faces.usable import in_words
from pipeline.drawing import DrawingSettings, draw_mouths, render_mouths
from pipeline.host import (
    CARD,
    LEARNED,
    LOOP,
    MASKS,
    PERSON,
    POSTER,
    RESTS,
    TRACKS,
    VERSION,
    WINDOWS,
    Host,
    HostCard,
    check_name,
)
from pipeline.host_sources import Filmed, Portrait, Shown, Source, even
from pipeline.live import LiveFrame, with_mouth
from pipeline.options import Options
from pipeline.seeing import Seeing
from utils.config import HostsConfig
from utils.helpers import InputError
from utils.stopping import removed_at_the_end
from video_processor import MediaLimits, VideoReader, probe_video, write_loop

_LEAST_S = 0.5  # of a person who can be seen
_MET = 300  # frames from which the person is got to know
_POSTER_PX = 480
_SAMPLE_RATE = 16000


@dataclass(frozen=True)
class HostWish:
    """What to prepare.

    Attributes:
        source: a video or a portrait.
        name: of the host, and of its folder.
        moves: a portrait breathes, blinks and moves its head; else it stands still.
    """

    source: Path
    name: str
    moves: bool = True


class HostMaker:
    """Makes one host.

    Args:
        engine: what draws its mouth.
        seeing: how its face is found, and to which size the frames are brought.
        settings: see the configuration.
        limits: what is too big.
        options: how the mouth is drawn.
        tick: called often with a sentence about what is done; what it raises ends the work.
        learned: the engine has learnt of this person, which is kept.
    """

    def __init__(
        self,
        engine: Engine,
        seeing: Seeing,
        settings: HostsConfig,
        limits: MediaLimits,
        options: Options,
        tick: Callable[[str], None] = lambda said: None,
        learned: bool = False,
    ):
        self._learned = learned
        self._engine, self._seeing, self._settings = engine, seeing, settings
        self._limits, self._options, self._tick = limits, options, tick

    def make(self, wish: HostWish, folder: Path) -> Host:
        """Prepare a host in `folder`, under its name; the folder appears when all is done.

        Raises:
            InputError: the source shows no face long enough, or there is a host of that name.
        """
        target = folder / check_name(wish.name)
        if target.exists():
            raise InputError(f"There is a host named {wish.name} already; take another name, or remove {target}.")
        source = self._source(wish)
        mouths = self._longest(source)
        folder.mkdir(parents=True, exist_ok=True)
        with removed_at_the_end(folder / f".tmp-{uuid.uuid4().hex}") as temporary:
            temporary.mkdir()
            self._write(wish, source, mouths, temporary)
            if self._learned:
                (temporary / LEARNED).mkdir()
                self._engine.save(temporary / LEARNED)
            temporary.replace(target)
        return Host.open(target)

    def _source(self, wish: HostWish) -> Source:
        size = self._seeing.size
        info = probe_video(wish.source, self._limits, size)
        if not info.is_image:
            return Filmed(wish.source, info.fps, size, self._limits, self._settings.look_s)
        with VideoReader(wish.source, self._limits, size=size) as reader:
            image = even(next(iter(reader)).image)
        face = next(iter(self._seeing.tracker().follow([LiveFrame(image, 0.0)])))
        moves = wish.moves and face.points is not None and is_frontal(face.points)
        return Portrait(image, face.points if moves else None, self._settings.portrait_s if moves else 1.0)

    def _longest(self, source: Source) -> list[MouthFrame]:
        """The longest stretch of one shot in which the face can be used, not longer than wanted."""
        found = self._seen(source)
        counts = Counter(mouth.reason for mouth in found)
        if self._seeing.doubts(counts):
            self._seeing = replace(self._seeing, cover=None)
            found = self._seen(source)
            counts = Counter(mouth.reason for mouth in found)
        runs = [list(run) for usable, run in groupby(found, lambda m: (m.reason is None, m.shot)) if usable[0]]
        longest = max(runs, key=len, default=[])
        if len(longest) < _LEAST_S * source.fps:
            del counts[None]
            why = f" ({in_words(counts)})" if counts else ""
            raise InputError(
                f"The source shows no face that can be used for {_LEAST_S:g} s{why}; take a video of one person who "
                "looks into the camera, or a portrait."
            )
        return longest[: round(self._settings.seconds * source.fps)] if source.bounce else longest

    def _seen(self, source: Source) -> list[MouthFrame]:
        faces = self._seeing.tracker().follow(self._ticking(source.frames(), "looking at frame"))
        geometry = self._engine.facts.geometry
        return list(mouth_windows(faces, self._seeing.usable(), lambda frame: frame.number, geometry=geometry))

    def _ticking(self, frames: Iterator[Shown], doing: str) -> Iterator[Shown]:
        for number, frame in enumerate(frames, 1):
            self._tick(f"{doing} {number}")
            yield frame

    def _write(self, wish: HostWish, source: Source, mouths: list[MouthFrame], folder: Path) -> None:
        engine = self._engine
        step = max(1, len(mouths) // _MET)
        person = engine.meet(mouths[::step] if source.bounce else mouths[:1])
        np.savez(folder / PERSON, **engine.pack(person))
        np.save(folder / WINDOWS, np.stack([mouth.window for mouth in mouths]))
        masks = np.stack([np.rint(255 * engine.opacity(mouth)).astype(np.uint8) for mouth in mouths])
        np.save(folder / MASKS, masks)
        names = ("matrix", "points", "pose")
        np.savez(folder / TRACKS, **{name: np.stack([getattr(mouth, name) for mouth in mouths]) for name in names})
        first = mouths[0].frame
        shown = (frame for frame in source.frames() if first <= frame.number < first + len(mouths))
        rested = self._rested(shown, self._at_rest(mouths, person))
        rests = np.lib.format.open_memmap(folder / RESTS, "w+", np.uint8, (len(mouths), *mouths[0].window.shape))
        kept = _keeping(rested, mouths, rests, engine.facts.geometry, folder / POSTER)
        write_loop(folder / LOOP, kept, len(mouths), source.fps, source.bounce)
        rests.flush()
        (folder / CARD).write_text(self._card(wish, source, mouths).model_dump_json(indent=1), encoding="utf-8")

    def _at_rest(self, mouths: Sequence[MouthFrame], person: Any) -> Iterator[tuple[MouthFrame, np.ndarray]]:
        """Pictures of all windows with the mouth as it is when nobody speaks."""
        start = mouths[0].time
        moved = [replace(mouth, time=mouth.time - start) for mouth in mouths]
        silence = np.zeros(round((moved[-1].time + 1) * _SAMPLE_RATE), np.float32)
        settings = DrawingSettings.of(self._engine, self._options)
        drawn = draw_mouths(((mouth, person) for mouth in moved), self._engine, self._engine.hear(silence), settings)
        return render_mouths(drawn, self._engine)

    def _rested(
        self, frames: Iterator[Shown], pictures: Iterator[tuple[MouthFrame, np.ndarray]]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Whole frames with the mouth at rest, and their numbers from 0."""
        for number, (frame, (mouth, picture)) in enumerate(zip(frames, pictures, strict=True)):
            self._tick(f"drawing frame {number + 1}")
            yield number, with_mouth(frame.image, self._engine.paste(mouth, picture))

    def _card(self, wish: HostWish, source: Source, mouths: list[MouthFrame]) -> HostCard:
        facts, (height, width) = self._engine.facts, mouths[0].size
        return HostCard(
            version=VERSION,
            name=wish.name,
            engine=facts.name,
            fps=f"{source.fps.numerator}/{source.fps.denominator}",
            width=width,
            height=height,
            pictures=len(mouths),
            bounce=source.bounce,
            portrait=not source.bounce,
            region=facts.region if facts.matched else None,
        )


def _keeping(
    frames: Iterator[tuple[int, np.ndarray]],
    mouths: Sequence[MouthFrame],
    rests: np.ndarray,
    geometry: Geometry,
    poster: Path,
) -> Iterator[np.ndarray]:
    """The frames; on their way their mouth windows are kept, and a small picture of the first one."""
    for number, image in frames:
        to_plane = mouths[number].matrix.copy()
        to_plane[:, 2] += geometry.origin
        rests[number] = geometry.warp(image, to_plane)
        if number == 0:
            scale = min(1.0, _POSTER_PX / max(image.shape[:2]))
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            poster.write_bytes(cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())
        yield image
