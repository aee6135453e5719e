"""The generated mouth window put back into the frame: soft mask from the mesh, colours matched, inverse warp.

All work happens in window px except the last warp, which samples the window directly at the frame's own resolution, so
nothing is resampled twice. Lengths are px of a window 160 px high, and in proportion for other windows.
"""

from __future__ import annotations

import cv2
import numpy as np

from faces.alignment import JAW, LIPS_OUTER
from faces.window import GENERATED, WINDOW_SIZE
from utils.pictures import Patch

_UNDER_NOSE = [2, 205, 425]  # mesh: below the septum, and the cheeks beside the nostrils
_CHIN_DROP = 8.0  # px of the window that the chin may sink below the old one when the new mouth opens wider
_MARGIN = 4.0  # px of the window around the polygon that is still pasted fully or nearly so
_MATCH_SIGMA = 12.0  # px of the window; colour differences wider than this are evened out
_MATCH_REDUCE = 4  # the slow difference is computed on a picture this much smaller
_MATCH_ODD = 16.0  # levels off the median at which a difference counts for little
_MATCH_LIMIT = 40.0  # levels; a larger difference is not light but another surface (neck, collar, hand)
_DETAIL_SIGMA = 1.2  # px of the window; what is finer counts as sharpness
_MAX_SHARPEN = 0.6
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_GREY = 3  # levels by which the colours of black-and-white film may differ


def composite(
    frame_shape: tuple[int, ...],
    generated: np.ndarray,
    original: np.ndarray,
    window_matrix: np.ndarray,
    alpha: np.ndarray,
    fade: float = 1.0,
    matched_in: tuple[int, int, int, int] | None = GENERATED,
) -> Patch | None:
    """Make the patch that turns the original frame into the new one.

    Args:
        frame_shape: height, width (and more) of the frame.
        generated: uint8 RGB (H, W, 3), the new mouth window.
        original: uint8 RGB (H, W, 3), the same window of the original frame.
        window_matrix: (2, 3), frame px -> window px.
        alpha: float32 (H, W) in [0, 1], opacity of the new window.
        fade: 0..1, opacity of the whole patch.
        matched_in: x0, y0, x1, y1: the part of the window that is new, whose colour and sharpness are fitted to the
            original; None: they stay as they are.

    Returns:
        The patch in frame px, on even coordinates; None where nothing of it would be seen.
    """
    box = _frame_box(alpha, window_matrix, frame_shape)
    if box is None or fade <= 0.0:
        return None
    matched = generated.astype(np.float32)
    if _is_grey(original):
        matched[:] = matched @ _LUMA[:, None]
    if matched_in is not None:
        matched = match_detail(match_colour(matched, original, alpha), original, alpha, matched_in)
    x0, y0, x1, y1 = box
    shifted = window_matrix.astype(np.float64)
    shifted[:, 2] += shifted[:, :2] @ (x0, y0)
    image = _warp(_for_scale(matched, shifted), shifted, (x1 - x0, y1 - y0), cv2.INTER_CUBIC)
    weight = _warp(alpha * min(fade, 1.0), shifted, (x1 - x0, y1 - y0), cv2.INTER_LINEAR)
    weight[weight < 0.5 / 255] = 0.0  # would not change any 8-bit pixel, but spoil "identical outside"
    return Patch(x0, y0, np.clip(image, 0, 255).round().astype(np.uint8), np.clip(weight, 0, 1))


def soft_mask(
    points_window: np.ndarray,
    feather: float = 10.0,
    region: tuple[int, int, int, int] = GENERATED,
    size: tuple[int, int] = (WINDOW_SIZE, WINDOW_SIZE),
) -> np.ndarray:
    """Opacity of the pasted region, float32 (H, W) in [0, 1].

    A polygon from under the nose around the jaw to a little below the chin, cut to the generated rectangle;
    opacity rises from 0 at its edge to 1 over `feather` px, so the rectangle's edge itself is never seen.

    Args:
        points_window: mesh (468, 2) of the original face, window px.
        feather: softness of the rim, window px.
        region: x0, y0, x1, y1 of the generated rectangle.
        size: H and W of the window.
    """
    scale = _scale(size)
    hull = _UNDER_NOSE + JAW[2:-2] + LIPS_OUTER
    points = points_window[hull].astype(np.float32)
    dropped = points_window[JAW[2:-2]].astype(np.float32) + (0.0, _CHIN_DROP * scale)
    polygon = cv2.convexHull(np.concatenate([points, dropped]).astype(np.float32))
    mask = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(mask, polygon.round().astype(np.int32), 1)
    reach = 2 * round(_MARGIN * scale + feather / 2) + 1
    mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    x0, y0, x1, y1 = region
    inside = np.zeros_like(mask)
    inside[y0:y1, x0:x1] = mask[y0:y1, x0:x1]
    ramp = np.clip(cv2.distanceTransform(inside, cv2.DIST_L2, 5) / max(feather, 1.0), 0, 1)
    return (ramp * ramp * (3 - 2 * ramp)).astype(np.float32)


