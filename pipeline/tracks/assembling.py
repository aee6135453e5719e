"""A track from what is known: sounds with their times, and how a mouth was heard or seen to move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from faces.mouth_shape import JAW_PART, MouthShape, mouth_opening, mouth_width
from models.phonemes import Phoneme
from pipeline.track import REST, SHAPES, Cue, Curves, Track, frame_times, steady, with_between
from pipeline.tracks.blending import blended, closed, closures
from pipeline.tracks.mouths import articulations, chosen_shapes, cues_of, segments, with_open_vowels
from pipeline.tracks.options import TrackOptions

# Window px (the eyes are 72 px apart) of a wide open mouth, of a broad one beside the resting one, and of the jaw.
OPEN_PX, WIDE_PX, JAW_PX = 16.0, 6.0, 14.0
# What is heard tells how far a person opens the mouth just now, the rules tell which mouth it is. With 0.3, 0.5, 0.7
# and 1 the opening of eight people (val) was met at a correlation of 0.31, 0.34, 0.36 and 0.37; rules keep vowels open.
_HEARD = {"opening": 0.7, "width": 0.35, "jaw": 0.7}
LEAST_CUE_S = 0.04  # a mouth that is shown for a shorter time is not seen
_A_FRAME = 1.01  # frames that a mouth lasts at least, so that none falls between two of them
_LIPS = SHAPES.index("A")


@dataclass(frozen=True)
class Moved:
    """How far a mouth is from its resting one, (F,) each, as in `pipeline.track.Curves`, without the limits there."""

    opening: np.ndarray
    width: np.ndarray
    jaw: np.ndarray


def moved(shape: np.ndarray, basis: MouthShape) -> Moved:
    """What mouth shape coefficients (F, K) say of lips and jaw."""
    moves = basis.components.reshape(basis.num_coefficients, -1, 2)
    opening, jaw = shape @ mouth_opening(moves), shape @ moves[:, JAW_PART, 1].max(axis=1)
    # A mouth is not more closed than at rest: that would take the openness from vowels that the rules open.
    return Moved(np.maximum(opening, 0) / OPEN_PX, shape @ mouth_width(moves) / WIDE_PX, np.maximum(jaw, 0) / JAW_PX)


def assemble(
    duration: float,
    phonemes: Sequence[Phoneme],
    shape: np.ndarray,
    heard: Moved,
    options: TrackOptions,
    **known: object,
) -> Track:
    """A track of a sound.

    Args:
        duration: seconds.
        phonemes: what is said when, in order of time.
        shape: mouth shape coefficients (F, K) at `frame_times(duration, options.fps)`.
        heard: see `moved`.
        options: choices.
        known: further attributes of the track: words, source, notes.
    """
    times = frame_times(duration, options.fps)
    parts = with_open_vowels(segments(phonemes, duration))
    shapes = chosen_shapes(parts)
    bounds = np.array([part.end for part in parts[:-1]])
    shut = closures(parts, times, options.smooth)
    weights = closed(blended(bounds, np.eye(len(SHAPES))[shapes], times, options.smooth), shut, _LIPS)
    rules = blended(bounds, articulations(parts, shapes), times, options.smooth)
    weights = _weaker(weights, options.strength)
    curves = _curves(rules, heard, shut, 1.0 - weights[:, REST], options.strength)
    return Track(
        duration, options, tuple(phonemes), steady(cues_of(parts, shapes), LEAST_CUE_S), weights.astype(np.float32),
        curves, shape, **known,
    )  # fmt: skip


def shown(duration: float, phonemes: Sequence[Phoneme], fps: float) -> tuple[Cue, ...]:
    """Which mouths to draw one after the other: each is shown in a frame at least, and some lie between others.

    Args:
        duration: seconds.
        phonemes: what is said when, in order of time.
        fps: frames per second of the pictures.
    """
    parts = with_open_vowels(segments(phonemes, duration))
    least = max(LEAST_CUE_S, _A_FRAME / fps)
    return tuple(with_between(steady(cues_of(parts, chosen_shapes(parts)), least)))


def _weaker(weights: np.ndarray, strength: float) -> np.ndarray:
    """Weights (F, 9) of a mouth that does not move as far: the rest of each row is the mouth at rest."""
    kept = weights * min(strength, 1.0)
    kept[:, REST] += 1.0 - kept.sum(axis=1)
    return kept


def _curves(rules: np.ndarray, heard: Moved, shut: np.ndarray, speaks: np.ndarray, strength: float) -> Curves:
    """Lips and jaw (F,): what the rules want and what was heard, with closed lips where they must be."""

    def mixed(column: int, name: str) -> np.ndarray:
        share = _HEARD[name]
        return strength * speaks * ((1 - share) * rules[:, column] + share * getattr(heard, name))

    opening = np.clip(mixed(0, "opening") * (1 - shut), 0, 1)
    width = np.clip(mixed(1, "width"), -1, 1)
    protrusion = np.clip(strength * rules[:, 2] * (1 - 0.5 * shut), 0, 1)
    jaw = np.clip(mixed(3, "jaw") * (1 - 0.8 * shut), 0, 1)
    return Curves(*(values.astype(np.float32) for values in (opening, width, protrusion, jaw)))
