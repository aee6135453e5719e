"""MuseTalk 1.5 as an engine: each frame for itself, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from engines.base import Engine, Facts, Style
from engines.base import Painter as EnginePainter
from engines.boxes import Box, matrix_box
from engines.catalogue import ENTRIES
from engines.hearing import MUSETALK, WhisperStates, load_whisper
from engines.landmarks import sixty_eight
from engines.musetalk import faces
from engines.musetalk.network import SIDE, Painter, load_unet
from engines.public import placed, weight_files
from engines.vae import drawn_by, load_vae, to_tensor
from faces.mouth_windows import MouthFrame
from models.phonemes import Phoneme
from utils.config import Config

NAME = "musetalk-1.5"
BATCH = 8  # frames at once


class HalfFace(Box):
    """As much above the bridge of the nose as there is face below it, and a little more below."""

    def box(self, points: np.ndarray, frame: tuple[int, int]) -> tuple[float, float, float, float]:
        """See `Box.box`."""
        marked = sixty_eight(points)
        found = faces.face_box(marked, frame[0])
        low, high = marked.min(0), marked.max(0)
        return found or (float(low[0]), float(low[1]), float(high[0]), float(high[1]))


class MuseTalk(Engine):
    """The engine.

    Args:
        networks: draw.
        whisper: hears.
        device: where they are.
    """

    def __init__(self, networks: Painter, whisper: torch.nn.Module, device: torch.device) -> None:
        entry = ENTRIES[NAME]
        self.facts = Facts(
            name=NAME,
            licence=entry.licence,
            needs=entry.memory,
            geometry=HalfFace(SIDE, SIDE, interpolation=cv2.INTER_LANCZOS4),
            region=(0, SIDE // 4, SIDE, SIDE),
            window=BATCH,
            overlap=0,
            fast_overlap=0,
        )
        self.device = device
        self._networks, self._whisper = networks, whisper

    @classmethod
    def load(cls, config: Config, device: torch.device, weights: Path) -> MuseTalk:
        """See `Engine.load`."""
        files = weight_files(NAME, weights)
        unet, vae = load_unet(files["network"]), load_vae(files["autoencoder"])
        compiled = config.inference.compile
        networks = Painter(placed(unet, device, compiled), placed(vae, device, compiled))
        return cls(networks, load_whisper(files["speech encoder"]).to(device), device)

    def hear(self, samples: np.ndarray, phonemes: Sequence[Phoneme] = ()) -> WhisperStates:
        """See `Engine.hear`."""
        return WhisperStates(self._whisper, MUSETALK, samples)

    def meet(self, frames: Sequence[MouthFrame]) -> str:
        """See `Engine.meet`: the network is shown each frame as it is, so nothing is kept."""
        return "anybody"

    def painter(self, person: str, speech: WhisperStates, style: Style) -> EnginePainter:
        """See `Engine.painter`; it draws latents (F, 4, 32, 32)."""

        def paint(frames: Sequence[MouthFrame]) -> np.ndarray:
            pictures = to_tensor(np.stack([frame.window for frame in frames])).to(self.device)
            # One frame after the other with the same noise: a frame looks the same whatever it is drawn with.
            seen = [self._networks.see(picture[None], drawn_by(style.seed)) for picture in pictures]
            audio = torch.from_numpy(speech.frames(np.array([frame.time for frame in frames])))
            return self._networks.paint(torch.cat(seen), audio).cpu().numpy()

        return paint

    def render(self, frames: Sequence[MouthFrame], drawn: np.ndarray) -> np.ndarray:
        """See `Engine.render`."""
        return self._networks.decode(torch.from_numpy(drawn).to(self.device)).cpu().numpy()

    def opacity(self, frame: MouthFrame) -> np.ndarray:
        """See `Engine.opacity`: the jaw, told apart on the square around the box as the original does it."""
        x0, y0, x1, y1 = box = tuple(round(value) for value in matrix_box(frame.matrix, SIDE))
        around = faces.expanded(box)
        if around[2] <= around[0] or x1 <= x0 or y1 <= y0:
            return np.zeros((SIDE, SIDE), np.float32)
        in_frame = (frame.points + 0.5) * ((x1 - x0) / SIDE, (y1 - y0) / SIDE) + (x0, y0)
        parsed = faces.jaw(faces.classes((in_frame - around[:2]) * faces.PARSED / (around[2] - around[0])))
        mask = faces.softened(faces.cut_jaw(parsed, box, around))
        part = mask[y0 - around[1] : y1 - around[1], x0 - around[0] : x1 - around[0]]
        opacity = cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
        opacity[: SIDE // 4] = 0
        return opacity
