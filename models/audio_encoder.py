"""Speech features: the frozen encoder of Whisper tiny, all its hidden states, 50 steps a second.

How a sound of any length becomes features, the same way in preprocessing and in use:

1. Log-mel spectrogram of the whole sound (Whisper's: 80 bands, 100 Hz), with its level set so that the loud
   parts of speech always lie at the same value. The floor is then a fixed number, so no step depends on
   where a window was cut.
2. Windows of 4 s every 2 s; the first and last second of each are context only and are thrown away, so there
   is no seam. Before the start and after the end lies silence. Whisper was trained on 30 s windows, but it adds
   position vectors, and features depend strongly on them; with short windows a two-second training clip and
   an hour of speech use the same hundred positions. (On ten GRID clips, Whisper's own decoder reads the same
   words from 4 s windows as from 30 s ones.)
3. What the position adds on average is subtracted and each channel is scaled to unit variance, with statistics
   measured once over many speakers (`normalisation.safetensors`).

Measured: the same speech cut at two different places differs by 0.001 / 0.05 / 0.13 / 0.20 / 0.41 of the variance
(five hidden states); without step 3 by 1.37 / 0.34 / 0.19 / 0.24 / 0.40, and with 10 s windows two seconds alone
against the same two seconds inside a longer sound by 12.5 / 0.86 / 0.68 / 0.60 / 0.74 instead of
0.000 / 0.03 / 0.07 / 0.07 / 0.09.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from models.precision import fast_dtype
from models.whisper import WhisperEncoder
from utils.helpers import InputError
from utils.stages import stop_point

SAMPLE_RATE = 16000
FFT_SIZE = 400
HOP = 160  # samples between mel frames: 100 Hz
MEL_BANDS = 80
STEP = 320  # samples between feature steps: 50 Hz
WINDOW_STEPS = 200  # 4 s
MARGIN_STEPS = 50  # 1 s of context on each side of the part that is kept
CORE_STEPS = WINDOW_STEPS - 2 * MARGIN_STEPS
SPEECH_LEVEL = 1.0  # log10 mel power of the loud parts of speech after levelling
MAX_GAIN = 4.0  # log10 power (40 dB): quieter sounds than that are treated as background
FLOOR = SPEECH_LEVEL - 7.5  # about Whisper's own floor, eight decades under the maximum of the signal
MEL_CHUNK = 6000  # frames per Fourier transform call, so that memory stays small for hours of sound


@lru_cache(maxsize=1)
def _filters() -> torch.Tensor:
    """Triangles (80, 201) of equal area on Slaney's mel scale (Auditory Toolbox, 1998), as Whisper was trained with.

    The scale is linear up to 1000 Hz, which are 15 mel, and logarithmic above: 27 steps for a factor of 6.4.
    """
    mel = np.linspace(0.0, 15.0 + 27.0 * np.log(SAMPLE_RATE / 2 / 1000.0) / np.log(6.4), MEL_BANDS + 2)
    edges = np.where(mel < 15.0, 200.0 * mel / 3.0, 1000.0 * np.exp(np.log(6.4) / 27.0 * (mel - 15.0)))
    distance = edges - np.linspace(0, SAMPLE_RATE // 2, FFT_SIZE // 2 + 1)[:, None]
    width = np.diff(edges)
    filters = np.maximum(0, np.minimum(-distance[:, :-2] / width[:-1], distance[:, 2:] / width[1:]))
    filters *= 2.0 / (edges[2:] - edges[:-2])
    return torch.from_numpy(filters.T.astype(np.float32))


def mel_frames(count: int) -> int:
    """Frames of the spectrogram of so many samples: two for each feature step, the last one filled up with silence."""
    return 2 * -(-count // STEP)


def log_power(samples: np.ndarray, first: int, stop: int, end: int | None = None) -> torch.Tensor:
    """log10 mel power (80, stop - first) of a part of a sound (N,), any float type; frame m is centred at m * 160.

    Args:
        samples: the whole sound, at least one sample.
        first, stop: frames, within 0 and `mel_frames(N)`.
        end: samples up to which silence is added, before the end is mirrored; None: up to the end of the last step.
    """
    half, end = FFT_SIZE // 2, mel_frames(len(samples)) * HOP if end is None else end
    low, high = first * HOP - half, (stop - 1) * HOP + half
    piece = torch.from_numpy(np.asarray(samples[max(low, 0) : max(high, 0)], np.float32))
    # Silence up to the end of the last step, then the sound mirrored at both ends.
    piece = functional.pad(piece, (0, min(high, end) - max(low, 0) - len(piece)))
    piece = functional.pad(piece[None], (max(-low, 0), max(high - end, 0)), mode="reflect")[0]
    window = torch.hann_window(FFT_SIZE)
    spectrum = torch.stft(piece, FFT_SIZE, HOP, window=window, center=False, return_complex=True)
    return (_filters() @ spectrum.abs().square()).clamp_min(1e-10).log10()


def speech_gain(samples: np.ndarray) -> float:
    """log10 power that brings the loud parts of the speech in a sound (N,) to one level."""
    frames = mel_frames(len(samples))
    loudest = []
    for start in range(0, frames, MEL_CHUNK):
        stop_point()
        loudest.append(log_power(samples, start, min(start + MEL_CHUNK, frames)).amax(dim=0).numpy())
    # The 95th percentile over time finds the loud parts of speech among pauses, but not a single click.
    level = float(np.percentile(np.concatenate(loudest), 95))
    return min(SPEECH_LEVEL - level, MAX_GAIN)


def levelled(power: torch.Tensor, gain: float) -> torch.Tensor:
    """What the encoder takes, of log10 mel power and `speech_gain`."""
    return ((power + gain).clamp_min(FLOOR) + 4.0) / 4.0


def log_mel(samples: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Whisper's log-mel spectrogram with the level of the speech evened out.

    Args:
        samples: mono sound at 16 kHz, (N,), float in [-1, 1], any level.

    Returns:
        (80, M) float32 at 100 Hz, M = 2 * ceil(N / 320); frame m is centred at m / 100 s. Silence is -0.625,
        loud speech about 1.25. (0 frames for an empty sound.)
    """
    samples = np.asarray(samples, dtype=np.float32)
    frames = mel_frames(len(samples))
    if frames == 0:
        return torch.zeros(MEL_BANDS, 0)
    gain, starts = speech_gain(samples), range(0, frames, MEL_CHUNK)
    parts = [levelled(log_power(samples, start, min(start + MEL_CHUNK, frames)), gain) for start in starts]
    return torch.cat(parts, dim=1)


