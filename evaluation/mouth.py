"""What a mouth is measured by: pure functions on what `evaluation.mouth_reading` reads off two videos.

Spread is the standard deviation over time. A real video compared with itself has 1 in everything that is a part of the
real one's, and 1 as correlation; a frozen mouth has 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data.preprocess import FPS
from evaluation.mouth_reading import Mouth
from models.phonemes import BILABIALS, STEPS_PER_SECOND, VOWELS

Row = dict[str, float]

_STILL = 1e-3  # spread in eye distances below which a mouth counts as still: the mesh trembles by so much
_CLOSED_PERCENTILE = 5.0
_LEAST_CLOSED = 0.01  # eye distances; closed lips are measured no better than this
_FINEST = 0.015  # detail is what is finer than this part of the eye distance, and than 1 px
_DETAIL_BOX = (0.8, 0.55)  # width and height of the lip box, eye distances
_TEETH_OPENING = 0.06  # lips count as open from here on, eye distances
_TEETH_LIGHT = 0.7  # a tooth has at least this part of the skin's lightness (CIE L*)
_FEWEST_TEETH = 0.02  # a real mouth that shows less than this share of teeth says nothing about teeth
_NEAR_FRAMES = 1  # a sound may be off its picture by so much
_CLOSED_BELOW, _OPEN_ABOVE = 0.2, 0.35  # of the way from the person's closed lips to widely open ones
_OPEN_PERCENTILE = 95.0


def movement(result: Mouth, real: Mouth) -> Row:
    """How far the mouth moves, in parts of the real one's, and how alike in time.

    Returns:
        ``opening_spread`` and ``width_spread``: 1 is best; ``correlation`` of the openings: 1 is best.
    """
    frames = min(len(result), len(real))
    ours, theirs = result.cut(frames), real.cut(frames)
    return {
        "opening_spread": _part(ours.opening.std(), theirs.opening.std()),
        "width_spread": _part(ours.width.std(), theirs.width.std()),
        "correlation": correlation(ours.opening, theirs.opening),
    }


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two series of the same length; 0 where one of them stands still."""
    if a.std() < _STILL or b.std() < _STILL:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def rest(silent: Mouth, real: Mouth) -> Row:
    """How far the lips are open while nobody speaks.

    Returns:
        ``rest``: median opening of a result with a silent sound in parts of this person's own closed lips, which are
        the 5th percentile of the real video's opening (at least 1 % of the eye distance); 1 or less is closed.
    """
    closed = max(float(np.percentile(real.opening, _CLOSED_PERCENTILE)), _LEAST_CLOSED)
    return {"rest": max(0.0, float(np.median(silent.opening))) / closed}


def detail(mouth: Mouth) -> float:
    """Fine detail of the lip box, grey levels: root mean square of what a Gaussian blur takes away, mean over frames.

    The blur's standard deviation is 1.5 % of the eye distance, at least 1 px; the box is 0.8 by 0.55 eye distances
    around the real video's mouth.
    """
    sigma = max(1.0, _FINEST * mouth.eye_px)
    middle = mouth.crops.shape[1] / 2
    half_width, half_height = (part * mouth.eye_px / 2 for part in _DETAIL_BOX)
    rows = slice(round(middle - half_height), round(middle + half_height))
    columns = slice(round(middle - half_width), round(middle + half_width))
    energies = []
    for crop in mouth.crops:
        grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
        energies.append(np.square(grey - cv2.GaussianBlur(grey, (0, 0), sigma))[rows, columns].mean())
    return float(np.sqrt(np.mean(energies)))


def looks(result: Mouth, real: Mouth) -> Row:
    """Sharpness and teeth in parts of the real one's.

    Returns:
        ``detail``: see `detail`; ``teeth``: share of tooth-like pixels between open lips, see `teeth_share`; left out
        where the real mouth shows none.
    """
    row = {"detail": detail(result) / max(detail(real), 1e-6)}
    ours, theirs = teeth_share(result), teeth_share(real)
    if theirs is not None and theirs >= _FEWEST_TEETH:
        row["teeth"] = (ours or 0.0) / theirs
    return row


