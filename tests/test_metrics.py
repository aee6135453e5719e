"""The metrics on arrays whose score is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg

from utils import metrics


@pytest.fixture(scope="module")
def moving() -> np.ndarray:
    """Twelve frames of a soft pattern that slides to the right by 2 px a frame, uint8 RGB (12, 64, 64, 3)."""
    random = np.random.default_rng(0)
    coarse = random.uniform(40, 215, (12, 16))
    rows = np.linspace(0, 11, 64)
    wide = np.array([np.interp(np.linspace(0, 15, 128), range(16), line) for line in coarse])
    tall = np.array([[np.interp(y, range(12), wide[:, x]) for x in range(128)] for y in rows])
    frames = np.stack([tall[:, 40 - 2 * t : 104 - 2 * t] for t in range(12)])
    return np.repeat(frames[..., None], 3, axis=-1).round().astype(np.uint8)


def noisy(images: np.ndarray, levels: float, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, levels, images.shape)
    return np.clip(images + noise, 0, 255).round().astype(np.uint8)


def test_landmark_distance_is_the_mean_distance_in_units() -> None:
    truth = np.random.default_rng(0).uniform(0, 160, (10, 40, 2))
    assert metrics.landmark_distance(truth, truth, 72.0) == 0.0
    assert metrics.landmark_distance(truth + (3.0, 4.0), truth, 50.0) == pytest.approx(0.1)


def test_psnr_of_a_known_error(moving: np.ndarray) -> None:
    darker = moving - 5  # no pixel is below 5
    assert metrics.psnr(darker, moving) == pytest.approx(20 * np.log10(255 / 5), abs=1e-4)
    assert metrics.psnr(moving, moving) > 140


def test_ssim_falls_with_noise_and_with_a_foreign_picture(moving: np.ndarray) -> None:
    scores = [metrics.ssim(images, moving) for images in (moving, noisy(moving, 5), noisy(moving, 20), 255 - moving)]
    assert scores[0] == pytest.approx(1.0)
    assert scores == sorted(scores, reverse=True)
    assert scores[2] < 0.9


def test_perceptual_distance_ignores_the_scale_of_features() -> None:
    random = np.random.default_rng(0)
    maps = [random.normal(size=(3, 8, 10, 10)), random.normal(size=(3, 16, 5, 5))]
    assert metrics.perceptual_distance(maps, [7 * m for m in maps]) == pytest.approx(0.0, abs=1e-12)
    # Unrelated features are about orthogonal: the squared distance of two unit vectors at right angles is 2.
    other = [random.normal(size=m.shape) for m in maps]
    assert metrics.perceptual_distance(other, maps) == pytest.approx(2.0, abs=0.3)


def test_frechet_distance_is_that_of_the_definition() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(400, 6)) @ random.normal(size=(6, 6)), random.normal(1.0, 2.0, (300, 6))
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    mixed = linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * mixed)
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert metrics.frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6)


def test_frechet_distance_of_fewer_samples_than_numbers_is_finite() -> None:
    random = np.random.default_rng(0)
    assert 0 < metrics.frechet_distance(random.normal(size=(5, 40)), random.normal(3.0, 1.0, (7, 40))) < np.inf


def test_cosine() -> None:
    a, b = np.array([1.0, 0.0]), np.array([1.0, 1.0])
    assert metrics.cosine(a, 3 * a) == pytest.approx(1.0)
    assert metrics.cosine(a, b) == pytest.approx(np.sqrt(0.5))


def test_jerk_sees_trembling_but_not_steady_motion() -> None:
    time = np.arange(30) / 25
    steady = np.broadcast_to((40 * time + 30 * time**2)[:, None, None], (30, 5, 2))
    assert metrics.jerk(steady, 25, 72.0) == pytest.approx(0.0, abs=1e-6)
    cubic = np.broadcast_to((time**3)[:, None, None] * (3.0, 4.0), (30, 5, 2))  # its third derivative has length 30
    assert metrics.jerk(cubic, 25, 10.0) == pytest.approx(3.0)
    trembling = steady + np.random.default_rng(0).normal(0, 0.5, steady.shape)
    assert metrics.jerk(trembling, 25, 72.0) > 1


def test_warp_error_follows_the_motion(moving: np.ndarray) -> None:
    """A picture that moves as its flow says has a small error; the same frames in disorder, or without motion, more."""
    inside = (slice(8, 56), slice(8, 56))
    flow = metrics.optical_flow(moving)
    assert np.median(flow[..., 0]) == pytest.approx(2.0, abs=0.2)
    error = metrics.warp_error(moving, flow, inside)
    flickering = np.stack([noisy(image, 8, seed) for seed, image in enumerate(moving)])
    still = np.repeat(moving[:1], len(moving), axis=0)
    assert error < 1
    assert metrics.warp_error(flickering, flow, inside) > 3 * error
    assert metrics.warp_error(moving[::-1], flow, inside) > 3 * error
    assert metrics.warp_error(still, flow, inside) > 3 * error


def test_share_within() -> None:
    assert metrics.share_within([0, -1, 1, 2, -9], 1) == pytest.approx(0.6)
