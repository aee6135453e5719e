"""Wav2Lip and its larger variants as engines: each frame for itself, in one small pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from engines.base import Engine, Facts, Painter, Style
from engines.boxes import Box
from engines.catalogue import ENTRIES
from engines.public import placed, weight_files
from engines.wav2lip import faces
from engines.wav2lip.network import Wav2Lip, load_generator
from engines.wav2lip.sound import MelTrack
from faces.mouth_windows import MouthFrame
from models.phonemes import Phoneme
from utils.config import Config
from utils.helpers import InputError
from utils.stages import stop_point

BATCH = 16  # frames at once
_FEATHER = 0.06  # of the window's side, over which the new face fades into the frame; the original pastes hard


class WholeFace(Box):
    """All of the face from the hairline to a little below the chin, as its detector's boxes are."""

    def box(self, points: np.ndarray, frame: tuple[int, int]) -> tuple[float, float, float, float]:
        """See `Box.box`."""
        low, high = points[:, :2].min(0), points[:, :2].max(0)
        x0, y0, x1, y1 = faces.padded_box(np.concatenate([low, high]), frame)
        return float(x0), float(y0), float(x1), float(y1)


class Wav2LipEngine(Engine):
    """The engine.

    Args:
        network: draws.
        device: where it is.
    """

    name, side = "wav2lip", 96

    def __init__(self, network: Wav2Lip, device: torch.device) -> None:
        entry, side = ENTRIES[self.name], self.side
        self.facts = Facts(
            name=self.name,
            licence=entry.licence,
            needs=entry.memory,
            geometry=WholeFace(side, side),
            region=(0, side // 2, side, side),
            window=BATCH,
            overlap=0,
            fast_overlap=0,
        )
        self.device = device
        self._network = network
        self._opacity = _lower_half(side)

    @classmethod
    def load(cls, config: Config, device: torch.device, weights: Path) -> Wav2LipEngine:
        """See `Engine.load`."""
        path = weight_files(cls.name, weights)["network"]
        network = load_generator(path)
        if network.side != cls.side:
            raise InputError(
                f"The weights {path} are of a network for {network.side} px, not for {cls.side}; choose another of "
                "the engines wav2lip, wav2lip-256 and wav2lip-384."
            )
        return cls(placed(network, device, config.inference.compile), device)

    def hear(self, samples: np.ndarray, phonemes: Sequence[Phoneme] = ()) -> MelTrack:
        """See `Engine.hear`."""
        return MelTrack(samples)

    def meet(self, frames: Sequence[MouthFrame]) -> str:
        """See `Engine.meet`: the network is shown each frame as it is, so nothing is kept."""
        return "anybody"

    def painter(self, person: str, speech: MelTrack, style: Style) -> Painter:
        """See `Engine.painter`; it draws pictures (F, side, side, 3), 0 to 255."""

        @torch.inference_mode()
        def paint(frames: Sequence[MouthFrame]) -> np.ndarray:
            stop_point()
            dtype = next(self._network.parameters()).dtype
            heard = torch.from_numpy(speech.frames(np.array([frame.time for frame in frames])))[:, None]
            seen = faces.network_input(np.stack([frame.window for frame in frames]))
            made = self._network(heard.to(self.device, dtype), seen.to(self.device, dtype))
            return faces.pictures(made.float()).astype(np.float32)

        return paint

    def opacity(self, frame: MouthFrame) -> np.ndarray:
        """See `Engine.opacity`: the lower half, which is all that the network repaints, with soft edges."""
        return self._opacity


class Wav2LipGan(Wav2LipEngine):
    """The same network, trained against a discriminator as well."""

    name = "wav2lip-gan"


class Wav2Lip256(Wav2LipEngine):
    """A variant for faces of 256 px."""

    name, side = "wav2lip-256", 256


class Wav2Lip384(Wav2LipEngine):
    """A variant for faces of 384 px."""

    name, side = "wav2lip-384", 384


def _lower_half(side: int) -> np.ndarray:
    """float32 (side, side): 0 above the middle and at the other edges, 1 within."""
    inside = np.zeros((side, side), np.uint8)
    inside[side // 2 : -1, 1:-1] = 1
    ramp = np.clip(cv2.distanceTransform(inside, cv2.DIST_L2, 5) / (_FEATHER * side), 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)
