"""Faces: detection, mesh, alignment and mouth shape on the portrait that scikit-image ships."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from safetensors.numpy import save_file

from faces.alignment import (
    EYE_CORNERS,
    JAW,
    LIPS_OUTER,
    STABLE,
    align_matrix,
    eye_distance,
    head_pose,
    smooth_matrices,
)
from faces.detector import FaceDetector, FaceMesh, roi_from_detection, roi_from_mesh
from faces.mouth_shape import (
    NUM_POINTS,
    RESTING_OPENING_PX,
    SHAPE_POINTS,
    WIDEST_REST_PX,
    MouthShape,
    Neutral,
    mouth_opening,
    mouth_width,
)
from faces.window import MOUTH_WINDOW, WINDOW_SIZE
from utils.helpers import InputError

NETWORKS = Path(__file__).parent.parent / "pretrained" / "faces"


@pytest.fixture(scope="module")
def detector():
    return FaceDetector(NETWORKS)


@pytest.fixture(scope="module")
def mesh():
    return FaceMesh(NETWORKS)


def mesh_of(image, detector, mesh):
    points, _ = mesh(image, roi_from_detection(detector.detect(image)[0]))
    return mesh(image, roi_from_mesh(points))


@pytest.fixture(scope="module")
def portrait():
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def portrait_points(portrait, detector, mesh):
    return mesh_of(portrait, detector, mesh)[0]


def test_detector_finds_the_one_face_and_its_parts(portrait, detector):
    (found,) = detector.detect(portrait)
    x0, y0, x1, y1 = found.box
    assert 150 < x0 < 225 < x1 < 300 and 60 < y0 < 120 < y1 < 210
    left_eye, right_eye, nose, mouth = found.keypoints[:4]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_eye[1] < nose[1] < mouth[1]


@pytest.mark.parametrize("cache", ["empty", "full", "damaged", "not to be written"])
def test_kept_face_networks_find_the_same(
    cache: str, portrait, detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lies in the user's cache folder; what is damaged there is made again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if cache == "not to be written":
        (tmp_path / "lipsync").write_text("no folder")
    elif cache != "empty":
        FaceDetector(NETWORKS)
    kept = {path: path.stat().st_size for path in tmp_path.rglob("*.blob")}
    assert bool(kept) == (cache in ("full", "damaged"))
    if cache == "damaged":
        for number, path in enumerate(kept):
            path.write_bytes(path.read_bytes()[: 1000 * number] if number else b"nothing of ours")
    (found,), (known,) = FaceDetector(NETWORKS).detect(portrait), detector.detect(portrait)
    assert np.array_equal(found.box, known.box) and np.array_equal(found.keypoints, known.keypoints)
    if cache == "damaged":
        assert all(path.stat().st_size > 0.9 * size for path, size in kept.items())


_WRITTEN_AGAIN = """
import os, sys
from pathlib import Path
import cv2
from faces.detector import FaceDetector
FaceDetector(Path("pretrained/faces"))
detector = FaceDetector(Path("pretrained/faces"))
for path in Path(os.environ["XDG_CACHE_HOME"]).rglob("*.blob"):
    path.chmod(0o600)
    os.truncate(path, 0)
sys.exit(len(detector.detect(cv2.imread("examples/smile.png")[..., ::-1])) != 1)
"""


def test_networks_in_use_stand_whatever_another_program_does_to_the_kept_ones(tmp_path: Path) -> None:
    """Kept files that were mapped into memory ended the program by a bus error when another wrote them."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", _WRITTEN_AGAIN]
    assert subprocess.run(command, cwd=NETWORKS.parent.parent, env=environment, timeout=120).returncode == 0


def test_detector_finds_nothing_where_there_is_no_face(detector):
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    assert detector.detect(noise) == []
    assert detector.detect(skimage.data.coffee()) == []


def test_detector_finds_two_faces(portrait, detector):
    assert len(detector.detect(np.hstack([portrait, portrait[:, ::-1]]))) == 2


def test_mesh_says_when_there_is_no_face(portrait, portrait_points, mesh):
    roi = roi_from_mesh(portrait_points)
    assert mesh(portrait, roi)[1] > 0.9
    assert mesh(np.full_like(portrait, 128), roi)[1] < 0.5


def test_mesh_follows_the_picture_when_it_turns(portrait, portrait_points, detector, mesh):
    turn = cv2.getRotationMatrix2D((225, 125), 25, 1.0)
    points, presence = mesh_of(cv2.warpAffine(portrait, turn, (512, 512)), detector, mesh)
    expected = portrait_points[:, :2] @ turn[:, :2].T + turn[:, 2]
    assert presence > 0.9
    assert np.abs(points[:, :2] - expected).mean() < 2.0


