"""The generator: a latent diffusion inpainter of the mouth window, conditioned on speech, mouth shape and person.

Flow matching: a latent x0 and noise are mixed, x_s = (1 - s) * x0 + s * noise with s from 0 to 1, and the network
learns the velocity noise - x0. It does so through its estimate of x0 (velocity = (x_s - x0) / s): a small network need
not carry the noise through all its layers, and the estimate is what the losses on pixels look at. The estimate is the
latent of a draft plus what the network draws. The draft is the frame itself, bent to the wanted shape, with lips of
other pictures of the person (`faces.warp.draft`): skin, lips and lighting are there from the first step of training,
and only what a bend cannot give has to be learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models.face_encoder import FaceEncoder
from models.library import AttnProcessor, ConfigMixin, ModelMixin, UNetMotionModel, register_to_config
from models.speech_model import SpeechContext, SpeechModel
from utils.stages import stop_point

CELL = 8  # px of a latent cell's side
# The generator draws lips and what lies between them: a square of the mouth window, in cells and in pixels. Of the lips
# of 112 people 99.8 % lie at least 6 px inside it.
LIPS_ROWS, LIPS_COLUMNS = slice(4, 16), slice(4, 16)
LIPS_PX = tuple(slice(cells.start * CELL, cells.stop * CELL) for cells in (LIPS_ROWS, LIPS_COLUMNS))
LATENT_SIDE = LIPS_ROWS.stop - LIPS_ROWS.start
SKETCH_CHANNELS = 12  # 3 maps with two points a cell and side, folded
SMALLEST_NOISE = 0.2  # below it the weight of the error no longer grows
RIM_PX = 6  # over so many pixels inside the square the result fades into the draft


def lips_of_window(images: torch.Tensor) -> torch.Tensor:
    """The square that is drawn (..., 96, 96) of mouth windows (..., 160, 160)."""
    return images[..., LIPS_PX[0], LIPS_PX[1]]


def lips_of_sketch(sketch: torch.Tensor) -> torch.Tensor:
    """The same square (..., 24, 24) of sketches (..., 40, 40)."""
    rows, columns = (slice(2 * cells.start, 2 * cells.stop) for cells in (LIPS_ROWS, LIPS_COLUMNS))
    return sketch[..., rows, columns]


def rim_mask() -> torch.Tensor:
    """(1, 96, 96): 0 at the edge of the square, rising to 1 over a few pixels inside it."""
    side = LATENT_SIDE * CELL
    inside = F.pad(torch.ones(1, 1, side - 4 * RIM_PX, side - 4 * RIM_PX), [2 * RIM_PX] * 4)
    return F.avg_pool2d(F.pad(inside, [RIM_PX] * 4), 2 * RIM_PX + 1, 1)[0]


Unet = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Conditions:
    """All that the network is told about a window of frames, apart from the noisy latent.

    Attributes:
        spatial: (B, F, 28, 12, 12): latent of the draft 16 | sketch 12.
        tokens: (B, F, L, D): speech tokens, then face tokens.
    """

    spatial: torch.Tensor
    tokens: torch.Tensor

    @property
    def draft(self) -> torch.Tensor:
        """The draft's latents (B, F, 16, 12, 12)."""
        return self.spatial[:, :, :-SKETCH_CHANNELS]


