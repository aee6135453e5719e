"""A host: a person who is prepared once, so that live speech costs no more than drawing the mouth.

A folder holds everything: `host.json`; `rest.mp4`, the loop that is seen while the host listens, its mouth at rest;
`windows.npy` and `rests.npy`, the mouth windows of its pictures as they were and at rest; `masks.npy`, where a new
mouth is pasted; `tracks.npz`, where the windows lie; `person.npz`, what the engine knows of the person (its resting
mouth, and the bank of real ones); `poster.jpg`, a small picture; `learned/`, what the engine has learnt of the person,
where it was asked to. Nothing of it is computed again when it is opened.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from engines.base import Engine
from faces.compositor import composite
from faces.mouth_windows import MouthFrame
from utils.helpers import InputError
from utils.pictures import Patch
from video_processor import LoopReader, loop_order

CARD, LOOP, POSTER = "host.json", "rest.mp4", "poster.jpg"
WINDOWS, RESTS, MASKS, TRACKS, PERSON = "windows.npy", "rests.npy", "masks.npy", "tracks.npz", "person.npz"
LEARNED = "learned"
VERSION = 1
_NAME = re.compile(r"[\w][\w .-]{0,63}")


class HostCard(BaseModel):
    """What `host.json` says.

    Attributes:
        version: of this folder's form.
        name: of the host, for people.
        engine: that draws its mouth.
        fps: frames per second, as a fraction such as 25/1.
        width, height: of the frames, px.
        pictures: different ones.
        bounce: the loop runs forwards and backwards; else it is a circle.
        portrait: made from a still picture.
        region: x0, y0, x1, y1: where colour and sharpness are matched, window px; None: nowhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    name: str
    engine: str
    fps: str
    width: PositiveInt
    height: PositiveInt
    pictures: PositiveInt
    bounce: bool
    portrait: bool
    region: tuple[int, int, int, int] | None


@dataclass(frozen=True)
class Host:
    """A prepared host, opened.

    Attributes:
        folder: where it lies.
        card: what is known of it.
    """

    folder: Path
    card: HostCard

    @classmethod
    def open(cls, folder: Path) -> Host:
        """Open a folder that `make_host` wrote.

        Raises:
            InputError: it is none, or of another version.
        """
        try:
            card = HostCard.model_validate_json((folder / CARD).read_bytes())
        except (OSError, ValidationError) as error:
            raise InputError(f"The folder {folder.name} is no prepared host; make it with --make-host.") from error
        if card.version != VERSION:
            raise InputError(f"The host {folder.name} was made by another version of the program; make it again.")
        host = cls(folder, card)
        host.check()
        return host

    def check(self) -> None:
        """Raise InputError where a part is missing or has another size than the card says."""
        count = self.card.pictures
        try:
            parts = [self._windows, self._rests, self._masks, *self._tracks.values(), *self.person.values()]
            broken = any(len(part) != count for part in parts[: 3 + len(self._tracks)])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InputError(f"The host {self.folder.name} is damaged; make it again.") from error
        if broken or not (self.folder / LOOP).is_file():
            raise InputError(f"The host {self.folder.name} is incomplete; make it again.")

    @property
    def fps(self) -> Fraction:
        """Frames per second."""
        return Fraction(self.card.fps)

    @cached_property
    def order(self) -> list[int]:
        """Number of the picture in each frame of one round."""
        return loop_order(self.card.pictures, self.card.bounce)

    @cached_property
    def person(self) -> dict[str, np.ndarray]:
        """What the engine knows of the person, see `Engine.unpack`."""
        return _arrays(self.folder / PERSON)

    def loop(self) -> LoopReader:
        """The frames with the mouth at rest, for ever, from the first one."""
        return LoopReader(self.folder / LOOP)

    def mouth(self, number: int, time: float) -> MouthFrame:
        """The mouth window of a frame.

        Args:
            number: of the frame since the loop began, any number of rounds ago.
            time: seconds in the speech.
        """
        picture = self.picture(number)
        matrix, points, pose = (self._tracks[name][picture] for name in ("matrix", "points", "pose"))
        size = (self.card.height, self.card.width)
        return MouthFrame(None, time, size, 0, None, np.array(self._windows[picture]), matrix, points, pose)

    def picture(self, number: int) -> int:
        """Number of the picture that a frame shows."""
        return self.order[number % len(self.order)]

    def patch(self, number: int, mouth: np.ndarray, fade: float = 1.0) -> Patch | None:
        """What puts a mouth into a frame of the loop.

        Args:
            number: of the frame.
            mouth: uint8 RGB (H, W, 3), its window with the new mouth.
            fade: 0 to 1, opacity.
        """
        picture = self.picture(number)
        size, alpha = (self.card.height, self.card.width), self._masks[picture].astype(np.float32) / 255
        rest, matrix = np.array(self._rests[picture]), self._tracks["matrix"][picture]
        return composite(size, mouth, rest, matrix, alpha, fade, self.card.region)

    def engine(self, engine: Engine) -> Engine:
        """The engine that draws this host: the given one, or a copy that knows what was learnt of the person.

        Raises:
            InputError: the host was made for another engine, or for other weights.
        """
        if engine.facts.name != self.card.engine:
            raise InputError(f"The host {self.card.name} was made for the engine {self.card.engine}; make it again.")
        learned = self.folder / LEARNED
        return engine.with_saved(learned) if learned.is_dir() else engine

    @cached_property
    def _windows(self) -> np.ndarray:
        return np.load(self.folder / WINDOWS, mmap_mode="r")

    @cached_property
    def _rests(self) -> np.ndarray:
        return np.load(self.folder / RESTS, mmap_mode="r")

    @cached_property
    def _masks(self) -> np.ndarray:
        return np.load(self.folder / MASKS, mmap_mode="r")

    @cached_property
    def _tracks(self) -> dict[str, np.ndarray]:
        return _arrays(self.folder / TRACKS)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def check_name(name: str) -> str:
    """A name that can be that of a folder; letters of any script.

    Raises:
        InputError: it cannot.
    """
    if _NAME.fullmatch(name) is None or name.endswith((".", " ")):
        raise InputError(f"The name '{name}' cannot be a host's; take letters, digits, spaces and dashes, at most 64.")
    return name


def list_hosts(folder: Path) -> list[Host]:
    """All hosts in a folder that can be opened, by name."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (path / CARD).is_file():
            try:
                found.append(Host.open(path))
            except InputError:
                continue
    return found
