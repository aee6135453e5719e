"""Training of the cover network: mouth windows as they are, and with things drawn in front of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter

from data.dataset import Clip, ClipCache, StepBatches, clip_probabilities, decode_crops, load_clips, to_tensor
from data.occlusions import KINDS, Covered, covered, draw_sprite, put, skin_colour
from faces.window import WINDOW_SIZE
from models.cover import INPUT_SIDE, MouthCover
from training.common import Batch, Losses, Stage, save_picture
from utils.config import Config
from utils.data_augmentation import colour_jitter

VALIDATION_WINDOWS = 1200
PICTURES = 12
MOUTH_MIDDLE = (80.0, 100.0)  # of the mouth, window px
_LARGE = 20000  # numbers in a kernel
TURNED_DEG = 15.0  # heads whose yaw is more than this look aside: background lies beside the mouth, where things might
_KEPT_PER_CLIP = 40  # frames of a clip that are kept in memory, spread over it


class CoverStage(Stage):
    """See the module. Validation: how many covered mouths of unseen people are found at 1 % false alarms."""

    name = "cover"

    def build(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        self.model = MouthCover(self.settings.width).to(device)
        self._validation: tuple[torch.Tensor, torch.Tensor] | None = None

    def train_batches(self, rank: int = 0) -> Dataset:
        sampler = CoverSampler(self.config, "train")
        return StepBatches(sampler.draw, self.settings.batch_size, self.config.training.common.seed, rank)

    def training_step(self, batch: Batch, step: int) -> Losses:
        logits = self.model(batch["windows"])
        loss = F.binary_cross_entropy_with_logits(logits.float(), batch["covered"])
        right = ((logits > 0) == (batch["covered"] > 0.5)).float().mean()
        return {"loss": loss, "right": right.detach()}

    @torch.no_grad()
    def validate(self, step: int, writer: SummaryWriter) -> dict[str, float]:
        windows, truth = self._validation_windows()
        chance = torch.cat([self.model(part.to(self.device)).sigmoid().float().cpu() for part in windows.split(64)])
        free, hidden = chance[truth < 0.5], chance[truth > 0.5]
        found = (hidden > free.quantile(0.99)).float().mean().item()
        wrong = torch.argsort((chance - truth).abs(), descending=True)[: 2 * PICTURES]
        save_picture(
            windows[wrong], PICTURES, self.run_dir / "validation.png", "the windows most wrongly judged", writer, step
        )
        alarms, caught = (free > 0.5).float().mean().item(), (hidden > 0.5).float().mean().item()
        return {"found_at_1_percent": found, "false_alarms": alarms, "found": caught, "score": found}

    def export(self, directory: Path) -> None:
        """As usual, with the large kernels in 8 bits: the folder of all weights is to stay small."""
        super().export(directory)
        (file,) = directory.glob("*.safetensors")
        state = load_file(file)
        for name, tensor in state.items():
            if tensor.ndim == 4 and tensor.numel() > _LARGE:
                state[name] = tensor.float().to(torch.float8_e4m3fn)
        save_file(state, file, {"format": "pt"})

    def _validation_windows(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._validation is None:
            sampler, random = CoverSampler(self.config, "val"), np.random.default_rng(0)
            drawn = [sampler.draw(random) for _ in range(VALIDATION_WINDOWS)]
            self._validation = (
                torch.stack([sample["windows"] for sample in drawn]),
                torch.tensor([float(sample["covered"]) for sample in drawn]),
            )
        return self._validation


class CoverSampler:
    """Draws mouth windows, half of them covered; those that are neither covered nor free are drawn again.

    Args:
        config: the data part says where the clips are, the cover network's training part how to change them.
        split: train or val.
    """

    def __init__(self, config: Config, split: str) -> None:
        data = config.data
        self._clips = load_clips(data.processed_dir, split, data.window, data.fps, data.max_minutes_per_person)
        self._chances = clip_probabilities(self._clips)
        turned = self._chances * [_looks_aside(_pose(clip)).mean() for clip in self._clips]
        self._turned = turned / turned.sum() if turned.any() else None
        self._frames = ClipCache(_some_frames, data.cache_gb * 1e9)
        self._settings = config.training.cover

    def draw(self, random: np.random.Generator) -> dict[str, Any]:
        """One window: "windows" (3, 64, 64) in [-1, 1] and "covered" 0 or 1."""
        while True:
            window, points = self._window(random)
            how = Covered(0.0, 0.0)
            if random.random() < self._settings.things_share:
                window, how = self._put_something(window, points, random)
            if how.hides_the_mouth or how.is_free:
                changed = self._changed(window, random)
                return {"windows": to_tensor(changed), "covered": np.float32(how.hides_the_mouth)}

    def _window(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A mouth window and its mesh; of the wanted share of them the head is turned."""
        aside = self._turned is not None and random.random() < self._settings.turned_share
        frames = self._frames(self._clips[random.choice(len(self._clips), p=self._turned if aside else self._chances)])
        among = np.arange(len(frames["windows"]))
        if aside and _looks_aside(frames["pose"]).any():
            among = np.flatnonzero(_looks_aside(frames["pose"]))
        index = int(random.choice(among))
        return frames["windows"][index], frames["points"][index].astype(np.float32)

    @staticmethod
    def _put_something(
        window: np.ndarray, points: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, Covered]:
        sprite = draw_sprite(random.choice(KINDS), skin_colour(window, points), random)
        far = 18 if random.random() < 0.7 else 60  # most lie on the mouth, some beside it
        centre = np.array(MOUTH_MIDDLE) + random.normal(0, far, 2)
        image, alpha = put(window, sprite, tuple(centre), random.uniform(0.7, 1.4), random.uniform(-np.pi, np.pi))
        return image, covered(alpha, points)

    def _changed(self, window: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Shifted, scaled, turned, mirrored, in other colours, softer: (64, 64, 3)."""
        window = colour_jitter(window, random, self._settings.colour_jitter)
        shift, zoom = random.uniform(-1, 1, 2) * self._settings.shift_px, 1 + random.uniform(-0.1, 0.1)
        matrix = cv2.getRotationMatrix2D((WINDOW_SIZE / 2,) * 2, random.uniform(-8, 8), zoom)
        matrix[:, 2] += shift
        moved = cv2.warpAffine(window, matrix, (WINDOW_SIZE,) * 2, borderMode=cv2.BORDER_REPLICATE)
        if random.random() < 0.3:
            moved = cv2.GaussianBlur(moved, (0, 0), random.uniform(0.5, 4))
        small = cv2.resize(moved, (INPUT_SIDE,) * 2, interpolation=cv2.INTER_AREA)
        return np.ascontiguousarray(small[:, ::-1] if random.random() < 0.5 else small)


def _some_frames(clip: Clip) -> dict[str, np.ndarray]:
    """Windows (N, 160, 160, 3), meshes (N, 468, 2) and poses (N, 3) of frames spread over a clip."""
    with np.load(clip.directory / "tracks.npz") as tracks:
        chosen = np.flatnonzero(tracks["valid"])
        chosen = chosen[:: max(1, len(chosen) // _KEPT_PER_CLIP)]
        return {
            "windows": decode_crops(clip.directory / "crops.mp4")[chosen],
            "points": tracks["points"][chosen],
            "pose": tracks["pose"][chosen],
        }


def _pose(clip: Clip) -> np.ndarray:
    """Of all frames with a face, (T, 3) degrees."""
    with np.load(clip.directory / "tracks.npz") as tracks:
        return tracks["pose"][tracks["valid"]]


def _looks_aside(pose: np.ndarray) -> np.ndarray:
    """Of poses (T, 3), which are turned, bool (T,)."""
    return np.abs(pose[:, 0]) > TURNED_DEG
