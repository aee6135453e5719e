"""Drawn mouths as an engine: pictures of mouths are laid over the face, turned and sized with the head.

No network draws: which mouth is shown when is worked out from the phonemes (`hear_mouths`). Where nobody did that, as
in live frames, the mouth opens with the loudness.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch

from engines.base import Engine, Facts, Painter, ShownMouth, Style
from engines.catalogue import ENTRIES
from faces.erasing import lips_mask, oval_mask, without_mouth
from faces.mouth_windows import MouthFrame
from faces.placed import MOUTH_CENTRE, MOUTH_WIDTH, joined
from faces.sprites import BUNDLED, MouthSet, reduced
from faces.window import MOUTH_WINDOW
from models.phonemes import Phoneme
from utils.config import Config
from utils.pictures import Patch

SHAPES = "ABCDEFGHX"
_CORNERS, _UNDER_NOSE = [61, 291], 164  # mesh indices
_LEAST_COSINE = 0.5  # of the head's turn: a mouth does not become narrower than this
_MARKED_HEIGHT = 0.24  # half of the height that is painted over at a marked place, in widths of the mouth
_RATE, _BLOCK = 16000, 320  # of the sound, per second; samples whose loudness is one number
_AHEAD = 3  # blocks after a frame that count
_DECAY = 0.9985  # by which the loudness that counts as full sinks from block to block: by half in 9 s
_QUIET = 1e-3  # loudness below which nobody speaks, whatever came before
_STEPS = ((0.62, "D"), (0.3, "C"), (0.1, "B"))  # loudness in parts of the full one -> mouth


@dataclass(frozen=True)
class Place:
    """Where a person's mouth is, window px.

    Attributes:
        middle: of the closed mouth; where there is a mesh, counted from the point under the nose.
        width: of the closed mouth, seen from the front.
        meshed: whether there is a mesh.
    """

    middle: tuple[float, float]
    width: float
    meshed: bool

    def at(self, frame: MouthFrame) -> tuple[float, float]:
        """The middle in a frame."""
        if not self.meshed:
            return self.middle
        x, y = frame.points[_UNDER_NOSE]
        return float(x) + self.middle[0], float(y) + self.middle[1]


MARKED = Place((MOUTH_CENTRE[0] - MOUTH_WINDOW.origin[0], MOUTH_CENTRE[1] - MOUTH_WINDOW.origin[1]), MOUTH_WIDTH, False)
"""The mouth of a marked place."""


class Heard(Protocol):
    """Which mouth is shown when."""

    def shape_at(self, time: float) -> str:
        """One of `SHAPES`, at a time in seconds; times rise."""
        ...


class Sprites(Engine):
    """The engine.

    Args:
        mouths: what is laid over faces.
        device: not used.
        erases: whether the mouth that is there is painted over first.
    """

    facts = Facts(
        name="sprites",
        licence=ENTRIES["sprites"].licence,
        needs=ENTRIES["sprites"].memory,
        geometry=MOUTH_WINDOW,
        region=(0, 0, MOUTH_WINDOW.width, MOUTH_WINDOW.height),
        window=4,
        overlap=0,
        fast_overlap=0,
        meeting_frames=25,
        matched=False,
        lays_mouths=True,
    )

    def __init__(self, mouths: MouthSet, device: torch.device, erases: bool = True) -> None:
        self.device = device
        self._mouths, self._erases = mouths, erases
        self._reduced: dict[tuple[str, int], np.ndarray] = {}
        self._bare: tuple[bytes, np.ndarray] = b"", np.empty(0)

    @classmethod
    def load(cls, config: Config, device: torch.device, weights: Path) -> Sprites:
        """See `Engine.load`: with the bundled mouths."""
        return cls(MouthSet.read(BUNDLED), device)

    def dressed(self, mouths: Path | None, erases: bool) -> Sprites:
        """See `Engine.dressed`."""
        return Sprites(self._mouths if mouths is None else MouthSet.read(mouths), self.device, erases)

    def hear(self, samples: np.ndarray, phonemes: Sequence[Phoneme] = ()) -> Heard:
        """See `Engine.hear`: how loud it is."""
        return Loudness([samples])

    def hear_live(self, chunks: Iterable[np.ndarray], ahead_s: float) -> Heard:
        """See `Engine.hear_live`: the same."""
        return Loudness(chunks)

    def hear_mouths(self, mouths: Sequence[ShownMouth]) -> Heard:
        """See `Engine.hear_mouths`."""
        return Shown(mouths)

    def meet(self, frames: Sequence[MouthFrame]) -> Place:
        """See `Engine.meet`: where the mouth is and how wide."""
        if frames[0].points is None:
            return MARKED
        points = np.stack([frame.points for frame in frames])
        corners = points[:, _CORNERS]
        away = np.median(corners.mean(1) - points[:, _UNDER_NOSE], axis=0)
        turned = np.array([_squeeze(frame) for frame in frames])
        width = np.median(np.linalg.norm(corners[:, 1] - corners[:, 0], axis=1) / turned)
        return Place((float(away[0]), float(away[1])), float(width), True)

    def painter(self, person: Place, speech: Heard, style: Style) -> Painter:
        """See `Engine.painter`; it draws which mouth is shown: (F, 9), 1 for that one and 0 for the others."""

        def paint(frames: Sequence[MouthFrame]) -> np.ndarray:
            shown = np.zeros((len(frames), len(SHAPES)), np.float32)
            for row, frame in zip(shown, frames, strict=True):
                frame.kept = person
                row[SHAPES.index(speech.shape_at(frame.time))] = 1.0
            return shown

        return paint

    def render(self, frames: Sequence[MouthFrame], drawn: np.ndarray) -> np.ndarray:
        """See `Engine.render`: what `painter` drew, since mouths are laid in the resolution of the frame itself."""
        return drawn

    def opacity(self, frame: MouthFrame) -> np.ndarray:
        """See `Engine.opacity`: of what is painted over."""
        size = (self.facts.geometry.height, self.facts.geometry.width)
        place = frame.kept or MARKED
        if not place.meshed:
            return oval_mask(place.middle, (place.width / 2, _MARKED_HEIGHT * place.width), size)
        return lips_mask(frame.points, size, place.width)

    def paste(self, frame: MouthFrame, picture: np.ndarray) -> Patch | None:
        """See `Engine.paste`: the mouth over bare skin, or alone."""
        shape = SHAPES[int(picture.argmax())]
        to_frame = cv2.invertAffineTransform(frame.matrix.astype(np.float64))
        mouth, matrix = self._laid(shape, frame, to_frame)
        mask = self.opacity(frame) if self._erases else np.zeros((2, 2), np.float32)
        box = _even_box([_corners(mouth, matrix), _corners(mask, to_frame)], frame.size)
        if box is None or frame.fade <= 0:
            return None
        made = _warped(mouth, matrix, box) / 255.0
        colour, alpha = made[..., :3], made[..., 3]
        if self._erases:
            bare = _warped(self._without_mouth(frame, mask).astype(np.float32), to_frame, box, cv2.BORDER_REPLICATE)
            under = _warped(mask, to_frame, box) * (1 - alpha)
            colour, alpha = colour + bare / 255.0 * under[..., None], alpha + under
        colour = colour / np.maximum(alpha, 1e-6)[..., None]
        image = np.clip(255 * colour + 0.5, 0, 255).astype(np.uint8)
        alpha[alpha < 0.5 / 255] = 0.0
        return Patch(box[0], box[1], image, np.clip(alpha * min(frame.fade, 1.0), 0, 1).astype(np.float32))

    def _laid(self, shape: str, frame: MouthFrame, to_frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The picture of a mouth in about the resolution of the frame, and its px -> frame px."""
        place: Place = frame.kept
        (x, y), (middle, width) = place.at(frame), self._mouths.place
        scale = place.width / width
        across = scale * (_squeeze(frame) if place.meshed else 1.0)
        laid = np.array([[across, 0, x - across * middle[0]], [0, scale, y - scale * middle[1]]])
        matrix = joined(to_frame, laid)
        level = max(0, round(2 * math.log2(max(1e-6, 1 / math.sqrt(abs(np.linalg.det(matrix[:, :2])))))))
        mouth = self._at_level(shape, level)
        full = self._mouths.picture(shape).shape
        steps = full[1] / mouth.shape[1], full[0] / mouth.shape[0]
        enlarged = np.array([[steps[0], 0, (steps[0] - 1) / 2], [0, steps[1], (steps[1] - 1) / 2]])
        return mouth, joined(matrix, enlarged)

    def _at_level(self, shape: str, level: int) -> np.ndarray:
        """A mouth reduced by the square root of 2 so many times."""
        if (shape, level) not in self._reduced:
            if len(self._reduced) > 4 * len(SHAPES):
                self._reduced.clear()
            self._reduced[shape, level] = reduced(self._mouths.picture(shape), 2 ** (level / 2))
        return self._reduced[shape, level]

    def _without_mouth(self, frame: MouthFrame, mask: np.ndarray) -> np.ndarray:
        """The bare window; of a still picture it is made once."""
        key = frame.window.tobytes() + mask.tobytes()
        if self._bare[0] != key:
            self._bare = key, without_mouth(frame.window, mask)
        return self._bare[1]


