"""What `lite` has learnt, for use: sound -> mouth shape -> draft -> latents -> picture."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from faces.detail import restore_detail
from faces.mouth_shape import MouthShape
from faces.warp import bend_references
from latent_diffusion import (
    CELL,
    LATENT_SIDE,
    Conditions,
    LatentLipDiffusion,
    draft_pictures,
    rim_mask,
    shared_noise,
    unlikeness,
)
from models.audio_encoder import SpeechEncoder
from models.autoencoder import MouthAutoencoder
from models.checkpoint import load_pretrained
from models.lazy_speech import LazySpeech
from models.live_speech import LiveSpeech
from models.networks import Networks, TorchNetworks
from models.phonemes import Phoneme
from models.precision import fast_dtype
from models.speech_model import SpeechContext, SpeechModel
from models.speech_track import Speech, SpeechTrack
from models.temporal_encoder import STEP_RATE
from models.voice_activity import VoiceActivity

# In use only these cells are decoded: the mask, and a cell around it where there is one.
DECODED_ROWS, DECODED_COLUMNS = slice(5, 20), slice(1, 19)
_FEWEST_WEIGHTS = 1_000_000  # of a U-Net that is worth the seconds which OpenVINO takes to load it


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
