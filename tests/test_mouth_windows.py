"""From followed faces to mouth windows: which frames are used, smoothness, fades, and what is known of a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data as pictures

from faces.alignment import SMOOTHING_S
from faces.detector import FaceDetector, FaceMesh, roi_from_detection
from faces.mouth_shape import NUM_POINTS, SHAPE_POINTS, mouth_opening, mouth_width
from faces.mouth_windows import MouthFrame, mouth_windows, with_fades
from faces.person import Liveliness, Person, meet_person, pick_references, with_person
from faces.tracker import FaceFrame
from faces.usable import NO_FACE, TOO_SMALL, TURNED, UsableFace

MODELS = Path(__file__).resolve().parent.parent / "pretrained" / "faces"
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


def faces(image: np.ndarray, meshes: list[np.ndarray | None], shots: list[int] | None = None) -> list[FaceFrame]:
    shots = shots or [0] * len(meshes)
    return [FaceFrame(Shown(image, i / FPS), s, m) for i, (m, s) in enumerate(zip(meshes, shots, strict=True))]


def test_every_frame_comes_out_in_order_and_only_usable_ones_have_a_window(
    astronaut: np.ndarray, mesh: np.ndarray
) -> None:
    small = (mesh - mesh.mean(0)) * 0.2 + mesh.mean(0)
    turned = mesh.copy()
    angle = np.radians(70)
    x, z = mesh[:, 0] - mesh[:, 0].mean(), mesh[:, 2]
    turned[:, 0] = mesh[:, 0].mean() + x * np.cos(angle) + z * np.sin(angle)
    turned[:, 2] = -x * np.sin(angle) + z * np.cos(angle)
    given = faces(astronaut, [mesh] * 12 + [None, small, turned] + [mesh] * 12)

    result = list(mouth_windows(given, UsableFace(min_face_px=40)))

    assert [r.frame for r in result] == [g.frame for g in given]
    assert [r.reason for r in result[12:15]] == [NO_FACE, TOO_SMALL, TURNED]
    for r in (*result[:12], *result[15:]):
        assert r.reason is None
        assert r.window.shape == (160, 160, 3) and r.matrix.shape == (2, 3) and r.points.shape == (468, 2)
    assert all(r.window is None for r in result[12:15])


def test_the_window_shows_what_its_matrix_says(astronaut: np.ndarray, mesh: np.ndarray) -> None:
    result = list(mouth_windows(faces(astronaut, [mesh] * 3), UsableFace()))[1]
    direct = cv2.warpAffine(
        astronaut, result.matrix, (160, 160), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    assert np.abs(direct.astype(int) - result.window).mean() < 1.0


def test_trembling_is_smoothed_without_lag_but_not_across_a_cut(astronaut: np.ndarray, mesh: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(0, 1.5, (40, 2))
    meshes = [mesh + np.array([2.0 * i, 0, 0], np.float32) for i in range(40)]
    meshes = [m + np.array([*noise[i], 0], np.float32) for i, m in enumerate(meshes)]
    meshes[20:] = [m - np.array([300, 0, 0], np.float32) for m in meshes[20:]]
    shots = [0] * 20 + [1] * 20
    anywhere = UsableFace(min_inside=0.0, min_sharpness=0.0)
    result = list(mouth_windows(faces(astronaut, meshes, shots), anywhere))

    def place(frames: list[MouthFrame]) -> np.ndarray:
        return np.array([np.linalg.solve(f.matrix[:, :2], (80, 80) - f.matrix[:, 2])[0] for f in frames])

    for part in (place(result[6:14]), place(result[26:34])):
        steps = np.diff(part)
        assert steps.mean() == pytest.approx(2.0, abs=0.5)  # follows the motion
        assert steps.std() < 0.5 * np.sqrt(2) * 1.5  # far calmer than the mesh
    jump = place(result[19:21])
    assert abs(np.diff(jump)[0] + 298) < 10  # a filter over the cut would have met in the middle
    assert SMOOTHING_S > 0


def test_streams_with_a_short_look_ahead(astronaut: np.ndarray, mesh: np.ndarray) -> None:
    taken = 0

    def endless():
        nonlocal taken
        for face in faces(astronaut, [mesh] * 200):
            taken += 1
            yield face

    stream = with_fades(mouth_windows(endless(), UsableFace()), 4)
    for _ in range(20):
        next(stream)
    assert taken < 20 + 0.6 * FPS


def mouth(reason: str | None = None, shot: int = 0) -> MouthFrame:
    return MouthFrame(None, 0.0, (9, 9), shot, reason)


def test_fades_next_to_gaps_but_not_at_cuts_and_ends() -> None:
    frames = [mouth() for _ in range(8)] + [mouth(NO_FACE)] * 2 + [mouth() for _ in range(6)]
    frames += [mouth(shot=1) for _ in range(5)]
    fades = [round(f.fade, 2) for f in with_fades(iter(frames), 4)]
    assert fades[:10] == [1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0]
    assert fades[10:16] == [0.2, 0.4, 0.6, 0.8, 1, 1]
    assert fades[16:] == [1] * 5


def test_a_short_piece_between_two_gaps_never_shows_fully() -> None:
    frames = [mouth(NO_FACE), mouth(), mouth(), mouth(), mouth(NO_FACE)]
    assert [round(f.fade, 2) for f in with_fades(iter(frames), 4)] == [0, 0.2, 0.4, 0.2, 0]


def speaking(opening: float, blur: float = 0.0, yaw: float = 0.0) -> MouthFrame:
    """A window whose grey value tells its opening."""
    points = np.zeros((468, 2), np.float32)
    points[14, 1] = opening
    rng = np.random.default_rng(int(opening * 10))
    window = np.clip(100 + opening + rng.normal(0, 10, (160, 160, 3)), 0, 255).astype(np.uint8)
    if blur:
        window = cv2.GaussianBlur(window, (0, 0), blur)
    frame = mouth()
    frame.window, frame.points, frame.matrix = window, points, np.eye(2, 3, dtype=np.float32)
    frame.pose = np.array([yaw, 0, 0], np.float32)
    return frame


def test_references_span_the_openings_and_prefer_sharp_frontal_frames() -> None:
    frames = [speaking(o, blur=0 if o % 10 == 0 else 2) for o in range(60)]
    for o in (10, 30, 50):
        frames[o].pose[0] = 40.0
    assert [frames.index(chosen) for chosen in pick_references(frames, 3)] == [0, 20, 40]


def test_fewer_frames_than_references_are_repeated() -> None:
    closed, opened = speaking(5), speaking(30)
    assert pick_references([closed], 4) == [closed] * 4
    assert pick_references([opened, closed], 4) == [closed, closed, opened, opened]


class CountingShape:
    """Stands for `MouthShape`: the resting mouth is the number of frames it saw, a shape is the opening."""

    def neutral(self, points: np.ndarray, pose: np.ndarray) -> int:
        return len(points)

    def rested(self, neutral: int) -> int:
        return neutral

    def base(self, neutral: int, pose: np.ndarray) -> np.ndarray:
        return np.zeros((len(pose), NUM_POINTS, 2))

    def encode_lips(self, points: np.ndarray, base: np.ndarray) -> np.ndarray:
        return (points - base)[:, SHAPE_POINTS.index(14), 1:]


def meet(frames: Sequence[MouthFrame]) -> Person:
    return meet_person(frames, CountingShape(), faces=2, size=5)


def test_each_shot_has_its_own_person_known_from_its_first_window() -> None:
    frames = [mouth(NO_FACE), *(speaking(i) for i in range(6)), mouth(NO_FACE), *(speaking(i) for i in range(20))]
    other = [speaking(40) for _ in range(3)]
    for frame in other:
        frame.shot = 1
    result = list(with_person(iter(frames + other), meet, look_ahead=10))

    assert [f for f, _ in result] == frames + other
    people = [p for _, p in result]
    assert people[0] is None and people[7] is None
    assert people[1].neutral == 9 and all(p is people[1] for p in people[1:7] + people[8:28])
    assert people[28].neutral == 3 and people[28] is people[30]
    assert [face.shape for face in people[28].faces] == [[40], [40]]
    assert len(people[28].bank) == 1 and 1 < len(people[1].bank) <= 5, "pictures that are alike count once"


def test_a_video_without_any_face_has_nobody() -> None:
    assert [p for _, p in with_person((mouth(NO_FACE) for _ in range(30)), meet, 10)] == [None] * 30


def moving(opening: float, width: float) -> np.ndarray:
    """Lips and jaw (50, P, 2) whose gap and width vary by as many px, standard deviation."""
    wave, moved = np.sin(np.linspace(0, 20 * np.pi, 50, endpoint=False)) * 2**0.5, np.zeros((50, NUM_POINTS, 2))
    moved[:, 31:40, 1] = opening * wave[:, None]
    moved[:, 10, 0] = width * wave
    assert abs(mouth_opening(moved).std() - opening) < 1e-6 > abs(mouth_width(moved).std() - width)
    return moved


def test_who_moves_the_lips_little_gets_little_movement_and_who_does_not_speak_the_usual_one() -> None:
    calm, usual, lively = (Liveliness.of(moving(opening, 2.5)) for opening in (1.5, 3.3, 6.0))
    assert 0.6 <= calm.opening < 0.8 < 0.99 < usual.opening < 1.01 < 1.2 < lively.opening <= 1.5
    assert abs(usual.width - 1) < 0.01
    assert Liveliness.of(moving(3.3, 0.5)).width < 0.8
    assert Liveliness.of(moving(0.6, 4.0)) == Liveliness(1.0, 1.0)
