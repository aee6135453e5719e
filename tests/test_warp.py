"""Bending a mouth window to another shape."""

import numpy as np
import pytest

from faces.mouth_shape import LIPS_INNER, LIPS_OUTER, NUM_POINTS
from faces.warp import bend_references, bend_to_shape


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
    assert np.abs(bend_to_shape(picture, points, points[None])[0] - picture).max() < 1e-2


def test_points_carry_their_colours_to_the_new_places(picture, points):
    wanted = points + [6, -5]
    (bent,) = bend_to_shape(picture, points, wanted[None])
    found = np.array([bent[round(y), round(x), :2] for x, y in wanted])
    # At the wanted places lie the colours, that is the coordinates, of the old ones; rounding costs up to half a pixel.
    assert np.abs(found - points).max() < 1.5


def test_the_rim_of_the_window_stays(picture, points):
    (bent,) = bend_to_shape(picture, points, (points + [8, 8])[None])
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
    (bent,) = bend_to_shape(picture, closed, opened[None])
    assert np.isfinite(bent).all()
    assert np.abs(np.diff(bent[:, 80, 1])).max() < 4, "the picture is torn"


def test_several_shapes_and_bytes(picture, points):
    bent = bend_to_shape(picture.astype(np.uint8), points, np.stack([points, points + 3]))
    assert bent.shape == (2, 160, 160, 3) and bent.dtype == np.uint8


def test_the_reference_with_the_wanted_opening_is_drawn(points):
    """Closed lips come from the picture with closed lips, open ones from the other, if the heads are held alike."""
    inner = slice(len(LIPS_OUTER), len(LIPS_OUTER) + len(LIPS_INNER))
    opened = points.copy()
    opened[inner, 1] += np.where(np.arange(len(LIPS_INNER)) < len(LIPS_INNER) // 2, -10, 10)
    pictures = np.stack([np.full((160, 160, 3), 50, np.uint8), np.full((160, 160, 3), 200, np.uint8)])
    sources, wanted = np.stack([points, opened]), np.stack([points] * 8 + [opened] * 8)
    drawn = bend_references(pictures, sources, wanted, np.zeros(2))
    assert drawn.dtype == np.uint8 and drawn.shape == (16, 160, 160, 3)
    assert (drawn[:6] < 60).all() and (drawn[10:] > 190).all()
    steps = np.abs(np.diff(drawn[:, 80, 80, 0].astype(int)))
    assert steps.max() < 100  # from one to the other over several frames
    turned = bend_references(pictures, sources, wanted, np.array([0.0, 0.5]))
    assert (turned == 50).all()  # a picture of a turned head is of no use
