"""What the generator must know of a person before the first frame: the resting mouth, and pictures to draw from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np

from faces.alignment import LIPS_INNER
from faces.bank import Mouth, MouthBank, mouth_of
from faces.mouth_shape import SHAPE_POINTS, MouthShape, Neutral, mouth_opening, mouth_width
from faces.mouth_windows import MouthFrame
from faces.turned import resting

_UPPER_LIP, _LOWER_LIP = LIPS_INNER[5], LIPS_INNER[15]
_MOVING_PX = 0.5  # deviation of the lips' distance below which the mouth is still; the mesh trembles by less
_YAW_WORTH_DEG = 20.0  # a head turned this far is worth half as much as a reference
# Liveliness: what of a person's own movement shows in what the same person says at another time. Fitted on halves of
# the videos of 17 people: the error of the spread, in logarithms, falls from 0.46 to 0.36 (opening) and from 0.68 to
# 0.53 (width). Window px.
_USUAL_OPENING_PX, _USUAL_WIDTH_PX = 3.3, 2.5
_OWN_SHARE = 0.6
_LEAST_LIVELY, _MOST_LIVELY = 0.6, 1.5
_SPEAKS_PX = 1.0  # of people who speak the opening varies by more than this
_CLOSER_PX = 1.5  # by which lips elsewhere must be closer to be the resting ones; meshes of closed lips differ by less
_MOUTH = (slice(48, 152), slice(16, 144))  # rows, columns of the window in which sharpness counts


Known = TypeVar("Known")  # what is kept of a person
Meet = Callable[[Sequence[MouthFrame]], Known]
"""Makes it from frames of one shot with a window."""


@dataclass(frozen=True)
class Liveliness:
    """How far a person's mouth moves in parts of how far people's mouths move: in height and in width."""

    opening: float = 1.0
    width: float = 1.0

    @classmethod
    def of(cls, moved: np.ndarray) -> Liveliness:
        """Of what lips and jaw (T, P, 2) did; of a mouth that did not speak nothing is known.

        Args:
            moved: difference to the resting mouth, window px.
        """
        opening, width = float(mouth_opening(moved).std()), float(mouth_width(moved).std())
        if opening < _SPEAKS_PX:
            return cls()
        parts = np.array([opening / _USUAL_OPENING_PX, width / _USUAL_WIDTH_PX]) ** _OWN_SHARE
        return cls(*np.clip(parts, _LEAST_LIVELY, _MOST_LIVELY).tolist())


@dataclass(frozen=True)
class Person:
    """One person in one shot.

    Attributes:
        neutral: the resting mouth.
        bank: pictures of the mouth, of all shapes that were seen.
        faces: a few of them that show the person well, with the mouth closed to open.
        lively: how far the mouth moves.
    """

    neutral: Neutral
    bank: MouthBank
    faces: tuple[Mouth, ...]
    lively: Liveliness


def with_person(
    frames: Iterable[MouthFrame], meet: Meet[Known], look_ahead: int
) -> Iterator[tuple[MouthFrame, Known | None]]:
    """Yield every frame with the person in it (None where there is no window).

    From the first window of a shot on, frames are held back until enough of the person has been seen.

    Args:
        frames: frames in order.
        meet: what is kept of a person.
        look_ahead: frames held back at most.
    """
    held: list[MouthFrame] = []
    person: Known | None = None
    shot: int | None = None
    for frame in frames:
        if held and frame.shot != shot:
            yield from _introduce(held, meet)[1]
            held = []
        if frame.shot != shot:
            shot, person = frame.shot, None
        if person is None and not held and frame.reason:
            yield frame, None
        elif person is None:
            held.append(frame)
            if len(held) >= look_ahead:
                person, introduced = _introduce(held, meet)
                yield from introduced
                held = []
        else:
            yield frame, None if frame.reason else person
    yield from _introduce(held, meet)[1]


def with_person_at_once(
    frames: Iterable[MouthFrame], meet: Meet[Known], count: int, fade: int
) -> Iterator[tuple[MouthFrame, Known | None]]:
    """The same without holding anything back: frames have no person until `count` of a shot's windows have been seen.

    Args:
        frames, meet: as above.
        count: windows after which the person is known.
        fade: frames over which `fade` then rises; also after each frame without a window.
    """
    seen: list[MouthFrame] = []
    person: Known | None = None
    shot, since = None, 0
    for frame in frames:
        if frame.shot != shot:
            shot, person, seen = frame.shot, None, []
        if person is None and frame.reason is None:
            # Copies without the frame: only the window is looked at.
            seen.append(replace(frame, frame=None))
            if len(seen) >= count:
                person, seen = _introduce(seen, meet)[0], []
        known = person is not None and frame.reason is None
        since = since + 1 if known else 0
        frame.fade = min(1.0, since / (fade + 1))
        yield frame, person if known else None


def _introduce(held: list[MouthFrame], meet: Meet[Known]) -> tuple[Known | None, list[tuple[MouthFrame, Known | None]]]:
    """The person seen in some frames (None: nobody), and the frames with it."""
    usable = [frame for frame in held if frame.reason is None]
    person = meet(usable) if usable else None
    return person, [(frame, None if frame.reason else person) for frame in held]


def meet_person(
    frames: Sequence[MouthFrame], shape: MouthShape, faces: int, size: int, elsewhere: Sequence[MouthFrame] = ()
) -> Person:
    """What is known of the person in frames with a window.

    Args:
        frames: of one shot, with windows as in `faces.window`.
        shape: finds the resting mouth.
        faces: how many pictures that show the person well.
        size: how many mouths are kept at most.
        elsewhere: frames of the same person from other places, see `faces.elsewhere`.
    """
    neutral = _resting(frames, shape)
    if elsewhere:
        frames = [*frames, *elsewhere]
        other = _resting(frames, shape)
        # What is near fits best; what is elsewhere counts where the lips are not closed here.
        neutral = other if _gap(neutral) - _gap(other) > _CLOSER_PX else neutral
    seen, pose = _seen(frames)
    chosen = mouths_of(pick_references(frames, faces), neutral, shape)
    bank = MouthBank.of(mouths_of(frames, neutral, shape), size)
    return Person(neutral, bank, tuple(chosen), Liveliness.of(seen[:, SHAPE_POINTS] - shape.base(neutral, pose)))


def _seen(frames: Sequence[MouthFrame]) -> tuple[np.ndarray, np.ndarray]:
    """The meshes and poses of frames."""
    return tuple(np.stack([getattr(frame, name) for frame in frames]) for name in ("points", "pose"))


def _resting(frames: Sequence[MouthFrame], shape: MouthShape) -> Neutral:
    seen, pose = _seen(frames)
    neutral = shape.neutral(seen, pose)
    return neutral if is_speaking(seen) else shape.rested(neutral)


def _gap(neutral: Neutral) -> float:
    return float(mouth_opening(neutral.mouth[None])[0])


def mouths_of(frames: Sequence[MouthFrame], neutral: Neutral, shape: MouthShape) -> list[Mouth]:
    """The mouths of frames of a person, as a bank keeps them."""
    seen, pose = _seen(frames)
    points = seen[:, SHAPE_POINTS]
    base = resting(shape, neutral, points, pose)
    windows = [frame.window for frame in frames]
    known = (windows, points, points - base, shape.encode_lips(points, base), pose)
    return [mouth_of(*one) for one in zip(*known, strict=True)]


def is_speaking(points: np.ndarray) -> bool:
    """Whether the mouth moves in meshes (T, 468, 2) in window px; it does not in a still picture."""
    opening = np.linalg.norm(points[:, _LOWER_LIP] - points[:, _UPPER_LIP], axis=1)
    return float(opening.std()) > _MOVING_PX


def pick_references(frames: Sequence[MouthFrame], count: int) -> list[MouthFrame]:
    """Choose `count` frames that show the person well: sharp, frontal, from closed to open mouth.

    The frames are sorted by how far the mouth is open and cut into `count` parts; the best of each part is taken.
    With fewer frames than wanted some are taken twice.
    """
    opening = [float(np.linalg.norm(frame.points[_LOWER_LIP] - frame.points[_UPPER_LIP])) for frame in frames]
    by_opening = np.argsort(opening, kind="stable")
    if len(frames) < count:
        return [frames[by_opening[i * len(frames) // count]] for i in range(count)]
    parts = np.array_split(by_opening, count)
    return [max((frames[i] for i in part), key=_worth) for part in parts]


def _worth(frame: MouthFrame) -> float:
    """How good a reference the frame is: sharpness (deviation of the Laplacian), less for a turned head."""
    grey = cv2.cvtColor(frame.window[_MOUTH], cv2.COLOR_RGB2GRAY)
    sharpness = float(cv2.Laplacian(grey, cv2.CV_32F).std())
    return sharpness / (1.0 + abs(float(frame.pose[0])) / _YAW_WORTH_DEG)
