"""Voice activity: is somebody speaking, 50 times a second. The network of Silero VAD (MIT), 0.3 million weights.

The network reads blocks of 512 samples (32 ms) with 64 samples of the block before as context: magnitudes of a short
Fourier transform, four convolutions, an LSTM over the blocks. Silero's package runs it block by block for live
sound; here the convolutions see all blocks at once, which is a hundred times faster and gives the same numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from models.checkpoint import load_checked
from models.temporal_encoder import STEP_RATE
from utils.helpers import InputError
from utils.stages import stop_point

SAMPLE_RATE = 16000
BLOCK, CONTEXT = 512, 64  # samples
BLOCKS_AT_ONCE = 4096  # so that memory stays small for hours of sound
Memory = tuple[torch.Tensor, torch.Tensor]
SPEECH_RMS = 0.1  # of the loud parts of speech after levelling
MAX_GAIN = 100.0  # 40 dB, as for the speech features


class VoiceActivity(nn.Module):
    """Frozen network that tells speech from silence, music and noise. The names are those of Silero's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)  # real parts, then imaginary parts
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell = nn.LSTM(128, 128, batch_first=True)
        self.final_conv = nn.Conv1d(128, 1, 1)
        self.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> VoiceActivity:
        """Load a folder with model.safetensors.

        Raises:
            InputError: the file is missing or holds another network.
        """
        file = Path(directory) / "model.safetensors"
        if not file.is_file():
            raise InputError(f"Voice activity file {file} is missing: restore the pretrained folder.")
        # A cell and a layer of one cell differ in the names of their weights only.
        state = {f"{k}_l0" if k.startswith("lstm_cell") else k: v for k, v in load_file(file).items()}
        model = cls()
        load_checked(model, state, str(file))
        return model

    @torch.inference_mode()
    def track(self, samples: np.ndarray) -> np.ndarray:
        """Chance that somebody speaks.

        Args:
            samples: mono sound at 16 kHz, (N,), float in [-1, 1], any level.

        Returns:
            (T,) float32 in [0, 1], T = ceil(N / 320): steps of the same times as the speech features.
        """
        samples = np.asarray(samples, np.float32)
        steps = step_count(len(samples))
        if steps == 0:
            return np.zeros(0, np.float32)
        device = self.conv1.weight.device
        chances = self.blocks(torch.from_numpy(samples * loudness_gain(samples)).to(device)).cpu().numpy()
        return at_steps(chances, 0, steps)

    def blocks(self, samples: torch.Tensor) -> torch.Tensor:
        """Chance of speech in each block of 512 samples: (N,) -> (ceil(N / 512),)."""
        samples = F.pad(samples, (CONTEXT, -len(samples) % BLOCK))
        state, parts = None, []
        for part in samples.unfold(0, CONTEXT + BLOCK, BLOCK).split(BLOCKS_AT_ONCE):
            stop_point()
            chances, state = self.listen(part, state)
            parts.append(chances)
        return torch.cat(parts)

    def listen(self, blocks: torch.Tensor, state: Memory | None) -> tuple[torch.Tensor, Memory]:
        """Chance of speech (B,) in successive blocks (B, 576), and what to remember for the next ones.

        Args:
            blocks: levelled samples, each with the 64 before it.
            state: what the call for the blocks before returned; None at the start of a sound.
        """
        hidden, state = self.lstm_cell(self._features(blocks)[None], state)
        return torch.sigmoid(self.final_conv(hidden[0].relu()[:, :, None])).flatten(), state

    def _features(self, blocks: torch.Tensor) -> torch.Tensor:
        """(B, 576) samples -> (B, 128)."""
        parts = self.stft_conv(F.pad(blocks[:, None], (0, CONTEXT), mode="reflect"))
        x = (parts[:, :129].square() + parts[:, 129:].square()).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = layer(x).relu()
        return x.squeeze(-1)


def step_count(samples: int) -> int:
    """Steps of the tracks, 50 a second, for so many samples."""
    return -(-samples * int(STEP_RATE) // SAMPLE_RATE)


def at_steps(chances: np.ndarray, first: int, stop: int) -> np.ndarray:
    """The chances of blocks, counted from the start of the sound, at the middle of steps, float32 (stop - first,)."""
    centres = (np.arange(len(chances)) + 0.5) * BLOCK / SAMPLE_RATE
    return np.interp((np.arange(first, stop) + 0.5) / STEP_RATE, centres, chances).astype(np.float32)


def loudness_gain(samples: np.ndarray) -> float:
    """Brings the loud parts of the sound to one level: the network takes quiet speech for background."""
    starts = range(0, len(samples), BLOCK * BLOCKS_AT_ONCE)
    loudness = np.concatenate([_block_loudness(samples[start : start + BLOCK * BLOCKS_AT_ONCE]) for start in starts])
    # The 95th percentile finds the loud parts of speech among pauses, but not a single click.
    return min(SPEECH_RMS / max(float(np.percentile(loudness, 95)), 1e-9), MAX_GAIN)


def _block_loudness(samples: np.ndarray) -> np.ndarray:
    blocks = np.pad(np.asarray(samples, np.float32), (0, -len(samples) % BLOCK)).reshape(-1, BLOCK)
    return np.sqrt(np.square(blocks).mean(axis=1))
