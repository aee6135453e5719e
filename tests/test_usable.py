"""Which frames get a new mouth: every reason against one, no flicker, and how the confidence tunes it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data as pictures

from data.occlusions import KINDS, covered, draw_sprite, put, skin_colour
from faces.alignment import align_matrix
from faces.detector import FaceDetector, FaceMesh, roi_from_detection
from faces.tracker import FaceFrame
from faces.usable import (
    BLURRED,
    COVERED,
    NO_FACE,
    OUTSIDE,
    REASONS,
    TOO_SMALL,
    TURNED,
    UNCLEAR,
    UsableFace,
    in_words,
    judged,
)
from faces.window import MOUTH_WINDOW
from models.cover import CoverJudge
from video_processor import VideoReader

PRETRAINED = Path(__file__).resolve().parent.parent / "pretrained"
MODELS, WEIGHTS = PRETRAINED / "faces", PRETRAINED / "mouth_cover"
FPS = 25


@dataclass(frozen=True)
class Shown:
    image: np.ndarray
    time: float


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return pictures.astronaut()


@pytest.fixture(scope="module")
def mesh(astronaut: np.ndarray) -> np.ndarray:
    points, _ = FaceMesh(MODELS)(astronaut, roi_from_detection(FaceDetector(MODELS).detect(astronaut)[0]))
    return points


def faces(image: np.ndarray, meshes: list[np.ndarray | None]) -> list[FaceFrame]:
    """Frames of one shot; every mesh counts as a new one."""
    return [FaceFrame(Shown(image, i / FPS), 0, None if m is None else m.copy()) for i, m in enumerate(meshes)]


def reasons(given: list[FaceFrame], usable: UsableFace) -> list[str | None]:
    result = list(judged(iter(given), usable))
    assert [face for face, _ in result] == given
    return [reason for _, reason in result]


def turned(mesh: np.ndarray, degrees: float) -> np.ndarray:
    angle, middle = np.radians(degrees), mesh[:, 0].mean()
    x, z = mesh[:, 0] - middle, mesh[:, 2]
    result = mesh.copy()
    result[:, 0] = middle + x * np.cos(angle) + z * np.sin(angle)
    result[:, 2] = -x * np.sin(angle) + z * np.cos(angle)
    return result


class Says:
    """Stands for the cover network: gives the chances in turn."""

    def __init__(self, chances: list[float]):
        self._chances: Iterator[float] = iter(chances)

    def __call__(self, window: np.ndarray) -> float:
        assert window.shape == (160, 160, 3) and window.dtype == np.uint8
        return next(self._chances)


def test_each_reason_is_told(astronaut: np.ndarray, mesh: np.ndarray) -> None:
    long = 8
    small = (mesh - mesh.mean(0)) * 0.3 + mesh.mean(0)
    below = mesh + np.array([0, 512 - mesh[:, 1].max() + 25, 0], np.float32)
    usable = UsableFace(min_sharpness=0.0)
    assert reasons(faces(astronaut, [mesh] * long), usable) == [None] * long
    assert reasons(faces(astronaut, [None] * long), usable) == [NO_FACE] * long
    assert reasons(faces(astronaut, [small] * long), usable) == [TOO_SMALL] * long
    assert reasons(faces(astronaut, [turned(mesh, 70)] * long), usable) == [TURNED] * long
    assert reasons(faces(astronaut, [below] * long), usable) == [OUTSIDE] * long
    assert reasons(faces(astronaut, [mesh] * long), replace(usable, cover=Says([0.99] * long))) == [COVERED] * long
    # Of a window that is cut off the network would say that it is covered: the edge is the reason.
    assert reasons(faces(astronaut, [below] * long), replace(usable, cover=Says([1.0] * long))) == [OUTSIDE] * long
    unsure = [replace(face, presence=0.3) for face in faces(astronaut, [mesh] * long)]
    assert reasons(unsure, usable) == [UNCLEAR] * long


def test_motion_blur_is_measured_by_the_persons_own_sharpness(astronaut: np.ndarray, mesh: np.ndarray) -> None:
    smear = np.zeros((25, 25), np.float32)
    smear[12] = 1 / 25
    blurred = cv2.filter2D(astronaut, -1, smear)
    images = [astronaut] * 20 + [blurred] * 6 + [astronaut] * 10
    given = [FaceFrame(Shown(image, i / FPS), 0, mesh.copy()) for i, image in enumerate(images)]
    assert reasons(given, UsableFace()) == [None] * 20 + [BLURRED] * 6 + [None] * 10
    soft = [FaceFrame(Shown(blurred, i / FPS), 0, mesh.copy()) for i in range(20)]
    assert reasons(soft, UsableFace()) == [None] * 20  # always like this: an unsharp video, no motion


def test_a_doubt_of_two_frames_and_a_mouth_of_a_quarter_of_a_second_do_not_flicker(
    astronaut: np.ndarray, mesh: np.ndarray
) -> None:
    chances = [0.1] * 10 + [0.9] * 2 + [0.1] * 10 + [0.9] * 8 + [0.1] * 6 + [0.9] * 8 + [0.1] * 10
    usable = UsableFace(max_cover=0.5, cover=Says(chances))
    expected = [None] * 22 + [COVERED] * 22 + [None] * 10
    assert reasons(faces(astronaut, [mesh] * len(chances)), usable) == expected


def test_chances_about_the_limit_do_not_flicker(astronaut: np.ndarray, mesh: np.ndarray) -> None:
    chances = [0.1] * 10 + [0.52, 0.48] * 10 + [0.1] * 12
    seen = reasons(faces(astronaut, [mesh] * len(chances)), UsableFace(max_cover=0.5, cover=Says(chances)))
    assert sum(a != b for a, b in zip(seen[:-1], seen[1:], strict=True)) == 2


def test_live_frames_wait_for_nobody(astronaut: np.ndarray, mesh: np.ndarray) -> None:
    taken = 0

    def arriving() -> Iterator[FaceFrame]:
        nonlocal taken
        for face in faces(astronaut, [mesh] * 20):
            taken += 1
            yield face

    usable = UsableFace(max_cover=0.5, at_once=True, cover=Says([0.1] * 5 + [0.9] * 5 + [0.1] * 10))
    for number, (_, reason) in enumerate(judged(arriving(), usable), 1):
        assert taken == number
        assert (reason == COVERED) == (6 <= number <= 10)


@pytest.mark.parametrize(("least", "drawn"), [(0.0, True), (0.3, True), (0.5, False), (0.9, False)])
def test_the_least_confidence_tunes_what_is_left_out(
    astronaut: np.ndarray, mesh: np.ndarray, least: float, drawn: bool
) -> None:
    usable = UsableFace(max_cover=0.5, min_confidence=least, cover=Says([0.6] * 10))
    assert reasons(faces(astronaut, [mesh] * 10), usable) == [None if drawn else COVERED] * 10


def test_reasons_in_words_are_ordered_by_how_often_they_are_met() -> None:
    assert in_words({COVERED: 112, TURNED: 200}) == "200 turned away, 112 covered"
    assert all(" " not in key for key in REASONS)  # keys are for programs


@pytest.mark.parametrize("kind", KINDS)
def test_the_trained_network_sees_what_lies_before_a_mouth(astronaut: np.ndarray, mesh: np.ndarray, kind: str) -> None:
    judge, random = CoverJudge(WEIGHTS), np.random.default_rng(3)
    usable = UsableFace(cover=judge)
    assert reasons(faces(astronaut, [mesh] * 3), usable) == [None] * 3
    found = 0
    for _ in range(8):
        sprite = draw_sprite(kind, skin_colour(astronaut, mesh), random)
        image, alpha = put(astronaut, sprite, tuple(mesh[[13, 14], :2].mean(0)), 0.7, random.uniform(-0.5, 0.5))
        assert covered(alpha, mesh).hides_the_mouth
        found += reasons(faces(image, [mesh] * 3), usable) == [COVERED] * 3
    assert found >= 5


@pytest.mark.parametrize(
    "light",
    [(0.35, 0.45, 1.1), (1.1, 0.3, 0.9), (0.2, 0.2, 0.2)],
    ids=["blue", "neon", "dark"],
)
def test_light_is_no_cover(astronaut: np.ndarray, mesh: np.ndarray, light: tuple[float, float, float]) -> None:
    lit = np.clip(astronaut * np.array(light), 0, 255).astype(np.uint8)
    assert reasons(faces(lit, [mesh] * 3), UsableFace(cover=CoverJudge(WEIGHTS))) == [None] * 3


def test_light_grain_and_stretch_are_no_cover_on_real_faces(talking_faces: Path) -> None:
    judge, grain = CoverJudge(WEIGHTS), np.random.default_rng(0)
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "blue": lambda image: image * np.array([0.35, 0.45, 1.1]),
        "neon": lambda image: image * np.array([1.1, 0.3, 0.9]),
        "dark": lambda image: image * 0.2,
        "grain": lambda image: image + grain.normal(0, 20, image.shape),
        "stretch": lambda image: cv2.resize(image[20:140], (160, 160)),
    }
    windows: list[np.ndarray] = []
    networks = FaceDetector(MODELS), FaceMesh(MODELS)
    for name in ("filby89_p069_0000", "opentalker_p071_0000", "lip2speech_34_0000"):  # not in training
        with VideoReader(talking_faces / "test" / "videos" / f"{name}.mp4") as reader:
            for frame in itertools.islice(reader, 0, 40, 8):
                points, _ = networks[1](frame.image, roi_from_detection(networks[0].detect(frame.image)[0]))
                windows.append(MOUTH_WINDOW.warp(frame.image, align_matrix(points)))
    for kind, change in changes.items():
        seen = [judge(np.clip(change(window.astype(np.float32)), 0, 255).astype(np.uint8)) for window in windows]
        assert np.mean(np.array(seen) > UsableFace().max_cover) <= 0.1, kind
