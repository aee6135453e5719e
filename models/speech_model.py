"""Speech and phonemes to what the generator needs: tokens and a mouth shape for each video frame."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from models.checkpoint import load_weights
from models.fusion import SpeechFusion
from models.library import ConfigMixin, ModelMixin, register_to_config
from models.temporal_encoder import STEP_RATE, TemporalEncoder, read_at
from utils.helpers import InputError


@dataclass(frozen=True)
class SpeechContext:
    """What a window of frames hears.

    Attributes:
        tokens: (B, F, L, D), what the generator's frames attend to.
        shape: (B, F, K), predicted mouth shape in standard deviations.
        gate: (B, T), weight of the sound against the phonemes, 1 = sound only.
        activity: (B, F), chance that somebody speaks, in [0, 1].
    """

    tokens: torch.Tensor
    shape: torch.Tensor
    gate: torch.Tensor
    activity: torch.Tensor


class SpeechModel(ModelMixin, ConfigMixin):
    """Adapter, fusion, temporal encoder and shape head, trained on its own before the generator.

    Args:
        feature_layers: hidden states of the speech encoder.
        feature_width: numbers in a hidden state.
        width: channels of the fused sequence and of the tokens.
        layers: attention blocks over time.
        heads: attention heads.
        reach_s: how far one block looks to each side, seconds.
        tokens_per_frame: tokens for each frame.
        phonemes: size of the phoneme inventory, 0 = silence.
        shape_coefficients: numbers of the mouth shape.
        dropout: fraction of activations dropped.
        knows_rest: the model also takes voice activity and the gap of the person's resting mouth.
        knows_phonemes: the phonemes' side of the fusion is trained; else phonemes must not be given in use.
    """

    @register_to_config
    def __init__(
        self,
        feature_layers: int = 5,
        feature_width: int = 384,
        width: int = 192,
        layers: int = 3,
        heads: int = 4,
        reach_s: float = 0.2,
        tokens_per_frame: int = 4,
        phonemes: int = 128,
        shape_coefficients: int = 10,
        dropout: float = 0.3,
        knows_rest: bool = False,
        knows_phonemes: bool = False,
    ) -> None:
        super().__init__()
        reach = max(1, round(reach_s * STEP_RATE))
        self.fusion = SpeechFusion(feature_layers, feature_width, width, heads, reach, phonemes, dropout, knows_rest)
        self.temporal = TemporalEncoder(
            width, layers, heads, reach, tokens_per_frame, shape_coefficients, dropout, knows_rest
        )
        self.register_buffer("shape_gain", torch.ones(shape_coefficients))

    @property
    def context_steps(self) -> int:
        """Steps to each side that can influence a step's result."""
        reach = max(1, round(self.config.reach_s * STEP_RATE))
        return reach * (self.config.layers + 1) + 1

    def forward(
        self,
        speech: torch.Tensor | None,
        phonemes: torch.Tensor | None,
        times: torch.Tensor,
        has_speech: torch.Tensor | None = None,
        has_phonemes: torch.Tensor | None = None,
        activity: torch.Tensor | None = None,
        resting: torch.Tensor | None = None,
    ) -> SpeechContext:
        """Read speech and phonemes at the times of frames.

        Args:
            speech: (B, T, layers, width) features at 50 Hz, or None.
            phonemes: ids (B, T) or their probabilities (B, T, N) at 50 Hz, or None; one of the two must be given.
            times: (B, F) seconds from the first step's start.
            has_speech, has_phonemes: (B,) bool, False = ignore that sample's values.
            activity: (B, T) chance that somebody speaks, in [0, 1]; None = somebody always does.
            resting: (B,) gap between the inner lips of the person's resting mouth, window px; None = average.
        """
        fused, gate = self.fusion(speech, phonemes, has_speech, has_phonemes, activity)
        tokens, shape = self.temporal(fused, times, resting)
        speaks = torch.ones_like(gate) if activity is None else activity
        return SpeechContext(tokens, shape * self.shape_gain, gate, read_at(speaks[..., None], times)[..., 0])


def load_speech_model(generator: Path) -> SpeechModel:
    """The speech model of a generator's folder, without the rest of the generator.

    Raises:
        InputError: the folder lacks its weights, or they do not fit its settings.
    """
    config = Path(generator) / "config.json"
    if not config.is_file():
        raise InputError(f"No weights in {generator} (config.json is missing): train them or restore the folder.")
    model = SpeechModel(**json.loads(config.read_text(encoding="utf-8"))["speech_settings"])
    load_weights(model, generator, "speech.")
    return model.eval()
