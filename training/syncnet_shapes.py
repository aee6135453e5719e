"""Training of the sync network that looks at mouth shapes: it supervises `movement`, which has no pictures."""

from __future__ import annotations

import numpy as np
import torch

from data.dataset import Clip, ClipCache, clip_shape
from models.syncnet import WINDOW
from training.common import Batch
from training.syncnet import ShiftSampler, SyncNetStage
from utils.config import Config
from utils.training_config import ShapeSyncTraining

_SHAPES_BYTES = 1e9  # of mouth shapes that are kept in memory


class ShapeSyncStage(SyncNetStage):
    """The same stage with shapes in place of pixels."""

    name = "syncnet_shapes"

    @property
    def sampler(self) -> type[ShiftSampler]:
        return ShapeShiftSampler

    def _seen(self, batch: Batch) -> torch.Tensor:
        return batch["varied"].flatten(0, 1)

    def _embed(self, seen: torch.Tensor) -> torch.Tensor:
        return self.model.embed_shapes(seen)

    def _stretch(self, clip: Clip, first: int, last: int) -> np.ndarray:
        """Mouth shapes (T, K)."""
        return clip_shape(clip)[0][first:last]


class ShapeShiftSampler(ShiftSampler):
    """Draws mouth shapes of windows of a clip, moved as other people's mouths would lie and move.

    Args:
        config: the data part says where the clips are.
        settings: the stage's training part.
        audio_input: "speech" or "mel".
    """

    def __init__(self, config: Config, settings: ShapeSyncTraining, audio_input: str) -> None:
        super().__init__(config, settings, audio_input)
        self._shapes = ClipCache(lambda clip: clip_shape(clip)[0], _SHAPES_BYTES)

    def _pictures(self, clip: Clip, starts: np.ndarray, random: np.random.Generator) -> dict[str, torch.Tensor]:
        """ "shape" (N, 16, K) the truth and "varied" (N, 16, K) what is looked at."""
        shape, settings = self._shapes(clip), self._settings
        true = np.stack([shape[start : start + WINDOW] for start in starts])
        size = np.exp(settings.size_jitter * random.standard_normal())
        moved = settings.offset_jitter * random.standard_normal(shape.shape[1])
        varied = size * true + moved + settings.shape_noise * random.standard_normal(true.shape)
        return {"shape": torch.from_numpy(true), "varied": torch.from_numpy(varied.astype(np.float32))}
