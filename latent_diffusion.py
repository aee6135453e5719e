"""The generator: a latent diffusion inpainter of the mouth window, conditioned on speech, mouth shape and person.

Flow matching: a latent x0 and noise are mixed, x_s = (1 - s) * x0 + s * noise with s from 0 to 1, and the network
learns the velocity noise - x0. It does so through its estimate of x0 (velocity = (x_s - x0) / s): a small network need
not carry the noise through all its layers, and the estimate is what the losses on pixels look at. The estimate is the
latent of a draft plus what the network draws. The draft is the frame itself with the mouth replaced by that of a
reference frame, bent to the wanted shape: skin, lips and lighting are there from the first step of training, and only
what a bend cannot give has to be learnt.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, FlowMatchEulerDiscreteScheduler, ModelMixin, UNetMotionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from torch.nn import functional as F

from faces.detail import restore_detail
from faces.mouth_shape import MouthShape
from faces.warp import bend_references
from models.audio_encoder import SpeechEncoder
from models.autoencoder import MouthAutoencoder
from models.checkpoint import load_pretrained
from models.face_encoder import FaceEncoder
from models.lazy_speech import LazySpeech
from models.live_speech import LiveSpeech
from models.networks import Networks, TorchNetworks
from models.phonemes import Phoneme
from models.precision import fast_dtype
from models.speech_model import SpeechContext, SpeechModel
from models.speech_track import Speech, SpeechTrack
from models.temporal_encoder import STEP_RATE
from models.voice_activity import VoiceActivity
from utils.stages import stop_point

LATENT_SIDE, CELL = 20, 8  # the 160 px window in latent cells of 8 px
MASK_ROWS, MASK_COLUMNS = slice(6, 19), slice(2, 18)  # cells that are generated
SKETCH_CHANNELS = 12  # 3 maps of 40x40, folded to 20x20
SMALLEST_NOISE = 0.2  # below it the weight of the error no longer grows
RIM_PX = 6  # over so many pixels inside the mask the result fades into the input
# In use only these cells are decoded: the mask, and a cell around it where there is one.
DECODED_ROWS, DECODED_COLUMNS = slice(5, 20), slice(1, 19)
_FEWEST_WEIGHTS = 1_000_000  # of a U-Net that is worth the seconds which OpenVINO takes to load it


def latent_mask() -> torch.Tensor:
    """(1, 20, 20), 1 where the latent is generated."""
    mask = torch.zeros(1, LATENT_SIDE, LATENT_SIDE)
    mask[:, MASK_ROWS, MASK_COLUMNS] = 1.0
    return mask


def pixel_mask() -> torch.Tensor:
    """(1, 160, 160), 1 where pixels are generated."""
    return latent_mask().repeat_interleave(CELL, 1).repeat_interleave(CELL, 2)


def rim_mask() -> torch.Tensor:
    """(1, 160, 160): 0 outside the mask, rising to 1 over a few pixels inside it."""
    mask = pixel_mask()[None]
    shrunk = 1 - F.max_pool2d(1 - mask, 2 * RIM_PX + 1, 1, RIM_PX)
    soft = F.avg_pool2d(F.pad(shrunk, [RIM_PX] * 4), 2 * RIM_PX + 1, 1)
    return (soft * mask)[0]


Unet = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Conditions:
    """All that the network is told about a window of frames, apart from the noisy latent.

    Attributes:
        spatial: (B, F, 29, 20, 20): mask 1 | latent of the draft 16 | sketch 12.
        tokens: (B, F, L, D): speech tokens, then face tokens.
    """

    spatial: torch.Tensor
    tokens: torch.Tensor

    @property
    def draft(self) -> torch.Tensor:
        """The draft's latents (B, F, 16, 20, 20)."""
        return self.spatial[:, :, 1:-SKETCH_CHANNELS]


