"""Bending a mouth window to another shape, relighting it, and drafts made of both."""

import cv2
import numpy as np
import pytest

from faces.bank import Mouth
from faces.inside import painted_inside, shut_lips
from faces.mouth_shape import NUM_POINTS, mouth_opening
from faces.warp import bend, beyond_lips, draft, lips_mask, relit, without_lips
from tests.processed import resting_mouth

SKIN, LIPS = (150, 120, 100), (160, 60, 60)
CLOSED = float(mouth_opening(resting_mouth()[None])[0])


@pytest.fixture
def points():
    """Points on an ellipse in the middle of the window."""
    angle = np.linspace(0, 2 * np.pi, NUM_POINTS, endpoint=False)
    return np.stack([80 + 40 * np.cos(angle), 90 + 25 * np.sin(angle)], axis=1).astype(np.float32)


@pytest.fixture
def picture():
    """A smooth picture in which each place can be recognised by its colour."""
    y, x = np.mgrid[:160, :160].astype(np.float32)
    return np.stack([x, y, 80 + 0 * x], axis=-1)


def test_same_shape_gives_the_same_picture(picture, points):
    assert np.abs(bend(picture, points, points) - picture).max() < 1e-2


def test_points_carry_their_colours_to_the_new_places(picture, points):
    wanted = points + [6, -5]
    bent = bend(picture, points, wanted)
    found = np.array([bent[round(y), round(x), :2] for x, y in wanted])
    # At the wanted places lie the colours, that is the coordinates, of the old ones; rounding costs up to half a pixel.
    assert np.abs(found - points).max() < 1.5


def test_the_rim_of_the_window_stays(picture, points):
    bent = bend(picture, points, points + [8, 8])
    for side in (
        bent[0] - picture[0],
        bent[-1] - picture[-1],
        bent[:, 0] - picture[:, 0],
        bent[:, -1] - picture[:, -1],
    ):
        assert np.abs(side).max() < 3.5


