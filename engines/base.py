"""What an engine is: a network that can draw mouths, as the pipeline sees it.

The pipeline finds faces, brings them to the window that the engine wants (`Facts.geometry`), lets the engine hear the
sound and meet the person, asks it for overlapping windows of frames, cross-fades what it drew, and pastes the pictures
with the engine's opacity. Times are seconds throughout, so an engine is asked for a video's own frames, whatever the
frame rate.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from faces.alignment import Geometry
from faces.compositor import composite
from faces.footage import FPS, Footage
from faces.mouth_windows import MouthFrame
from utils.helpers import InputError
from utils.pictures import Patch

if TYPE_CHECKING:
    import torch

    from models.phonemes import Phoneme
    from utils.config import AdaptationConfig, Config


@dataclass(frozen=True)
class Facts:
    """What is known of an engine without asking it to draw.

    Attributes:
        name: by which it is chosen.
        licence: of its weights and their use, one line for people.
        needs: weights and devices, one line for people.
        geometry: how it wants the face.
        region: x0, y0, x1, y1: the rectangle of the window in which it draws. Beyond it nothing is pasted.
        window: frames that it draws at once.
        overlap: frames that two windows share; they are cross-faded.
        fast_overlap: the same where speed counts more.
        meeting_frames: frames of a shot that it wants to see before it draws; 1 = it need not know the person.
        meets_elsewhere: it also wants to see frames of the same person from other places in the video.
        fps: frame rate that it was trained at; None = any.
        matched: whether colour and sharpness of its pictures are to be fitted to the frame around them.
        steps: network passes where the user leaves that open.
        guidance: the same, see `Style`.
        lays_mouths: it lays pictures of mouths over the face instead of drawing them from the sound: it hears which one
            is shown when, and a marked place is enough for it where no mesh is seen (`MouthFrame.points` is None).
    """

    name: str
    licence: str
    needs: str
    geometry: Geometry
    region: tuple[int, int, int, int]
    window: int
    overlap: int
    fast_overlap: int
    meeting_frames: int = 1
    meets_elsewhere: bool = False
    fps: float | None = None
    matched: bool = True
    steps: int = 1
    guidance: float = 1.0
    lays_mouths: bool = False


@dataclass(frozen=True)
class Style:
    """What the user chose of how mouths are drawn.

    Attributes:
        steps: network passes.
        guidance: exaggeration of what the speech asks for; 1 = off.
        seed: of the noise; the same for all windows of a video.
    """

    steps: int = 1
    guidance: float = 1.0
    seed: int = 1


Painter = Callable[[Sequence[MouthFrame]], np.ndarray]
"""Draws successive frames of one person, up to a window of them: float (F, ...), whatever the engine's `render` takes.
It is called window after window in the order of time; a frame that lies in two windows is drawn twice, and the two
results are cross-faded as they are (latents or pictures). `MouthFrame.kept` is for what need not be made twice."""


class Engine(ABC):
    """Draws mouths. One instance serves many jobs, one after the other; painting and rendering run side by side.

    Attributes:
        facts: what is known of it.
        device: where it computes.
        is_accelerated: whether it computes by other means than PyTorch, which then gets one thread only.
    """

    facts: Facts
    device: torch.device
    is_accelerated: bool = False

    @classmethod
    @abstractmethod
    def load(cls, config: Config, device: torch.device, weights: Path) -> Engine:
        """Read the weights.

        Args:
            config: the configuration.
            device: where to compute.
            weights: folder of the weights.

        Raises:
            InputError: weights are missing or do not fit.
        """

    @abstractmethod
    def hear(self, samples: np.ndarray, phonemes: Sequence[Phoneme] = ()) -> Any:
        """Listen to a sound; what comes back is given to `painter`. Memory should hold little more than the samples.

        Args:
            samples: mono (N,) at 16 kHz, float16 or float32 in [-1, 1].
            phonemes: what is said when, where that is known.
        """

    def hear_mouths(self, mouths: Sequence[ShownMouth]) -> Any:
        """As `hear`, for an engine that lays mouths.

        Args:
            mouths: one after the other from 0 to the end, without a gap.
        """
        raise InputError(f"The engine {self.facts.name} draws its mouths itself.")

    def hear_live(self, chunks: Iterable[np.ndarray], ahead_s: float) -> Any:
        """Listen to a sound that is still being made.

        Args:
            chunks: mono pieces at 16 kHz; read only as far as frames that are drawn need it.
            ahead_s: seconds of sound after a frame that may be waited for.

        Raises:
            InputError: the engine cannot.
        """
        raise InputError(f"The engine {self.facts.name} cannot draw live: it needs the whole sound.")

    @abstractmethod
    def meet(self, frames: Sequence[MouthFrame]) -> Any:
        """What is kept of a person, from 1 to `meeting_frames` frames of a shot; given to `painter`, never None.

        With `Facts.meets_elsewhere` it may also be given `elsewhere`: frames from all over the video, see
        `faces.elsewhere`.
        """

    def pack(self, person: Any) -> dict[str, np.ndarray]:
        """What `meet` gave, as named arrays that can be kept in a file.

        Raises:
            InputError: the engine cannot.
        """
        raise InputError(f"The engine {self.facts.name} keeps nothing of a person, so it cannot draw a prepared host.")

    def unpack(self, packed: Mapping[str, np.ndarray]) -> Any:
        """The person of `pack`.

        Raises:
            InputError: the engine cannot, or the arrays are none of its own.
        """
        raise InputError(f"The engine {self.facts.name} keeps nothing of a person, so it cannot draw a prepared host.")

    def save(self, folder: Path) -> None:
        """Write what `adapt` has learnt into an empty folder.

        Raises:
            InputError: the engine cannot.
        """
        raise InputError(f"The engine {self.facts.name} cannot keep what it has learnt of a person.")

    def with_saved(self, folder: Path) -> Engine:
        """A copy that knows what `save` wrote; this engine stays as it is.

        Raises:
            InputError: the engine cannot, or the folder does not fit it.
        """
        raise InputError(f"The engine {self.facts.name} cannot keep what it has learnt of a person.")

    @abstractmethod
    def painter(self, person: Any, speech: Any, style: Style) -> Painter:
        """Begin a run of frames of one person.

        Args:
            person: from `meet`.
            speech: from `hear`; time 0 of the frames is its first sample.
            style: what the user chose.
        """

    def render(self, frames: Sequence[MouthFrame], drawn: np.ndarray) -> np.ndarray:
        """Pictures uint8 RGB (F, H, W, 3) of the window, from what `painter` drew (F, ...), cross-faded."""
        return np.clip(drawn + 0.5, 0, 255).astype(np.uint8)

    def paste(self, frame: MouthFrame, picture: np.ndarray) -> Patch | None:
        """The patch that puts a picture from `render` into its frame; None where nothing of it would be seen."""
        facts = self.facts
        return composite(
            frame.size,
            picture,
            frame.window,
            frame.matrix,
            self.opacity(frame),
            fade=frame.fade,
            matched_in=facts.region if facts.matched else None,
        )

    @abstractmethod
    def opacity(self, frame: MouthFrame) -> np.ndarray:
        """How opaque the new window is pasted into this frame: float32 (H, W) in [0, 1], 0 outside `Facts.region`."""

    def dressed(self, mouths: Path | None, erases: bool) -> Engine:
        """The engine for one run, with mouths that somebody brought.

        Args:
            mouths: folder or .zip, see `faces.sprites.MouthSet.read`; None: the usual ones.
            erases: whether the mouth that is there is painted over first.

        Raises:
            InputError: the mouths cannot be used, or it draws its own.
        """
        if mouths is not None:
            raise InputError(f"The engine {self.facts.name} draws its own mouths; lay yours with --engine sprites.")
        return self

    def adapt(self, lesson: Lesson, settings: AdaptationConfig, budget: Budget) -> tuple[Engine, Learned]:
        """Learn from a person who is seen with the own voice; this engine stays as it is.

        Args:
            lesson: the person.
            settings: see the configuration.
            budget: how long it may take.

        Returns:
            The adapted copy (this engine itself where no part of it came out better), and what was learnt.

        Raises:
            Skipped: there is nothing that could be learnt.
        """
        raise Skipped(f"the engine {self.facts.name} does not learn from the video")


class ShownMouth(Protocol):
    """A mouth that is shown from `start` to `end`, seconds; `shape` is A to H or X as Rhubarb Lip Sync names them."""

    @property
    def shape(self) -> str: ...

    @property
    def start(self) -> float: ...

    @property
    def end(self) -> float: ...


class Skipped(Exception):
    """There is a reason not to adapt; the message is the end of a sentence."""


@dataclass(frozen=True)
class Budget:
    """How long adaptation may go on.

    Attributes:
        end: value of `time.monotonic` at which to stop.
        tick: called often; raises to stop the whole job.
    """

    end: float
    tick: Callable[[], None] = lambda: None

    def left(self) -> float:
        """Seconds that are left, never below 0; also the moment at which a wish to stop is obeyed."""
        self.tick()
        return max(0.0, self.end - time.monotonic())


@dataclass(frozen=True)
class Change:
    """A measure on frames that were not learnt from, before and after learning; was the learnt part kept?"""

    before: float
    after: float
    kept: bool


@dataclass(frozen=True)
class Lesson:
    """Stretches of a person with the sound around each.

    Attributes:
        footage: the stretches; windows and points are those of `faces.window.MOUTH_WINDOW`.
        samples: the sound of all of them in a row, mono (N,) at 16 kHz.
        starts: of each stretch, its first frame's number in that sound (25 a second).
        offset: frames by which the sound is late; see `SyncResult`.
    """

    footage: Sequence[Footage]
    samples: np.ndarray
    starts: Sequence[int]
    offset: int = 0

    def times(self) -> np.ndarray:
        """Seconds in the sound (N,) that belong to all frames, stretch by stretch."""
        numbers = [start + np.arange(len(f)) for start, f in zip(self.starts, self.footage, strict=True)]
        return (np.concatenate(numbers) + self.offset) / FPS

    def points(self) -> np.ndarray:
        """The meshes (N, 468, 2) of all frames, window px."""
        return np.concatenate([f.points for f in self.footage])

    def pose(self) -> np.ndarray:
        """Yaw, pitch and roll (N, 3) of all frames, degrees."""
        return np.concatenate([f.pose for f in self.footage])


@dataclass(frozen=True)
class Learned:
    """What an engine learnt of a person.

    Attributes:
        lips_px: mean error of the predicted lip points, px of the mouth window (72 px are between the eyes).
        picture_db: PSNR of the drawn mouth, dB.
        steps: training steps of the picture.
    """

    lips_px: Change | None = None
    picture_db: Change | None = None
    steps: int = 0
