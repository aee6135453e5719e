"""Where the window that an engine draws lies in a picture: `Geometry`, and the one that is used unless an engine says
otherwise: similarity alignment onto a canonical 256x256 face, smoothed over time.

The canonical face has its eye centres at (92, 84) and (164, 84). The template is the mean of the 468-point mesh over
185 frames of 59 people, turned to the front and made symmetric. The window is a fixed part of it, so that an engine
only draws what can change.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

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


@dataclass(frozen=True)
class Geometry:
    """How an engine wants the face: a window of a plane onto which the face is brought.

    Here the plane is the canonical face. Engines that were trained on another crop override `align`, `smooth`, and
    `warp` where it has to be sampled in another way.

    Attributes:
        height, width: of the window, px.
        origin: x, y of the window's corner in the plane.
        reach_s: how far away, in seconds, frames still influence what `smooth` says of a frame.
    """

    height: int
    width: int
    origin: tuple[int, int] = (0, 0)
    reach_s: float = 3 * SMOOTHING_S

    def align(self, points: np.ndarray, frame: tuple[int, int]) -> np.ndarray:
        """Frame px -> plane px, float32 (2, 3), of a mesh (468, 3) in px of a frame of this height and width."""
        return align_matrix(points)

    def smooth(self, matrices: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Such matrices (T, 2, 3) of successive frames of one shot, smoothed over their times (T,) in seconds."""
        return smooth_matrices(matrices, times)

    def warp(self, image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """The window, uint8 (height, width, 3), of an RGB image (H, W, 3), given image px -> plane px (2, 3).

        Faces larger than the window are reduced with an area filter first; bilinear sampling alone would alias.
        """
        to_window = self.window_matrix(matrix)
        shrink = 1.0 / max(float(np.hypot(*to_window[:, 0])), 1e-6)
        if shrink > 2.0:
            image, to_window = _reduced(image, to_window, self.corners().astype(np.float32), 1.0 / (shrink / 1.5))
        return cv2.warpAffine(
            image, to_window, (self.width, self.height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )

    def window_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """Image px -> window px, from image px -> plane px. Both (2, 3)."""
        shifted = matrix.copy()
        shifted[:, 2] -= self.origin
        return shifted

    def to_window(self, points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Points (N, 2 or 3) in image px -> (N, 2) in window px, given image px -> plane px (2, 3)."""
        shifted = self.window_matrix(matrix)
        return points[:, :2] @ shifted[:, :2].T + shifted[:, 2]

    def corners(self, margin: float = 0.0) -> np.ndarray:
        """Corners (4, 2) float64 of the window and of so many px around it, window px."""
        right, below = self.width + margin, self.height + margin
        return np.array([[-margin, -margin], [right, -margin], [-margin, below], [right, below]], np.float64)


def _reduced(
    image: np.ndarray, to_window: np.ndarray, corners: np.ndarray, factor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Crop to what lies between the window's corners, scaled by ``factor`` < 1; the matrix is adjusted to match."""
    inverse = cv2.invertAffineTransform(to_window)
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


def head_pose(points: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees of a mesh (468, 3), relative to the frontal template.

    Positive yaw: the face looks to the image's right; positive pitch: it looks down; positive roll: it leans clockwise.
    """
    _, r, _ = _umeyama(TEMPLATE, points[STABLE].astype(np.float64))
    yaw = np.degrees(np.arctan2(-r[0, 2], r[2, 2]))
    pitch = np.degrees(np.arcsin(np.clip(-r[1, 2], -1, 1)))
    roll = np.degrees(np.arctan2(r[1, 0], r[0, 0]))
    return float(yaw), float(-pitch), float(roll)


def aligned_projection(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points of the canonical face lie once a head at some pose is aligned as `align_matrix` aligns it.

    A turned head is narrower and its nose stands aside; alignment by the stable points shifts and scales all of it.

    Args:
        pose: (T, 3) yaw, pitch and roll, degrees, as `head_pose` gives them.

    Returns:
        Matrices (T, 2, 3) and shifts (T, 2): canonical x, y, z -> canonical px of the aligned picture.
    """
    turned = _rotations(pose)[:, :2]
    seen = np.einsum("tij,pj->tpi", turned, TEMPLATE)
    middle, target = seen.mean(axis=1), TEMPLATE[:, :2].mean(axis=0)
    # A similarity of the plane is one complex factor, so least squares are one division.
    source, wanted = ((x - m) @ (1, 1j) for x, m in ((seen, middle[:, None]), (TEMPLATE[:, :2], target)))
    factor = (source.conj() * wanted).sum(axis=1) / np.maximum((np.abs(source) ** 2).sum(axis=1), 1e-9)
    similarity = np.stack([factor.real, -factor.imag, factor.imag, factor.real], axis=-1).reshape(-1, 2, 2)
    return similarity @ turned, target - np.einsum("tij,tj->ti", similarity, middle)


def _rotations(pose: np.ndarray) -> np.ndarray:
    """(T, 3, 3) of poses (T, 3) in degrees; `head_pose` finds yaw and pitch of them again, and the roll nearly."""
    (cy, cp, cr), (sy, sp, sr) = (f(np.radians(pose * (1, -1, 1), dtype=np.float64)).T for f in (np.cos, np.sin))
    zero, one = np.zeros_like(cy), np.ones_like(cy)
    yaw = [cy, zero, -sy, zero, one, zero, sy, zero, cy]
    pitch = [one, zero, zero, zero, cp, -sp, zero, sp, cp]
    roll = [cr, -sr, zero, sr, cr, zero, zero, zero, one]
    yaw, pitch, roll = (np.stack(part, axis=-1).reshape(-1, 3, 3) for part in (yaw, pitch, roll))
    return yaw @ pitch @ roll


def eye_distance(points: np.ndarray) -> float:
    """Distance between the eye centres in the picture, px; the measure of how large a face is."""
    left, right = points[EYE_CORNERS[:2], :2].mean(0), points[EYE_CORNERS[2:], :2].mean(0)
    return float(np.linalg.norm(right - left))
