"""The smallest engine: it paints the lower half of a box around the face in one colour, unlike `lite` in all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engines.base import Engine, Facts, Painter, Style
from faces.alignment import Geometry
from faces.mouth_windows import MouthFrame
from models.phonemes import Phoneme
from utils.config import Config

COLOUR = (200, 40, 160)


class Box(Geometry):
    """The upright box around the mesh, stretched to the window."""

    def align(self, points: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
        """See `Geometry.align`."""
        low, high = points[:, :2].min(0), points[:, :2].max(0)
        scale = (self.width, self.height) / np.maximum(high - low, 1.0)
        return np.hstack([np.diag(scale), (-scale * low)[:, None]]).astype(np.float32)


class OneColour(Engine):
    """See above; `asked` are the times of the frames of each window that it painted."""

    facts = Facts(
        name="one-colour",
        licence="none needed",
        needs="nothing",
        geometry=Box(height=64, width=48),
        region=(0, 32, 48, 64),
        window=5,
        overlap=2,
        fast_overlap=1,
        fps=25,
        matched=False,
    )

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.heard = 0  # samples of the last sound
        self.asked: list[list[float]] = []

    @classmethod
    def load(cls, config: Config, device: torch.device, weights: Path) -> OneColour:
        """See `Engine.load`."""
        return cls(device)

    def hear(self, samples: np.ndarray, phonemes: Sequence[Phoneme] = ()) -> str:
        """See `Engine.hear`."""
        self.heard = len(samples)
        return "heard"

    def hear_live(self, chunks: Iterable[np.ndarray], ahead_s: float) -> str:
        """See `Engine.hear_live`."""
        return "heard"

    def meet(self, frames: Sequence[MouthFrame]) -> str:
        """See `Engine.meet`."""
        return f"a person in {len(frames)} frames"

    def painter(self, person: Any, speech: Any, style: Style) -> Painter:
        """See `Engine.painter`."""
        assert person == "a person in 1 frames" and speech == "heard"

        def paint(frames: Sequence[MouthFrame]) -> np.ndarray:
            self.asked.append([frame.time for frame in frames])
            return np.full((len(frames), 64, 48, 3), COLOUR, np.float32)

        return paint

    def opacity(self, frame: MouthFrame) -> np.ndarray:
        """See `Engine.opacity`."""
        alpha = np.zeros((64, 48), np.float32)
        alpha[32:] = 1.0
        return alpha
