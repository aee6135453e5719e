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

from engines.base import Style
from faces.bank import Mouth, Pick
from faces.detail import restore_detail
from faces.mouth_shape import MouthShape
from faces.warp import draft, lips_mask
from latent_diffusion import (
    LATENT_SIDE,
    LIPS_PX,
    Conditions,
    LatentLipDiffusion,
    lips_of_sketch,
    rim_mask,
    shared_noise,
)
from models.audio_encoder import SpeechEncoder
from models.autoencoder import MouthAutoencoder
from models.checkpoint import load_pretrained
from models.lazy_speech import LazySpeech
from models.listening import SpeechListener, attend
from models.live_speech import LiveSpeech
from models.movement import MovementModel
from models.movement_track import Movement, MovementSettings
from models.networks import Networks, TorchNetworks
from models.phoneme_recogniser import PhonemeRecogniser
from models.phonemes import BILABIALS, Phoneme
from models.precision import fast_dtype
from models.speech_model import SpeechModel
from models.speech_track import Speech, SpeechTrack
from models.voice_activity import VoiceActivity

_SURE_LIPS = (0.7, 0.95)  # heard chance of p, b or m at which lips begin to be closed, and are so fully
_FEWEST_WEIGHTS = 1_000_000  # of a U-Net that is worth the seconds which OpenVINO takes to load it


@dataclass(frozen=True)
class Seen:
    """Frames as they are, F of them.

    Attributes:
        windows: uint8 (F, 160, 160, 3), mouth windows.
        points: their lips and jaw (F, P, 2), window px.
        closed: gap between the inner lips of the mesh when this person's mouth is closed, window px.
    """

    windows: np.ndarray
    points: np.ndarray
    closed: float

    def __len__(self) -> int:
        return len(self.windows)