class LatentLipDiffusion(ModelMixin, ConfigMixin):
    """Speech model, face encoder and U-Net with motion layers.

    Args:
        speech_settings: settings of the `SpeechModel`.
        block_channels: U-Net channels at 20x20, 10x10 and 5x5 cells.
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
            in_channels=1 + 2 * latent_channels + SKETCH_CHANNELS,
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
        # The U-Net draws the difference to the draft: at the start of training the result is the draft.
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)
        # Sequences are 100 steps at most; on a CPU the fused attention's backward pass is slower than plain products.
        self.unet.set_attn_processor(AttnProcessor())
        self.register_buffer("mask", latent_mask(), persistent=False)

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
            draft: latents of the frames with the mouth of a reference (B, F, 16, 20, 20), see `draft_pictures`.
            sketch: drawn mouth shape (B, F, 3, 40, 40) in [0, 1].
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
        mask = self.mask.expand(batch, frames, -1, -1, -1)
        spatial = torch.cat([mask, draft, drawn], dim=2)
        faces = face_tokens[:, None].expand(-1, frames, -1, -1).to(tokens.dtype)
        return Conditions(spatial, torch.cat([tokens, faces], dim=2))

    def denoise(
        self, noisy: torch.Tensor, level: torch.Tensor, conditions: Conditions, unet: Unet | None = None
    ) -> torch.Tensor:
        """Estimate the clean latents.

        Args:
            noisy: (B, F, 16, 20, 20).
            level: s of each sample (B,), 0 = clean, 1 = noise only.
            conditions: of the same frames.
            unet: computes in place of this model's own U-Net, see `Networks.difference`.

        Returns:
            (B, F, 16, 20, 20) float32.
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
            clean: latents of the true frames (B, F, 16, 20, 20).
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
            noise: (B, F, 16, 20, 20).
            steps: number of network passes (twice that with guidance).
            guidance: how far to go beyond what is generated without speech; 1 = off.
            unguided: the conditions without speech and sketch, needed when guidance is not 1.
            unet: see `denoise`.
        """
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps).tolist())
        latents = noise.float()
        for index, timestep in enumerate(scheduler.timesteps):
            stop_point()
            level = scheduler.sigmas[index].to(latents.device).expand(len(latents))
            clean = self.denoise(latents, level, conditions, unet)
            if guidance != 1.0:
                plain = self.denoise(latents, level, unguided, unet)
                clean = plain + guidance * (clean - plain)
            velocity = (latents - clean) / level.view(-1, 1, 1, 1, 1)
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        return latents


def unlikeness(frames: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """How far references differ from a window outside the mask: little where the head is held alike.

    Args:
        frames: (B, F, 3, 160, 160) in [-1, 1], mouth blanked or not.
        references: (B, R, 3, 160, 160).

    Returns:
        (B, R) mean absolute difference to the mean frame.
    """
    outside = 1 - pixel_mask().to(frames)
    mean = frames.mean(dim=1, keepdim=True)
    return ((mean - references) * outside).abs().mean(dim=(2, 3, 4)) / outside.mean()


def draft_pictures(frames: torch.Tensor, reference: torch.Tensor, rim: torch.Tensor) -> torch.Tensor:
    """Frames whose mouth area is replaced by that of a reference.

    Args:
        frames: (..., 3, 160, 160).
        reference: the same shape; bent to the wanted mouth shape where there is one.
        rim: see `rim_mask`.
    """
    return frames + rim * (reference - frames)


def shared_noise(frames: int, channels: int, seed: int) -> torch.Tensor:
    """One noise picture for all frames (1, F, C, 20, 20): what is drawn freely stays the same from frame to frame."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(1, 1, channels, LATENT_SIDE, LATENT_SIDE, generator=generator)
    return noise.expand(-1, frames, -1, -1, -1)


@dataclass(frozen=True)
class References:
    """A person's reference frames, encoded once.

    Attributes:
        pictures: uint8 (R, 160, 160, 3).
        points: their lips and jaw (R, P, 2), window px.
        images: (1, R, 3, 160, 160) in [-1, 1].
        tokens: (1, N, D) of the face encoder.
    """

    pictures: np.ndarray
    points: np.ndarray
    images: torch.Tensor
    tokens: torch.Tensor


