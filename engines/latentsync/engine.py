"""LatentSync 1.5 and 1.6 as engines: clips of 16 frames that overlap, cross-faded as latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from engines.base import Engine, Facts, Painter, Style
from engines.catalogue import ENTRIES
from engines.hearing import LATENTSYNC, WhisperStates, load_whisper
from engines.landmarks import brows_and_nose
from engines.latentsync import faces
from engines.latentsync.sampling import Sampler
from engines.latentsync.unet import LatentSyncUNet, shape_of
from engines.public import placed, weight_files
from engines.published import fill, read_tensors
from engines.vae import drawn_by, load_vae, to_tensor
from faces.alignment import Geometry
from faces.mouth_windows import MouthFrame
from models.phonemes import Phoneme
from utils.config import Config

CLIP, OVERLAP = 16, 4  # frames; the original's clips do not overlap
STEPS, GUIDANCE = 20, 1.5
_TILED_FROM = 512  # px from which the autoencoder works in tiles on a GPU, to save memory


@dataclass(frozen=True)
class Canvas(Geometry):
    """The canvas onto which three points of the face are brought; the network sees a square made of it.

    Attributes:
        side: px of that square.
    """

    side: int = faces.MASK_SIDE

    @classmethod
    def of(cls, side: int) -> Canvas:
        """The canvas of a network that works at so many px."""
        width, height = faces.canvas_size(side)
        return cls(height, width, side=side)

    def align(self, points: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
        """See `Geometry.align`."""
        return faces.align_three(brows_and_nose(points), self.side)

    def warp(self, image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """See `Geometry.warp`; sampled as in training, without an area filter."""
        return faces.cut_canvas(image, matrix, (self.width, self.height))


class LatentSync(Engine):
    """The engine.

    Args:
        sampler: the networks.
        whisper: hears.
        device: where they are.
    """

    name: str
    side: int

    def __init__(self, sampler: Sampler, whisper: torch.nn.Module, device: torch.device) -> None:
        self.facts = self.known()
        self.device = device
        self._sampler, self._whisper = sampler, whisper

    @classmethod
    def known(cls) -> Facts:
        """What is known of it."""
        width, height = faces.canvas_size(cls.side)
        entry = ENTRIES[cls.name]
        return Facts(
            name=cls.name,
            licence=entry.licence,
            needs=entry.memory,
            geometry=Canvas.of(cls.side),
            region=(0, 0, width, height),
            window=CLIP,
            overlap=OVERLAP,
            fast_overlap=0,
            fps=25.0,
            steps=STEPS,
            guidance=GUIDANCE,
        )

    @classmethod
    def load(cls, config: Config, device: torch.device, weights: Path) -> LatentSync:
        """See `Engine.load`."""
        files = weight_files(cls.name, weights)
        state = read_tensors(files["network"])
        unet = fill(lambda: LatentSyncUNet(shape_of(state)), state, files["network"])
        vae = load_vae(files["autoencoder"])
        if device.type == "cuda" and cls.side >= _TILED_FROM:
            vae.enable_tiling()
        mask = torch.from_numpy(faces.keep_mask(cls.side)).to(device)
        compiled = config.inference.compile
        sampler = Sampler(placed(unet, device, compiled), placed(vae, device, compiled), mask)
        return cls(sampler, load_whisper(files["speech encoder"]).to(device), device)

    def hear(self, samples: np.ndarray, phonemes: Sequence[Phoneme] = ()) -> WhisperStates:
        """See `Engine.hear`."""
        return WhisperStates(self._whisper, LATENTSYNC, samples)

    def meet(self, frames: Sequence[MouthFrame]) -> str:
        """See `Engine.meet`: the network is shown each frame as it is, so nothing is kept."""
        return "anybody"

    def painter(self, person: str, speech: WhisperStates, style: Style) -> Painter:
        """See `Engine.painter`; it draws latents (F, 4, side / 8, side / 8)."""

        def paint(frames: Sequence[MouthFrame]) -> np.ndarray:
            noise = drawn_by(style.seed)  # the same for all clips, or the picture changes between them
            start = self._sampler.start(noise)
            audio = torch.from_numpy(speech.frames(np.array([frame.time for frame in frames])))
            latents = self._sampler.latents(self._seen(frames), audio, start, noise, style.steps, style.guidance)
            return latents.cpu().numpy()

        return paint

    def render(self, frames: Sequence[MouthFrame], drawn: np.ndarray) -> np.ndarray:
        """See `Engine.render`."""
        seen = self._seen(frames)
        pictures = self._sampler.combined(torch.from_numpy(drawn).to(self.device), seen)
        canvas = (faces.unsquare(pictures, self.side).clamp(-1, 1) + 1) * 127.5
        return canvas.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

    def opacity(self, frame: MouthFrame) -> np.ndarray:
        """See `Engine.opacity`."""
        return faces.painted_opacity(self.side)

    def _seen(self, frames: Sequence[MouthFrame]) -> torch.Tensor:
        squares = np.stack([faces.square(frame.window, self.side) for frame in frames])
        return to_tensor(squares).to(self.device)


class LatentSync15(LatentSync):
    """Works at 256 px."""

    name, side = "latentsync-1.5", 256


class LatentSync16(LatentSync):
    """Works at 512 px. The same network with other weights: nothing in a file tells the versions apart."""

    name, side = "latentsync-1.6", 512
