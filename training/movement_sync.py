"""What a sync network on mouth shapes says of movement in training (as in Wav2Lip, Prajwal et al. 2020)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from data.dataset import Clip, clip_speech
from models.checkpoint import load_pretrained
from models.syncnet import SPEECH_STEPS, WINDOW, SyncNetV2
from utils.helpers import InputError

_SCALE = 10.0  # of the cosines in the contrastive loss
_NEAR = 3.0  # weight of the distance itself beside it


class MovementSync(nn.Module):
    """A frozen sync network, and the loss that it gives.

    Args:
        network: looks at mouth shapes and hears speech features.
    """

    def __init__(self, network: SyncNetV2) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)

    @classmethod
    def load(cls, folder: Path) -> MovementSync:
        """The network of the stage `syncnet_shapes`.

        Raises:
            InputError: there is none, or it looks at pixels.
        """
        network = load_pretrained(SyncNetV2, folder)
        if network.config.visual_input != "shapes" or network.config.audio_input != "speech":
            raise InputError(f"{folder} is no sync network of mouth shapes: train the stage syncnet_shapes.")
        return cls(network)

    def train(self, mode: bool = True) -> MovementSync:
        """Stays as it is in use: its averages are frozen, too."""
        return super().train(False)

    @torch.no_grad()
    def hear(self, clip: Clip) -> np.ndarray:
        """What is heard in the 0.64 s that begin with each frame of a clip, unit embeddings (T, D) float16."""
        speech = np.asarray(clip_speech(clip)[0])
        steps = 2 * (np.arange(clip.frames) + clip.offset)[:, None] + np.arange(SPEECH_STEPS)
        windows = torch.from_numpy(speech[steps.clip(0, len(speech) - 1)])
        device = next(self.parameters()).device
        parts = [self.network.audio(part.to(device).float()) for part in windows.split(256)]
        return torch.cat(parts).half().cpu().numpy()

    def loss(self, shapes: torch.Tensor, heard: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """How far movement is from fitting its own sound better than the sounds a moment away.

        Args:
            shapes: (B, T, K).
            heard: see `hear`, from the same frames on (B, T - 15, D).
            weight: how much each of these windows counts (B, T - 15); 0 = it is no window of the sound, either.
        """
        seen = self.network.embed_shapes(shapes)
        cosines = seen @ heard.transpose(1, 2)
        # Windows that are not there are no wrong answers.
        logits = (_SCALE * cosines).masked_fill((weight == 0)[:, None], -1e4)
        right = torch.arange(heard.shape[1], device=heard.device).expand(len(heard), -1)
        wrong = F.cross_entropy(logits.transpose(1, 2), right, reduction="none")
        far = 1 - cosines.diagonal(dim1=1, dim2=2)
        return ((wrong + _NEAR * far) * weight).sum() / weight.sum().clamp_min(1e-3)


def heard_windows(heard: np.ndarray, frames: np.ndarray, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Of what is heard in a clip (T, D), the windows that begin with some frames, and which of them are there.

    Args:
        heard: see `MovementSync.hear`.
        frames: numbers of successive frames (S,), which may lie outside of the clip.
        stop: how many of these frames there are at all.

    Returns:
        (S - 15, D) float32 and (S - 15,) float32, 1 or 0.
    """
    starts = frames[: len(frames) - WINDOW + 1]
    there = (starts >= 0) & (starts + WINDOW <= len(heard)) & (np.arange(len(starts)) + WINDOW <= stop)
    return heard[starts.clip(0, len(heard) - 1)].astype(np.float32), there.astype(np.float32)
