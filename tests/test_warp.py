"""Bending a mouth window to another shape, relighting it, and drafts made of both."""

import numpy as np
import pytest

from faces.bank import Mouth
from faces.inside import painted_inside
from faces.mouth_shape import NUM_POINTS
from faces.warp import bend, draft, lips_mask, relit
from tests.processed import resting_mouth


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
    brought = relit(there, skin, mouth)
    inside = lips_mask(mouth, 0, 0) > 0.99
    assert np.abs(brought[inside].mean(0) - skin[inside].mean(0)).max() < 5


def test_a_draft_has_the_frames_skin_and_the_other_pictures_lips(mouth):
    frame = face((150, 120, 100), (150, 120, 100), mouth)  # a face that lost its lips
    lips = as_mouth(face((150, 120, 100), (160, 40, 60), mouth), mouth)
    made = draft(frame, mouth, mouth, [(lips, 1.0)])
    beyond = lips_mask(mouth, 12, 0) == 0
    assert np.array_equal(made[beyond], frame[beyond])
    inside = lips_mask(mouth, 0, 0) > 0.99
    assert np.abs(made[inside].astype(int) - lips.picture[inside]).max() < 12


def test_the_old_inside_does_not_survive(mouth, opened):
    """A frame whose mouth stands open, drawn closed with closed lips: nothing of the dark inside is left."""
    frame = face((150, 120, 100), (160, 60, 60), opened)
    inner = opened[20:40]
    frame[int(inner[:, 1].min()) + 3 : int(inner[:, 1].max()) - 2, 70:90] = 0
    lips = as_mouth(face((150, 120, 100), (160, 60, 60), mouth), mouth)
    made = draft(frame, opened, mouth, [(lips, 1.0)])
    assert made[lips_mask(mouth, 0, 0) > 0.5].min() > 40


def test_a_closed_mouth_that_is_opened_gets_an_inside(mouth, opened):
    closed = face((200, 160, 140), (180, 80, 80), mouth)
    bent = bend(closed, mouth, opened)
    painted = painted_inside(bent, mouth, opened).astype(float)
    column = painted[:, 80].mean(-1)
    top, bottom = opened[25, 1], opened[35, 1]
    opening = column[int(top) + 1 : int(bottom)]
    assert opening.min() < 60, "no dark inside"
    assert opening[:4].max() > 120, "no teeth below the upper lip"
    assert np.array_equal(painted_inside(closed, mouth, mouth), closed)
    assert np.array_equal(painted_inside(bent, opened, opened), bent), "an open picture has an inside of its own"
