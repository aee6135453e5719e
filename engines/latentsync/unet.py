"""LatentSync's U-Net: Stable Diffusion 1.5's, run on the frames of a clip, with attention along time after each layer.

Names and shapes are those of the published `latentsync_unet.pt` (versions 1.5 and 1.6 differ in weights only). Two
things cannot be seen from the shapes: the norms of the residual blocks take their statistics over all frames of the
clip together, all others frame by frame; and the former have eps 1e-5, the latter 1e-6.

Paper: Li et al., 2024, https://arxiv.org/abs/2412.09262; motion modules: Guo et al., 2023, AnimateDiff,
https://arxiv.org/abs/2307.04725
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional

GROUPS = 32
HEADS = 8
LAYERS = 2  # residual blocks on the way down; one more on the way up
AUDIO_WIDTH = 384
MAX_FRAMES = 24
IN_CHANNELS, OUT_CHANNELS = 13, 4
PUBLISHED_WIDTHS = (320, 640, 1280, 1280)

Motion = Literal["everywhere", "decoder", "nowhere"]


@dataclass(frozen=True)
class UNetShape:
    """What differs between files of this layout.

    Attributes:
        widths: channels of the four blocks, multiples of 32.
        motion: where there is attention along time; the published files have it everywhere.
    """

    widths: tuple[int, ...] = PUBLISHED_WIDTHS
    motion: Motion = "everywhere"


class ClipNorm(nn.GroupNorm):
    """Group norm with statistics over all frames of a clip together."""

    def forward(self, frames: torch.Tensor, count: int) -> torch.Tensor:  # type: ignore[override]
        """Frames (B * F, C, H, W) with F = `count` -> the same."""
        clips = frames.unflatten(0, (-1, count)).transpose(1, 2)
        normed = functional.group_norm(clips, self.num_groups, self.weight, self.bias, self.eps)
        return normed.transpose(1, 2).flatten(0, 1)


class ClipResnet(nn.Module):
    """Residual block that convolves each frame for itself and normalises the clip as a whole."""

    def __init__(self, before: int, after: int, time_width: int) -> None:
        super().__init__()
        self.norm1 = ClipNorm(GROUPS, before, eps=1e-5)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_width, after)
        self.norm2 = ClipNorm(GROUPS, after, eps=1e-5)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, frames: torch.Tensor, time: torch.Tensor, count: int) -> torch.Tensor:
        """Frames (B * F, C, H, W), time (B, 4 * C0) -> (B * F, C', H, W)."""
        hidden = self.conv1(functional.silu(self.norm1(frames, count)))
        shift = self.time_emb_proj(functional.silu(time)).repeat_interleave(count, dim=0)
        hidden = self.conv2(functional.silu(self.norm2(hidden + shift[:, :, None, None], count)))
        return self.conv_shortcut(frames) + hidden


class FramePositions(nn.Module):
    """Adds a sinusoid of the frame's number; a buffer in the published file."""

    def __init__(self, width: int) -> None:
        super().__init__()
        place = torch.arange(MAX_FRAMES)[:, None]
        rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        table = torch.zeros(1, MAX_FRAMES, width)
        table[0, :, 0::2], table[0, :, 1::2] = torch.sin(place * rate), torch.cos(place * rate)
        self.register_buffer("pe", table)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens + self.pe[:, : tokens.shape[1]]


class FrameAttention(Attention):
    """Attention along the frames of each pixel; queries, keys and values all know their place in time."""

    def __init__(self, width: int) -> None:
        super().__init__(query_dim=width, heads=HEADS, dim_head=width // HEADS)
        self.pos_encoder = FramePositions(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(self.pos_encoder(tokens))


class _MotionBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_blocks = nn.ModuleList(FrameAttention(width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.ff = FeedForward(width, activation_fn="geglu")
        self.ff_norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        for norm, attention in zip(self.norms, self.attention_blocks, strict=True):
            tokens = tokens + attention(norm(tokens))
        return tokens + self.ff(self.ff_norm(tokens))


class _TemporalTransformer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList([_MotionBlock(width)])
        self.proj_out = nn.Linear(width, width)

    def forward(self, frames: torch.Tensor, count: int) -> torch.Tensor:
        height, width = frames.shape[2:]
        tokens = self.norm(frames).unflatten(0, (-1, count)).permute(0, 3, 4, 1, 2)  # (B, H, W, F, C)
        tokens = self.proj_in(tokens.flatten(0, 2))
        for block in self.transformer_blocks:
            tokens = block(tokens)
        tokens = self.proj_out(tokens).unflatten(0, (-1, height, width))
        return frames + tokens.permute(0, 3, 4, 1, 2).flatten(0, 1)


class MotionModule(nn.Module):
    """Lets the frames of a clip know of each other, pixel by pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.temporal_transformer = _TemporalTransformer(width)

    def forward(self, frames: torch.Tensor, count: int) -> torch.Tensor:
        """(B * F, C, H, W) with F = `count` up to 24 -> the same."""
        return self.temporal_transformer(frames, count)


@dataclass(frozen=True)
class _Context:
    """What all layers are told: time (B, D), audio (B * F, 50, 384), frames in a clip."""

    time: torch.Tensor
    audio: torch.Tensor
    count: int


class _Layers(nn.Module):
    """Successive layers of one resolution; each is a residual block and, where the block has them, attention to the
    sound and motion."""

    def __init__(self, channels: Sequence[tuple[int, int]], time_width: int, hears: bool, moves: bool) -> None:
        super().__init__()
        after = [width for _, width in channels]
        self.attentions = nn.ModuleList([_spatial_transformer(width) for width in after] if hears else [])
        self.resnets = nn.ModuleList(ClipResnet(*pair, time_width) for pair in channels)
        self.motion_modules = nn.ModuleList([MotionModule(width) for width in after] if moves else [])

    def layer(self, index: int, frames: torch.Tensor, context: _Context) -> torch.Tensor:
        frames = self.resnets[index](frames, context.time, context.count)
        if self.attentions:
            frames = self.attentions[index](frames, context.audio, return_dict=False)[0]
        return self.motion_modules[index](frames, context.count) if self.motion_modules else frames


class DownBlock(_Layers):
    """Two layers, then half the resolution, but for the last block."""

    def __init__(self, before: int, after: int, time_width: int, hears: bool, moves: bool, last: bool) -> None:
        super().__init__([(before, after), *[(after, after)] * (LAYERS - 1)], time_width, hears, moves)
        halve = [] if last else [Downsample2D(after, use_conv=True, padding=1, name="op")]
        self.downsamplers = nn.ModuleList(halve)

    def forward(self, frames: torch.Tensor, context: _Context, skips: list[torch.Tensor]) -> torch.Tensor:
        """(B * F, C, H, W) -> (B * F, C', H', W'); every layer's result is appended to `skips`."""
        for index in range(LAYERS):
            frames = self.layer(index, frames, context)
            skips.append(frames)
        for halve in self.downsamplers:
            frames = halve(frames)
            skips.append(frames)
        return frames


class UpBlock(_Layers):
    """Three layers that take in a skip each, then twice the resolution, but for the last block."""

    def __init__(
        self, before: int, skips: Sequence[int], after: int, time_width: int, hears: bool, moves: bool, last: bool
    ) -> None:
        inputs = [before, *[after] * LAYERS]
        channels = [(width + skip, after) for width, skip in zip(inputs, skips, strict=True)]
        super().__init__(channels, time_width, hears, moves)
        self.upsamplers = nn.ModuleList([] if last else [Upsample2D(after, use_conv=True)])

    def forward(self, frames: torch.Tensor, context: _Context, skips: list[torch.Tensor]) -> torch.Tensor:
        """(B * F, C, H, W) -> (B * F, C', H', W'); takes its skips from the end of the list."""
        for index in range(LAYERS + 1):
            frames = self.layer(index, torch.cat([frames, skips.pop()], dim=1), context)
        for double in self.upsamplers:
            frames = double(frames)
        return frames


class MidBlock(nn.Module):
    """Residual block, attention to the sound, residual block."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([_spatial_transformer(width)])
        self.resnets = nn.ModuleList(ClipResnet(width, width, time_width) for _ in range(2))

    def forward(self, frames: torch.Tensor, context: _Context) -> torch.Tensor:
        frames = self.resnets[0](frames, context.time, context.count)
        frames = self.attentions[0](frames, context.audio, return_dict=False)[0]
        return self.resnets[1](frames, context.time, context.count)


class LatentSyncUNet(nn.Module):
    """Predicts the noise in the latents of a clip.

    Args:
        shape: widths, and where there is attention along time.
    """

    def __init__(self, shape: UNetShape | None = None) -> None:
        super().__init__()
        shape = shape or UNetShape()
        widths, time_width = shape.widths, 4 * shape.widths[0]
        self.conv_in = nn.Conv2d(IN_CHANNELS, widths[0], 3, padding=1)
        self.time_proj = Timesteps(widths[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(widths[0], time_width)
        self.down_blocks = nn.ModuleList(_down_blocks(widths, time_width, shape.motion == "everywhere"))
        self.up_blocks = nn.ModuleList(_up_blocks(widths, time_width, shape.motion != "nowhere"))
        self.mid_block = MidBlock(widths[-1], time_width)
        self.conv_norm_out = ClipNorm(GROUPS, widths[0], eps=1e-5)
        self.conv_out = nn.Conv2d(widths[0], OUT_CHANNELS, 3, padding=1)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor | int, audio: torch.Tensor) -> torch.Tensor:
        """The noise in a clip.

        Args:
            sample: (B, 13, F, h, w): noisy latent 4 | mask 1 | latent of the masked picture 4 | of the reference 4.
            timestep: of all of them.
            audio: (B, F, 50, 384), see `engines.hearing`.

        Returns:
            (B, 4, F, h, w).
        """
        batch, count = sample.shape[0], sample.shape[2]
        step = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(batch)
        time = self.time_embedding(self.time_proj(step).to(sample.dtype))
        context = _Context(time, audio.flatten(0, 1), count)
        frames = self.conv_in(sample.transpose(1, 2).flatten(0, 1))
        skips = [frames]
        for down in self.down_blocks:
            frames = down(frames, context, skips)
        frames = self.mid_block(frames, context)
        for up in self.up_blocks:
            frames = up(frames, context, skips)
        frames = self.conv_out(functional.silu(self.conv_norm_out(frames, count)))
        return frames.unflatten(0, (batch, count)).transpose(1, 2)


def shape_of(state: dict[str, torch.Tensor]) -> UNetShape:
    """The shape that the tensors of a file have; whether they all fit it is for the loader to see."""
    widths = [
        state[name].shape[0] if name in state else width
        for name, width in zip(_width_names(), PUBLISHED_WIDTHS, strict=True)
    ]
    down, up = (any(name.startswith(f"{side}_blocks.") and ".motion_modules." in name for name in state)
                for side in ("down", "up"))  # fmt: skip
    return UNetShape(tuple(widths), "everywhere" if down else "decoder" if up else "nowhere")


def _width_names() -> Iterable[str]:
    return [f"down_blocks.{index}.resnets.0.conv1.bias" for index in range(len(PUBLISHED_WIDTHS))]


def _down_blocks(widths: Sequence[int], time_width: int, moves: bool) -> Iterable[DownBlock]:
    last = len(widths) - 1
    for index, width in enumerate(widths):
        yield DownBlock(widths[max(index - 1, 0)], width, time_width, index < last, moves, index == last)


def _up_blocks(widths: Sequence[int], time_width: int, moves: bool) -> Iterable[UpBlock]:
    # What the way down leaves: the first convolution, then of each block its layers and its smaller picture.
    skips = [widths[0]]
    for index, width in enumerate(widths):
        skips += [width] * (LAYERS + (index < len(widths) - 1))
    before = widths[-1]
    for index, width in enumerate(reversed(widths)):
        taken = [skips.pop() for _ in range(LAYERS + 1)]
        yield UpBlock(before, taken, width, time_width, index > 0, moves, index == len(widths) - 1)
        before = width


def _spatial_transformer(width: int) -> Transformer2DModel:
    """Attention within the frame and to its sound."""
    return Transformer2DModel(
        num_attention_heads=HEADS,
        attention_head_dim=width // HEADS,
        in_channels=width,
        norm_num_groups=GROUPS,
        cross_attention_dim=AUDIO_WIDTH,
    )
