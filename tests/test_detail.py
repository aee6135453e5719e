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


def test_colour_stays_as_generated(pictures):
    soft, skin, opening = pictures
    brighter = np.clip(soft.astype(int) + 40, 0, 255).astype(np.uint8)
    restored = restore_detail(brighter, skin, opening)
    assert abs(restored.mean() - brighter.mean()) < 1
