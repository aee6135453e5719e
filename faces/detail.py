"""Fine detail of skin and beard: kept from the person's own picture, since a small generator draws it too soft."""

from __future__ import annotations

import cv2
import numpy as np

from faces.alignment import WINDOW_SIZE

_FINE_PX = 2.5  # standard deviation of the filter that separates fine detail from the rest
_MARGIN_PX = 5  # around the opening of the mouth, drawn by the generator alone: teeth and the lips' edges change there
_SOFT_PX = 3.0


def restore_detail(generated: np.ndarray, draft: np.ndarray, opening: np.ndarray) -> np.ndarray:
    """Replace the fine detail of generated mouths by that of the pictures they were drawn from, except in the mouth.

    Args:
        generated: uint8 (F, 160, 160, 3).
        draft: the reference bent to the same shape, uint8 (F, 160, 160, 3).
        opening: coverage of the opening between the lips, uint8 (F, 40, 40).

    Returns:
        uint8 (F, 160, 160, 3).
    """
    return np.stack([_restore(*pictures) for pictures in zip(generated, draft, opening, strict=True)])


def _restore(generated: np.ndarray, draft: np.ndarray, opening: np.ndarray) -> np.ndarray:
    large = cv2.resize(opening, (WINDOW_SIZE, WINDOW_SIZE), interpolation=cv2.INTER_LINEAR)
    grown = cv2.dilate(large, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * _MARGIN_PX + 1,) * 2))
    inside = cv2.GaussianBlur(grown, (0, 0), _SOFT_PX).astype(np.float32)[..., None] / 255
    # One filter of the difference is the difference of the two filters.
    difference = draft.astype(np.float32) - generated
    fine = difference - cv2.GaussianBlur(difference, (0, 0), _FINE_PX)
    return np.clip(generated + (1 - inside) * fine + 0.5, 0, 255).astype(np.uint8)