@dataclass(frozen=True)
class Drafts:
    """What frames are drawn over.

    Attributes:
        pictures: uint8 (F, 160, 160, 3), the references bent to the wanted shapes and mixed.
        sketches: uint8 (F, 40, 40, 3), the wanted shapes drawn.
        latents: (F, 16, 20, 20) of the frames with the mouths of `pictures`.
    """

    pictures: np.ndarray
    sketches: np.ndarray
    latents: torch.Tensor

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, frames: slice) -> Drafts:
        return Drafts(self.pictures[frames], self.sketches[frames], self.latents[frames])

    @classmethod
    def join(cls, parts: Sequence[Drafts]) -> Drafts:
        """One after another."""
        return cls(
            np.concatenate([part.pictures for part in parts]),
            np.concatenate([part.sketches for part in parts]),
            torch.cat([part.latents for part in parts]),
        )


@dataclass(frozen=True)
class Running:
    """How pictures are drawn.

    Attributes:
        backend: torch, openvino (on a CPU), or auto: openvino on a CPU for networks that are large enough.
        window: frames that are drawn at once; OpenVINO's networks have a fixed size.
        threads: CPU threads of each of OpenVINO's networks.
        compiled: on a GPU, let PyTorch compile the networks.
    """

    backend: str = "torch"
    window: int = 16
    threads: int = 1
    compiled: bool = False


