"""A track's opening against that of real mouths, beside Rhubarb's own rules for the same sounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from data.raw_clips import RawClip
from evaluation.clips import longest
from evaluation.languages import longest_of_people
from evaluation.reading import look
from faces.mouth_shape import SHAPE_POINTS, mouth_opening
from language_processor import LANGUAGES, SpokenText
from models.phonemes import Phoneme
from pipeline.track import Track
from pipeline.tracks.maker import TrackMaker
from pipeline.tracks.mouths import OF_SHAPE, allowed_shapes, segments
from pipeline.tracks.options import TrackOptions
from utils.config import Config
from utils.helpers import InputError

FPS = 25.0
_SHIFTS = range(-3, 4)  # frames by which recordings may be off; all are given the best of them
_NEAREST = {
    "A": "AXGBCHEDF", "B": "BGAXCHEDF", "C": "CHBGDAXEF", "D": "DCHBGAXEF", "E": "ECHBGAXDF", "F": "FBGAXCHED",
    "G": "GABCHXEDF", "H": "HCBGDAXEF", "X": "XAGBCHEDF",
}  # fmt: skip
"""A shape -> all shapes, those that Rhubarb reaches most easily from it first (its file animationRules.cpp)."""


def rhubarb_opening(phonemes: Sequence[Phoneme], duration: float, times: np.ndarray) -> np.ndarray:
    """How far Rhubarb's mouths are open (F,): of the shapes that fit a sound the nearest to the one before."""
    shape, opening = "X", np.zeros(len(times))
    for part in segments(phonemes, duration):
        allowed = allowed_shapes(part)
        shape = next(other for other in _NEAREST[shape] if other in allowed)
        opening[(times >= part.start) & (times < part.end)] = OF_SHAPE[shape][0]
    return opening


def measure_people(
    maker: TrackMaker, config: Config, clips: Sequence[RawClip], people: int, each: int = 1
) -> Iterator[dict]:
    """A row for each person: correlation of openings with the mesh's, at the best of a few shifts, mean over clips.

    Args:
        maker: makes the tracks.
        config: the configuration.
        clips: videos with sound.
        people: how many, those with the longest clips first.
        each: of how many clips, the longest ones.
    """
    for first in longest_of_people(clips, people):
        rows = []
        for clip in longest([clip for clip in clips if clip.person == first.person], each):
            try:
                rows.append(_measured(maker, config, clip))
            except InputError:
                continue
        if rows:
            means = {name: float(np.mean([row[name] for row in rows if name in row])) for name in _names(rows)}
            frames = sum(row["frames"] for row in rows)
            yield {"person": first.person, "clips": len(rows), **means, "frames": frames}


def _names(rows: Sequence[dict]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _measured(maker: TrackMaker, config: Config, clip: RawClip) -> dict[str, float]:
    """One clip; `text` is there where its text is known, in a language that we speak."""
    seen = look(clip.video, config)
    gap = mouth_opening(seen.points[:, SHAPE_POINTS])
    options = TrackOptions(fps=FPS)
    track = maker.make(clip.audio, None, options)
    ways = {"ours": track.curves.opening, "rhubarb": rhubarb_opening(track.phonemes, track.duration, track.times)}
    if clip.text and clip.language in LANGUAGES:
        told = maker.make(clip.audio, SpokenText(clip.text, clip.language), options)
        rules = rhubarb_opening(told.phonemes, told.duration, told.times)
        ways |= {"ours_text": told.curves.opening, "rhubarb_text": rules}
    found = {name: best_correlation(values, gap, seen.first) for name, values in ways.items()}
    return {"frames": len(gap), **found, **_extent(track, gap)}


def best_correlation(opening: np.ndarray, gap: np.ndarray, first: int) -> float:
    """Correlation of (F,) with (T,), whose first frame is number `first` of the video, at the best shift."""
    found = []
    for shift in _SHIFTS:
        numbers = np.arange(len(gap)) + first + shift
        inside = (numbers >= 0) & (numbers < len(opening))
        if inside.sum() > FPS / 2:
            a, b = opening[numbers[inside]], gap[inside]
            found.append(float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0)
    return max(found, default=0.0)


def _extent(track: Track, gap: np.ndarray) -> dict[str, float]:
    """How far mouths open, for the units of the curves: the 98th part of a hundred of both, px and 0 to 1."""
    return {"wide_px": float(np.percentile(gap, 98) - np.percentile(gap, 10)),
            "wide": float(np.percentile(track.curves.opening, 98))}  # fmt: skip


def people_table(rows: Sequence[dict]) -> str:
    """For people."""
    names = ("ours", "rhubarb", "ours_text", "rhubarb_text")
    heads = ("Ours, sound", "Rhubarb's rules", "Ours, with the text", "Rhubarb's rules, with the text")
    lines = [f"| Person | Clips | Frames | {' | '.join(heads)} |", "| --- " * 7 + "|"]
    for row in rows:
        cells = [f"{row[name]:.2f}" if name in row else "-" for name in names]
        lines.append(f"| {row['person']} | {row['clips']} | {row['frames']} | {' | '.join(cells)} |")
    if rows:
        known = [[row[name] for row in rows if name in row] for name in names]
        means = [f"{np.mean(values):.3f}" if values else "-" for values in known]
        lines.append(f"| mean | | | {' | '.join(means)} |")
    return "\n".join(lines)