def match_colour(generated: np.ndarray, original: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Even out the slow colour difference that shows along the rim, over the whole window.

    The difference is measured where the mask is half open and both show the same skin. It is
    spread inwards by a wide blur that falls back to its mean far from the rim. Where the two differ by far
    more than light can explain (the chin moved against the neck), the difference counts little.

    Returns:
        float32 (H, W, 3), 0..255 but for overshoot.
    """
    height, width = alpha.shape
    small, sigma = (width // _MATCH_REDUCE, height // _MATCH_REDUCE), _MATCH_SIGMA * _scale(alpha.shape) / _MATCH_REDUCE
    before, after, opacity = (
        cv2.resize(x, small, interpolation=cv2.INTER_AREA).astype(np.float32) for x in (original, generated, alpha)
    )
    difference = before - after
    rim = 4 * opacity * (1 - opacity)
    middle = np.median(difference[rim > 0.2], axis=0) if np.any(rim > 0.2) else np.zeros(3, np.float32)
    odd = np.abs(difference - middle).max(-1)
    weight = (rim * np.exp(-((odd / _MATCH_ODD) ** 2)))[..., None]
    mean = (difference * weight).sum((0, 1)) / max(float(weight.sum()), 1e-3)
    spread = cv2.GaussianBlur((difference - mean) * weight, (0, 0), sigma)
    total = cv2.GaussianBlur(weight, (0, 0), sigma)[..., None]
    field = np.clip(mean + spread / (total + 0.02), -_MATCH_LIMIT, _MATCH_LIMIT).astype(np.float32)
    return generated + cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)


def match_detail(
    generated: np.ndarray,
    original: np.ndarray,
    alpha: np.ndarray,
    region: tuple[int, int, int, int] = GENERATED,
) -> np.ndarray:
    """Sharpen the generated window (float32) as far as its rim lacks the original's fine detail in a region."""
    rim = 4 * alpha * (1 - alpha)
    if rim.sum() < 1.0:
        return generated
    x0, y0, x1, y1 = region
    sigma = _DETAIL_SIGMA * _scale(alpha.shape)
    fine = generated - cv2.GaussianBlur(generated, (0, 0), sigma)
    real = original.astype(np.float32)
    real -= cv2.GaussianBlur(real, (0, 0), sigma)
    weight = rim[y0:y1, x0:x1, None]
    have, want = (np.sqrt((x[y0:y1, x0:x1] ** 2 * weight).sum() / (3 * weight.sum())) for x in (fine, real))
    return generated + np.clip(want / max(have, 0.5) - 1.0, 0.0, _MAX_SHARPEN) * fine


def _is_grey(window: np.ndarray) -> bool:
    """Whether a picture uint8 (H, W, 3) is black and white: nothing new in it may have a tint."""
    part = window[::4, ::4].astype(np.int16)
    return bool(np.percentile(np.ptp(part, axis=-1), 99) <= _GREY)


def _scale(size: tuple[int, ...]) -> float:
    """How much higher a window of this height (and width) is than the one that the lengths above are of."""
    return size[0] / WINDOW_SIZE


def _frame_box(
    alpha: np.ndarray, window_matrix: np.ndarray, frame_shape: tuple[int, ...]
) -> tuple[int, int, int, int] | None:
    """The even-aligned box in frame px that holds all of the mask; None when it lies outside of the frame."""
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    if not len(rows):
        return None
    x0, x1, y0, y1 = columns[0] - 1, columns[-1] + 1, rows[0] - 1, rows[-1] + 1
    inverse = cv2.invertAffineTransform(window_matrix.astype(np.float64))
    corners = np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]]) @ inverse[:, :2].T + inverse[:, 2]
    limit = np.array([frame_shape[1], frame_shape[0]])
    low = np.clip(np.floor(corners.min(0) / 2) * 2, 0, limit).astype(int)
    high = np.clip(np.ceil((corners.max(0) + 1) / 2) * 2, 0, limit).astype(int)
    if np.any(high <= low):
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _for_scale(window: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Blur a window that will be made smaller, else its fine detail would flicker as the face moves."""
    shrink = float(np.hypot(*matrix[:, 0]))
    return cv2.GaussianBlur(window, (0, 0), 0.25 * shrink) if shrink > 1.3 else window


def _warp(window: np.ndarray, matrix: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    """Sample a window at frame px; `matrix` maps px of the box to window px."""
    border = cv2.BORDER_CONSTANT if window.ndim == 2 else cv2.BORDER_REPLICATE
    return cv2.warpAffine(window, matrix, size, flags=interpolation | cv2.WARP_INVERSE_MAP, borderMode=border)
