"""Movement of the mouth: what people really do about the mean of what a sound lets expect.

A regression gives the mean of all movements that fit a sound: smaller than any real one, smoother, and its lips seldom
meet. Here the difference to that mean, ten coefficients at 25 Hz, is drawn from what real people do (flow matching,
Lipman et al. 2023): noise becomes movement in a few steps, told the features of the speech model, the mean, voice
activity, the person's resting mouth and the movement of the half second before. The network estimates the clean
movement with the scaling of Karras et al. 2022 (EDM), for the straight path x_s = (1 - s) * x + s * noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models.library import ConfigMixin, ModelMixin, register_to_config

GRID_RATE = 25.0  # steps of movement a second; step k is at k / 25 s of the sound
HEARD_TOKENS = 2  # tokens of the speech model that belong to a step: those 10 ms before and after it
RESTING_USUAL_PX, RESTING_SPREAD_PX = 4.0, 2.0  # of the gap between the inner lips of resting mouths
SETTLING = 5  # steps over which what is drawn fades at the rim of a pause
_REACHES = (1, 2, 4)  # dilations of the convolutions, in turn


@dataclass(frozen=True)
class Told:
    """What the network knows of T steps, apart from the noise.

    Attributes:
        tokens: (B, T, HEARD_TOKENS * D) of the speech model, see `heard_tokens`.
        mean: (B, T, K) the speech model's mouth shape.
        activity: (B, T) chance that somebody speaks, in [0, 1].
        resting: (B,) gap between the inner lips of the person's resting mouth, window px.
        before: (B, T, K) difference to the mean in the steps that are over.
        over: (B, T) bool, True where `before` is known.
        there: (B, T) bool, False for steps that nothing is known of (beyond what was heard).
    """

    tokens: torch.Tensor
    mean: torch.Tensor
    activity: torch.Tensor
    resting: torch.Tensor
    before: torch.Tensor
    over: torch.Tensor
    there: torch.Tensor


class MovementModel(ModelMixin, ConfigMixin):
    """Convolutions over time between noise and movement.

    Args:
        width: channels.
        blocks: of two layers each; their reach is 1, 2, 4, 1, 2, ... steps.
        token_width: numbers in a token of the speech model.
        shape_coefficients: numbers of the mouth shape.
        dropout: fraction of channels dropped, of what is heard and in the blocks.

    Attributes:
        spread: (K,) standard deviation of what is drawn, in training.
        gain, size: (K,) how much the mean and what is drawn count, so that people whom nobody trained on move as far
            as they really do; see `mouth`.
    """

    @register_to_config
    def __init__(
        self,
        width: int = 128,
        blocks: int = 6,
        token_width: int = 192,
        shape_coefficients: int = 10,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.heard = nn.Linear(HEARD_TOKENS * token_width, width)
        self.known = nn.Linear(3 * shape_coefficients + 4, width)
        self.level = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, 2 * width))
        self.stack = nn.ModuleList(
            _Block(width, _REACHES[number % len(_REACHES)], dropout) for number in range(blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, shape_coefficients)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.register_buffer("spread", torch.ones(shape_coefficients))
        self.register_buffer("gain", torch.ones(shape_coefficients))
        self.register_buffer("size", torch.ones(shape_coefficients))

    def forward(self, noisy: torch.Tensor, level: torch.Tensor, told: Told) -> torch.Tensor:
        """Estimate the clean difference to the mean, in units of `spread`.

        Args:
            noisy: (B, T, K), the same units; what it is at steps that are over does not matter.
            level: s of each sample (B,), 0 = clean, 1 = noise only.
            told: of the same steps.

        Returns:
            (B, T, K).
        """
        s = level[:, None, None].to(noisy)
        variance = (1 - s).square() + s.square()
        there = told.there[..., None].to(noisy)
        x = self._read(noisy / variance.sqrt() * ~told.over[..., None], told)
        scale, shift = self.level(torch.log(s.clamp_min(1e-3)) / 4).chunk(2, dim=-1)
        for block in self.stack:
            x = block(x, scale, shift, there)
        return (1 - s) / variance * noisy + s / variance.sqrt() * self.out(self.norm(x))

    def mouth(self, mean: torch.Tensor, moved: torch.Tensor, activity: torch.Tensor) -> torch.Tensor:
        """Mouth shapes (B, T, K) of the mean and what was drawn about it; in pauses the mean alone."""
        speaks = F.avg_pool1d(activity[:, None], SETTLING, 1, SETTLING // 2, count_include_pad=False)[:, 0]
        return self.gain * mean + self.size * speaks[..., None] * moved

    def _read(self, noisy: torch.Tensor, told: Told) -> torch.Tensor:
        """All inputs as channels (B, T, width)."""
        over = told.over[..., None].to(noisy)
        resting = ((told.resting - RESTING_USUAL_PX) / RESTING_SPREAD_PX)[:, None, None].expand_as(over)
        flags = [over, told.there[..., None].to(noisy), told.activity[..., None], resting.to(noisy)]
        known = torch.cat([noisy, over * told.before / self.spread, told.mean, *flags], dim=-1)
        dropped = F.dropout1d(told.tokens.transpose(1, 2), self.config.dropout, self.training).transpose(1, 2)
        return self.heard(dropped) + self.known(known)

    @torch.no_grad()
    def sample(self, noise: torch.Tensor, told: Told, steps: int) -> torch.Tensor:
        """Movement from noise by Euler's method.

        Args:
            noise: (B, T, K), of standard deviation 1, or less for calmer movement.
            told: of the same steps.
            steps: network passes.

        Returns:
            Differences to the mean (B, T, K); those that are over are what they were.
        """
        x = noise
        for number in range(steps, 0, -1):
            level = x.new_full((len(x),), number / steps)
            clean = self(x, level, told)
            x = clean + (number - 1) / number * (x - clean)
        return torch.where(told.over[..., None], told.before, x * self.spread)


class _Block(nn.Module):
    """A convolution over time and a layer for each step, both added to what comes in."""

    def __init__(self, width: int, reach: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.near = nn.Conv1d(width, width, 3, padding=reach, dilation=reach)
        self.each = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )

    def forward(
        self, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, there: torch.Tensor
    ) -> torch.Tensor:
        """(B, T, D) -> (B, T, D); scale, shift (B, 1, D): level of the noise; there (B, T, 1): what counts."""
        seen = (self.norms[0](x) * (1 + scale) + shift) * there
        x = x + F.gelu(self.near(seen.transpose(1, 2))).transpose(1, 2)
        return x + self.each(self.norms[1](x))


def heard_tokens(tokens: torch.Tensor) -> torch.Tensor:
    """The tokens nearest to their frame (B, T, HEARD_TOKENS * D), of all of them (B, T, L, D)."""
    first = max(0, (tokens.shape[2] - HEARD_TOKENS) // 2)
    return tokens[:, :, first : first + HEARD_TOKENS].flatten(2)


def step_noise(first: int, count: int, size: int, seed: int) -> np.ndarray:
    """Standard normal numbers (count, size) float32 that depend on the seed and each step's number only."""
    drawn = np.empty((count, size), np.float32)
    for index in range(count):
        counter = [0, 0, 0, (first + index) % 2**63]
        drawn[index] = np.random.Generator(np.random.Philox(key=seed % 2**63, counter=counter)).standard_normal(size)
    return drawn
