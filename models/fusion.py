"""Speech features and phonemes become one sequence: cross-modal attention and a learned gate for each step."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def reach_mask(length: int, reach: int, device: torch.device) -> torch.Tensor:
    """(length, length) bool, True where a step may look at another one: at most `reach` steps away."""
    steps = torch.arange(length, device=device)
    return (steps[:, None] - steps[None]).abs() <= reach


class CrossModalAttention(nn.Module):
    """Each step of sound looks at the phonemes that are spoken around it.

    The phonemes' times come from a synthesiser or an aligner and are only roughly right, so a step may look a
    little to both sides instead of taking the phoneme at its own time.

    Args:
        width: channels of both sequences.
        heads: attention heads.
        reach: steps to each side.
    """

    def __init__(self, width: int, heads: int, reach: int) -> None:
        super().__init__()
        self.heads, self.reach = heads, reach
        self.norm_sound, self.norm_phonemes = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, sound: torch.Tensor, phonemes: torch.Tensor) -> torch.Tensor:
        """Queries (B, T, D) and phoneme embeddings (B, T, D) -> (B, T, D)."""
        batch, length, width = sound.shape
        phonemes = self.norm_phonemes(phonemes)
        key, value = self.key_value(phonemes).chunk(2, dim=-1)
        query, key, value = (
            x.view(batch, length, self.heads, -1).transpose(1, 2)
            for x in (self.query(self.norm_sound(sound) + phonemes), key, value)
        )
        mask = reach_mask(length, self.reach, sound.device)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class SpeechFusion(nn.Module):
    """Adapter of the speech features, embedding of the phonemes, attention between them, and the gate.

    Either input may be missing, for a whole batch (None) or for single samples (the `has_*` flags). A missing one
    is replaced by a learned vector and the gate then gives all weight to the other.

    Args:
        feature_layers: hidden states of the speech encoder in a step.
        feature_width: numbers in a hidden state.
        width: channels of the result.
        heads: heads of the cross-modal attention.
        reach: steps that a step may look to each side for its phonemes.
        phonemes: size of the phoneme inventory; id 0 is silence.
        dropout: fraction of dropped input channels; a whole hidden state is dropped with half that chance.
        with_activity: the sound comes with voice activity.
    """

    def __init__(
        self,
        feature_layers: int,
        feature_width: int,
        width: int,
        heads: int,
        reach: int,
        phonemes: int,
        dropout: float,
        with_activity: bool = False,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.adapter = nn.Linear(feature_layers * feature_width, width)
        self.pause = nn.Linear(1, width, bias=False) if with_activity else None
        if with_activity:
            nn.init.zeros_(self.pause.weight)
        self.local = nn.Conv1d(width, width, 3, padding=1)
        self.embedding = nn.Embedding(phonemes, width)
        self.cross = CrossModalAttention(width, heads, reach)
        self.gate = nn.Linear(2 * width, 1)
        self.no_sound = nn.Parameter(0.02 * torch.randn(width))
        self.no_phonemes = nn.Parameter(0.02 * torch.randn(width))

    def forward(
        self,
        speech: torch.Tensor | None,
        phonemes: torch.Tensor | None,
        has_speech: torch.Tensor | None = None,
        has_phonemes: torch.Tensor | None = None,
        activity: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fuse the two.

        Args:
            speech: (B, T, feature_layers, feature_width), or None.
            phonemes: ids (B, T), or their probabilities (B, T, N), or None. At least one of the two must be given.
            has_speech, has_phonemes: (B,) bool, False for samples whose values must be ignored. None = all present.
            activity: (B, T) chance that somebody speaks, in [0, 1]; None = somebody always does.

        Returns:
            The fused sequence (B, T, D) and the gate (B, T) in [0, 1]: the weight of the sound.
        """
        if speech is None and phonemes is None:
            raise ValueError("SpeechFusion needs speech features or phonemes.")
        batch, length = (speech if speech is not None else phonemes).shape[:2]
        sound, has_speech = self._sound(speech, has_speech, activity, batch, length)
        if phonemes is None:
            text = self.no_phonemes.expand(batch, length, -1)
            has_phonemes = torch.zeros(batch, dtype=torch.bool, device=text.device)
        else:
            text = self.cross(sound, self._embed(phonemes))
            if has_phonemes is None:
                has_phonemes = torch.ones(batch, dtype=torch.bool, device=text.device)
            text = torch.where(has_phonemes[:, None, None], text, self.no_phonemes)
        gate = torch.sigmoid(self.gate(torch.cat([sound, text.to(sound.dtype)], dim=-1))).squeeze(-1)
        gate = torch.where(has_phonemes[:, None], gate, torch.ones_like(gate))
        gate = torch.where(has_speech[:, None] | ~has_phonemes[:, None], gate, torch.zeros_like(gate))
        return gate[..., None] * sound + (1 - gate[..., None]) * text, gate

    def _embed(self, phonemes: torch.Tensor) -> torch.Tensor:
        """Ids (B, T), or probabilities (B, T, N) from a recogniser, to (B, T, D)."""
        return phonemes @ self.embedding.weight if phonemes.is_floating_point() else self.embedding(phonemes)

    def _sound(
        self,
        speech: torch.Tensor | None,
        has_speech: torch.Tensor | None,
        activity: torch.Tensor | None,
        batch: int,
        length: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The adapted sound (B, T, D), missing samples replaced, and which samples have any (B,)."""
        if speech is None:
            missing = torch.zeros(batch, dtype=torch.bool, device=self.no_sound.device)
            return self.no_sound.expand(batch, length, -1), missing
        sound = self.adapter(self._drop(speech).flatten(2))
        if self.pause is not None and activity is not None:
            sound = sound + self.pause(1 - activity[..., None])
        sound = sound + F.gelu(self.local(sound.transpose(1, 2))).transpose(1, 2)
        if has_speech is None:
            return sound, torch.ones(batch, dtype=torch.bool, device=sound.device)
        return torch.where(has_speech[:, None, None], sound, self.no_sound), has_speech

    def _drop(self, speech: torch.Tensor) -> torch.Tensor:
        """Drop the same channels in all steps of a sample, and now and then a whole hidden state."""
        if not self.training or self.dropout == 0:
            return speech
        batch, _, layers, width = speech.shape
        channels = F.dropout(speech.new_ones(batch, 1, layers, width), self.dropout)
        states = F.dropout(speech.new_ones(batch, 1, layers, 1), self.dropout / 2)
        return speech * channels * states
