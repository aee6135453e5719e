"""How Wav2Lip wants the face: a box around all of it, and what goes into and comes out of the network."""

from __future__ import annotations

import numpy as np
import torch

MARGIN_BELOW = 10  # px; the originals' `--pads 0 10 0 0`


def network_input(faces: np.ndarray) -> torch.Tensor:
    """(N, 6, side, side) float32 in [0, 1] of faces uint8 RGB (N, side, side, 3): the lower half hidden | all of it."""
    whole = torch.from_numpy(np.ascontiguousarray(faces[..., ::-1].transpose(0, 3, 1, 2))).float() / 255
    hidden = whole.clone()
    hidden[:, :, faces.shape[1] // 2 :] = 0
    return torch.cat([hidden, whole], dim=1)


def pictures(output: torch.Tensor) -> np.ndarray:
    """uint8 RGB (N, side, side, 3) of what the network makes; truncated as theirs."""
    return (output * 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()[..., ::-1]


def padded_box(box: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
    """A face's box (4,) x0, y0, x1, y1 px with the originals' margin, within a frame of this height and width."""
    height, width = frame
    x0, y0, x1, y1 = box
    return np.array([max(x0, 0), max(y0, 0), min(x1, width), min(y1 + MARGIN_BELOW, height)])
