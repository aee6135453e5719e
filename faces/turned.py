"""Heads that look aside: what holds for a face seen from the front is wrong for them by many pixels.

There a person's resting mouth is known less well, movement is seen foreshortened, and the line of the jaw is an outline
in front of the background. So the more a face looks aside, the more the mouth's place and the jaw are taken from the
frame itself. Nothing changes for a face that looks ahead, whose frame would tell what the old mouth said.
"""

from __future__ import annotations

import numpy as np

from faces.alignment import LIPS_OUTER, aligned_projection
from faces.mouth_shape import JAW_PART, MouthShape, Neutral, mouth_opening

_OUTER = slice(0, len(LIPS_OUTER))
_UPPER_LIP = slice(0, len(LIPS_OUTER) // 2 + 1)  # of the outer lips; it moves with the head far more than with speech
_AHEAD = (0.35, 0.65)  # narrower part of the face beside the lips, in parts of the wider: turned away, looks ahead


def looks_ahead(points: np.ndarray) -> np.ndarray:
    """Whether faces with lips and jaw (..., P, 2) look ahead (...,), 0..1: as much beside the lips left as right."""
    middle, jaw = points[..., _OUTER, 0].mean(-1), points[..., JAW_PART, 0]
    left, right = middle - jaw.min(-1), jaw.max(-1) - middle
    low, high = _AHEAD
    narrow = np.minimum(left, right) / np.maximum(np.maximum(left, right), 1.0)
    return np.clip((narrow - low) / (high - low), 0, 1)


def resting(shape: MouthShape, neutral: Neutral, own: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """The resting mouth in frames (T, P, 2), window px: `MouthShape.base`, at the upper lip of those that look aside.

    Args:
        shape: how mouths lie in turned heads.
        neutral: the person's resting mouth.
        own: lips and jaw of the frames (T, P, 2), window px.
        pose: of the frames (T, 3), degrees.
    """
    base = shape.base(neutral, pose)
    off = (own[:, _UPPER_LIP] - base[:, _UPPER_LIP]).mean(axis=1)
    return (base + ((1 - looks_ahead(own))[:, None] * off)[:, None]).astype(np.float32)


def seen_aside(points: np.ndarray, base: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Lips and jaw (T, P, 2) whose movement about the resting mouth, as from the front, is seen at a pose (T, 3)."""
    flat = aligned_projection(pose)[0][:, :, :2]
    return (base + np.einsum("tij,tpj->tpi", flat, points - base)).astype(np.float32)


def with_own_jaw(shape: MouthShape, points: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Lips and jaw (T, P, 2), the jaw of those that look aside only as far from the frame's own as the lips part more.

    Args:
        shape: how the jaw moves with the lips.
        points: wanted (T, P, 2), window px.
        own: of the frames (T, P, 2), window px.
    """
    further = mouth_opening(points) - mouth_opening(own)
    jaw = own[:, JAW_PART] + further[:, None, None] * shape.opening_move[JAW_PART]
    moved = points.copy()
    moved[:, JAW_PART] += (1 - looks_ahead(own))[:, None, None] * (jaw - points[:, JAW_PART])
    return moved