class LatentLipDiffusion(ModelMixin, ConfigMixin):
    """Speech model, face encoder and U-Net with motion layers.

    Args:
        speech_settings: settings of the `SpeechModel`.
        block_channels: U-Net channels at 12x12, 6x6 and 3x3 cells.
        layers_per_block: residual blocks at each of them.
        head_width: channels of an attention head.
        norm_groups: groups of the group norms.
        motion_layers: attention layers over the frames at each of them; the middle always has one.
        token_width: numbers in a conditioning token.
        face_width: first channels of the face encoder.
        face_tokens: identity and appearance tokens.
        latent_channels: channels of the autoencoder's latents.
    """

    @register_to_config
    def __init__(
        self,
        speech_settings: Mapping[str, Any],
        block_channels: tuple[int, int, int] = (64, 128, 160),
        layers_per_block: int = 1,
        head_width: int = 32,
        norm_groups: int = 32,
        motion_layers: tuple[int, int, int] = (0, 0, 1),
        token_width: int = 192,
        face_width: int = 32,
        face_tokens: int = 8,
        latent_channels: int = 16,
    ) -> None:
        super().__init__()
        self.speech = SpeechModel(**speech_settings)
        self.token_projection = nn.Linear(self.speech.config.width, token_width)
        self.no_speech = nn.Parameter(0.02 * torch.randn(self.speech.config.tokens_per_frame, token_width))
        self.face_encoder = FaceEncoder(face_width, token_width, face_tokens, self.speech.config.shape_coefficients)
        heads = tuple(max(1, channels // head_width) for channels in block_channels)
        self.unet = UNetMotionModel(
            sample_size=LATENT_SIDE,
            in_channels=2 * latent_channels + SKETCH_CHANNELS,
            out_channels=latent_channels,
            # Attention within a frame pays only at the two coarse levels.
            down_block_types=("DownBlockMotion", "CrossAttnDownBlockMotion", "CrossAttnDownBlockMotion"),
            up_block_types=("CrossAttnUpBlockMotion", "CrossAttnUpBlockMotion", "UpBlockMotion"),
            block_out_channels=tuple(block_channels),
            layers_per_block=layers_per_block,
            cross_attention_dim=token_width,
            num_attention_heads=heads,
            motion_num_attention_heads=heads,
            temporal_transformer_layers_per_block=tuple(motion_layers),
            use_linear_projection=True,
            norm_num_groups=norm_groups,
            motion_max_seq_length=32,
        )
        _start_from_the_draft(self.unet)
        # Sequences are 100 steps at most; on a CPU the fused attention's backward pass is slower than plain products.
        self.unet.set_attn_processor(AttnProcessor())

    def predict_shape(
        self, speech: torch.Tensor | None, phonemes: torch.Tensor | None, times: torch.Tensor, **more: torch.Tensor
    ) -> SpeechContext:
        """Tokens and mouth shape of frames; see `SpeechModel.forward`."""
        return self.speech(speech, phonemes, times, **more)

    def conditions(
        self,
        draft: torch.Tensor,
        sketch: torch.Tensor,
        speech_tokens: torch.Tensor,
        face_tokens: torch.Tensor,
        keep_speech: torch.Tensor | None = None,
        keep_sketch: torch.Tensor | None = None,
    ) -> Conditions:
        """Put the conditions together.

        Args:
            draft: latents of the drafts' lips (B, F, 16, 12, 12), see `faces.warp.draft`.
            sketch: drawn mouth shape (B, F, 3, 24, 24) in [0, 1].
            speech_tokens: (B, F, L, D) as the speech model gives them.
            face_tokens: (B, N, D).
            keep_speech, keep_sketch: (B,) bool; False replaces them by "unknown". None = all known.
        """
        batch, frames = draft.shape[:2]
        tokens = self.token_projection(speech_tokens)
        if keep_speech is not None:
            tokens = torch.where(keep_speech[:, None, None, None], tokens, self.no_speech.to(tokens.dtype))
        drawn = F.pixel_unshuffle(sketch.flatten(0, 1), 2).view(batch, frames, SKETCH_CHANNELS, *draft.shape[-2:])
        if keep_sketch is not None:
            drawn = drawn * keep_sketch[:, None, None, None, None]
        spatial = torch.cat([draft, drawn.to(draft.dtype)], dim=2)
        faces = face_tokens[:, None].expand(-1, frames, -1, -1).to(tokens.dtype)
        return Conditions(spatial, torch.cat([tokens, faces], dim=2))

    def denoise(
        self, noisy: torch.Tensor, level: torch.Tensor, conditions: Conditions, unet: Unet | None = None
    ) -> torch.Tensor:
        """Estimate the clean latents.

        Args:
            noisy: (B, F, 16, 12, 12).
            level: s of each sample (B,), 0 = clean, 1 = noise only.
            conditions: of the same frames.
            unet: computes in place of this model's own U-Net, see `Networks.difference`.

        Returns:
            (B, F, 16, 12, 12) float32.
        """
        dtype = self.unet.dtype if unet is None else torch.float32
        stacked = torch.cat([noisy.to(dtype), conditions.spatial.to(dtype)], dim=2).transpose(1, 2)
        tokens = conditions.tokens.flatten(0, 1).to(dtype)
        difference = (unet or self._difference)(stacked, level * 1000, tokens)
        return conditions.draft.float() + difference.transpose(1, 2).float()

    def _difference(self, stacked: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.unet(stacked, timestep, tokens, return_dict=False)[0]

    def loss(
        self,
        clean: torch.Tensor,
        conditions: Conditions,
        noise: torch.Tensor,
        level: torch.Tensor,
        weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Flow-matching loss.

        Args:
            clean: latents of the true frames (B, F, 16, 12, 12).
            conditions: of the same frames.
            noise: same shape as `clean`.
            level: (B,) in (0, 1].
            weights: of the cells, broadcast to `clean`, mean about 1.

        Returns:
            The loss, and the estimate of the clean latents (with gradients).
        """
        s = level.view(-1, 1, 1, 1, 1)
        estimate = self.denoise((1 - s) * clean + s * noise, level, conditions)
        # The error of the velocity is that of x0 divided by s; limited, or nearly clean samples would fill the loss.
        error = (estimate - clean).square() * weights / s.clamp_min(SMALLEST_NOISE)
        return error.mean(), estimate

    @torch.no_grad()
    def sample(
        self,
        conditions: Conditions,
        noise: torch.Tensor,
        steps: int,
        guidance: float = 1.0,
        unguided: Conditions | None = None,
        unet: Unet | None = None,
    ) -> torch.Tensor:
        """Generate latents in a few steps.

        Args:
            conditions: of the window.
            noise: (B, F, 16, 12, 12).
            steps: number of network passes (twice that with guidance).
            guidance: how far to go beyond what is generated without speech; 1 = off.
            unguided: the conditions without speech and sketch, needed when guidance is not 1.
            unet: see `denoise`.
        """
        # Euler's method along the flow from noise (1) to the clean latents (0).
        levels = torch.from_numpy(np.append(np.linspace(1.0, 1.0 / steps, steps), 0.0).astype(np.float32))
        levels, latents = levels.to(noise.device), noise.float()
        for now, after in zip(levels, levels[1:], strict=False):
            stop_point()
            level = now.expand(len(latents))
            clean = self.denoise(latents, level, conditions, unet)
            if guidance != 1.0:
                plain = self.denoise(latents, level, unguided, unet)
                clean = plain + guidance * (clean - plain)
            velocity = (latents - clean) / level.view(-1, 1, 1, 1, 1)
            latents = latents + (after - now) * velocity
        return latents


def _start_from_the_draft(unet: UNetMotionModel) -> None:
    """The U-Net draws the difference to the draft: at the start of training the result is the draft."""
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.zeros_(unet.conv_out.bias)


def shared_noise(frames: int, channels: int, seed: int) -> torch.Tensor:
    """One noise picture for all frames (1, F, C, 12, 12): what is drawn freely stays the same from frame to frame."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 1, channels, LATENT_SIDE, LATENT_SIDE, generator=generator)
    return noise.expand(-1, frames, -1, -1, -1)