class LipSyncModel:
    """Everything learned, for use: speech encoder, autoencoder, generator and mouth shapes.

    Args:
        speech_encoder: sound -> features.
        voice_activity: sound -> whether somebody speaks.
        autoencoder: pixels <-> latents.
        generator: the inpainter with its speech model.
        mouth_shape: coefficients <-> points.
        device: where all of it computes.
        running: how pictures are drawn; None = by PyTorch.
    """

    def __init__(
        self,
        speech_encoder: SpeechEncoder,
        voice_activity: VoiceActivity,
        autoencoder: MouthAutoencoder,
        generator: LatentLipDiffusion,
        mouth_shape: MouthShape,
        device: torch.device | str = "cpu",
        running: Running | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.dtype = fast_dtype(self.device)
        self.mouth_shape = mouth_shape
        self._speech_encoder = speech_encoder.to(self.device)
        self._voice_activity = voice_activity.to(self.device)
        # The small speech model stays in float32; pictures go through the fast format.
        self._speech = copy.deepcopy(generator.speech).to(self.device, torch.float32).eval()
        running = running or Running()
        # Before they are brought to the fast format: OpenVINO starts from the weights as they are.
        accelerated = self._accelerated(autoencoder, generator, running)
        self._autoencoder = self._fast(autoencoder)
        self._generator = self._fast(generator)
        self._compiled = running.compiled
        self._networks = accelerated or self._torch_networks()
        self._rim = rim_mask().to(self.device)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        size: str = "lite",
        device: torch.device | str = "cpu",
        running: Running | None = None,
    ) -> LipSyncModel:
        """Load `whisper_tiny_en_encoder/`, `voice_activity/`, `mouth_shape/` and the networks of the size.

        Raises:
            InputError: a folder is missing or its weights do not fit its settings.
        """
        directory = Path(directory)
        return cls(
            SpeechEncoder.from_pretrained(directory / "whisper_tiny_en_encoder"),
            VoiceActivity.from_pretrained(directory / "voice_activity"),
            load_pretrained(MouthAutoencoder, directory / size / "autoencoder"),
            load_pretrained(LatentLipDiffusion, directory / size / "generator"),
            MouthShape.load(directory / "mouth_shape"),
            device,
            running,
        )

    @property
    def speech_model(self) -> SpeechModel:
        """The network between speech and mouth shape."""
        return self._speech

    @property
    def is_accelerated(self) -> bool:
        """Whether the pictures are drawn by other means than PyTorch."""
        return not isinstance(self._networks, TorchNetworks)

    @property
    def generator(self) -> LatentLipDiffusion:
        """The inpainter; the speech model inside it is not the one in use, see `speech_model`."""
        return self._generator

    def copy(self) -> LipSyncModel:
        """A model whose speech model and generator can be changed while this one stays as it is; the rest is shared.

        Its pictures are drawn by PyTorch, which sees the changes.
        """
        other = copy.copy(self)
        other._speech = copy.deepcopy(self._speech)
        other._generator = copy.deepcopy(self._generator)
        other._networks = other._torch_networks()
        return other

    def hear(self, samples: np.ndarray) -> SpeechTrack:
        """Listen to a whole sound: mono (N,) at 16 kHz, any level."""
        return SpeechTrack(self._speech_encoder.features(samples), self._voice_activity.track(samples))

    def hear_lazily(self, samples: np.ndarray, phonemes: Sequence[Phoneme] = ()) -> LazySpeech:
        """The same, computed as it is needed; memory holds little more than the samples, which may be float16."""
        return LazySpeech(self._speech_encoder, self._voice_activity, samples, phonemes)

    def hear_live(self, chunks: Iterable[np.ndarray], ahead: int) -> LiveSpeech:
        """A sound that is still being made; see `LiveSpeech`."""
        return LiveSpeech(self._speech_encoder, self._voice_activity, chunks, ahead)

    @torch.inference_mode()
    def predict_shape(
        self, speech: Speech, times: np.ndarray, resting: float | None = None, block: int = 500
    ) -> np.ndarray:
        """Mouth shape of frames.

        Args:
            speech: the whole sound.
            times: seconds of the frames from the start of the sound (F,), rising.
            resting: gap between the lips of the person's resting mouth, window px; None = an average one.
            block: frames computed at once; does not change the result.

        Returns:
            (F, K) float32.
        """
        parts = [self._attend(speech, times[i : i + block], resting).shape[0] for i in range(0, len(times), block)]
        return torch.cat(parts).float().cpu().numpy()

    @torch.inference_mode()
    def prepare_references(self, references: np.ndarray, points: np.ndarray, shapes: np.ndarray) -> References:
        """Encode frames of the person.

        Args:
            references: uint8 (R, 160, 160, 3).
            points: their lips and jaw (R, P, 2), window px.
            shapes: their mouth shapes (R, K).
        """
        images = self._images(references)
        known = torch.from_numpy(np.asarray(shapes, np.float32)).to(self.device, self.dtype)
        tokens = self._generator.face_encoder(images[None].to(self.dtype), known[None])
        return References(references, points, images[None], tokens)

    @torch.inference_mode()
    def generate(
        self,
        window: np.ndarray,
        references: References,
        points: np.ndarray,
        speech: Speech,
        times: np.ndarray,
        steps: int = 2,
        guidance: float = 1.0,
        seed: int = 1,
    ) -> np.ndarray:
        """Draw the mouths of a window of frames. The caller cross-fades overlapping windows.

        Args:
            window: uint8 (F, 160, 160, 3) mouth windows of successive frames, F up to 32.
            references: of the same person.
            points: where lips and jaw shall be (F, P, 2), window px.
            speech: the whole sound.
            times: seconds of the frames from the start of the sound (F,).
            steps: network passes.
            guidance: exaggeration of what the speech asks for; 1 = off and fastest.
            seed: of the noise; the same for all windows of a video, or the picture changes between them.

        Returns:
            uint8 (F, 160, 160, 3), unchanged outside the mask.
        """
        drafts = self.draft(window, references, points)
        latents = self.draw(window, drafts, references, speech, times, steps, guidance, seed)
        return self.render(window, drafts, latents)

    @torch.inference_mode()
    def unlikeness(self, window: np.ndarray, references: References) -> np.ndarray:
        """How far the references (R,) differ from mouth windows uint8 (F, 160, 160, 3), see `unlikeness`."""
        return unlikeness(self._images(window)[None], references.images)[0].cpu().numpy()

    @torch.inference_mode()
    def draft(
        self, window: np.ndarray, references: References, points: np.ndarray, unlike: np.ndarray | None = None
    ) -> Drafts:
        """What frames are drawn over; each frame for itself, so windows that overlap need it only once.

        Args:
            window, references, points: as in `generate`.
            unlike: see `unlikeness`, (R,) or for each frame (F, R); None = that of these frames.
        """
        unlike = self.unlikeness(window, references) if unlike is None else unlike
        bent = bend_references(references.pictures, references.points, points, unlike)
        return Drafts(bent, self.mouth_shape.sketch(points), self._draft_latents(window, self._images(bent)))

    @torch.inference_mode()
    def draw(
        self,
        window: np.ndarray,
        drafts: Drafts,
        references: References,
        speech: Speech,
        times: np.ndarray,
        steps: int = 2,
        guidance: float = 1.0,
        seed: int = 1,
    ) -> torch.Tensor:
        """Latents (F, 16, 20, 20) float32 of the new mouths of successive frames; arguments as in `generate`."""
        others = self._others(drafts, references, speech, times)
        conditions = self._generator.conditions(drafts.latents[None], *others)
        unguided = None
        if guidance != 1.0:
            nothing = torch.zeros(1, dtype=torch.bool, device=self.device)
            chosen = int(self.unlikeness(window, references).argmin())
            plain = self._draft_latents(window, references.images[0, chosen])
            unguided = self._generator.conditions(plain[None], *others, nothing, nothing)
        noise = shared_noise(len(window), drafts.latents.shape[1], seed).to(self.device)
        return self._generator.sample(conditions, noise, steps, guidance, unguided, self._networks.difference)[0]

    @torch.inference_mode()
    def render(self, window: np.ndarray, drafts: Drafts, latents: torch.Tensor) -> np.ndarray:
        """The frames uint8 (F, 160, 160, 3) with the new mouths of `draw`; each frame for itself."""
        decoded = self._networks.decode(latents[:, :, DECODED_ROWS, DECODED_COLUMNS]).clamp(-1, 1)
        mouths = ((decoded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return self._merge(window, drafts, mouths)

    @torch.no_grad()
    def conditions(
        self, window: np.ndarray, references: References, points: np.ndarray, speech: Speech, times: np.ndarray
    ) -> Conditions:
        """What the generator is told about a window of frames, to train it further; arguments as in `generate`."""
        drafts = self.draft(window, references, points)
        return self._generator.conditions(drafts.latents[None], *self._others(drafts, references, speech, times))

    @torch.no_grad()
    def encode(self, window: np.ndarray) -> torch.Tensor:
        """Latents (1, F, 16, 20, 20) float32 of mouth windows uint8 (F, 160, 160, 3)."""
        return self._networks.encode(self._images(window))[None]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels (F, 3, 160, 160) float32, about [-1, 1], of latents (F, 16, 20, 20); differentiable."""
        return self._autoencoder.decode(latents.to(self.dtype)).float()

    def _others(
        self, drafts: Drafts, references: References, speech: Speech, times: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sketch, speech tokens and face tokens as `LatentLipDiffusion.conditions` takes them, batch of one."""
        heard = self._attend(speech, times).tokens.to(self.dtype)
        return (self._maps(drafts.sketches) / 255)[None], heard, references.tokens

    def _draft_latents(self, window: np.ndarray, reference: torch.Tensor) -> torch.Tensor:
        """Latents (F, 16, 20, 20) float32 of the frames with the mouth of a reference (F or none, 3, 160, 160)."""
        images = self._images(window)
        return self._networks.encode(draft_pictures(images, reference, self._rim))

    def _merge(self, window: np.ndarray, drafts: Drafts, mouths: np.ndarray) -> np.ndarray:
        """New mouths uint8 (F, 120, 144, 3), as decoded, inside the mask, the window (F, 160, 160, 3) outside it."""
        rows, columns = _scaled(DECODED_ROWS, CELL), _scaled(DECODED_COLUMNS, CELL)
        fold = CELL * LATENT_SIDE // drafts.sketches.shape[1]
        opening = drafts.sketches[:, _scaled(DECODED_ROWS, CELL // fold), _scaled(DECODED_COLUMNS, CELL // fold), 1]
        mouths = restore_detail(mouths, drafts.pictures[:, rows, columns], opening)
        rim = self._rim[0, rows, columns, None].cpu().numpy()
        result, old = window.copy(), window[:, rows, columns]
        # Half is added for the rounding: what is mixed is never negative.
        result[:, rows, columns] = (old + (rim * (mouths.astype(np.float32) - old) + 0.5)).astype(np.uint8)
        return result

    def _accelerated(
        self, autoencoder: MouthAutoencoder, generator: LatentLipDiffusion, running: Running
    ) -> Networks | None:
        """Networks that OpenVINO runs, where that is wanted and pays."""
        weights = sum(parameter.numel() for parameter in generator.unet.parameters())
        if self.device.type != "cpu" or running.backend == "torch":
            return None
        if running.backend == "auto" and weights < _FEWEST_WEIGHTS:
            return None
        from models.openvino_networks import OpenVinoNetworks

        tokens = generator.speech.config.tokens_per_frame + generator.config.face_tokens
        return OpenVinoNetworks(
            copy.deepcopy(autoencoder).float(),
            copy.deepcopy(generator.unet).float(),
            (generator.unet.config.in_channels, tokens, generator.config.token_width),
            running.window,
            (DECODED_ROWS.stop - DECODED_ROWS.start, DECODED_COLUMNS.stop - DECODED_COLUMNS.start),
            running.threads,
        )

    def _torch_networks(self) -> TorchNetworks:
        compiled = self._compiled and self.device.type == "cuda"
        return TorchNetworks(self._autoencoder, self._generator.unet, self.device, compiled)

    def _attend(self, speech: Speech, times: np.ndarray, resting: float | None = None) -> SpeechContext:
        """Tokens and shape of frames from the part of the sound that can influence them, batch of one."""
        margin = self._speech.context_steps + self._speech.config.tokens_per_frame
        ahead = margin if speech.ahead is None else min(margin, speech.ahead)
        last = max(len(speech) - 1, 0)
        first = int(np.clip(np.floor(times.min() * STEP_RATE) - margin, 0, last))
        stop = int(np.clip(np.ceil(times.max() * STEP_RATE) + ahead, first + 1, len(speech)))
        part = speech.part(first, stop)
        features, activity, moved = (
            torch.from_numpy(np.asarray(values, np.float32)[None]).to(self.device)
            for values in (part.features, part.activity, times - first / STEP_RATE)
        )
        gap = None if resting is None else torch.tensor([resting], device=self.device)
        phonemes = None
        if part.phonemes is not None and self._speech.config.knows_phonemes:
            phonemes = torch.from_numpy(part.phonemes[None]).to(self.device)
        return self._speech(features, phonemes, moved, activity=activity, resting=gap)

    def _maps(self, images: np.ndarray) -> torch.Tensor:
        """uint8 (F, H, W, 3) -> (F, 3, H, W) float32 in [0, 255]."""
        return torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2).float()

    def _images(self, images: np.ndarray) -> torch.Tensor:
        """uint8 (F, H, W, 3) -> (F, 3, H, W) float32 in [-1, 1]."""
        return (self._maps(images) / 127.5 - 1).contiguous(memory_format=torch.channels_last)

    def _fast(self, model: nn.Module) -> Any:
        return model.to(self.device, self.dtype).to(memory_format=torch.channels_last).eval().requires_grad_(False)


def _scaled(cells: slice, factor: int) -> slice:
    return slice(cells.start * factor, cells.stop * factor)
