"""What results are measured by: pure functions on arrays, no files and no networks.

Images are uint8 RGB mouth windows (T, H, W, 3) of the aligned face, so that pixels of two videos correspond; points are
(T, P, 2) in px of that window. Every function says its unit and whether less or more is better.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from skimage.metrics import structural_similarity

_SSIM_SIGMA = 1.5  # px, as in the paper
_WHITE = 255.0
_EPSILON = 1e-10


def landmark_distance(points: np.ndarray, truth: np.ndarray, unit: float) -> float:
    """LMD: mean distance of corresponding points, as a fraction of `unit`; 0 is best (Chen et al. 2018, section 5.1).

    Args:
        points, truth: (T, P, 2) px, aligned in the same way.
        unit: length that makes faces of different size comparable, px; here the distance between the eyes.
    """
    return float(np.linalg.norm(points - truth, axis=-1).mean() / unit)


def ssim(images: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity of the brightness, mean over frames; 1 is best (Wang et al. 2004, Gaussian of 1.5 px).

    Args:
        images, truth: uint8 RGB (T, H, W, 3), both sides at least 11 px.
    """
    pairs = zip(map(_grey, images), map(_grey, truth), strict=True)
    settings = {"gaussian_weights": True, "sigma": _SSIM_SIGMA, "use_sample_covariance": False, "data_range": _WHITE}
    return float(np.mean([structural_similarity(a, b, **settings) for a, b in pairs]))


def psnr(images: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels, mean over frames; more is better.

    A frame that is equal counts as an error of 1e-10 levels squared (148 dB), so that the mean stays a number.

    Args:
        images, truth: uint8 RGB (T, H, W, 3).
    """
    error = (images.astype(np.float32) - truth.astype(np.float32)) ** 2
    mean = np.maximum(error.mean(axis=(1, 2, 3), dtype=np.float64), _EPSILON)
    return float(np.mean(10 * np.log10(_WHITE**2 / mean)))


def perceptual_distance(maps: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Distance of a network's feature maps, mean over frames; 0 is best.

    Per stage of the network the features of each place are scaled to length 1, their squared difference is averaged
    over places; the stages are averaged. This is equation 1 of Zhang et al. 2018 with equal weights: without their
    trained weights it is not LPIPS and the numbers do not compare with it.

    Args:
        maps, truth: one array (T, C, H, W) for each stage.
    """
    stages = []
    for a, b in zip(maps, truth, strict=True):
        difference = _unit(a, axis=1) - _unit(b, axis=1)
        stages.append((difference**2).sum(axis=1).mean())
    return float(np.mean(stages))


def frechet_distance(features: np.ndarray, truth: np.ndarray) -> float:
    """Frechet distance of two sets of feature vectors, each taken as a Gaussian; 0 is best (Heusel et al. 2017, eq. 6).

    It grows as the sets get smaller: compare only figures from sets of the same size.

    Args:
        features, truth: (N, D) and (M, D), N and M at least 2.
    """
    means = features.mean(axis=0) - truth.mean(axis=0)
    a, b = (np.atleast_2d(np.cov(x.astype(np.float64), rowvar=False)) for x in (features, truth))
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    # tr sqrt(a b) by the eigenvalues of the symmetric product sqrt(a) b sqrt(a), which are those of a b.
    shared = np.sqrt(np.clip(np.linalg.eigvalsh(root @ b @ root), 0, None)).sum()
    return float(max(means @ means + np.trace(a) + np.trace(b) - 2 * shared, 0.0))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of the angle between two vectors (D,), -1 to 1; 1 is equal direction."""
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), _EPSILON))


def jerk(points: np.ndarray, fps: float, unit: float) -> float:
    """Mean size of the third time derivative of points, in units per cubic second; a trembling mouth has more.

    Only its ratio to the real video's says anything: a speaking mouth has jerk, and so has the noise of the points.

    Args:
        points: (T, P, 2) px, T at least 4.
        fps: frames per second.
        unit: as in `landmark_distance`.
    """
    return float(np.linalg.norm(np.diff(points, n=3, axis=0), axis=-1).mean() * fps**3 / unit)


def optical_flow(images: np.ndarray) -> np.ndarray:
    """Flow from each frame to the next (T-1, H, W, 2) px, of uint8 RGB (T, H, W, 3): OpenCV's DIS (Kroeger 2016)."""
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    greys = [_grey(image) for image in images]
    return np.stack([method.calc(a, b, None) for a, b in zip(greys[:-1], greys[1:], strict=True)])


def warp_error(images: np.ndarray, flow: np.ndarray, region: tuple[slice, slice]) -> float:
    """How much a frame differs from the next one warped back onto it, grey levels (0 to 255); flicker has more.

    The idea of Lai et al. 2018 (section 4.1) without their masking of what is covered.

    Args:
        images: uint8 RGB (T, H, W, 3).
        flow: (T-1, H, W, 2) px, see `optical_flow`; of these images or of others whose motion they should have.
        region: rows and columns that count.
    """
    height, width = images.shape[1:3]
    places = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    greys = [_grey(image).astype(np.float32) for image in images]
    errors = []
    for before, after, motion in zip(greys[:-1], greys[1:], flow, strict=True):
        back = cv2.remap(after, places + motion, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        errors.append(np.abs(before - back)[region].mean())
    return float(np.mean(errors))


def share_within(offsets: Sequence[float], tolerance: float) -> float:
    """Share (0 to 1) of offsets whose size is at most `tolerance`."""
    return float(np.mean(np.abs(np.asarray(offsets)) <= tolerance))


def _grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _unit(values: np.ndarray, axis: int) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=axis, keepdims=True), _EPSILON)