@dataclass(frozen=True)
class Drafts:
    """What frames are drawn over.

    Attributes:
        pictures: uint8 (F, 160, 160, 3), the frames bent to the wanted shapes, with lips of other pictures.
        sketches: uint8 (F, 40, 40, 3), the wanted shapes drawn.
        opacity: (F,) in [0, 1], how much of the generator's picture is taken: 0 where the draft shows a real mouth of
            very nearly the wanted shape.
        regions: float32 (F, 96, 96), where lips are drawn; not of frames whose opacity is 0.
    """

    pictures: np.ndarray
    sketches: np.ndarray
    opacity: np.ndarray
    regions: np.ndarray

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, frames: slice) -> Drafts:
        return Drafts(
            self.pictures[frames],
            self.sketches[frames],
            self.opacity[frames],
            self.regions[frames],
        )

    @classmethod
    def join(cls, parts: Sequence[Drafts]) -> Drafts:
        """One after another."""
        names = ("pictures", "sketches", "opacity", "regions")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


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
        movement: what people do about the mean of what a sound lets expect.
        recogniser: hears phonemes, so that lips meet where the text is not known, too.
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
        movement: MovementModel,
        recogniser: PhonemeRecogniser,
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
        self._movement = movement.to(self.device, torch.float32).eval()
        self._recogniser = recogniser.to(self.device, torch.float32).eval()
        running = running or Running()
        # Before they are brought to the fast format: OpenVINO starts from the weights as they are.
        accelerated = self._accelerated(autoencoder, generator, running)
        self._autoencoder = self._fast(autoencoder)
        self._generator = self._fast(generator)
        self._compiled = running.compiled
        self._networks = accelerated or self._torch_networks()
        self._rim = rim_mask().numpy()

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
            load_pretrained(MovementModel, directory / size / "movement"),
            load_pretrained(PhonemeRecogniser, directory / size / "phonemes"),
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

    def lips_met(self, speech: Speech, first: int, stop: int) -> np.ndarray | None:
        """How surely each step is of p, b or m (T,), in [0, 1]; None where what comes after it is not yet known.

        What is said decides where it is known, else what is heard for certain.
        """
        stop = min(stop, len(speech))
        if speech.phonemes is not None:
            return np.isin(speech.phonemes[first:stop], list(BILABIALS)).astype(np.float32)
        if speech.ahead is not None:
            return None
        chance = np.exp(self._recogniser.heard(speech, first, stop)[:, list(BILABIALS)]).sum(axis=1)
        low, high = _SURE_LIPS
        return np.clip((chance - low) / (high - low), 0.0, 1.0)

    def movement(self, speech: Speech, resting: float, settings: MovementSettings) -> Movement:
        """The mouth shapes of one run of frames of a person.

        Args:
            speech: the whole sound.
            resting: gap between the lips of the person's resting mouth, window px.
            settings: how it is drawn.
        """
        return Movement(self._movement, SpeechListener(self._speech, speech), resting, settings)

    @torch.inference_mode()
    def predict_shape(
        self, speech: Speech, times: np.ndarray, resting: float | None = None, block: int = 500
    ) -> np.ndarray:
        """Mouth shape of frames, the mean of what fits the sound; see `movement` for what people do.

        Args:
            speech: the whole sound.
            times: seconds of the frames from the start of the sound (F,), rising.
            resting: gap between the lips of the person's resting mouth, window px; None = an average one.
            block: frames computed at once; does not change the result.

        Returns:
            (F, K) float32.
        """
        starts = range(0, len(times), block)
        parts = [attend(self._speech, speech, times[i : i + block], resting).shape[0] for i in starts]
        return torch.cat(parts).float().cpu().numpy()

    @torch.inference_mode()
    def face_tokens(self, faces: Sequence[Mouth]) -> torch.Tensor:
        """What the generator knows of a person's looks: tokens (1, N, D), of a few pictures of the mouth."""
        images = self._images(np.stack([face.picture for face in faces]))
        known = torch.from_numpy(np.stack([face.shape for face in faces]).astype(np.float32))
        return self._generator.face_encoder(images[None].to(self.dtype), known[None].to(self.device, self.dtype))

    @torch.inference_mode()
    def draft(self, seen: Seen, points: np.ndarray, picks: Sequence[Pick], opacity: np.ndarray) -> Drafts:
        """What frames are drawn over; each frame for itself, so windows that overlap need it only once.

        Args:
            seen: the frames.
            points: where lips and jaw shall be (F, P, 2), window px.
            picks: which mouths the lips are taken from.
            opacity: (F,), see `Drafts`.
        """
        frames = zip(seen.windows, seen.points, points, (pick.mouths for pick in picks), strict=True)
        pictures = np.stack([draft(*frame, seen.closed) for frame in frames])
        regions = np.zeros((len(seen), *self._rim.shape[1:]), np.float32)
        for index in np.flatnonzero(opacity):
            regions[index] = lips_mask(points[index])[LIPS_PX[0], LIPS_PX[1]] * self._rim[0]
        return Drafts(pictures, self.mouth_shape.sketch(points), opacity, regions)

    @torch.inference_mode()
    def draw(
        self,
        drafts: Drafts,
        faces: torch.Tensor,
        speech: Speech,
        times: np.ndarray,
        style: Style,
        at_rest: Drafts | None = None,
    ) -> torch.Tensor:
        """Draw the mouths of a window of frames. The caller cross-fades overlapping windows.

        Args:
            drafts: of successive frames, up to 32.
            faces: see `face_tokens`.
            speech: the whole sound.
            times: seconds of the frames from the start of the sound (F,).
            style: what the user chose.
            at_rest: drafts of the same frames with the mouth at rest, needed for guidance other than 1.

        Returns:
            Latents (F, 16, 12, 12) float32; zeros where no frame takes anything from the generator.
        """
        if not drafts.opacity.any():
            return torch.zeros(len(drafts), self._channels, LATENT_SIDE, LATENT_SIDE)
        others = self._others(drafts, faces, speech, times)
        conditions = self._generator.conditions(self.encode(drafts.pictures), *others)
        unguided = None
        if style.guidance != 1.0:
            nothing = torch.zeros(1, dtype=torch.bool, device=self.device)
            unguided = self._generator.conditions(self.encode(at_rest.pictures), *others, nothing, nothing)
        noise = shared_noise(len(drafts), self._channels, style.seed).to(self.device)
        unet = self._networks.difference
        return self._generator.sample(conditions, noise, style.steps, style.guidance, unguided, unet)[0]

    @torch.inference_mode()
    def render(self, drafts: Drafts, latents: torch.Tensor) -> np.ndarray:
        """The frames uint8 (F, 160, 160, 3) with the new mouths of `draw`; each frame for itself."""
        drawn = np.flatnonzero(drafts.opacity)
        if not len(drawn):
            return drafts.pictures
        decoded = self._networks.decode(latents[drawn]).clamp(-1, 1)
        mouths = ((decoded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        result, old = drafts.pictures.copy(), _lips(drafts.pictures)[drawn]
        opening = lips_of_sketch(drafts.sketches[drawn].transpose(0, 3, 1, 2))[:, 1]
        new = restore_detail(mouths, old, opening).astype(np.float32)
        weight = (drafts.regions[drawn] * drafts.opacity[drawn, None, None])[..., None]
        # Half is added for the rounding: what is mixed is never negative.
        result[drawn, LIPS_PX[0], LIPS_PX[1]] = (old + weight * (new - old) + 0.5).astype(np.uint8)
        return result

    @torch.no_grad()
    def conditions(self, drafts: Drafts, faces: torch.Tensor, speech: Speech, times: np.ndarray) -> Conditions:
        """What the generator is told about a window of frames, to train it further; arguments as in `draw`."""
        return self._generator.conditions(self.encode(drafts.pictures), *self._others(drafts, faces, speech, times))

    @torch.no_grad()
    def encode(self, windows: np.ndarray) -> torch.Tensor:
        """Latents (1, F, 16, 12, 12) float32 of the lips of mouth windows uint8 (F, 160, 160, 3)."""
        return self._networks.encode(self._images(_lips(windows)))[None]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Pixels (F, 3, 96, 96) float32, about [-1, 1], of latents (F, 16, 12, 12); differentiable."""
        return self._autoencoder.decode(latents.to(self.dtype)).float()

    @property
    def _channels(self) -> int:
        return self._autoencoder.config.latent_channels

    def _others(
        self, drafts: Drafts, faces: torch.Tensor, speech: Speech, times: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sketch, speech tokens and face tokens as `LatentLipDiffusion.conditions` takes them, batch of one."""
        heard = attend(self._speech, speech, times).tokens.to(self.dtype)
        return (lips_of_sketch(self._maps(drafts.sketches)) / 255)[None], heard, faces

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
            running.threads,
        )

    def _torch_networks(self) -> TorchNetworks:
        compiled = self._compiled and self.device.type == "cuda"
        return TorchNetworks(self._autoencoder, self._generator.unet, self.device, compiled)

    def _maps(self, images: np.ndarray) -> torch.Tensor:
        """uint8 (F, H, W, 3) -> (F, 3, H, W) float32 in [0, 255]."""
        return torch.from_numpy(np.ascontiguousarray(images)).to(self.device).permute(0, 3, 1, 2).float()

    def _images(self, images: np.ndarray) -> torch.Tensor:
        """uint8 (F, H, W, 3) -> (F, 3, H, W) float32 in [-1, 1]."""
        return (self._maps(images) / 127.5 - 1).contiguous(memory_format=torch.channels_last)

    def _fast(self, model: nn.Module) -> Any:
        return model.to(self.device, self.dtype).to(memory_format=torch.channels_last).eval().requires_grad_(False)


def _lips(windows: np.ndarray) -> np.ndarray:
    """The square that is drawn (F, 96, 96, 3) of mouth windows (F, 160, 160, 3)."""
    return windows[:, LIPS_PX[0], LIPS_PX[1]]
