"""Sound heard bit by bit gives the steps of the whole sound, in whatever order they are asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.audio_encoder import SpeechEncoder
from models.lazy_speech import LazySpeech
from models.phonemes import Phoneme
from models.voice_activity import VoiceActivity
from tests.conftest import REPO

RATE = 16000


@pytest.fixture(scope="module")
def networks() -> tuple[SpeechEncoder, VoiceActivity]:
    weights = REPO / "pretrained"
    return (
        SpeechEncoder.from_pretrained(weights / "whisper_tiny_en_encoder"),
        VoiceActivity.from_pretrained(weights / "voice_activity"),
    )


def sound(seconds: float) -> np.ndarray:
    """Bursts of coloured noise, quiet and loud."""
    random = np.random.default_rng(0)
    noise = np.convolve(random.normal(size=round(seconds * RATE)), np.ones(8) / 8, "same")
    return (0.05 * noise * (1 + np.sin(np.arange(len(noise)) / 3000))).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.013, 1.99, 19.3])
def test_the_steps_are_those_of_the_whole_sound(
    networks: tuple[SpeechEncoder, VoiceActivity], seconds: float
) -> None:
    samples = sound(seconds)
    features, activity = networks[0].features(samples), networks[1].track(samples)
    lazy = LazySpeech(*networks, samples.astype(np.float16))
    assert len(lazy) == len(features)
    for first in [*range(0, len(features), 61), 0]:
        part = lazy.part(first, first + 90)
        expected = features[first : first + 90]
        assert part.features.shape == expected.shape
        assert np.abs(part.features - expected).mean() < 0.02  # float16, and bfloat16 within the encoder
        np.testing.assert_allclose(part.activity, activity[first : first + 90], atol=0.01)


def test_little_is_kept_and_little_computed_twice(
    networks: tuple[SpeechEncoder, VoiceActivity], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []

    def counted(self: SpeechEncoder, windows: torch.Tensor) -> np.ndarray:
        computed.append(len(windows))
        return np.zeros((len(windows), 100, 5, 384), np.float32)

    monkeypatch.setattr(SpeechEncoder, "core_features", counted)
    lazy = LazySpeech(*networks, np.zeros(RATE * 100, np.float16))
    for first in range(0, 4900, 24):
        lazy.part(max(0, first - 50), first + 100)
    assert sum(computed) == 50
    assert sum(group.nbytes for group in lazy._groups.values()) < 6e6


def test_phonemes_come_along(networks: tuple[SpeechEncoder, VoiceActivity]) -> None:
    lazy = LazySpeech(*networks, np.zeros(RATE, np.float16), [Phoneme("a", 5, 0.5, 0.7)])
    said = lazy.part(20, 40).phonemes
    assert (said[:5] == 0).all() and (said[5:15] != 0).all() and (said[15:] == 0).all()
