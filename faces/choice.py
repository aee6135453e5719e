"""Which face of several: the user's words, and the tracks of faces among which they choose."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from faces.detector import Detection, iou
from utils.helpers import InputError

CONTINUES = 0.2  # overlap of a box with the previous one of the same face, some frames earlier
_SEEN_OFTEN = 0.3  # a face seen in fewer of the looked-at frames is not chosen while there are others
_LEAST_BOX_PX = 8
_NEARBY_S = 0.6  # a box holds for so long before and after its sighting


@dataclass(frozen=True)
class FaceChoice:
    """Which face to take when there are several.

    Attributes:
        rule: largest, left, right, index, point, speaker, box or mouth.
        index: for index: position from the left, 0 is the leftmost face.
        point: for point: x, y in px of the picture; for box and mouth their middle.
        time: for point, box and mouth: the second at which the face is there; 0 is the start.
        box: for box and mouth: x, y of the upper left corner, width and height in px, around a face or around a mouth.
    """

    rule: str = "largest"
    index: int = 0
    point: tuple[float, float] = (0.0, 0.0)
    time: float = 0.0
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    @classmethod
    def parse(cls, text: str) -> FaceChoice:
        """Read `largest`, `left`, `right`, `speaker`, `index:N`, or `point:X,Y`, `box:X,Y,W,H` or `mouth:X,Y,W,H`, each
        of these with an optional `@SECONDS`.

        Raises:
            InputError: the text is none of these.
        """
        if text in ("largest", "left", "right", "speaker"):
            return cls(text)
        if match := re.fullmatch(r"index:(\d+)", text):
            return cls("index", index=int(match[1]))
        number = r"(\d+(?:\.\d+)?)"
        if match := re.fullmatch(rf"point:{number},{number}(?:@{number})?", text):
            return cls("point", point=(float(match[1]), float(match[2])), time=float(match[3] or 0))
        if match := re.fullmatch(rf"(box|mouth):{number},{number},{number},{number}(?:@{number})?", text):
            x, y, width, height = (float(value) for value in match.groups()[1:5])
            if min(width, height) < _LEAST_BOX_PX:
                raise InputError(f"The box of '{text}' is too small; give one of at least {_LEAST_BOX_PX} px.")
            point = (x + width / 2, y + height / 2)
            return cls(match[1], point=point, time=float(match[6] or 0), box=(x, y, width, height))
        raise InputError(
            f"The face '{text}' is not known; use largest, left, right, speaker, index:N, point:X,Y[@SECONDS], or "
            "box:X,Y,W,H[@SECONDS] around a face or mouth:X,Y,W,H[@SECONDS] around a mouth."
        )

    @property
    def needs_survey(self) -> bool:
        """Whether the whole video has to be looked through before a face can be followed."""
        return self.rule == "speaker" or (self.is_placed and self.time > 0)

    @property
    def is_placed(self) -> bool:
        """Whether the face is told by where it is."""
        return self.rule in ("point", "box", "mouth")

    @property
    def is_marked(self) -> bool:
        """Whether somebody has drawn a box around it."""
        return self.rule in ("box", "mouth")

    def pick(self, tracks: Sequence[Track], looked_at: int = 1) -> Track | None:
        """The chosen one of some tracks; None when there is none that fits. A speaker counts as the largest.

        Args:
            tracks: faces seen in the frames ahead.
            looked_at: in how many frames faces were looked for.
        """
        steady = steady_tracks(tracks, looked_at)
        if not steady:
            return None
        if self.rule == "index":
            by_place = sorted(steady, key=lambda t: t.centre()[0])
            return by_place[self.index] if self.index < len(by_place) else None
        keys = {
            "largest": lambda t: -t.area(),
            "speaker": lambda t: -t.area(),
            "left": lambda t: t.centre()[0],
            "right": lambda t: -t.centre()[0],
        }
        return min(steady, key=keys.get(self.rule, lambda t: math.dist(t.centre(self.time), self.point)))


@dataclass
class Track:
    """The boxes of one face: time in seconds and box (x0, y0, x1, y1) px of each sighting."""

    times: list[float] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    missed: int = 0

    def area(self) -> float:
        """Median area in square px."""
        return float(np.median([np.prod(box[2:] - box[:2]) for box in self.boxes]))

    def centre(self, time: float | None = None) -> tuple[float, float]:
        """Centre in px: the median, or at the sighting nearest to a time (seconds) in the track's span."""
        centres = np.array([(box[:2] + box[2:]) / 2 for box in self.boxes])
        if time is not None and self.times[0] <= time <= self.times[-1]:
            x, y = centres[int(np.argmin(np.abs(np.array(self.times) - time)))]
        else:
            x, y = np.median(centres, axis=0)
        return float(x), float(y)

    def box_at(self, time: float) -> np.ndarray | None:
        """The box (4,) px at a time in seconds, between two sightings on the line between them; None far from both."""
        times = np.array(self.times)
        if np.abs(times - time).min() > _NEARBY_S:
            return None
        boxes = np.stack(self.boxes)
        return np.array([np.interp(time, times, side) for side in boxes.T])


def steady_tracks(tracks: Sequence[Track], looked_at: int) -> list[Track]:
    """Tracks of faces that were seen often enough to be no passers-by, or all if there are only those."""
    return [t for t in tracks if len(t.boxes) >= _SEEN_OFTEN * looked_at] or list(tracks)


def link(sightings: Iterable[tuple[float, Sequence[Detection]]], max_missed: int = 2) -> list[Track]:
    """Join detections of successive frames to tracks: best overlap first, one detection to one track.

    Args:
        sightings: (time in seconds, detections) of the frames in which faces were looked for.
        max_missed: a track that finds no box in more than this many of them in a row is closed.

    Returns:
        All tracks, closed ones too, in the order of their first sighting.
    """
    tracks: list[Track] = []
    for time, detections in sightings:
        live = [t for t in tracks if t.missed <= max_missed]
        pairs = sorted(
            ((iou(t.boxes[-1], d.box), i, j) for i, t in enumerate(live) for j, d in enumerate(detections)),
            reverse=True,
        )
        used_tracks: set[int] = set()
        used_detections: set[int] = set()
        for overlap, i, j in pairs:
            if overlap < CONTINUES or i in used_tracks or j in used_detections:
                continue
            live[i].times.append(time)
            live[i].boxes.append(detections[j].box)
            live[i].missed = 0
            used_tracks.add(i)
            used_detections.add(j)
        for i, track in enumerate(live):
            track.missed += i not in used_tracks
        tracks += [Track([time], [d.box]) for j, d in enumerate(detections) if j not in used_detections]
    return tracks
