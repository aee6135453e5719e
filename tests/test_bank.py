"""The bank of a person's mouths: spread over what was seen, bounded, and picked from along a cheapest path."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from faces.alignment import LIPS_INNER, LIPS_OUTER
from faces.bank import Mouth, MouthBank, MouthPicker, cheapest_path, gap_of, lips_of, mouth_of
from faces.mouth_shape import NUM_POINTS
from tests.processed import resting_mouth

POSE = np.zeros(3, np.float32)


def mouth(opening: float, sharpness: float = 1.0, yaw: float = 0.0) -> Mouth:
    """A mouth whose lips all lie `opening` px off their rest."""
    lips = np.tile(np.array([0, opening], np.float32), 40)
    picture = np.full((160, 160, 3), int(opening) % 256, np.uint8)
    shape = np.full(10, opening, np.float32)
    return Mouth(picture, np.zeros((57, 2), np.float32), shape, lips, POSE + np.float32([yaw, 0, 0]), sharpness)


def wanted(*openings: float) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([mouth(opening).lips for opening in openings]), np.tile(POSE, (len(openings), 1))


def openings(bank: MouthBank) -> list[float]:
    return sorted(float(m.lips[1]) for m in bank.mouths)


def test_a_bank_is_spread_over_what_was_seen_and_bounded() -> None:
    seen = [mouth(0.01 * i) for i in range(1000)]
    bank = MouthBank.of(seen, 5)
    assert len(bank) == 5
    assert np.diff(openings(bank)).min() > 1.5, "mouths that are alike"
    assert openings(bank)[0] < 1 and openings(bank)[-1] > 9


def test_mouths_that_are_all_alike_are_kept_once() -> None:
    assert len(MouthBank.of([mouth(3.0) for _ in range(50)], 20)) == 1


def test_a_growing_bank_takes_what_is_new_and_keeps_its_size() -> None:
    bank = MouthBank.of([mouth(0.0)], 8)
    for step in range(500):
        bank = bank.with_mouth(mouth(step % 100 / 5), 8)
    assert len(bank) == 8
    assert openings(bank)[0] < 2 and openings(bank)[-1] > 17
    assert bank.with_mouth(bank.mouths[3], 8) is bank


def test_the_nearest_mouth_is_picked_and_how_far_it_is_is_said() -> None:
    bank = MouthBank((mouth(0.0), mouth(5.0), mouth(10.0)))
    picks = MouthPicker().pick(bank, *wanted(0, 0, 0, 9, 9, 9))
    assert [max(pick.mouths, key=lambda m: m[1])[0].lips[1] for pick in picks] == [0, 0, 0, 10, 10, 10]
    assert [round(pick.unlike, 2) for pick in picks] == [0, 0, 0, 1, 1, 1]
    assert all(abs(sum(weight for _, weight in pick.mouths) - 1) < 1e-6 for pick in picks)


def test_a_change_is_a_short_cross_fade_and_small_gains_are_not_worth_one() -> None:
    bank = MouthBank((mouth(0.0), mouth(0.5)))
    picker = MouthPicker()
    picks = picker.pick(bank, *wanted(0, 0, 0.5, 0, 0))
    assert all(len(pick.mouths) == 1 for pick in picks)
    far = MouthBank((mouth(0.0), mouth(8.0)))
    assert [len(pick.mouths) for pick in MouthPicker().pick(far, *wanted(0, 0, 8, 8))] == [1, 2, 2, 1]


def test_blocks_go_on_where_the_one_before_ended() -> None:
    bank = MouthBank((mouth(0.0), mouth(1.0)))
    picker = MouthPicker()
    picker.pick(bank, *wanted(1, 1))
    (pick, *_) = picker.pick(bank, *wanted(0.49, 0.49))
    assert pick.mouths[0][0] is bank.mouths[1] and len(pick.mouths) == 1, "a change that saves next to nothing"


def test_a_turned_or_soft_picture_counts_less() -> None:
    bank = MouthBank((mouth(0.0, yaw=30.0), mouth(0.3), mouth(0.3, sharpness=0.2)))
    (pick,) = MouthPicker().pick(bank, *wanted(0.0))
    assert pick.mouths[0][0] is bank.mouths[1]


def test_a_turned_head_takes_a_mouth_from_the_same_side() -> None:
    """Ahead a few degrees are worth little; aside a mouth of another shape is better than one seen from elsewhere."""
    for yaw, picked in ((0.0, 0), (40.0, 1)):
        bank = MouthBank((mouth(3.0, yaw=yaw + 12), mouth(4.2, yaw=yaw)))
        lips, pose = wanted(3.0)
        assert bank.costs(lips, pose + np.float32([yaw, 0, 0])).argmin() == picked


def moved(opened: float, down: float = 0.0, wider: float = 0.0) -> np.ndarray:
    """How lips and jaw (1, P, 2) differ from rest: lower lip opened, all of it lowered, right corner pulled aside."""
    points = np.zeros((1, NUM_POINTS, 2), np.float32)
    first, inner = len(LIPS_OUTER), len(LIPS_INNER)
    points[:, [*range(first // 2 + 1, first), *range(first + inner // 2 + 1, first + inner)], 1] = opened
    points[:, [first // 2, first + inner // 2], 0] = wider
    points[..., 1] += down
    return points


def shown(*args: float) -> Mouth:
    lips = lips_of(moved(*args))[0]
    return Mouth(np.zeros((160, 160, 3), np.uint8), np.zeros((57, 2), np.float32), np.zeros(10), lips, POSE, 1.0)


def test_a_mouth_that_lies_lower_is_still_the_same_mouth() -> None:
    assert gap_of(lips_of(moved(6, 4)))[0] == pytest.approx(6)
    bank = MouthBank((shown(2), shown(6, 4)))
    assert bank.costs(lips_of(moved(6)), POSE[None]).argmin() == 1
    still = bank.apart(lips_of(moved(6)))
    assert 0 < still[0, 1] < still[0, 0]


def test_a_real_opening_is_worth_more_than_the_right_corners() -> None:
    """An inside that must be invented is worse than lips that must be bent; opening is worse than shutting."""
    bank = MouthBank((shown(2, 0, 0), shown(6, 0, 10)))
    assert bank.costs(lips_of(moved(6)), POSE[None]).argmin() == 1
    opened, shut = MouthBank((shown(2),)), MouthBank((shown(6),))
    at = lips_of(moved(4)), POSE[None]
    assert opened.costs(*at)[0, 0] > shut.costs(*at)[0, 0]


def test_lips_that_shall_be_closed_are_taken_from_closed_ones() -> None:
    """Parted lips show teeth when they are bent shut, even where the rest of them fits better; to speak they may."""
    bank = MouthBank((shown(0, 0, 9.0), shown(3)))
    assert bank.costs(lips_of(moved(0)), POSE[None]).argmin() == 0
    assert bank.costs(lips_of(moved(2.5)), POSE[None]).argmin() == 1


def bitten(light: tuple[int, int, int]) -> Mouth:
    """A mouth that the mesh takes for closed, with something of this colour between its lips."""
    points = resting_mouth().astype(np.float32)
    picture = np.full((160, 160, 3), (150, 110, 95), np.uint8)
    cv2.fillPoly(picture, [np.round(points[:20]).astype(np.int32)], (140, 60, 60))
    cv2.fillPoly(picture, [np.round(points[20:40]).astype(np.int32)], light)
    return Mouth(picture, points, np.zeros(10), lips_of(moved(0))[0], POSE, 1.0)


def test_bared_teeth_are_no_closed_lips() -> None:
    teeth, lips, dark = (bitten(light) for light in ((200, 190, 175), (140, 60, 60), (40, 20, 20)))
    assert teeth.teeth > 0.8 and lips.teeth == dark.teeth == 0
    bank = MouthBank((teeth, replace(lips, sharpness=0.5)))
    assert bank.costs(lips_of(moved(0)), POSE[None]).argmin() == 1
    assert bank.costs(lips_of(moved(4)), POSE[None]).argmin() == 0


def test_the_cheapest_path_is_that_of_trying_all() -> None:
    costs = np.random.default_rng(0).uniform(0, 2, (5, 3))
    ways = np.stack(np.meshgrid(*[range(3)] * 5, indexing="ij"), -1).reshape(-1, 5)
    totals = costs[np.arange(5), ways].sum(1) + 0.6 * (np.diff(ways, axis=1) != 0).sum(1) + 0.6 * (ways[:, 0] != 2)
    assert cheapest_path(costs, 0.6, start=2) == list(ways[totals.argmin()])


def test_sharpness_is_measured_in_the_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (160, 160, 3), dtype=np.uint8)
    flat = np.full((160, 160, 3), 128, np.uint8)
    points = np.zeros((57, 2), np.float32)
    sharp, soft = (mouth_of(image, points, points, np.zeros(10), POSE).sharpness for image in (noise, flat))
    assert sharp > 10 > soft