def teeth_share(mouth: Mouth) -> float | None:
    """Share (0 to 1) of tooth-like pixels within the inner lips, over all frames with open lips; None: no such frame.

    Tooth-like is a pixel at least 0.7 times as light as the skin around the mouth (CIE L*) and less red than it (a*).
    """
    seen = teeth = 0
    for i in np.flatnonzero(mouth.opening >= _TEETH_OPENING):
        inside, tooth_like = tooth_pixels(mouth.crops[i], mouth.inner[i])
        seen, teeth = seen + int(inside.sum()), teeth + int((inside & tooth_like).sum())
    return teeth / seen if seen else None


def tooth_pixels(crop: np.ndarray, inner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels of a crop (S, S, 3) lie within the inner lips (20, 2), and which look like teeth; both (S, S)."""
    lab = cv2.cvtColor(crop.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    inside = np.zeros(crop.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.round(inner).astype(np.int32)], 1)
    side = len(crop)
    skin = lab[: side // 5].reshape(-1, 3), lab[:, : side // 6].reshape(-1, 3), lab[:, -side // 6 :].reshape(-1, 3)
    light, red, _ = np.median(np.concatenate(skin), axis=0)
    return inside > 0, (lab[..., 0] >= _TEETH_LIGHT * light) & (lab[..., 1] < red)


@dataclass(frozen=True)
class Closures:
    """How the lips stand at p, b and m, and at vowels.

    Attributes:
        closed: at each p, b or m, the least opening near it.
        vowels: at each vowel, the largest opening. Both from 0 (this person's closed lips) to 1 (widely open ones).
    """

    closed: np.ndarray
    vowels: np.ndarray

    def row(self, prefix: str = "") -> Row:
        """Share of p, b, m with closed lips, share of vowels with open ones, and the ratio of the mean openings.

        Whatever has none of its sounds is left out.
        """
        row = {}
        if len(self.closed):
            row["closures"] = float(np.mean(self.closed <= _CLOSED_BELOW))
        if len(self.vowels):
            row["vowels_open"] = float(np.mean(self.vowels >= _OPEN_ABOVE))
        if len(self.closed) and len(self.vowels):
            row["closed_to_open"] = max(0.0, float(self.closed.mean())) / max(float(self.vowels.mean()), 1e-3)
        return {prefix + name: value for name, value in row.items()}


def closures(mouth: Mouth, real: Mouth, track: np.ndarray, first: int) -> Closures:
    """Look at the lips at every p, b, m and vowel of the sound.

    Args:
        mouth: to look at.
        real: the person's real mouth: says what closed and open are.
        track: ids of phonemes at 50 Hz (`models.phonemes`), from the start of the sound.
        first: frame of the video that `mouth` starts with.
    """
    low, high = np.percentile(real.opening, [_CLOSED_PERCENTILE, _OPEN_PERCENTILE])
    opening = (mouth.opening - low) / max(high - low, 1e-3)
    found: tuple[list[float], list[float]] = ([], [])
    for start, stop, sound in _runs(track):
        begin, end = (step / STEPS_PER_SECOND * FPS - first for step in (start, stop))
        near = opening[max(0, int(begin) - _NEAR_FRAMES) : max(0, int(np.ceil(end)) + _NEAR_FRAMES)]
        if len(near) and sound in BILABIALS:
            found[0].append(near.min())
        elif len(near) and sound in VOWELS:
            found[1].append(near.max())
    return Closures(np.array(found[0]), np.array(found[1]))


def _runs(track: np.ndarray) -> list[tuple[int, int, int]]:
    """(first step, step after the last, id) of each stretch with the same sound."""
    edges = np.flatnonzero(np.diff(track)) + 1
    bounds = [0, *edges.tolist(), len(track)]
    return [(a, b, int(track[a])) for a, b in zip(bounds[:-1], bounds[1:], strict=True) if b > a]


def _part(value: float, whole: float) -> float:
    return float(value / max(whole, 1e-6))
