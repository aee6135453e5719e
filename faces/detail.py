"""Fine detail and colour of skin, beard and lips: kept from the person's own picture.

A small generator draws the detail too soft, and where it is not sure of a colour it leaves a tint.
"""

from __future__ import annotations

import cv2
import numpy as np

_FINE_PX = 2.5  # standard deviation of the filter that separates fine detail from the rest
_MARGIN_PX = 5  # around the opening of the mouth, drawn by the generator alone: teeth and the lips' edges change there
_SOFT_PX = 3.0
_COLOUR_INSIDE = 0.5  # part of the colour that comes from the picture in the opening; outside it is all of it
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def restore_detail(generated: np.ndarray, draft: np.ndarray, opening: np.ndarray) -> np.ndarray:
    """Replace fine detail and colour of generated mouths by those of the pictures they were drawn from.

    The opening of the mouth keeps the generated detail and half of the generated colour. Light and shadow are the
    generated ones everywhere.

    Args:
        generated: uint8 (F, H, W, 3), the mouth window or a part of it.
        draft: the reference bent to the same shape, uint8 (F, H, W, 3).
        opening: coverage of the opening between the lips, uint8 (F, h, w), smaller.

    Returns:
        uint8 (F, H, W, 3).
    """
    return np.stack([_restore(*pictures) for pictures in zip(generated, draft, opening, strict=True)])


def _restore(generated: np.ndarray, draft: np.ndarray, opening: np.ndarray) -> np.ndarray:
    large = cv2.resize(opening, generated.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    grown = cv2.dilate(large, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _MARGIN_PX + 1,) * 2))
    inside = cv2.GaussianBlur(grown, (0, 0), _SOFT_PX).astype(np.float32)[..., None] / 255
    # One filter of the difference is the difference of the two filters.
    difference = draft.astype(np.float32) - generated
    coarse = cv2.GaussianBlur(difference, (0, 0), _FINE_PX)
    colour = coarse - (coarse @ _LUMA)[..., None]
    restored = generated + (1 - inside) * (difference - coarse) + (1 - _COLOUR_INSIDE * inside) * colour
    return np.clip(restored + 0.5, 0, 255).astype(np.uint8)
