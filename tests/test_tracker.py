"""Following a face: scene cuts, linking of boxes, the choice among several faces, gaps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data as pictures

from faces.detector import Detection, FaceDetector, FaceMesh
from faces.tracker import CutDetector, FaceChoice, FaceTracker, TrackerSettings, box_of, link
from utils.helpers import InputError

MODELS = Path(__file__).resolve().parent.parent / "pretrained" / "faces"


@dataclass
class Shown:
    image: np.ndarray
    time: float


@pytest.fixture(scope="module")
def networks() -> tuple[FaceDetector, FaceMesh]:
    return FaceDetector(MODELS), FaceMesh(MODELS)


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """A real face, uint8 RGB (240, 200, 3)."""
    return pictures.astronaut()[0:240, 120:320].copy()


def scene(
    faces: list[tuple[np.ndarray, int, int]], size: tuple[int, int] = (360, 640), grey: int = 90
) -> np.ndarray:
    """A plain picture with faces pasted at (x, y)."""
    image = np.full((*size, 3), grey, np.uint8)
    for face, x, y in faces:
        image[y : y + face.shape[0], x : x + face.shape[1]] = face
    return image


def shown(images: list[np.ndarray], fps: float = 25.0) -> list[Shown]:
    return [Shown(image, i / fps) for i, image in enumerate(images)]


def detection(x: float, y: float, side: float) -> Detection:
    box = np.array([x, y, x + side, y + side], np.float32)
    return Detection(box, 0.9, np.zeros((6, 2), np.float32))


def test_link_keeps_two_people_apart_and_bridges_a_missed_frame() -> None:
    left = [detection(10 + 4 * i, 10, 50) for i in range(6)]
    right = [detection(300, 10, 80) for _ in range(6)]
    sightings = [(i * 0.2, [right[i], left[i]] if i != 3 else [right[i]]) for i in range(6)]

    tracks = link(sightings)

    assert len(tracks) == 2
    by_size = sorted(tracks, key=lambda t: t.area())
    assert [len(t.boxes) for t in by_size] == [5, 6]
    assert by_size[1].centre() == pytest.approx((340, 50))


@pytest.mark.parametrize(
    ("text", "x"), [("largest", 100), ("left", 0), ("right", 300), ("index:1", 100), ("point:320,40", 300)]
)
def test_choice_picks_the_face_that_was_asked_for(text: str, x: int) -> None:
    people = [detection(300, 10, 50), detection(0, 10, 40), detection(100, 10, 90)]
    tracks = link([(0.0, people), (0.2, people)])
    chosen = FaceChoice.parse(text).pick(tracks, 2)
    assert chosen is not None and chosen.boxes[0][0] == x


def test_choice_by_point_uses_the_place_at_that_time() -> None:
    walking = [detection(20 * i, 0, 60) for i in range(6)]
    standing = [detection(100, 100, 60) for _ in range(6)]
    tracks = link([(i * 0.2, [walking[i], standing[i]]) for i in range(6)])
    chosen = FaceChoice.parse("point:130,40@1.0").pick(tracks, 6)
    assert chosen is not None and np.array_equal(chosen.boxes[-1], walking[-1].box)


def test_a_face_that_is_not_there_is_not_chosen() -> None:
    assert FaceChoice.parse("index:1").pick(link([(0.0, [detection(0, 0, 50)])])) is None
    assert FaceChoice().pick([]) is None


@pytest.mark.parametrize(
    "text", ["", "biggest", "index:", "index:-1", "point:3", "point:a,b", "point:1,2@", "left "]
)
def test_a_misspelt_choice_is_named(text: str) -> None:
    with pytest.raises(InputError, match="largest, left, right"):
        FaceChoice.parse(text)


def test_cut_is_seen_and_motion_is_not(face: np.ndarray) -> None:
    cuts = CutDetector()
    moving = [scene([(face, 200 + 12 * i, 60)]) for i in range(5)]
    assert not any(cuts.is_cut(image) for image in moving)
    brighter = np.clip(moving[-1].astype(int) + 15, 0, 255).astype(np.uint8)
    assert not cuts.is_cut(brighter)
    assert cuts.is_cut(cv2.resize(pictures.coffee(), (640, 360)))


def test_follows_a_moving_face_in_every_frame(
    networks: tuple[FaceDetector, FaceMesh], face: np.ndarray
) -> None:
    frames = shown([scene([(face, 200 + 4 * i, 60 + 2 * i)]) for i in range(16)])
    followed = list(FaceTracker(*networks, FaceChoice(), TrackerSettings()).follow(frames))

    assert [f.frame for f in followed] == frames
    assert {f.shot for f in followed} == {0}
    noses = np.array([f.points[1, :2] for f in followed])
    assert np.allclose(noses - noses[0], np.arange(16)[:, None] * (4, 2), atol=3)


def test_each_shot_has_its_own_face_and_faceless_frames_have_none(
    networks: tuple[FaceDetector, FaceMesh], face: np.ndarray
) -> None:
    small = cv2.resize(face, (100, 120), interpolation=cv2.INTER_AREA)
    two = scene([(face, 20, 60), (small, 450, 100)])
    empty = cv2.resize(pictures.coffee(), (640, 360))
    images = [two] * 8 + [empty] * 7 + [scene([(small, 300, 20)], grey=200)] * 6
    followed = list(
        FaceTracker(*networks, FaceChoice.parse("right"), TrackerSettings()).follow(shown(images))
    )

    assert len(followed) == len(images)
    assert all(f.points is not None and f.points[1, 0] > 450 for f in followed[:8])
    assert all(f.points is None for f in followed[8:15])
    assert all(f.points is not None for f in followed[15:])
    assert len({f.shot for f in followed[:8]}) == 1
    assert len({followed[i].shot for i in (0, 8, 15)}) == 3


def test_a_face_that_comes_back_is_found_again(
    networks: tuple[FaceDetector, FaceMesh], face: np.ndarray
) -> None:
    seen, hidden = scene([(face, 200, 60)]), scene([(face, 200, 60)])
    hidden[60:300, 200:400] = 90
    # The plain patch is no scene cut, only the loss of the face.
    images = [seen] * 6 + [hidden] * 6 + [seen] * 8
    settings = TrackerSettings(cut_threshold=1.0)
    followed = list(FaceTracker(*networks, FaceChoice(), settings).follow(shown(images)))

    assert all(f.points is not None for f in followed[:6])
    assert all(f.points is None for f in followed[6:12])
    assert all(f.points is not None for f in followed[16:])
    assert {f.shot for f in followed} == {0}


def test_a_mesh_box_encloses_its_points(networks: tuple[FaceDetector, FaceMesh], face: np.ndarray) -> None:
    frames = shown([scene([(face, 200, 60)])])
    points = next(FaceTracker(*networks, FaceChoice(), TrackerSettings()).follow(frames)).points
    box = box_of(points)
    assert 200 < box[0] < points[1, 0] < box[2] < 400
    assert 60 < box[1] < points[1, 1] < box[3] < 300
