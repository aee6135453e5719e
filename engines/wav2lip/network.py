"""Wav2Lip's generator: a face without its lower half, the same face as it is, and 0.2 s of sound become a new face.

Paper: Prajwal et al., 2020, https://arxiv.org/abs/2008.10010

The published network works at 96 px. Variants for larger faces have more blocks of the same kind, so the layout is
read from the shapes of the tensors: each block of the face's encoder halves the picture, but for the first, which
keeps it, and the last, whose kernel is what is left of it; the decoder goes the same way back.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from engines.published import fill, read_tensors
from utils.helpers import InputError

MEL_BANDS, MEL_COLUMNS = 80, 16
# Of the sound's encoder: channels, and stride (bands, columns) of each convolution; the last two see all that is left.
_SOUND = (
    (32, 1),
    (32, 1),
    (32, 1),
    (64, (3, 1)),
    (64, 1),
    (64, 1),
    (128, 3),
    (128, 1),
    (128, 1),
    (256, (3, 2)),
    (256, 1),
)
_SOUND_WIDTH = 512


@dataclass(frozen=True)
class Layout:
    """What differs between files of this kind.

    Attributes:
        down: of each block of the face's encoder the channels of its convolutions.
        up: the same of the decoder.
        first_kernel: of the first convolution, px.
        last_kernel: side of the picture before the last block of the encoder, px.
        head: channels before the picture.
    """

    down: tuple[tuple[int, ...], ...] = (
        (16,), (32,) * 3, (64,) * 4, (128,) * 3, (256,) * 3, (512,) * 2, (512,) * 2,
    )  # fmt: skip
    up: tuple[tuple[int, ...], ...] = (
        (512,), (512,) * 2, (512,) * 3, (384,) * 3, (256,) * 3, (128,) * 3, (64,) * 3,
    )  # fmt: skip
    first_kernel: int = 7
    last_kernel: int = 3
    head: int = 32

    @property
    def side(self) -> int:
        """Px of the face: 96 for the published network."""
        return self.last_kernel * 2 ** (len(self.down) - 2)


class _Conv(nn.Module):
    """Convolution, batch norm, ReLU; where it keeps the size and `residual`, the input is added before the ReLU."""

    def __init__(self, before: int, after: int, kernel: int, stride: int | tuple = 1, padding: int | None = None,
                 residual: bool = False) -> None:  # fmt: skip
        super().__init__()
        around = kernel // 2 if padding is None else padding
        self.conv_block = nn.Sequential(nn.Conv2d(before, after, kernel, stride, around), nn.BatchNorm2d(after))
        self._residual = residual

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        made = self.conv_block(maps)
        return torch.relu(made + maps if self._residual else made)


class _Doubled(nn.Module):
    """Transposed convolution, batch norm, ReLU."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        convolution = nn.ConvTranspose2d(before, after, kernel, stride, padding, output_padding=padding)
        self.conv_block = nn.Sequential(convolution, nn.BatchNorm2d(after))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv_block(maps))


