"""What LatentSync and MuseTalk hear: all hidden states of Whisper tiny, 50 steps a second, ten steps for each frame.

The two differ where it cannot be seen from the weights: LatentSync measures loudness over the whole clip, fills short
windows with 0.0 in the spectrogram, and takes the last states as they are; MuseTalk measures it within each piece,
fills with silence, and takes the last states after the final norm.

The originals cut a sound into pieces of 30 s that know nothing of each other, which is heard at every seam. Here pieces
overlap and are cross-faded; a sound of up to 30 s is heard exactly as by the originals.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from engines.published import fill, read_tensors, select
from models.audio_encoder import HOP, MEL_BANDS, STEP, log_power
from models.phonemes import Phoneme
from utils.stages import stop_point

WIDTH, LAYERS, HEADS = 384, 4, 6
STATES = LAYERS + 1
STEPS_PER_SECOND = 50
PIECE_STEPS = 1500  # 30 s, all that Whisper has positions for
OVERLAP_STEPS = 250  # that two pieces share
FADE_STEPS = 50  # in the middle of it
STEPS_PER_FRAME, BEFORE = 10, 4  # around the step at which a frame is shown
_KEPT_PIECES = 2
_EPSILON = 1e-6  # steps; times are rounded numbers


@dataclass(frozen=True)
class HearingStyle:
    """What the originals do differently.

    Attributes:
        whole_clip: the loudest moment is that of the whole sound, not of the piece.
        filled_with_zero: pieces are filled up with 0.0 in the spectrogram instead of silence.
        final_norm: the last states are normed.
        edges_repeat: before the start and after the end the first and last step count again, instead of zeros.
    """

    whole_clip: bool
    filled_with_zero: bool
    final_norm: bool
    edges_repeat: bool


LATENTSYNC = HearingStyle(whole_clip=True, filled_with_zero=True, final_norm=False, edges_repeat=True)
MUSETALK = HearingStyle(whole_clip=False, filled_with_zero=False, final_norm=True, edges_repeat=False)


def load_whisper(path: Path) -> WhisperEncoder:
    """Whisper tiny's encoder from `tiny.pt` (OpenAI), or `model.safetensors` / `pytorch_model.bin` (transformers).

    Raises:
        InputError: the file cannot be read, or is of another network.
    """
    state = read_tensors(path)
    state = select(state, "model.") or state
    encoder = select(state, "encoder.")
    if any(name.startswith("blocks.") for name in encoder):
        encoder = {transformers_name(name): tensor for name, tensor in encoder.items()}
    return fill(make_whisper, encoder, path)


def make_whisper() -> WhisperEncoder:
    """The encoder without its weights."""
    return WhisperEncoder(
        WhisperConfig(
            d_model=WIDTH, encoder_layers=LAYERS, encoder_attention_heads=HEADS, encoder_ffn_dim=4 * WIDTH,
            num_mel_bins=MEL_BANDS, max_source_positions=PIECE_STEPS, attn_implementation="sdpa",
        )
    )  # fmt: skip


_OPENAI_PARTS = (
    ("blocks.", "layers."),
    (".attn.query.", ".self_attn.q_proj."),
    (".attn.key.", ".self_attn.k_proj."),
    (".attn.value.", ".self_attn.v_proj."),
    (".attn.out.", ".self_attn.out_proj."),
    (".attn_ln.", ".self_attn_layer_norm."),
    (".mlp.0.", ".fc1."),
    (".mlp.2.", ".fc2."),
    (".mlp_ln.", ".final_layer_norm."),
    ("ln_post.", "layer_norm."),
    ("positional_embedding", "embed_positions.weight"),
)


def transformers_name(name: str) -> str:
    """OpenAI's name of a tensor of the encoder (without `encoder.`) -> that of transformers."""
    for theirs, ours in _OPENAI_PARTS:
        name = name.replace(theirs, ours)
    return name