def test_alignment_puts_the_eyes_at_their_place(portrait_points):
    corners = MOUTH_WINDOW.to_window(portrait_points[EYE_CORNERS], align_matrix(portrait_points)) + MOUTH_WINDOW.origin
    np.testing.assert_allclose(corners.reshape(2, 2, 2).mean(1), [[92, 84], [164, 84]], atol=3)


def test_window_is_the_same_for_a_large_turned_copy(portrait, portrait_points, detector, mesh):
    turn = cv2.getRotationMatrix2D((256, 256), -15, 1.0)
    large = cv2.resize(cv2.warpAffine(portrait, turn, (512, 512)), None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    points, _ = mesh_of(large, detector, mesh)
    window = MOUTH_WINDOW.warp(portrait, align_matrix(portrait_points))
    again = MOUTH_WINDOW.warp(large, align_matrix(points))
    assert window.shape == (WINDOW_SIZE, WINDOW_SIZE, 3)
    middle = slice(30, 130)
    assert np.abs(window[middle, middle].astype(float) - again[middle, middle]).mean() < 8


def test_window_holds_the_mouth_and_the_jaw(portrait_points):
    in_window = MOUTH_WINDOW.to_window(portrait_points, align_matrix(portrait_points))
    assert (in_window[LIPS_OUTER] > 35).all() and (in_window[LIPS_OUTER] < 125).all()
    assert (in_window[JAW[3:-3]] > 0).all() and (in_window[JAW[3:-3]] < WINDOW_SIZE).all()


def test_smoothing_has_no_lag_and_removes_trembling():
    times = np.arange(50) / 25
    drift = np.tile(np.array([[1, 0, 0], [0, 1, 0]], np.float32), (50, 1, 1))
    drift[:, 0, 2] = 3 * np.arange(50)
    np.testing.assert_allclose(smooth_matrices(drift, times)[8:-8], drift[8:-8], atol=1e-3)
    trembling = drift + np.random.default_rng(0).normal(0, 1, drift.shape).astype(np.float32)
    error = smooth_matrices(trembling, times) - drift
    assert error[8:-8].std() < 0.6


def test_pose_is_mirrored_with_the_picture(portrait, portrait_points, detector, mesh):
    turned = np.ascontiguousarray(portrait[:, ::-1])
    yaw, pitch, roll = head_pose(portrait_points)
    mirrored = head_pose(mesh_of(turned, detector, mesh)[0])
    assert abs(roll) > 1
    np.testing.assert_allclose(mirrored, [-yaw, pitch, -roll], atol=3)
    assert abs(eye_distance(portrait_points) - 43) < 4


def turned_heads(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Mouth windows' meshes (T, 468, 2) of a head (468, 3), px of its picture, turned by poses (T, 3), degrees."""
    alone, windows = points - points[STABLE].mean(0), []
    for yaw, pitch, _ in np.radians(pose):
        # The picture's x to the right, y down, z away from who looks.
        cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
        seen = alone @ (np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]]) @ [[1, 0, 0], [0, cp, sp], [0, -sp, cp]]).T
        windows.append(MOUTH_WINDOW.to_window(seen, align_matrix(seen)))
    return np.stack(windows).astype(np.float32)


@pytest.fixture(scope="module")
def shapes(portrait_points):
    """Two people whose mouths open and shut while the head turns and nods: that moves lips and jaw, too."""
    rng = np.random.default_rng(0)
    lower = [i for i in SHAPE_POINTS if portrait_points[i, 1] > portrait_points[13, 1]]

    def person(frames):
        pose = rng.normal(0, (12, 4, 0), (frames, 3))
        video, opening = turned_heads(portrait_points, pose), np.abs(rng.normal(0, 5, frames))
        video[:, lower, 1] += opening[:, None]
        pose = pose + head_pose(portrait_points)
        return video, pose.astype(np.float32), opening

    people = [person(300), person(100)]
    return MouthShape.fit([(video, pose) for video, pose, _ in people], 3), people


def test_the_base_of_a_turned_head_is_where_its_mouth_is(portrait_points):
    shape, start = MouthShape.load(Path("pretrained/mouth_shape")), head_pose(portrait_points)
    pose = np.array([[0, 0, 0], [20, 0, 0], [-20, 0, 0], [40, 0, 0], [-40, 0, 0], [25, -10, 0]], np.float32)
    seen = turned_heads(portrait_points, pose)[:, SHAPE_POINTS]
    base = shape.base(Neutral(seen[0], np.array(start, np.float32)), pose + np.array(start, np.float32))
    np.testing.assert_allclose(base[0], seen[0], atol=0.01)
    moved, off = (np.linalg.norm(x, axis=-1).mean(1)[1:] for x in (seen - seen[0], seen - base))
    assert (moved > 4).all() and (off < 0.5 * moved).all()
    gaps = mouth_opening(base)
    assert np.abs(gaps - gaps[0]).max() < 0.1 * gaps[0]


