"""Where the mouth window lies in a picture: similarity alignment onto a canonical 256x256 face, smoothed over time.

The canonical face has its eye centres at (92, 84) and (164, 84). The template is the mean of the 468-point mesh over
185 frames of 59 people, turned to the front and made symmetric. The mouth window is a fixed part of it, so the
generator only draws what can change.
"""

from __future__ import annotations

import cv2
import numpy as np

CANONICAL_SIZE = 256
WINDOW_ORIGIN = (48, 88)  # x, y of the mouth window's corner in the canonical face
WINDOW_SIZE = 160
SMOOTHING_S = 0.08  # standard deviation of the filter; longer blurs nods, shorter lets the mesh tremble
POINT_SMOOTHING_S = 0.03  # the mesh trembles by about a pixel from frame to frame; lips move slower than this

# Mesh indices. Order: around the contour, so that they can be filled as polygons.
LIPS_OUTER = [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146]
LIPS_INNER = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95]
JAW = [132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361]
EYE_CORNERS = [33, 133, 362, 263]

# Points that do not move with speech -> their place (x, y, z) on the canonical face: eye corners, bridge of the nose.
STABLE_POINTS = {
    33: (75.9, 83.4, 3.2),
    133: (108.1, 84.6, -3.2),
    362: (147.9, 84.6, -3.2),
    263: (180.1, 83.4, 3.2),
    9: (128.0, 57.3, -21.8),
    8: (128.0, 67.3, -21.2),
    168: (128.0, 76.2, -21.6),
    6: (128.0, 84.9, -27.4),
    197: (128.0, 92.6, -33.9),
    195: (128.0, 99.6, -41.0),
    5: (128.0, 107.1, -48.3),
}
STABLE = list(STABLE_POINTS)
TEMPLATE = np.array(list(STABLE_POINTS.values()), np.float64)


def _umeyama(source: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Least-squares similarity target = scale * R @ source + t (Umeyama 1991). Shapes (N, D)."""
    mean_s, mean_t = source.mean(0), target.mean(0)
    a, b = source - mean_s, target - mean_t
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.ones(source.shape[1])
    sign[-1] = np.sign(np.linalg.det(u @ vt))
    rotation = u @ np.diag(sign) @ vt
    scale = float((s * sign).sum() / max((a**2).sum(), 1e-9))
    return scale, rotation, mean_t - scale * rotation @ mean_s


def align_matrix(points: np.ndarray) -> np.ndarray:
    """Similarity from image px to canonical px. ``points``: mesh (468, 3) in image px. Returns float32 (2, 3)."""
    scale, rotation, shift = _umeyama(points[STABLE, :2].astype(np.float64), TEMPLATE[:, :2])
    return np.hstack([scale * rotation, shift[:, None]]).astype(np.float32)


def smooth_in_time(values: np.ndarray, times: np.ndarray, sigma_s: float = SMOOTHING_S) -> np.ndarray:
    """Zero-phase Gaussian filter along the first axis for samples at any times.

    Args:
        values: (T, ...).
        times: (T,) seconds, ascending.
        sigma_s: standard deviation in seconds.
    """
    times = np.asarray(times, np.float64)
    weights = np.exp(-0.5 * ((times[:, None] - times[None]) / sigma_s) ** 2)
    weights[np.abs(times[:, None] - times[None]) > 3 * sigma_s + 1e-6] = 0.0
    weights /= weights.sum(1, keepdims=True)
    return np.tensordot(weights, values, axes=1).astype(values.dtype)


def smooth_matrices(matrices: np.ndarray, times: np.ndarray, sigma_s: float = SMOOTHING_S) -> np.ndarray:
    """Filter alignment matrices (T, 2, 3) of one shot over time (T,) in seconds, without lag.

    A matrix is linear in where it sends a fixed point of the image, so filtering its entries filters those positions.
    """
    return smooth_in_time(matrices, times, sigma_s)


def window_matrix(matrix: np.ndarray) -> np.ndarray:
    """Image px -> mouth-window px, from image px -> canonical px. Both (2, 3)."""
    shifted = matrix.copy()
    shifted[:, 2] -= WINDOW_ORIGIN
    return shifted


def warp_window(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The mouth window (160, 160, 3) of an RGB image, given image px -> canonical px (2, 3).

    Faces larger than the window are reduced with an area filter first; bilinear sampling alone would alias.
    """
    to_window = window_matrix(matrix)
    shrink = 1.0 / max(float(np.hypot(*to_window[:, 0])), 1e-6)
    if shrink > 2.0:
        factor = 1.0 / (shrink / 1.5)
        image, to_window = _reduced(image, to_window, factor)
    return cv2.warpAffine(
        image, to_window, (WINDOW_SIZE, WINDOW_SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _reduced(image: np.ndarray, to_window: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Crop to what the window sees and scale it by ``factor`` < 1; the matrix is adjusted to match."""
    inverse = cv2.invertAffineTransform(to_window)
    corners = np.array([[0, 0], [WINDOW_SIZE, 0], [0, WINDOW_SIZE], [WINDOW_SIZE, WINDOW_SIZE]], np.float32)
    seen = corners @ inverse[:, :2].T + inverse[:, 2]
    height, width = image.shape[:2]
    x0, y0 = np.clip(np.floor(seen.min(0)).astype(int) - 2, 0, [width - 1, height - 1])
    x1, y1 = np.clip(np.ceil(seen.max(0)).astype(int) + 2, [x0 + 1, y0 + 1], [width, height])
    crop = image[y0:y1, x0:x1]
    size = (max(1, round(crop.shape[1] * factor)), max(1, round(crop.shape[0] * factor)))
    small = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    scale = np.array([crop.shape[1] / size[0], crop.shape[0] / size[1]], np.float32)
    # Pixel centres: x_image = (x_small + 0.5) * scale - 0.5 + x0
    adjusted = to_window.copy()
    adjusted[:, :2] = to_window[:, :2] * scale
    adjusted[:, 2] += to_window[:, :2] @ (0.5 * scale - 0.5 + np.array([x0, y0], np.float32))
    return small, adjusted


def to_window(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points (N, 2 or 3) in image px -> (N, 2) in window px, given image px -> canonical px (2, 3)."""
    shifted = window_matrix(matrix)
    return points[:, :2] @ shifted[:, :2].T + shifted[:, 2]


def head_pose(points: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees of a mesh (468, 3), relative to the frontal template.

    Positive yaw: the face looks to the image's right; positive pitch: it looks down; positive roll: it leans clockwise.
    """
    _, r, _ = _umeyama(TEMPLATE, points[STABLE].astype(np.float64))
    yaw = np.degrees(np.arctan2(-r[0, 2], r[2, 2]))
    pitch = np.degrees(np.arcsin(np.clip(-r[1, 2], -1, 1)))
    roll = np.degrees(np.arctan2(r[1, 0], r[0, 0]))
    return float(yaw), float(-pitch), float(roll)


def eye_distance(points: np.ndarray) -> float:
    """Distance between the eye centres in the picture, px; the measure of how large a face is."""
    left, right = points[EYE_CORNERS[:2], :2].mean(0), points[EYE_CORNERS[2:], :2].mean(0)
    return float(np.linalg.norm(right - left))