class Shown:
    """Mouths that are known."""

    def __init__(self, mouths: Sequence[ShownMouth]) -> None:
        self._shapes = [mouth.shape for mouth in mouths]
        self._starts = np.array([mouth.start for mouth in mouths])

    def shape_at(self, time: float) -> str:
        """See `Heard`; after the last one the mouth rests."""
        number = int(np.searchsorted(self._starts, time + 1e-6, side="right")) - 1
        return self._shapes[number] if 0 <= number < len(self._shapes) else "X"


class Loudness:
    """A mouth that opens with the loudness of a sound.

    Args:
        chunks: mono, 16 kHz; read only as far as needed.
    """

    def __init__(self, chunks: Iterable[np.ndarray]) -> None:
        self._blocks = _loudnesses(chunks)
        self._levels: list[float] = []
        self._full = _QUIET

    def shape_at(self, time: float) -> str:
        """See `Heard`."""
        first = max(int(time * _RATE / _BLOCK), 0)
        for level in self._blocks:
            self._full = max(level, self._full * _DECAY)
            self._levels.append(level)
            if len(self._levels) >= first + _AHEAD:
                break
        near = self._levels[first : first + _AHEAD]
        level = max(near, default=0.0)
        return "X" if level < _QUIET else next((shape for part, shape in _STEPS if level >= part * self._full), "X")


