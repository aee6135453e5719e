"""Heads that look aside: where their mouth rests, what of its movement is seen, and whose jaw they keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from faces.mouth_shape import JAW_PART, MouthShape, Neutral, mouth_opening, mouth_width
from faces.turned import looks_ahead, resting, seen_aside, with_own_jaw
from tests.processed import resting_mouth

AHEAD, ASIDE = np.zeros((1, 3), np.float32), np.array([[40, 0, 0]], np.float32)


@pytest.fixture(scope="module")
def shape() -> MouthShape:
    return MouthShape.load(Path("pretrained/mouth_shape"))


@pytest.fixture(scope="module")
def neutral() -> Neutral:
    return Neutral(resting_mouth().astype(np.float32), AHEAD[0])


def test_a_turned_face_looks_aside(shape, neutral):
    seen = shape.base(neutral, np.array([[0, 0, 0], [20, 0, 0], [45, 0, 0], [-45, 0, 0], [0, 15, 0]], np.float32))
    ahead = looks_ahead(seen)
    assert ahead[0] == ahead[4] == 1 and ahead[2] == ahead[3] == 0
    assert 0 < ahead[1] < 1


def test_a_mouth_rests_where_the_upper_lip_of_a_turned_head_is(shape, neutral):
    """A nod that nobody knew of: a face that looks ahead is left where its pose says, one that looks aside is not."""
    for pose, share in ((AHEAD, 0), (ASIDE, 1)):
        base = shape.base(neutral, pose)
        found = resting(shape, neutral, base + np.array((3, -4), np.float32), pose)
        np.testing.assert_allclose(found, base + share * np.array((3, -4)), atol=1e-3)


def test_a_turned_mouth_that_opens_rests_where_it_was(shape, neutral):
    """The lower lip of the frame, which says what the old mouth said, does not move the resting mouth."""
    base = shape.base(neutral, ASIDE)
    opened = base.copy()
    opened[:, [*range(11, 20), *range(31, 40), *range(40, 57)], 1] += 12
    assert mouth_opening(opened)[0] > mouth_opening(base)[0] + 8
    np.testing.assert_allclose(resting(shape, neutral, opened, ASIDE), base, atol=1e-3)


def test_a_smile_is_narrower_from_the_side_and_an_open_mouth_as_open(shape, neutral):
    moved = 6 * shape.opening_move + 5 * shape.width_move
    for pose, least, most in ((AHEAD, 0.99, 1.01), (ASIDE, 0.6, 0.95)):
        base = shape.base(neutral, pose)
        seen = seen_aside(base + moved, base, pose)
        wider, further = (float(f(seen)[0] - f(base)[0]) for f in (mouth_width, mouth_opening))
        assert least < wider / float(mouth_width(base + moved)[0] - mouth_width(base)[0]) < most
        assert further == pytest.approx(6, rel=0.2)


def test_a_turned_face_keeps_its_jaw_and_moves_it_as_the_lips_part(shape, neutral):
    for pose in (AHEAD, ASIDE):
        base = shape.base(neutral, pose)
        own = base.copy()
        own[:, JAW_PART] += (5, 2)  # an outline that no pose map knows
        wanted = base + 4 * shape.opening_move
        placed = with_own_jaw(shape, wanted, own)
        np.testing.assert_array_equal(placed[:, : JAW_PART.start], wanted[:, : JAW_PART.start])
        expected = wanted if pose is AHEAD else own + 4 * shape.opening_move
        np.testing.assert_allclose(placed[:, JAW_PART], expected[:, JAW_PART], atol=0.05)
