"""Light that changes, darkness and black-and-white film: the new mouth has the light of each frame."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from faces.alignment import LIPS_OUTER
from faces.detector import FaceDetector, FaceMesh, roi_from_detection
from pipeline import LipSyncPipeline, Options
from utils.config import load_config
from video_processor import VideoReader

REPO = Path(__file__).resolve().parent.parent
FRAMES = 24
_CHIN = [208, 199, 428, 262, 369, 396, 175, 171, 140, 32]  # mesh, below the lower lip's shadow

LIGHTS = {
    "fade in": lambda i: min(1.0, 0.1 + i / 20),
    "flash and white balance": lambda i: (1.6 if i in (14, 15) else 1.0)
    * np.array([1 - 0.2 * i / FRAMES, 1, 1 + 0.25 * i / FRAMES]),
    "flicker": lambda i: 1 + 0.15 * np.sin(2 * np.pi * i / 5.3),
    "dark": lambda i: 0.2,
    "black and white": None,
}


@pytest.fixture(scope="module")
def lip_sync(lite_weights: Path) -> LipSyncPipeline:
    return LipSyncPipeline.load(load_config(REPO / "model_config.yaml"), torch.device("cpu"))


@pytest.fixture(scope="module")
def still_frames(talking_faces: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames of a real clip, and the mesh of each (468, 2)."""
    models = REPO / "pretrained" / "faces"
    detector, mesh = FaceDetector(models), FaceMesh(models)
    with VideoReader(talking_faces / "test" / "videos" / "aligndit_4_0000.mp4") as reader:
        images = [frame.image.copy() for frame in itertools.islice(reader, FRAMES)]
    return images, [mesh(image, roi_from_detection(detector.detect(image)[0]))[0][:, :2] for image in images]


def lit(image: np.ndarray, kind: str, index: int) -> np.ndarray:
    if LIGHTS[kind] is None:
        return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=-1)
    noise = np.random.default_rng(index).normal(0, 1.5, image.shape) if kind == "dark" else 0
    return np.clip(np.rint(image * LIGHTS[kind](index) + noise), 0, 255).astype(np.uint8)


def write(path: Path, images: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], "yuv444p"
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image).reformat(format="yuv444p", dst_colorspace=5)
            frame.pts, frame.time_base, frame.colorspace = index, Fraction(1, 25), 5
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def inside(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(points.astype(np.float32)).round().astype(np.int32), 1)
    return mask.astype(bool)


@pytest.mark.parametrize("kind", LIGHTS)
def test_the_skin_at_the_chin_has_the_light_of_its_frame(
    lip_sync: LipSyncPipeline,
    still_frames: tuple[list[np.ndarray], list[np.ndarray]],
    example_speech: Path,
    tmp_path: Path,
    kind: str,
):
    images, meshes = still_frames
    source = write(tmp_path / "in.mkv", [lit(image, kind, i) for i, image in enumerate(images)])

    options = Options(codec="ffv1", rest="cut", fit="cut")
    summary = lip_sync.run(source, example_speech, tmp_path / "out.mkv", options)

    assert summary.generated > 0.8 * FRAMES
    differences, tints, glow = [], [], []
    with VideoReader(source) as before, VideoReader(tmp_path / "out.mkv") as after:
        for old, new, points in zip(before, after, meshes, strict=False):
            chin, lips = inside(points[_CHIN], old.image.shape), inside(points[LIPS_OUTER], old.image.shape)
            skin = old.image[chin].astype(float)
            lit_skin = (np.percentile(x, 90, axis=0) for x in (new.image[chin], skin))
            differences.append(np.abs(np.subtract(*lit_skin)).max())
            tints.append(np.ptp(new.image[lips].astype(int), axis=-1).max())
            glow.append(np.percentile(new.image[lips].max(-1), 99) - np.percentile(skin.max(-1), 99))
    # Of the lit part of the skin: the jaw moves, and takes its shadows along in any light.
    assert np.mean(differences) < 4 and np.max(differences) < 12
    assert kind != "black and white" or max(tints) <= 4
    assert np.max(glow) < 25