def _loudnesses(chunks: Iterable[np.ndarray]) -> Iterator[float]:
    """Root mean square of each block."""
    rest = np.zeros(0, np.float32)
    for chunk in chunks:
        for start in range(0, len(chunk), _RATE):
            rest = np.concatenate([rest, np.asarray(chunk[start : start + _RATE], np.float32)])
            whole = len(rest) // _BLOCK * _BLOCK
            yield from (float(level) for level in np.sqrt((rest[:whole].reshape(-1, _BLOCK) ** 2).mean(1)))
            rest = rest[whole:]


def _squeeze(frame: MouthFrame) -> float:
    """How much narrower a turned mouth looks than the head."""
    return max(math.cos(math.radians(float(frame.pose[0]))), _LEAST_COSINE)


def _corners(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Corners (4, 2) of a picture in frame px."""
    height, width = picture.shape[:2]
    return np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ matrix[:, :2].T + matrix[:, 2]


def _even_box(corners: Sequence[np.ndarray], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 on even px around all of them, within a frame (height, width); None where nothing is left."""
    points, limit = np.concatenate(corners), np.array(size[::-1])
    low = np.clip(np.floor(points.min(0) / 2) * 2, 0, limit).astype(int)
    high = np.clip(np.ceil((points.max(0) + 1) / 2) * 2, 0, limit).astype(int)
    return None if np.any(high <= low) else (int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _warped(
    picture: np.ndarray, matrix: np.ndarray, box: tuple[int, int, int, int], border: int = cv2.BORDER_CONSTANT
) -> np.ndarray:
    """A picture (px -> frame px) as it is seen within a box of the frame."""
    within = matrix.copy()
    within[:, 2] -= box[:2]
    size = (box[2] - box[0], box[3] - box[1])
    return cv2.warpAffine(picture, within, size, flags=cv2.INTER_LINEAR, borderMode=border)