class SpeechEncoder(nn.Module):
    """Frozen Whisper encoder that gives all hidden states for sounds of any length.

    Args:
        encoder: the network, with at least 200 positions.
        mean: (100, layers + 1, width) average of each hidden state by position in the kept part of a window.
        std: (layers + 1, width) spread of each channel.
    """

    def __init__(self, encoder: WhisperEncoder, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.encoder = encoder.float().eval().requires_grad_(False)
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())

    @classmethod
    def from_pretrained(cls, directory: str | Path, device: torch.device | str = "cpu") -> SpeechEncoder:
        """Load a folder with config.json, model.safetensors and normalisation.safetensors.

        Raises:
            InputError: the folder or one of its files is missing.
        """
        directory = Path(directory)
        for name in ("config.json", "model.safetensors", "normalisation.safetensors"):
            if not (directory / name).is_file():
                raise InputError(f"Speech encoder file {directory / name} is missing: restore the pretrained folder.")
        encoder = WhisperEncoder.from_config(directory / "config.json")
        encoder.load_state_dict(load_file(directory / "model.safetensors"))
        statistics = load_file(directory / "normalisation.safetensors")
        return cls(encoder, statistics["mean"], statistics["std"]).to(device)

    @property
    def shape(self) -> tuple[int, int]:
        """(hidden states, width) of one step: (5, 384) for Whisper tiny."""
        return tuple(self.std.shape)

    @torch.inference_mode()
    def features(self, samples: np.ndarray | torch.Tensor, batch: int = 8) -> np.ndarray:
        """Speech features of a whole sound.

        Args:
            samples: mono sound at 16 kHz, (N,), float in [-1, 1], any level.
            batch: windows that are computed at a time.

        Returns:
            (T, 5, 384) float32, T = ceil(N / 320), about zero mean and unit variance. Step k describes the sound
            around (k + 0.5) / 50 s.
        """
        mel = log_mel(samples)
        steps = mel.shape[1] // 2
        result = np.empty((steps, *self.shape), np.float32)
        starts = range(0, steps, CORE_STEPS)
        for first in range(0, len(starts), batch):
            group = starts[first : first + batch]
            kept = self.core_features(torch.stack([speech_window(mel, start) for start in group]))
            for start, part in zip(group, kept, strict=True):
                result[start : start + CORE_STEPS] = part[: steps - start]
        return result

    @torch.inference_mode()
    def core_features(self, windows: torch.Tensor) -> np.ndarray:
        """Features (B, 100, 5, 384) float32 of the kept parts of mel windows (B, 80, 400), see `speech_window`."""
        hidden = self.hidden_states(windows)
        return ((hidden[:, MARGIN_STEPS : MARGIN_STEPS + CORE_STEPS] - self.mean) / self.std).cpu().numpy()

    def hidden_states(self, mel: torch.Tensor) -> torch.Tensor:
        """All hidden states of mel windows (B, 80, 2 * S) with S up to 500 steps -> (B, S, layers + 1, width)."""
        device = self.mean.device
        with torch.autocast(device.type, fast_dtype(device), enabled=fast_dtype(device) != torch.float32):
            return self._all_layers(mel.to(device))

    def _all_layers(self, mel: torch.Tensor) -> torch.Tensor:
        network = self.encoder
        # The front end stays in float32: some channels vary less than bfloat16 can resolve beside their mean.
        with torch.autocast(mel.device.type, enabled=False):
            hidden = functional.gelu(network.conv1(mel))
            hidden = functional.gelu(network.conv2(hidden)).transpose(1, 2)
            hidden = hidden + network.embed_positions.weight[: hidden.shape[1]]
        states = [hidden]
        for layer in network.layers:
            stop_point()
            hidden = layer(hidden)
            states.append(hidden)
        return torch.stack([state.float() for state in states], dim=2)


def speech_window(mel: torch.Tensor, start: int, origin: int = 0) -> torch.Tensor:
    """Mel frames (80, 400) of the window whose kept part begins at feature step `start`, silence around the sound.

    Args:
        mel: the sound's frames (80, M), from frame `origin` on.
        start: step.
        origin: frame.
    """
    first, last = (2 * (start - MARGIN_STEPS + steps) - origin for steps in (0, WINDOW_STEPS))
    window = torch.full((mel.shape[0], last - first), (FLOOR + 4.0) / 4.0)
    low, high = max(first, 0), min(last, mel.shape[1])
    window[:, low - first : high - first] = mel[:, low:high]
    return window
