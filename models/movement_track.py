"""The mouth shapes of a run of frames, drawn block by block while frames come, at any frame rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from models.movement import GRID_RATE, MovementModel, Told, step_noise

PREFIX = 12  # steps before a block that it goes on from, half a second
BLOCK = 25  # steps drawn at once where the whole sound is known
LOOK = 12  # steps after them that are drawn along, so that a block knows where it leads
_ON_GRID = 1e-4  # steps; a frame this near to a step is taken as there
_MARGIN_S = 0.04  # sound after a step that its tokens need


@dataclass(frozen=True)
class Listened:
    """What the speech model makes of T steps of movement, batch of one.

    Attributes:
        tokens: (1, T, HEARD_TOKENS * D).
        mean: (1, T, K) mouth shape.
        activity: (1, T) in [0, 1].
    """

    tokens: torch.Tensor
    mean: torch.Tensor
    activity: torch.Tensor


class Listener(Protocol):
    """Hears a sound at given times.

    Attributes:
        ahead_s: sound after a frame that may be heard before its mouth is drawn, seconds; None = any.
    """

    ahead_s: float | None

    def __call__(self, times: np.ndarray, resting: float, margin_s: float | None) -> Listened:
        """What is heard at `times` (T,) seconds, rising, and at most `margin_s` seconds after the last; None = any."""
        ...


@dataclass(frozen=True)
class MovementSettings:
    """How movement is drawn.

    Attributes:
        seed: of the noise; the same seed, the same mouth.
        temperature: size of the noise: 0 = calm, the most likely movement; 1 = as varied as people are.
        steps: network passes.
    """

    seed: int = 1
    temperature: float = 1.0
    steps: int = 8


class Movement:
    """Mouth shapes of one run of frames of one person; asked for in order, it keeps about a second.

    The steps are those of a grid of 25 Hz in the time of the sound, whatever the frame rate of the video; frames lie
    between them. A block goes on from the half second before it. Where the whole sound is known, blocks lie at whole
    seconds, so the result does not depend on how many frames are asked for at once. Where it is still being made, a
    block is what is asked for, and as far on as was heard.

    Args:
        model: draws the movement.
        listener: hears the sound.
        resting: gap between the inner lips of the person's resting mouth, window px.
        settings: how it is drawn.
    """

    def __init__(self, model: MovementModel, listener: Listener, resting: float, settings: MovementSettings) -> None:
        self._model, self._listener = model, listener
        self._resting, self._settings = resting, settings
        coefficients = model.config.shape_coefficients
        self._first, self._shapes = 0, np.zeros((0, coefficients), np.float32)
        self._moved = np.zeros((0, coefficients), np.float32)  # the difference to the mean, at the same steps

    def shapes(self, times: np.ndarray) -> np.ndarray:
        """Mouth shapes (F, K) float32 of frames at `times` (F,), seconds of the sound, rising."""
        position = np.asarray(times, np.float64) * GRID_RATE
        position = np.where(np.abs(position - np.rint(position)) < _ON_GRID, np.rint(position), position)
        low = np.floor(position).astype(int)
        between = bool((position > low).any())
        first, last = (int(low[0]) - 1, int(low[-1]) + 2) if between else (int(low[0]), int(low[-1]))
        self._reach(max(0, first), last, float(times[-1]))
        shapes = self._shapes[np.clip(low[:, None] + np.arange(-1, 3) - self._first, 0, len(self._shapes) - 1)]
        self._forget(int(low[-1]))
        return np.einsum("fn,fnk->fk", _cubic(position - low), shapes).astype(np.float32)

    @property
    def _end(self) -> int:
        return self._first + len(self._shapes)

    def _reach(self, first: int, last: int, now: float) -> None:
        """Draw what is missing of the steps from `first` to `last`; `now` is the time of the last frame."""
        ahead = self._listener.ahead_s
        if not self._first <= first <= self._end or not len(self._shapes):
            start = first if ahead is not None else first // BLOCK * BLOCK
            self._first, self._shapes, self._moved = start, self._shapes[:0], self._moved[:0]
        while self._end <= last:
            if ahead is None:
                self._draw(BLOCK, LOOK, None)
            else:
                horizon = int((now + ahead - _MARGIN_S) * GRID_RATE)
                look = int(np.clip(horizon - last, 0, LOOK))
                self._draw(last + 1 - self._end, look, max(0.0, now + ahead - (last + look) / GRID_RATE))

    def _draw(self, count: int, look: int, margin_s: float | None) -> None:
        """Draw the next `count` steps and, for their sake, `look` more."""
        start, known = self._end, min(PREFIX, len(self._moved))
        steps = np.arange(start - known, start + count + look)
        heard = self._listener(steps / GRID_RATE, self._resting, margin_s)
        before = np.zeros((len(steps), self._moved.shape[1]), np.float32)
        before[:known] = self._moved[len(self._moved) - known :]
        device = heard.mean.device
        over = torch.arange(len(steps), device=device)[None] < known
        told = Told(
            heard.tokens,
            heard.mean,
            heard.activity,
            torch.tensor([self._resting], device=device),
            torch.from_numpy(before)[None].to(device),
            over,
            torch.ones_like(over),
        )
        settings = self._settings
        noise = settings.temperature * step_noise(int(steps[0]), len(steps), before.shape[1], settings.seed)
        moved = self._model.sample(torch.from_numpy(noise)[None].to(device), told, settings.steps)
        shapes = self._model.mouth(heard.mean, moved, heard.activity)
        fresh = slice(known, known + count)
        self._moved = np.concatenate([self._moved, moved[0, fresh].cpu().numpy()])
        self._shapes = np.concatenate([self._shapes, shapes[0, fresh].cpu().numpy()])

    def _forget(self, step: int) -> None:
        """Keep of the past what the next frames and the next block may need."""
        spare = min(step, self._end) - 2 - 2 * PREFIX - self._first
        if spare > 0:
            self._first += spare
            self._shapes, self._moved = self._shapes[spare:], self._moved[spare:]


def _cubic(part: np.ndarray) -> np.ndarray:
    """Weights (F, 4) of the four steps around frames at parts (F,) of the way from the second to the third.

    Catmull and Rom 1974: smooth, and exact at the steps.
    """
    t = part[:, None]
    return np.concatenate(
        [(-t + 2 * t**2 - t**3), (2 - 5 * t**2 + 3 * t**3), (t + 4 * t**2 - 3 * t**3), (t**3 - t**2)], axis=1
    ) / 2