def test_lips_that_touch_may_move_apart_without_tearing(picture):
    x = np.linspace(50, 110, NUM_POINTS // 2, dtype=np.float32)
    closed = np.stack([np.tile(x, 2), np.full(2 * len(x), 90, np.float32)], axis=1)
    opened = closed.copy()
    opened[: len(x), 1] -= 8
    opened[len(x) :, 1] += 8
    bent = bend(picture, closed, opened)
    assert np.isfinite(bent).all()
    assert np.abs(np.diff(bent[:, 80, 1])).max() < 4, "the picture is torn"


@pytest.fixture
def mouth() -> np.ndarray:
    """Lips and jaw (P, 2) of a closed mouth."""
    return resting_mouth().astype(np.float32)


@pytest.fixture
def opened(mouth: np.ndarray) -> np.ndarray:
    """The same mouth, open."""
    wanted = mouth.copy()
    wanted[[*range(11, 20), *range(31, 40)], 1] += 14  # lower lip, outer and inner
    return wanted


def face(skin: tuple, lips: tuple, points: np.ndarray) -> np.ndarray:
    """Plain skin with plain lips."""
    mask = lips_mask(points, 0, 1.0)[..., None]
    return np.round(np.array(skin) + mask * (np.array(lips) - np.array(skin, float))).astype(np.uint8)


def as_mouth(picture: np.ndarray, points: np.ndarray) -> Mouth:
    return Mouth(picture, points, np.zeros(10, np.float32), np.zeros(80, np.float32), np.zeros(3, np.float32), 1.0)


@pytest.mark.parametrize("light", [0.3, 0.6, 1.0, 1.5])
def test_lips_of_another_moment_get_the_light_of_the_frame(mouth, light):
    there = face((150, 120, 100), (160, 60, 60), mouth)
    skin = np.clip(there * light, 0, 255).astype(np.uint8)
    brought = relit(there, skin, beyond_lips(mouth))
    inside = lips_mask(mouth, 0, 0) > 0.99
    assert np.abs(brought[inside].mean(0) - skin[inside].mean(0)).max() < 5


def test_a_draft_has_the_frames_skin_and_the_other_pictures_lips(mouth):
    frame = face((150, 120, 100), (150, 120, 100), mouth)  # a face that lost its lips
    lips = as_mouth(face((150, 120, 100), (160, 40, 60), mouth), mouth)
    made = draft(frame, mouth, mouth, [(lips, 1.0)], CLOSED)
    far, around = (lips_mask(mouth, px, 0) == 0 for px in (50, 12))
    assert np.array_equal(made[far], frame[far])
    assert np.abs(made[around].astype(int) - frame[around]).max() <= 3
    inside = lips_mask(mouth, 0, 0) > 0.99
    assert np.abs(made[inside].astype(int) - lips.picture[inside]).max() < 12


def chin(mouth: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns between the lips and the jaw."""
    low = int(mouth[:20, 1].max())
    return slice(low + 14, low + 22), slice(70, 90)


def test_the_chin_says_what_the_lips_say(mouth):
    """A dimple that the old mouth made goes, the one of the new mouth comes; turned away the chin is the frame's."""
    frame, picture = (face(SKIN, LIPS, mouth) for _ in range(2))
    frame[chin(mouth)] -= 12
    made = draft(frame, mouth, mouth, [(as_mouth(picture, mouth), 1.0)], CLOSED).astype(int)
    assert np.abs(made[chin(mouth)] - SKIN).mean() < 3
    turned = mouth * np.array((0.6, 1), np.float32)
    turned[40:, 0] = mouth[40:, 0]
    kept = draft(frame, turned, turned, [(as_mouth(picture, turned), 1.0)], CLOSED).astype(int)
    assert np.abs(kept[chin(mouth)] - frame[chin(mouth)]).mean() < 3


def test_what_lies_behind_a_turned_face_does_not_come_along(mouth):
    """The other picture was seen from further aside, so that its background stands close to the lips."""
    turned = mouth * np.array((0.6, 1), np.float32)
    turned[40:, 0] = mouth[40:, 0]
    frame, picture = face(SKIN, LIPS, turned), face(SKIN, (160, 40, 60), turned)
    beside = slice(60, 120), slice(int(turned[:20, 0].max()) + 5, 160)
    picture[beside] = (20, 30, 90)
    made = draft(frame, turned, turned, [(as_mouth(picture, turned), 1.0)], CLOSED).astype(int)
    assert np.abs(made[beside] - frame[beside]).max() < 12
    inside = lips_mask(turned, 0, 0) > 0.99
    assert np.abs(made[inside].mean(0) - (160, 40, 60)).max() < 6


@pytest.mark.parametrize("where", ["frame", "picture"])
def test_a_hand_at_the_chin_stays_where_it_is(mouth, where):
    """One that is there now is not painted over, and one of another moment does not come along."""
    frame, picture = (face(SKIN, LIPS, mouth) for _ in range(2))
    low = int(mouth[:20, 1].max())
    {"frame": frame, "picture": picture}[where][low + 12 : low + 36, 60:100] = (60, 90, 160)
    made = draft(frame, mouth, mouth, [(as_mouth(picture, mouth), 1.0)], CLOSED).astype(int)
    inner = slice(low + 18, low + 30), slice(66, 94)
    assert np.abs(made[inner] - frame[inner]).max() < 12


def test_the_jaw_is_moved_further_than_the_mesh_saw(mouth, opened):
    """The outline of a jaw that the mesh sees sink by 4 px, and that sinks by 6: drawn at rest, it stands at rest."""
    sunk = opened.copy()
    sunk[40:, 1] += 4
    rows = np.arange(160)[:, None]
    edge = int(mouth[40:, 1].max())
    frame = np.where((rows < edge + 6)[..., None], np.array(SKIN), 20).astype(np.uint8).repeat(160, axis=1)
    lips = as_mouth(face(SKIN, LIPS, mouth), mouth)
    made = draft(frame, sunk, mouth, [(lips, 1.0)], CLOSED).astype(int)
    middle = int(mouth[40:, 0].mean())
    assert abs(int((made[:, middle, 0] > 85).sum()) - edge) <= 1


def test_the_old_inside_does_not_survive(mouth, opened):
    """A frame whose mouth stands open, drawn closed with closed lips: nothing of the dark inside is left."""
    frame = face((150, 120, 100), (160, 60, 60), opened)
    inner = opened[20:40]
    frame[int(inner[:, 1].min()) + 3 : int(inner[:, 1].max()) - 2, 70:90] = 0
    lips = as_mouth(face((150, 120, 100), (160, 60, 60), mouth), mouth)
    made = draft(frame, opened, mouth, [(lips, 1.0)], CLOSED)
    assert made[lips_mask(mouth, 0, 0) > 0.5].min() > 40


def test_old_lips_that_swell_beyond_their_mesh_do_not_survive(mouth, opened):
    """Pursed lips reach further than the mesh says; drawn closed, nothing of their red is left below the new lips."""
    swollen = np.round(SKIN + lips_mask(opened, 6, 1.0)[..., None] * (np.array(LIPS) - SKIN)).astype(np.uint8)
    lips = as_mouth(face(SKIN, LIPS, mouth), mouth)
    made = draft(swollen, opened, mouth, [(lips, 1.0)], CLOSED).astype(int)
    around = (lips_mask(mouth, 10, 1.0) == 0) & (lips_mask(opened, 14, 0) > 0)
    assert (swollen.astype(int)[around, 1] < 100).any()
    assert np.abs(made[around] - SKIN).max() < 15
    beyond = lips_mask(opened, 30, 0) == 0
    assert np.abs(made[beyond] - SKIN).max() <= 2


def test_lips_are_cleared_away_as_far_as_asked(mouth):
    frame = face(SKIN, LIPS, mouth)
    assert without_lips(frame, mouth, 0.0) is frame
    assert np.abs(without_lips(frame, mouth, 1.0).astype(int) - SKIN).max() <= 3


def test_the_more_a_closed_mouth_is_opened_the_more_of_its_inside_is_seen(mouth):
    """Closed lips show nothing; from there on the dark place grows, until teeth are seen in it, too."""
    lips = as_mouth(face((200, 160, 140), (180, 80, 80), mouth), mouth)
    dark = []
    for gap in (0, 2, 4, 7, 11):
        wanted = mouth.copy()
        wanted[[*range(11, 20), *range(31, 40)], 1] += gap
        made = draft(lips.picture, mouth, wanted, [(lips, 1.0)], CLOSED)
        dark.append(int((made[:, 80].max(axis=1) < 110).sum()))
    assert dark[0] == 0
    assert 0 < dark[1] < dark[2] <= dark[3] < dark[4]


def test_thin_lips_whose_mesh_is_crossed_when_they_are_closed_open_as_far_as_others(mouth):
    """The mesh of closed thin lips may lie 3 px beyond each other: what is seen is how far they part from there."""
    crossed, lower = mouth.copy(), [*range(11, 20), *range(31, 40)]
    crossed[lower, 1] -= CLOSED + 3
    dark = []
    for source, closed in ((mouth, CLOSED), (crossed, -3.0)):
        lips, wanted = as_mouth(face((200, 160, 140), (180, 80, 80), source), source), source.copy()
        wanted[lower, 1] += 7
        made = draft(lips.picture, source, wanted, [(lips, 1.0)], closed)
        dark.append(int((made[:, 80].max(axis=1) < 110).sum()))
    assert dark[0] > 0
    assert abs(dark[0] - dark[1]) <= 2


def test_a_closed_mouth_that_is_opened_gets_an_inside(mouth, opened):
    closed = face((200, 160, 140), (180, 80, 80), mouth)
    bent = bend(closed, mouth, opened)
    painted = painted_inside(bent, mouth, opened, CLOSED).astype(float)
    column = painted[:, 80].mean(-1)
    top, bottom = opened[25, 1], opened[35, 1]
    opening = column[int(top) + 1 : int(bottom)]
    assert opening.min() < 60, "no dark inside"
    assert opening[:4].max() > 120, "no teeth below the upper lip"
    assert np.array_equal(painted_inside(closed, mouth, mouth, CLOSED), closed)
    assert np.array_equal(painted_inside(bent, opened, opened, CLOSED), bent), "it has an inside"


def bitten(points: np.ndarray) -> Mouth:
    """Lips apart over teeth."""
    picture = face(SKIN, LIPS, points)
    cv2.fillPoly(picture, [np.round(points[20:40]).astype(np.int32)], (215, 205, 190))
    return as_mouth(picture, points)


@pytest.mark.parametrize("gap", [0, 14])
def test_parted_lips_that_shall_be_closed_meet(mouth, opened, gap):
    """Also where the mesh takes bared teeth for closed lips."""
    shown = bitten(opened if gap else mouth)
    made = draft(shown.picture, shown.points, mouth, [(shown, 1.0)], CLOSED).astype(int)
    between = np.zeros(made.shape[:2], np.uint8)
    cv2.fillPoly(between, [np.round(mouth[20:40]).astype(np.int32)], 1)
    between[:, :64] = between[:, 96:] = 0  # the middle of the mouth
    assert made[between > 0][:, 1].max() < 90, "teeth are seen"
    assert np.abs(made[between > 0].mean(0) - LIPS).max() < 45


def test_closed_lips_and_open_ones_are_not_drawn_together(mouth, opened):
    closed = as_mouth(face(SKIN, LIPS, mouth), mouth)
    assert shut_lips(closed.picture, mouth, mouth, CLOSED, closed.teeth) is closed.picture
    shown = bitten(opened)
    assert shut_lips(shown.picture, opened, opened, CLOSED, shown.teeth) is shown.picture


def test_own_teeth_stay_as_large_as_they_are_when_the_mouth_opens_further(mouth, opened):
    """The upper teeth of a smile keep their height below the upper lip; what comes free below is dark."""
    wider = opened.copy()
    wider[[*range(11, 20), *range(31, 40)], 1] += 14
    smile = face((200, 160, 140), (180, 80, 80), opened)
    top, bottom = round(opened[25, 1]) + 1, round(opened[35, 1])
    smile[top:bottom, 62:99] = 235
    made = draft(smile, opened, wider, [(as_mouth(smile, opened), 1.0)], CLOSED)
    column = made[round(wider[25, 1]) + 1 : round(wider[35, 1]), 80].astype(int).min(axis=-1)
    teeth = int((column > 180).sum())
    assert abs(teeth - (bottom - top)) <= 4
    assert column[teeth + 4 : -3].max() < 120
