"""SyncNetV2: do these 16 frames of a mouth, or of its shape, and this 0.64 s of sound belong together?"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from models.library import ConfigMixin, ModelMixin, register_to_config

WINDOW = 16  # frames in a window, at 25 fps
CROP_TOP, CROP_LEFT, CROP_SIDE = 32, 16, 128  # px of the 160x160 mouth window that the network looks at
INPUT_SIDE = 96  # px to which that crop is scaled
SPEECH_STEPS = 32  # 50 Hz steps of speech features in a window
SPEECH_LAYERS, SPEECH_WIDTH = 5, 384
MEL_BANDS, MEL_STEPS = 80, 64  # 100 Hz steps of log-mel in a window
LUMA = (0.299, 0.587, 0.114)


class SyncResult(NamedTuple):
    """How well a mouth follows a sound.

    Attributes:
        offset: frames; frame i of the picture fits the sound at frame i + offset best (0 = in sync).
        confidence: LSE-C, median over shifts of the mean distance, minus the smallest one; higher is better.
        distance: LSE-D, the smallest mean distance over the shifts, 0 to 2; lower is better.
    """

    offset: int
    confidence: float
    distance: float


class SyncNetV2(ModelMixin, ConfigMixin):
    """Two towers whose unit-length embeddings are close when mouth and sound belong together.

    Args:
        audio_input: "speech" (hidden states of a frozen speech encoder) or "mel" (log-mel spectrogram).
        visual_widths: channels of the mouth tower's stages: at 1/4 of the side, then halved by each.
        audio_width: channels of the sound tower.
        embedding: numbers in an embedding.
        dropout: fraction of activations dropped before the embedding.
        visual_input: "pixels" (mouth windows) or "shapes" (their coefficients, for networks that draw nothing else);
            of shapes the tower's stages each halve the frames.
        shape_coefficients: numbers of a mouth shape.
    """

    @register_to_config
    def __init__(
        self,
        audio_input: Literal["speech", "mel"] = "speech",
        visual_widths: tuple[int, ...] = (96, 128, 192, 256),
        audio_width: int = 192,
        embedding: int = 256,
        dropout: float = 0.1,
        visual_input: Literal["pixels", "shapes"] = "pixels",
        shape_coefficients: int = 10,
    ) -> None:
        super().__init__()
        if visual_input == "shapes":
            self.visual_tower = ShapeTower(shape_coefficients, tuple(visual_widths), embedding, dropout)
        else:
            self.visual_tower = MouthTower(tuple(visual_widths), embedding, dropout)
        tower = SpeechTower if audio_input == "speech" else MelTower
        self.audio_tower = tower(audio_width, embedding, dropout)

    def visual(self, frames: torch.Tensor) -> torch.Tensor:
        """Mouth windows (B, 16, 3, 160, 160) in [-1, 1] -> unit embeddings (B, D)."""
        return F.normalize(self.visual_tower(standardise(to_grey(frames))).float(), dim=-1)

    def audio(self, window: torch.Tensor) -> torch.Tensor:
        """Speech (B, 32, 5, 384) or log-mel (B, 80, 64), as `audio_input` says -> unit embeddings (B, D)."""
        return F.normalize(self.audio_tower(window).float(), dim=-1)

    def embed_video(self, frames: torch.Tensor, batch: int = 64) -> torch.Tensor:
        """Every window of a clip (T, 3, 160, 160) in [-1, 1], T >= 16 -> unit embeddings (T - 15, D)."""
        windows = to_grey(frames).unfold(0, WINDOW, 1).permute(0, 3, 1, 2)
        parts = [self.visual_tower(standardise(part)) for part in windows.split(batch)]
        return F.normalize(torch.cat(parts).float(), dim=-1)

    def embed_shapes(self, shapes: torch.Tensor) -> torch.Tensor:
        """Every window of mouth shapes (..., T, K), T >= 16 -> unit embeddings (..., T - 15, D)."""
        windows = shapes.unfold(-2, WINDOW, 1).transpose(-1, -2)
        found = self.visual_tower(windows.flatten(0, -3))
        return F.normalize(found.float(), dim=-1).view(*windows.shape[:-2], -1)

    def embed_audio(self, features: torch.Tensor, batch: int = 256) -> torch.Tensor:
        """Every window of a clip's sound, one per frame at 25 fps.

        Args:
            features: speech (T50, 5, 384) at 50 Hz or log-mel (80, T100) at 100 Hz, at least one window long.
            batch: windows computed at once.

        Returns:
            Unit embeddings (S, D); the first belongs to the frames 0 to 15.
        """
        if self.config.audio_input == "speech":
            windows = features.unfold(0, SPEECH_STEPS, 2).permute(0, 3, 1, 2)
        else:
            windows = features.unfold(1, MEL_STEPS, 4).permute(1, 0, 2)
        return torch.cat([self.audio(part) for part in windows.split(batch)])


def to_grey(frames: torch.Tensor) -> torch.Tensor:
    """Mouth windows (..., 3, 160, 160) in [-1, 1] -> grey crops (..., 96, 96) in [-1, 1], differentiable."""
    crop = frames[..., CROP_TOP : CROP_TOP + CROP_SIDE, CROP_LEFT : CROP_LEFT + CROP_SIDE]
    red, green, blue = crop.unbind(-3)
    grey = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    flat = grey.reshape(-1, 1, CROP_SIDE, CROP_SIDE)
    small = F.interpolate(flat, size=INPUT_SIDE, mode="bilinear", align_corners=False)
    return small.reshape(*grey.shape[:-2], INPUT_SIDE, INPUT_SIDE)


class MouthTower(nn.Module):
    """Standardised grey mouth crops (B, 16, 96, 96) -> (B, D), not normalised.

    The frames are channels of a plain 2-D network. Its first kernels are parametrised in frequencies over time: in
    the frames themselves what does not move outweighs by far what does, and learning starts late.
    """

    def __init__(self, widths: tuple[int, ...], embedding: int, dropout: float) -> None:
        super().__init__()
        self.stem_weight = nn.Parameter(torch.empty(widths[0], WINDOW, 7, 7))
        nn.init.kaiming_normal_(self.stem_weight, nonlinearity="relu")
        self.register_buffer("frequencies", temporal_frequencies(WINDOW), persistent=False)
        self.stem_norm = nn.Sequential(nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True))
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.stages = nn.Sequential(*(nn.Sequential(down(a, b), Residual(b)) for a, b in pairs))
        side = INPUT_SIDE // 4 // 2 ** (len(widths) - 1)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1] * side**2, embedding))

    def forward(self, grey: torch.Tensor) -> torch.Tensor:
        kernels = torch.einsum("ochw,ct->othw", self.stem_weight, self.frequencies)
        grey = grey.contiguous(memory_format=torch.channels_last)
        return self.head(self.stages(self.stem_norm(F.conv2d(grey, kernels, stride=4, padding=3))))


class ShapeTower(nn.Module):
    """Mouth shapes (B, 16, K) -> (B, D), not normalised: 1-D convolutions over time."""

    def __init__(self, coefficients: int, widths: tuple[int, ...], embedding: int, dropout: float) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv1d(coefficients, widths[0], 1), nn.Dropout1d(dropout))
        self.body = nn.Sequential(*(down_1d(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)))
        steps = WINDOW // 2 ** (len(widths) - 1)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1] * steps, embedding))

    def forward(self, shapes: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.squeeze(shapes.transpose(1, 2))))


def standardise(windows: torch.Tensor) -> torch.Tensor:
    """Give windows (B, F, H, W) zero mean and unit spread each: brightness and contrast do not matter."""
    # A sixteenth of the pixels tells both well enough.
    spread, mean = torch.std_mean(windows[..., ::4, ::4], dim=(1, 2, 3), keepdim=True)
    return (windows - mean) / (spread + 1e-3)


def temporal_frequencies(length: int) -> torch.Tensor:
    """Orthonormal cosine transform over time (length, length), its constant part scaled down, the rest up."""
    steps = torch.arange(length, dtype=torch.float32)
    basis = torch.cos(math.pi / length * (steps[None] + 0.5) * steps[:, None]) * math.sqrt(2 / length)
    basis[0] *= math.sqrt(0.5)
    scale = torch.full((length, 1), 3.0)
    scale[0] = 0.25
    return basis * scale


def down(before: int, after: int) -> nn.Sequential:
    """A convolution that halves the side."""
    convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two 3x3 convolutions with a bypass."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.body(x))


class SpeechTower(nn.Module):
    """Speech features (B, 32, 5, 384) -> (B, D), not normalised: a learned mix of the layers, then 1-D convolutions."""

    def __init__(self, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(SPEECH_LAYERS))
        self.squeeze = nn.Sequential(nn.Conv1d(SPEECH_WIDTH, width, 1), nn.Dropout1d(dropout))
        self.body = nn.Sequential(*(down_1d(width, width) for _ in range(3)))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(width * SPEECH_STEPS // 8, embedding))

    def forward(self, speech: torch.Tensor) -> torch.Tensor:
        # Each layer has a scale of its own, the last some ten times that of the first.
        speech = F.layer_norm(speech.float(), (SPEECH_WIDTH,))
        mixed = torch.einsum("btlc,l->bct", speech, self.mix.softmax(0))
        return self.head(self.body(self.squeeze(mixed)))


def down_1d(before: int, after: int) -> nn.Sequential:
    """Two convolutions over time, the second halves the steps."""
    return nn.Sequential(
        nn.Conv1d(before, before, 3, padding=1, bias=False),
        nn.BatchNorm1d(before),
        nn.ReLU(inplace=True),
        nn.Conv1d(before, after, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm1d(after),
        nn.ReLU(inplace=True),
    )


class MelTower(nn.Module):
    """Log-mel (B, 80, 64) -> (B, D), not normalised: 2-D convolutions over bands and time."""

    def __init__(self, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        widths = (1, width // 4, width // 2, width, width)
        layers = [nn.Sequential(down(a, b), Residual(b)) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        self.body = nn.Sequential(*layers)
        cells = (MEL_BANDS // 16) * (MEL_STEPS // 16)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(width * cells, embedding))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        spread, mean = torch.std_mean(mel.float(), dim=(1, 2), keepdim=True)
        return self.head(self.body(((mel - mean) / (spread + 1e-3))[:, None]))


def shift_distances(visual: torch.Tensor, audio: torch.Tensor, max_shift: int = 15) -> dict[int, float]:
    """Mean distance of mouth and sound for each shift that enough windows allow.

    Args:
        visual: unit embeddings of the picture's windows (T', D), one per frame.
        audio: unit embeddings of the sound's windows (S', D), one per frame.
        max_shift: largest shift either way, frames.

    Returns:
        {shift: mean over i of |visual[i] - audio[i + shift]|}; a shift is left out when fewer than a third of the
        windows (at least one) overlap.
    """
    distances = torch.cdist(visual.float(), audio.float())
    needed = max(1, min(distances.shape) // 3)
    means = {}
    for shift in range(-max_shift, max_shift + 1):
        diagonal = distances.diagonal(shift)
        if len(diagonal) >= needed:
            means[shift] = diagonal.mean().item()
    return means


def offset_search(visual: torch.Tensor, audio: torch.Tensor, max_shift: int = 15) -> SyncResult:
    """Find the shift at which mouth and sound fit best over a whole clip.

    The definition is that of the LSE-D and LSE-C scores (mean distance over all windows for every shift, smallest
    one, median minus smallest), with this network's embeddings: numbers compare only within one network.

    Args:
        visual, audio, max_shift: see `shift_distances`; both (n, D) with n >= 1.
    """
    means = shift_distances(visual, audio, max_shift)
    best = min(means, key=means.__getitem__)
    median = torch.tensor(list(means.values())).median().item()
    return SyncResult(best, median - means[best], means[best])


# The public SyncNet: what the field's LSE-C and LSE-D are measured with.
PUBLIC_SIDE = 224  # px of its face crop
PUBLIC_WINDOW = 5  # frames in a window, at 25 fps
PUBLIC_STEPS, PUBLIC_STEPS_PER_FRAME = 20, 4  # 100 Hz steps of MFCC in a window and in a frame
PUBLIC_COEFFICIENTS = 13  # MFCCs of a step
PUBLIC_SHIFT = 15  # frames either way in the search


class PublicSyncNet(nn.Module):
    """SyncNet of Chung and Zisserman 2016 as github.com/joonson/syncnet_python (MIT) has it; 13.6 M parameters.

    Only the architecture is here. Its weights (``syncnet_v2.model``) are the user's to get; names and sizes of the
    tensors are those of that file, so ``models.checkpoint.load_checked`` fills it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_public_layer(nn.Conv2d, 1, 64, 3, padding=1),
            nn.MaxPool2d(1, stride=1),
            *_public_layer(nn.Conv2d, 64, 192, 3, padding=1),
            nn.MaxPool2d(3, stride=(1, 2)),
            *_public_layer(nn.Conv2d, 192, 384, 3, padding=1),
            *_public_layer(nn.Conv2d, 384, 256, 3, padding=1),
            *_public_layer(nn.Conv2d, 256, 256, 3, padding=1),
            nn.MaxPool2d(3, stride=2),
            *_public_layer(nn.Conv2d, 256, 512, (5, 4)),
        )
        self.netfcaud = _public_head()
        self.netfclip = _public_head()
        self.netcnnlip = nn.Sequential(
            *_public_layer(nn.Conv3d, 3, 96, (PUBLIC_WINDOW, 7, 7), stride=(1, 2, 2)),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *_public_layer(nn.Conv3d, 96, 256, (1, 5, 5), stride=(1, 2, 2), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            *_public_layer(nn.Conv3d, 256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *_public_layer(nn.Conv3d, 256, 256, (1, 3, 3), padding=(0, 1, 1)),
            *_public_layer(nn.Conv3d, 256, 256, (1, 3, 3), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *_public_layer(nn.Conv3d, 256, 512, (1, 6, 6)),
        )

    def visual(self, frames: torch.Tensor) -> torch.Tensor:
        """Face crops (B, 3, 5, 224, 224), BGR in 0..255 -> embeddings (B, 1024), of any length."""
        return self.netfclip(self.netcnnlip(frames).flatten(1))

    def audio(self, mfcc: torch.Tensor) -> torch.Tensor:
        """Sound (B, 1, 13, 20) -> embeddings (B, 1024), of any length."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def embed_video(self, frames: torch.Tensor, batch: int = 8) -> torch.Tensor:
        """Every window of a clip (T, 3, 224, 224), BGR in 0..255, T >= 6 -> (T - 5, 1024).

        The last window is left out, as the original does.
        """
        windows = frames.unfold(0, PUBLIC_WINDOW, 1)[:-1].permute(0, 1, 4, 2, 3)
        return torch.cat([self.visual(part.float()) for part in windows.split(batch)])

    def embed_audio(self, mfcc: torch.Tensor, batch: int = 64) -> torch.Tensor:
        """Every window of a sound (13, T100) at 100 Hz, T100 >= 20 -> (S, 1024), one for each frame at 25 fps."""
        windows = mfcc.unfold(1, PUBLIC_STEPS, PUBLIC_STEPS_PER_FRAME).permute(1, 0, 2)
        return torch.cat([self.audio(part[:, None].float()) for part in windows.split(batch)])


def public_offset_search(visual: torch.Tensor, audio: torch.Tensor, max_shift: int = PUBLIC_SHIFT) -> SyncResult:
    """LSE-C, LSE-D and the offset exactly as the public tool finds them.

    Unlike `offset_search` it averages over all frames at every shift; beyond the ends the sound counts as an embedding
    of zeros, which makes far shifts of short clips look alike.

    Args:
        visual, audio: embeddings (n, D) of picture and sound of one clip, one per frame; the longer one is cut.
        max_shift: largest shift either way, frames.

    Returns:
        The offset has the sign of `SyncResult`; the tool prints the opposite one.
    """
    count = min(len(visual), len(audio))
    padded = F.pad(audio[:count].float(), (0, 0, max_shift, max_shift))
    means = torch.stack(
        [
            F.pairwise_distance(visual[:count].float(), padded[shift : shift + count]).mean()
            for shift in range(2 * max_shift + 1)
        ]
    )
    best = int(means.argmin())
    return SyncResult(best - max_shift, float(means.median() - means[best]), float(means[best]))


def _public_layer(kind: type[nn.Module], before: int, after: int, size: int | tuple, **settings: object) -> tuple:
    """A convolution with bias, its batch norm and ReLU."""
    norm = nn.BatchNorm2d if kind is nn.Conv2d else nn.BatchNorm3d
    return kind(before, after, size, **settings), norm(after), nn.ReLU(inplace=True)


def _public_head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Linear(512, 1024))