class Wav2Lip(nn.Module):
    """The generator.

    Args:
        layout: see `Layout`.
    """

    def __init__(self, layout: Layout | None = None) -> None:
        super().__init__()
        layout = layout or Layout()
        self.side = layout.side
        self.face_encoder_blocks = nn.ModuleList(_down_blocks(layout))
        self.audio_encoder = nn.Sequential(*_sound_encoder())
        self.face_decoder_blocks = nn.ModuleList(_up_blocks(layout))
        last = layout.up[-1][-1] + layout.down[0][-1]
        self.output_block = nn.Sequential(_Conv(last, layout.head, 3), nn.Conv2d(layout.head, 3, 1), nn.Sigmoid())

    def forward(self, mel: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
        """New faces.

        Args:
            mel: (N, 1, 80, 16), see `engines.wav2lip.sound`.
            faces: (N, 6, side, side) in [0, 1]: BGR without the lower half | BGR.

        Returns:
            (N, 3, side, side) BGR in [0, 1].
        """
        skips = []
        for block in self.face_encoder_blocks:
            faces = block(faces)
            skips.append(faces)
        maps = self.audio_encoder(mel)
        for block in self.face_decoder_blocks:
            maps = torch.cat([block(maps), skips.pop()], dim=1)
        return self.output_block(maps)


def load_generator(path: Path) -> Wav2Lip:
    """A published `wav2lip.pth`, `wav2lip_gan.pth`, or a larger variant.

    Raises:
        InputError: the file cannot be read, or is of another network.
    """
    state = read_tensors(path)
    return fill(lambda: Wav2Lip(layout_of(state, path)), state, path)


def layout_of(state: dict[str, torch.Tensor], source: Path) -> Layout:
    """The layout that the shapes of a file's tensors show.

    Raises:
        InputError: they are of another kind of network.
    """
    down, up = _blocks(state, "face_encoder_blocks"), _blocks(state, "face_decoder_blocks")
    parts = ("face_encoder_blocks.0.0", f"face_encoder_blocks.{len(down) - 1}.0", "output_block.0")
    shapes = [tuple(state[name].shape) if name in state else () for name in (f"{p}.conv_block.0.weight" for p in parts)]
    if len(down) < 3 or len(down) != len(up) or any(len(shape) != 4 for shape in shapes):
        raise InputError(f"The weights {source} are not of Wav2Lip: its blocks are missing; give wav2lip.pth.")
    first, last, head = shapes
    return Layout(down, up, first[2], last[2], head[0])


def _blocks(state: dict[str, torch.Tensor], name: str) -> tuple[tuple[int, ...], ...]:
    """Channels of the convolutions of all blocks, by their norms."""
    found: dict[int, dict[int, int]] = {}
    for key, tensor in state.items():
        if match := re.fullmatch(rf"{name}\.(\d+)\.(\d+)\.conv_block\.1\.weight", key):
            found.setdefault(int(match[1]), {})[int(match[2])] = tensor.shape[0]
    return tuple(tuple(block[layer] for layer in sorted(block)) for _, block in sorted(found.items()))


def _down_blocks(layout: Layout) -> list[nn.Sequential]:
    before, blocks = 6, []
    for index, widths in enumerate(layout.down):
        if index == 0:
            first = _Conv(before, widths[0], layout.first_kernel)
        elif index == len(layout.down) - 1:
            first = _Conv(before, widths[0], layout.last_kernel, padding=0)
        else:
            first = _Conv(before, widths[0], 3, stride=2)
        ends = index == len(layout.down) - 1
        rest = [_Conv(width, width, 1) if ends else _Conv(width, width, 3, residual=True) for width in widths[1:]]
        blocks.append(nn.Sequential(first, *rest))
        before = widths[-1]
    return blocks


def _up_blocks(layout: Layout) -> list[nn.Sequential]:
    skips = [widths[-1] for widths in reversed(layout.down)]
    before, blocks = _SOUND_WIDTH, []
    for index, (widths, skip) in enumerate(zip(layout.up, skips, strict=True)):
        if index == 0:
            first: nn.Module = _Conv(before, widths[0], 1)
        elif index == 1:
            first = _Doubled(before, widths[0], layout.last_kernel, 1, 0)
        else:
            first = _Doubled(before, widths[0], 3, 2, 1)
        blocks.append(nn.Sequential(first, *[_Conv(width, width, 3, residual=True) for width in widths[1:]]))
        before = widths[-1] + skip
    return blocks


def _sound_encoder() -> Sequence[nn.Module]:
    before = 1
    for width, stride in _SOUND:
        yield _Conv(before, width, 3, stride=stride, residual=stride == 1 and width == before)
        before = width
    yield _Conv(before, _SOUND_WIDTH, 3, padding=0)
    yield _Conv(_SOUND_WIDTH, _SOUND_WIDTH, 1)