def test_coefficients_tell_the_opening_and_not_the_nod(shapes):
    shape, people = shapes
    video, pose, opening = people[0]
    coefficients = shape.encode(video, shape.base(shape.neutral(video, pose), pose))
    assert np.corrcoef(coefficients[:, 0], opening)[0, 1] > 0.98
    assert 0.3 < coefficients[:, 0].std() < 3


def test_decode_inverts_encode(shapes):
    shape, people = shapes
    video, pose, _ = people[1]
    base = shape.base(shape.neutral(video, pose), pose)
    points = shape.decode(shape.encode(video, base), base)
    assert points.shape == (100, NUM_POINTS, 2)
    assert np.abs(points - video[:, SHAPE_POINTS]).mean() < 0.5


def test_mouth_shape_survives_saving(shapes, tmp_path):
    shape, _ = shapes
    shape.save(tmp_path / "shape")
    again = MouthShape.load(tmp_path / "shape")
    np.testing.assert_array_equal(shape.components, again.components)
    assert again.num_coefficients == 3
    points, pose, _ = shapes[1][0]
    neutral = shape.neutral(points, pose)
    np.testing.assert_array_equal(shape.base(neutral, pose), again.base(neutral, pose))
    save_file({"components": shape.components, "pose_map": shape.pose_map}, tmp_path / "shape" / "model.safetensors")
    for folder, fault in (("shape", "is of an older version"), ("none", "There are no mouth shapes in")):
        with pytest.raises(InputError, match=fault):
            MouthShape.load(tmp_path / folder)


def test_sketch_shows_the_opening(shapes):
    shape, people = shapes
    video, pose, _ = people[0]
    base = shape.base(shape.neutral(video, pose), pose)[:2]
    points = shape.decode(np.array([[0, 0, 0], [4, 0, 0]], np.float32), base)
    closed, opened = MouthShape.sketch(points).astype(int)
    assert mouth_opening(points)[1] > mouth_opening(points)[0] + 3
    assert opened[..., 1].sum() > 1.3 * closed[..., 1].sum()
    assert opened[..., 2].sum() > closed[..., 2].sum()


def test_resting_mouth_closes_a_smile_and_leaves_a_closed_mouth(shapes):
    shape, people = shapes
    neutral = shape.neutral(*people[0][:2])
    wide = Neutral(neutral.mouth + 4 * shape.components[0].reshape(NUM_POINTS, 2), neutral.pose)
    before, after = (mouth_opening(n.mouth[None])[0] for n in (wide, shape.rested(wide)))
    assert before > RESTING_OPENING_PX + 3 and abs(after - RESTING_OPENING_PX) < 0.1
    rested = shape.rested(shape.rested(wide))
    np.testing.assert_allclose(rested.mouth, shape.rested(wide).mouth, atol=1e-3)


def test_a_lively_mouth_opens_further_and_a_calm_one_stays_narrower(portrait_points):
    shape = MouthShape.load(Path("pretrained/mouth_shape"))
    base = portrait_points[None, SHAPE_POINTS, :2].astype(np.float32)
    spoken = base + 4 * shape.opening_move + 3 * shape.width_move
    opened = [mouth_opening(x)[0] - mouth_opening(base)[0] for x in (spoken, shape.scaled(spoken, base, 1.5, 1.0))]
    assert opened[1] == pytest.approx(1.5 * opened[0], rel=0.02)
    grown = [mouth_width(x)[0] - mouth_width(base)[0] for x in (spoken, shape.scaled(spoken, base, 1.0, 0.5))]
    assert grown[1] == pytest.approx(0.5 * grown[0], rel=0.02)
    assert np.array_equal(shape.scaled(base, base, 1.5, 0.5), base)


def test_a_still_smile_rests_narrower(portrait_points):
    shape = MouthShape.load(Path("pretrained/mouth_shape"))
    points = MOUTH_WINDOW.to_window(portrait_points, align_matrix(portrait_points)).astype(np.float32)
    smile = shape.neutral(points[None], np.zeros((1, 3), np.float32))
    rested = shape.rested(smile)
    width = [float(np.linalg.norm(n.mouth[10] - n.mouth[0])) for n in (smile, rested)]
    assert width[0] > WIDEST_REST_PX + 5 and abs(width[1] - WIDEST_REST_PX) < 2
    assert abs(mouth_opening(rested.mouth[None])[0] - RESTING_OPENING_PX) < 0.1
