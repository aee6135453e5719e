"""Fine detail of the skin comes from the person's picture, the inside of the mouth from the generator."""

import cv2
import numpy as np
import pytest

from faces.detail import restore_detail


@pytest.fixture
def pictures():
    """A textured skin, the same without its texture (as a soft generator draws it), and an opening in the middle."""
    noise = np.random.default_rng(0).normal(0, 12, (160, 160, 3))
    skin = np.clip(150 + noise, 0, 255).astype(np.uint8)
    soft = cv2.GaussianBlur(skin, (0, 0), 3)
    opening = np.zeros((40, 40), np.uint8)
    opening[18:22, 15:25] = 255
    return soft[None], skin[None], opening[None]


def test_skin_gets_its_texture_back(pictures):
    soft, skin, opening = pictures
    restored = restore_detail(soft, skin, opening)
    far = np.s_[0, 10:50, 10:150]
    assert np.abs(soft[far].astype(int) - skin[far]).mean() > 5
    assert np.abs(restored[far].astype(int) - skin[far]).mean() < 2


def test_the_mouth_stays_as_generated(pictures):
    soft, skin, opening = pictures
    restored = restore_detail(soft, skin, opening)
    inside = np.s_[0, 74:86, 66:96]
    assert np.abs(restored[inside].astype(int) - soft[inside]).max() <= 3


def test_brightness_stays_as_generated(pictures):
    soft, skin, opening = pictures
    brighter = np.clip(soft.astype(int) + 40, 0, 255).astype(np.uint8)
    restored = restore_detail(brighter, skin, opening)
    assert abs(restored.mean() - brighter.mean()) < 1


def test_a_tint_goes_and_half_of_it_stays_in_the_mouth(pictures):
    _, skin, opening = pictures
    tint = np.array([30, -20, 13.5])  # of no brightness
    tinted = np.clip(skin + tint, 0, 255).astype(np.uint8)
    restored = restore_detail(tinted, skin, opening)
    far, inside = np.s_[0, 10:50, 10:150], np.s_[0, 78:82, 72:90]
    assert np.abs((restored[far].astype(float) - skin[far]).mean((0, 1))).max() < 3
    left = (restored[inside].astype(float) - skin[inside]).mean((0, 1))
    np.testing.assert_allclose(left, tint / 2, atol=4)