class WhisperStates:
    """A whole sound, heard piece by piece as it is asked for; see `models.speech_track.Speech`.

    It keeps the samples and the states of two pieces (23 MB).

    Args:
        encoder: Whisper tiny.
        style: how.
        samples: mono (N,) at 16 kHz, any float type, in [-1, 1].
    """

    ahead: ClassVar[int | None] = None
    phonemes: ClassVar[Sequence[Phoneme] | None] = None

    def __init__(self, encoder: WhisperEncoder, style: HearingStyle, samples: np.ndarray) -> None:
        self._encoder, self._style, self._samples = encoder, style, samples
        self._loudest = _loudest(samples) if style.whole_clip else None
        self._pieces: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return len(self._samples) // STEP

    def part(self, first: int, stop: int) -> np.ndarray:
        """States (stop - first, 5, 384) float32 of steps within the sound."""
        return np.concatenate([self._steps(number, low, high) for number, low, high in _spans(first, stop, len(self))])

    def frames(self, times: np.ndarray, before: int = BEFORE) -> np.ndarray:
        """What is heard at frames.

        Args:
            times: (F,) seconds.
            before: steps of the ten that lie before the one at which the frame is shown.

        Returns:
            (F, 50, 384) float32, five states of the first step, then of the second, ...
        """
        table = step_table(times, before)
        if not len(self):
            return np.zeros((len(table), STEPS_PER_FRAME * STATES, WIDTH), np.float32)
        inside = np.clip(table, 0, len(self) - 1)
        low = int(inside.min())
        heard = self.part(low, int(inside.max()) + 1)[inside - low]
        if not self._style.edges_repeat:
            heard = np.where((table == inside)[..., None, None], heard, np.float32(0))
        return heard.reshape(len(table), -1, WIDTH)

    def _steps(self, number: int, first: int, stop: int) -> np.ndarray:
        """Steps that are kept of a piece; at its start they are cross-faded with the piece before."""
        start, hop = number * _hop(), _hop()
        states = self._piece(number)[first - start : stop - start]
        fading = min(start + _margin() + FADE_STEPS - first, len(states))
        if number == 0 or fading <= 0:
            return states
        before = self._piece(number - 1)[first - start + hop :][:fading]
        weight = (np.arange(first, first + fading) - start - _margin() + 1) / (FADE_STEPS + 1)
        weight = weight.astype(np.float32)[:, None, None]
        return np.concatenate([before * (1 - weight) + states[:fading] * weight, states[fading:]])

    @torch.inference_mode()
    def _piece(self, number: int) -> np.ndarray:
        """States of a piece of 30 s, float32."""
        if number in self._pieces:
            self._pieces.move_to_end(number)
            return self._pieces[number]
        stop_point()
        first = number * _hop()
        kept = min(PIECE_STEPS, len(self) - first)
        self._pieces[number] = self._states(self._spectrogram(first))[:kept]
        while len(self._pieces) > _KEPT_PIECES:
            self._pieces.popitem(last=False)
        return self._pieces[number]

    def _spectrogram(self, first: int) -> torch.Tensor:
        """Log-mel (80, 3000) of the piece that begins at a step."""
        low, columns = 2 * first, 2 * PIECE_STEPS
        if self._style.whole_clip:
            stop = min(low + columns, len(self._samples) // HOP)
            power = log_power(self._samples, low, stop, end=len(self._samples))
            return functional.pad(scaled(power, self._loudest), (0, columns - power.shape[1]))
        piece = np.asarray(self._samples[low * HOP : (low + columns) * HOP], np.float32)
        power = log_power(np.pad(piece, (0, columns * HOP - len(piece))), 0, columns)
        return scaled(power, float(power.max()))

    def _states(self, mel: torch.Tensor) -> np.ndarray:
        network = self._encoder
        hidden = functional.gelu(network.conv1(mel.to(network.conv1.weight)[None]))
        hidden = functional.gelu(network.conv2(hidden)).transpose(1, 2) + network.embed_positions.weight
        states = [hidden]
        for layer in network.layers:
            stop_point()
            states.append(layer(states[-1], None))
        if self._style.final_norm:
            states[-1] = network.layer_norm(states[-1])
        return torch.cat(states).transpose(0, 1).float().cpu().numpy()


def step_table(times: np.ndarray, before: int = BEFORE) -> np.ndarray:
    """The ten steps (F, 10) int64 that are heard at frames; they may lie outside of the sound.

    Args:
        times: (F,) seconds.
        before: how many of them lie before the frame.
    """
    centres = np.floor(np.asarray(times, np.float64) * STEPS_PER_SECOND + _EPSILON).astype(np.int64)
    return centres[:, None] + np.arange(-before, STEPS_PER_FRAME - before)


def scaled(power: torch.Tensor, loudest: float) -> torch.Tensor:
    """What Whisper takes: eight decades below the loudest moment, scaled."""
    return (power.clamp_min(loudest - 8.0) + 4.0) / 4.0


def _loudest(samples: np.ndarray) -> float:
    """The loudest log10 mel power of a whole sound."""
    frames, block = len(samples) // HOP, 2 * PIECE_STEPS
    loudest = -10.0
    for first in range(0, frames, block):
        stop_point()
        power = log_power(samples, first, min(first + block, frames), end=len(samples))
        loudest = max(loudest, float(power.max()))
    return loudest


def _hop() -> int:
    """Steps from the start of a piece to that of the next one."""
    return PIECE_STEPS - OVERLAP_STEPS


def _margin() -> int:
    """Steps of a piece before the cross-fade with the piece before; they are context only."""
    return (OVERLAP_STEPS - FADE_STEPS) // 2


def _spans(first: int, stop: int, length: int) -> list[tuple[int, int, int]]:
    """Steps from `first` to `stop` as (piece, first, stop), by the piece that they are kept from."""
    hop, margin = _hop(), _margin()
    pieces = max(1, -(-(length - OVERLAP_STEPS) // hop))
    spans = []
    while first < stop:
        number = int(np.clip((first - margin) // hop, 0, pieces - 1))
        end = stop if number == pieces - 1 else min(stop, (number + 1) * hop + margin)
        spans.append((number, first, end))
        first = end
    return spans
