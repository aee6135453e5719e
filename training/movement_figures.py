"""How large, how like the real one and how alive predicted movement of the mouth is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from faces.mouth_shape import LIPS_OUTER, NUM_POINTS, MouthShape, mouth_opening
from training.speech import CLOSED_PX

AFTER_S = 0.2  # so long after speech the mouth must rest
LEAST_FRAMES = 40  # of a person who counts
Array = np.ndarray


@dataclass(frozen=True)
class Predicted:
    """A clip's shapes (T, K), those predicted, and which frames (T,) count; spoken (T,) only in scenes."""

    person: str
    true: Array
    shape: Array
    valid: Array
    spoken: Array | None = None


class Measures:
    """Measures movement.

    Args:
        shape: what the coefficients mean.
        fps: of the clips.
    """

    def __init__(self, shape: MouthShape, fps: int) -> None:
        moves = shape.components.reshape(-1, NUM_POINTS, 2)
        self.opening = mouth_opening(moves).astype(np.float32)
        # The corners of the mouth lie beside each other: its width changes by what they move sideways.
        self.width = (moves[:, len(LIPS_OUTER) // 2, 0] - moves[:, 0, 0]).astype(np.float32)
        self._fps = fps

    def clips(self, clips: Iterable[Predicted]) -> dict[str, float]:
        """Figures of clips in which people speak."""
        people = defaultdict(list)
        for clip in clips:
            people[clip.person].append(clip)
        kept = [own for own in people.values() if sum(int(clip.valid.sum()) for clip in own) >= LEAST_FRAMES]
        table = [self._person(own) for own in kept]
        figures = {name: float(np.mean([row[name] for row in table])) for name in table[0]}
        true, said = (
            np.concatenate([getattr(c, side)[c.valid] @ self.opening < CLOSED_PX for own in kept for c in own])
            for side in ("true", "shape")
        )
        both = float((true & said).sum())
        return figures | {"closed_recall": both / max(true.sum(), 1), "closed_precision": both / max(said.sum(), 1)}

    def scenes(self, scenes: Iterable[Predicted]) -> dict[str, float]:
        """Figures of scenes with pauses."""
        gaps, pause, speech = [], [], []
        for scene in scenes:
            near = np.convolve(scene.spoken, np.ones(2 * round(AFTER_S * self._fps) + 1), mode="same").astype(bool)
            gap = scene.shape @ self.opening
            gaps.append(gap[~near])
            pause.append(gap[~near] - gap[~near].mean() if (~near).any() else gap[~near])
            speech.append(gap[scene.spoken] - gap[scene.spoken].mean() if scene.spoken.any() else gap[scene.spoken])
        still = np.concatenate(pause).std() / max(np.concatenate(speech).std(), 1e-6)
        return {"pause_spread": float(still), "pause_gap_px": float(np.concatenate(gaps).mean())}

    def _person(self, clips: list[Predicted]) -> dict[str, float]:
        row = {}
        for name, along in (("opening", self.opening), ("width", self.width)):
            true, said = (_centred(clips, side, along) for side in ("true", "shape"))
            row[f"{name}_correlation"] = correlation(true, said)
            row[f"{name}_spread"] = float(said.std() / max(true.std(), 1e-6))
        jerks = [_jerk(clips, side, self.opening) for side in ("shape", "true")]
        return row | {"opening_jerk": float(jerks[0] / max(jerks[1], 1e-6))}


def _centred(clips: list[Predicted], side: str, along: Array) -> Array:
    values = [(getattr(clip, side) @ along)[clip.valid] for clip in clips]
    return np.concatenate([value - value.mean() for value in values if len(value)])


def _jerk(clips: list[Predicted], side: str, along: Array) -> float:
    parts = []
    for clip in clips:
        whole = np.lib.stride_tricks.sliding_window_view(clip.valid, 4).all(axis=1) if len(clip.valid) > 3 else []
        parts.append(np.diff(getattr(clip, side) @ along, 3)[whole] if len(whole) else np.zeros(0))
    return float(np.concatenate(parts).std())


def correlation(a: Array, b: Array) -> float:
    """Of two series (N,); 0 where one of them stands still."""
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-6 and b.std() > 1e-6 else 0.0
