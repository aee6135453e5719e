"""Following a face: scene cuts, linking of boxes, the choice among several faces, gaps."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data as pictures

from faces.choice import FaceChoice, link
from faces.detector import Detection, FaceDetector, FaceMesh, roi_from_detection
from faces.shots import FacePlan, Look, Shot, faces_in, looks, survey, with_cuts
from faces.tracker import FaceTracker, TrackerSettings, box_of
from tests.footage import face_frame
from utils.helpers import InputError
from utils.pictures import ArrayPicture
from video_processor import VideoReader

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
    moving = [scene([(face, 200 + 12 * i, 60)]) for i in range(5)]
    brighter = np.clip(moving[-1].astype(int) + 15, 0, 255).astype(np.uint8)
    other = cv2.resize(pictures.coffee(), (640, 360))
    images = [*moving, brighter, other, other]
    assert [cut for _, cut in with_cuts(shown(images), 0.35)] == [False] * 6 + [True, False]


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


def cuts_of(images: list[np.ndarray]) -> list[int]:
    return [i for i, (_, cut) in enumerate(with_cuts(shown(images), 0.35)) if cut]


def test_a_flash_is_no_cut_but_a_cut_after_it_is(face: np.ndarray) -> None:
    here, white = scene([(face, 200, 60)]), np.full((360, 640, 3), 255, np.uint8)
    there = cv2.resize(pictures.coffee(), (640, 360))
    assert cuts_of([here] * 4 + [white] + [here] * 4 + [white] * 2 + [here] * 4) == []
    assert cuts_of([here] * 4 + [white] + [there] * 4) == [4, 5]
    assert cuts_of([here] * 4 + [there]) == [4]  # also in the last frame


def test_a_flash_keeps_the_shot_and_its_face(networks: tuple[FaceDetector, FaceMesh], face: np.ndarray) -> None:
    here, white = scene([(face, 200, 60)]), np.full((360, 640, 3), 255, np.uint8)
    frames = shown([here] * 7 + [white] + [here] * 7)
    followed = list(FaceTracker(*networks, FaceChoice(), TrackerSettings()).follow(frames))
    assert {f.shot for f in followed} == {0}
    assert [i for i, f in enumerate(followed) if f.points is None] == [7]


def test_the_same_person_larger_after_a_cut_is_another_shot(
    networks: tuple[FaceDetector, FaceMesh], face: np.ndarray
) -> None:
    far = scene([(cv2.resize(face, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), 250, 90)])
    near = scene([(cv2.resize(face, None, fx=1.4, fy=1.4, interpolation=cv2.INTER_CUBIC), 180, 10)], grey=60)
    followed = list(FaceTracker(*networks, FaceChoice(), TrackerSettings()).follow(shown([far] * 6 + [near] * 6)))
    assert [f.shot for f in followed] == [0] * 6 + [1] * 6
    heights = [np.ptp(f.points[:, 1]) for f in followed]
    assert np.allclose(heights[6:], 2.8 * heights[0], rtol=0.1)  # at once, no sliding from one to the other


def test_survey_tells_scenes_and_their_faces_from_left_to_right(
    networks: tuple[FaceDetector, FaceMesh], face: np.ndarray
) -> None:
    two = scene([(face, 380, 60), (face, 40, 60)])
    empty = cv2.resize(pictures.coffee(), (640, 360))
    one = scene([(face, 220, 60)], grey=200)
    shots = list(survey(looks(shown([two] * 8 + [empty] * 6 + [one] * 6), networks[0], 0.35, 5)))
    assert [(round(s.start * 25), round(s.stop * 25)) for s in shots] == [(0, 8), (8, 14), (14, 19)]
    assert [[round(t.centre()[0], -2) for t in s.faces()] for s in shots] == [[100, 500], [], [300]]


def test_a_plan_follows_its_face_from_where_it_is_first_seen(
    networks: tuple[FaceDetector, FaceMesh], face: np.ndarray
) -> None:
    alone, both = scene([(face, 40, 60)]), scene([(face, 40, 60), (face, 380, 60)])
    frames = shown([alone] * 10 + [both] * 10)
    (shot,) = survey(looks(frames, networks[0], 1.0, 5))
    late = max(shot.tracks, key=lambda track: track.centre()[0])
    plan = FacePlan([(shot, late)])
    settings = TrackerSettings(cut_threshold=1.0)
    followed = list(FaceTracker(*networks, FaceChoice(), settings, plan).follow(frames))
    assert [f.points is not None for f in followed] == [False] * 10 + [True] * 10
    assert all(f.points[1, 0] > 400 for f in followed[10:])


def test_a_plan_finds_its_face_again_where_the_video_is_played_on(
    networks: tuple[FaceDetector, FaceMesh], face: np.ndarray
) -> None:
    both = scene([(face, 40, 60), (face, 380, 60)])
    (shot,) = survey(looks(shown([both] * 10), networks[0], 1.0, 5))
    plan = FacePlan([(shot, shot.faces()[1])], lambda time: time % 0.4)
    detections = networks[0].detect(both)
    assert plan.pick(100.2, detections)[0] > 380
    assert FacePlan([(shot, None)]).pick(0.0, detections) is None


def test_a_scene_without_looks_has_no_face() -> None:
    assert list(survey([])) == []
    image = np.zeros((9, 9, 3), np.uint8)
    assert list(survey([Look(Shown(image, 0.0), ArrayPicture(image), False, [])])) == [Shot(0.0, 0.0, 1, [])]


def shirt_pattern(seed: int, side: int = 220) -> np.ndarray:
    """Blots that the detector takes for a face (score 0.5 to 0.7) and the mesh does not; seeds found by trying."""
    random = np.random.default_rng(seed)
    image = np.full((side, side, 3), random.integers(90, 230, 3), np.uint8)
    ink = tuple(int(v) for v in random.integers(0, 90, 3))

    def blot(x: float, y: float, width: float, height: float, line: int = -1) -> None:
        centre, axes = (int(x * side), int(y * side)), (int(width * side), int(height * side))
        cv2.ellipse(image, centre, axes, 0, 0, 360, ink, line)

    for x in (0.33, 0.67):
        blot(x, 0.4, random.uniform(0.05, 0.13), random.uniform(0.03, 0.1))
    blot(0.5, 0.74, random.uniform(0.1, 0.25), random.uniform(0.02, 0.1))
    blot(0.5, 0.56, 0.05, 0.06, line=2)
    return cv2.GaussianBlur(image, (0, 0), random.uniform(1, 6))


@pytest.mark.parametrize("seed", [5, 12, 14, 44])
def test_a_pattern_larger_than_the_face_is_no_face(networks: tuple[FaceDetector, FaceMesh], seed: int) -> None:
    image = np.full((320, 640, 3), 120, np.uint8)
    image[:, :320], image[50:270, 370:590] = face_frame(0.0), shirt_pattern(seed)
    taken = [d for net in networks[0]._networks for d in net.candidates(image, 0.5) if d.box[0] > 320]
    assert taken and max(d.box[2] - d.box[0] for d in taken) > 150  # the face has 103 px
    assert all(d.box[2] < 320 for d in networks[0].detect(image)) and networks[0].detect(image)
    followed = list(FaceTracker(*networks, FaceChoice(), TrackerSettings()).follow(shown([image] * 8)))
    assert all(f.points is not None and f.points[1, 0] < 320 for f in followed)


def test_no_face_is_found_where_a_real_clip_shows_none(
    networks: tuple[FaceDetector, FaceMesh], talking_faces: Path
) -> None:
    video = talking_faces / "hard" / "handheld_microphone_profile_two_people.mp4"
    with VideoReader(video) as reader:
        image = next(itertools.islice(reader, 80, None)).image  # hands and clothes that look like four faces
    assert any(net.candidates(image, 0.5) for net in networks[0]._networks)
    assert networks[0].detect(image) == []


def test_a_face_upside_down_is_found_and_stands_on_its_head(
    networks: tuple[FaceDetector, FaceMesh], face: np.ndarray
) -> None:
    upright = scene([(face, 220, 60)])
    turned = np.ascontiguousarray(upright[::-1, ::-1])

    (found,) = networks[0].detect(turned)
    (usual,) = networks[0].detect(upright)
    points, presence = networks[1](turned, roi_from_detection(found))

    assert presence > 0.8 and points[152, 1] < points[10, 1] - 50  # the chin is above the forehead
    assert np.abs(found.box - (640, 360, 640, 360) + usual.box[[2, 3, 0, 1]]).max() < 8


@pytest.mark.parametrize("name", ["lrcar_p021_0032.mp4", "lrcar_p019_0025.mp4"])
def test_real_faces_are_found_whichever_way_up(
    networks: tuple[FaceDetector, FaceMesh], talking_faces: Path, name: str
) -> None:
    with VideoReader(talking_faces / "test" / "videos" / name) as reader:
        image = next(iter(reader)).image
    for turns in range(4):
        (found,) = faces_in(networks[0], ArrayPicture(np.ascontiguousarray(np.rot90(image, turns))))
        lean = np.degrees(roi_from_detection(found).angle) + 90 * turns
        # Lying faces come out aslant by the detector alone; the mesh then sets them right.
        assert abs((lean + 180) % 360 - 180) < (40 if turns % 2 else 15)


@pytest.mark.parametrize("x", [0, 2890, 5100, 6120])
def test_a_face_in_a_panorama_is_found_once(networks: tuple[FaceDetector, FaceMesh], face: np.ndarray, x: int) -> None:
    panorama = scene([(face, x, 60)], size=(360, 6360))

    (found,) = faces_in(networks[0], ArrayPicture(panorama))
    (standing,) = faces_in(networks[0], ArrayPicture(np.ascontiguousarray(panorama.transpose(1, 0, 2)[:, ::-1])))

    (usual,) = networks[0].detect(scene([(face, 220, 60)]))
    assert np.abs(found.box - usual.box - (x - 220, 0, x - 220, 0)).max() < 12
    assert abs((standing.box[1] + standing.box[3]) / 2 - (found.box[0] + found.box[2]) / 2) < 12
