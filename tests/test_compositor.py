"""Putting the mouth window back: where it may touch the frame, and what a viewer would see at its rim."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data as pictures

from faces.alignment import align_matrix
from faces.compositor import composite, match_detail, soft_mask
from faces.detector import FaceDetector, FaceMesh, roi_from_detection
from faces.window import GENERATED, MOUTH_WINDOW
from video_processor import Patch

MODELS = Path(__file__).resolve().parent.parent / "pretrained" / "faces"


@dataclass
class Face:
    frame: np.ndarray
    window: np.ndarray
    matrix: np.ndarray
    points: np.ndarray

    def composite(self, generated: np.ndarray, **options: float) -> Patch | None:
        return composite(self.frame.shape, generated, self.window, self.matrix, soft_mask(self.points), **options)


def face_at(scale: float, angle: float = 0.0) -> Face:
    """The astronaut's picture, scaled and turned, with her mouth window."""
    picture = pictures.astronaut()
    size = round(512 * scale)
    turn = cv2.getRotationMatrix2D((255.5, 255.5), angle, scale)
    turn[:, 2] += (size - 512) / 2
    frame = cv2.warpAffine(picture, turn, (size, size), flags=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    detection = FaceDetector(MODELS).detect(frame)[0]
    mesh, _ = FaceMesh(MODELS)(frame, roi_from_detection(detection))
    matrix = align_matrix(mesh)
    window, points = MOUTH_WINDOW.warp(frame, matrix), MOUTH_WINDOW.to_window(mesh, matrix)
    return Face(frame, window, MOUTH_WINDOW.window_matrix(matrix), points)


@pytest.fixture(scope="module")
def face() -> Face:
    return face_at(1.5)


def paste(frame: np.ndarray, patch: Patch) -> np.ndarray:
    """Blend as the video writer does, in RGB."""
    result = frame.astype(np.float32)
    height, width = patch.alpha.shape
    part = result[patch.y : patch.y + height, patch.x : patch.x + width]
    part += patch.alpha[..., None] * (patch.image.astype(np.float32) - part)
    return result.round().astype(np.uint8)


@pytest.mark.parametrize(("scale", "angle"), [(0.5, 0), (1.0, 0), (1.5, 0), (2.5, 12), (1.0, -25)])
def test_pasting_back_the_same_window_changes_next_to_nothing(scale: float, angle: float) -> None:
    face = face_at(scale, angle)
    patch = face.composite(face.window)
    error = np.abs(paste(face.frame, patch).astype(int) - face.frame)[patch.y :, patch.x :]
    seen = error[: patch.alpha.shape[0], : patch.alpha.shape[1]][patch.alpha > 0.5]
    assert seen.size > 300
    assert seen.mean() < 3.0


def test_the_mask_covers_mouth_and_chin_but_not_nose_and_neck(face: Face) -> None:
    alpha = soft_mask(face.points)

    def at(point: int, dy: float = 0.0) -> float:
        x, y = (face.points[point] + (0, dy)).round().astype(int)
        return float(alpha[y, x])

    assert min(at(p) for p in (13, 14, 61, 291, 17)) > 0.95
    assert at(152) > 0.6
    assert at(1) == 0.0
    assert at(152, 30) == 0.0


def test_nothing_is_pasted_at_or_beyond_the_edge_of_what_was_generated(face: Face) -> None:
    wide = face.points.copy()
    wide = (wide - wide.mean(0)) * 3 + wide.mean(0)  # a face that is larger than the window
    alpha = soft_mask(wide)
    x0, y0, x1, y1 = GENERATED
    outside = np.ones_like(alpha, bool)
    outside[y0:y1, x0:x1] = False
    assert alpha.max() == 1.0
    assert not alpha[outside].any()
    assert alpha[y0:y1, x0].max() < 0.1 and alpha[y0, x0:x1].max() < 0.1
    assert np.abs(np.diff(alpha, axis=0)).max() < 0.2  # no visible step anywhere


@pytest.mark.parametrize("offset", [(12, 12, 12), (-15, -5, 8)])
def test_a_colour_cast_of_the_generator_does_not_reach_the_frame(face: Face, offset: tuple[int, ...]) -> None:
    cast = np.clip(face.window.astype(int) + offset, 0, 255).astype(np.uint8)
    changed = paste(face.frame, face.composite(cast))
    patch = face.composite(face.window)
    inside = np.zeros(face.frame.shape[:2], bool)
    inside[patch.y : patch.y + patch.alpha.shape[0], patch.x : patch.x + patch.alpha.shape[1]] = patch.alpha > 0.5
    assert np.abs((changed.astype(int) - face.frame)[inside].mean(0)).max() < 2.0


def test_a_gradient_of_light_is_evened_out(face: Face) -> None:
    slope = np.linspace(-15, 15, 160)[None, :, None]
    tilted = np.clip(face.window + slope, 0, 255).astype(np.uint8)
    plain, evened = face.composite(face.window), face.composite(tilted)
    inside = plain.alpha > 0.5
    left_right = (evened.image.astype(int) - plain.image)[inside]
    assert np.abs(left_right).mean() < 5.0  # 7.5 and more without matching


def test_a_new_mouth_stays_new(face: Face) -> None:
    x, y = face.points[[13, 14]].mean(0).round().astype(int)
    opened = face.window.copy()
    cv2.ellipse(opened, (int(x), int(y)), (14, 9), 0, 0, 360, (25, 8, 10), -1)
    changed = paste(face.frame, face.composite(opened))
    inverse = cv2.invertAffineTransform(face.matrix)
    fx, fy = (inverse[:, :2] @ (x, y) + inverse[:, 2]).round().astype(int)
    assert changed[fy, fx].max() < 70 < face.frame[fy, fx].max()


def test_fade_scales_the_opacity_and_zero_is_nothing(face: Face) -> None:
    whole, half = face.composite(face.window), face.composite(face.window, fade=0.5)
    assert np.allclose(half.alpha, whole.alpha * 0.5, atol=0.5 / 255)
    assert face.composite(face.window, fade=0.0) is None


def test_the_patch_lies_on_even_pixels_within_the_frame(face: Face) -> None:
    for shift in ((0, 0), (7, 3), (-210, 5), (0, 420)):
        moved = face.matrix.copy()
        moved[:, 2] -= moved[:, :2] @ np.array(shift, np.float32)
        patch = composite(face.frame.shape, face.window, face.window, moved, soft_mask(face.points))
        height, width = patch.alpha.shape
        assert patch.image.shape == (height, width, 3)
        assert patch.image.dtype == np.uint8 and patch.alpha.dtype == np.float32
        assert patch.x % 2 == patch.y % 2 == height % 2 == width % 2 == 0
        assert patch.x >= 0 and patch.y >= 0
        assert patch.x + width <= face.frame.shape[1] and patch.y + height <= face.frame.shape[0]


def test_a_face_outside_of_the_frame_gives_no_patch(face: Face) -> None:
    moved = face.matrix.copy()
    moved[:, 2] -= moved[:, :2] @ np.array((5000, 0), np.float32)
    assert composite(face.frame.shape, face.window, face.window, moved, soft_mask(face.points)) is None


def test_a_soft_window_is_sharpened_a_little_and_a_sharp_one_is_left_alone(face: Face) -> None:
    alpha = soft_mask(face.points)

    def detail(image: np.ndarray) -> float:
        return float(np.abs(cv2.Laplacian(image.astype(np.float32), cv2.CV_32F))[alpha > 0.3].mean())

    soft = cv2.GaussianBlur(face.window, (0, 0), 1.0).astype(np.float32)
    assert detail(soft) * 1.1 < detail(match_detail(soft, face.window, alpha)) < detail(face.window) * 1.1
    same = match_detail(face.window.astype(np.float32), face.window, alpha)
    assert np.allclose(same, face.window, atol=1e-3)
