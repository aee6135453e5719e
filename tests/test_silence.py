"""The mouth rests when nobody speaks: after speech, in silence, under music and under noise.

The speech model of the embedded weights is tested; LIPSYNC_SPEECH_WEIGHTS names a folder of another one.
"""

from __future__ import annotations

import os
from pathlib import Path

import librosa
import numpy as np
import pytest
from scipy.signal import butter, sosfilt

from engines.lite.model import LipSyncModel
from faces.mouth_shape import MouthShape, mouth_opening
from latent_diffusion import LatentLipDiffusion
from models.audio_encoder import SpeechEncoder
from models.autoencoder import MouthAutoencoder
from models.checkpoint import load_pretrained
from models.movement import MovementModel
from models.movement_track import MovementSettings
from models.phoneme_recogniser import PhonemeRecogniser
from models.speech_model import SpeechModel
from models.voice_activity import VoiceActivity
from tests.conftest import REPO
from tests.processed import resting_mouth
from utils.config import load_config
from utils.helpers import InputError

RATE, FPS = 16000, 25
AFTER_S = 0.2  # so long after the last sound of speech the mouth must be at rest
RESTING_PART = 1.3  # at rest: the gap between the lips in parts of that of the person's own closed lips, at most
CHEWING_PART = 0.2  # not chewing: the gap moves less than this part of what it moves in speech
BACKGROUNDS = ("silence", "room", "music", "noise", "hum")


@pytest.fixture(scope="module")
def model(lite_weights: Path) -> LipSyncModel:
    generator = load_pretrained(LatentLipDiffusion, lite_weights / "generator")
    other = os.environ.get("LIPSYNC_SPEECH_WEIGHTS")
    if other:
        generator.speech = load_pretrained(SpeechModel, Path(other))
    if not generator.speech.config.knows_rest:
        pytest.skip("these weights were trained without voice activity")
    weights = lite_weights.parent
    return LipSyncModel(
        SpeechEncoder.from_pretrained(weights / "whisper_tiny_en_encoder"),
        VoiceActivity.from_pretrained(weights / "voice_activity"),
        load_pretrained(MouthAutoencoder, lite_weights / "autoencoder"),
        generator,
        MouthShape.load(weights / "mouth_shape"),
        load_pretrained(MovementModel, lite_weights / "movement"),
        load_pretrained(PhonemeRecogniser, lite_weights / "phonemes"),
    )


@pytest.fixture(scope="module")
def voice(example_speech: Path) -> np.ndarray:
    """The bundled speech at 16 kHz without silence at its ends."""
    samples, _ = librosa.load(example_speech, sr=RATE)
    return librosa.effects.trim(samples, top_db=35)[0]


def made(kind: str, seconds: float) -> np.ndarray:
    """A sound without speech, float32 (N,), root mean square 0.1 (silence: 0, room: 0.0003)."""
    random, time = np.random.default_rng(5), np.arange(round(seconds * RATE)) / RATE
    white = random.standard_normal(len(time))
    if kind == "music":  # bells in minor thirds over a drone, and a drum: not how the training material is made
        sound = 0.5 * np.sin(2 * np.pi * 110 * time + np.sin(2 * np.pi * 5 * time))
        for start in np.arange(0, seconds, 0.24):
            after = np.clip(time - start, 0, None)
            pitch = 330 * 2 ** (3 * random.integers(0, 5) / 12)
            bell = np.sin(2 * np.pi * pitch * after + 2 * np.exp(-4 * after) * np.sin(2 * np.pi * 1.4 * pitch * after))
            sound += (time >= start) * np.exp(-5 * after) * (bell + 0.2 * white * np.exp(-30 * after))
    elif kind == "noise":  # a passing car: a band that moves, louder and softer
        low = sosfilt(butter(2, 400, fs=RATE, output="sos"), white)
        high = sosfilt(butter(2, (800, 3000), "bandpass", fs=RATE, output="sos"), white)
        sound = low + (1 + np.sin(2 * np.pi * 1.3 * time)) * high
    elif kind == "hum":
        sound = sum(np.sin(2 * np.pi * 60 * h * time) / h for h in (1, 2, 3, 5, 7)) + 0.05 * white
    else:
        sound = white
    level = {"silence": 0.0, "room": 0.0003}.get(kind, 0.1)
    return (level * sound / sound.std()).astype(np.float32)


def gap(model: LipSyncModel, samples: np.ndarray) -> np.ndarray:
    """Gap between the lips in parts of the resting mouth's, of each frame, as the pipeline would have them."""
    base = resting_mouth()[None].astype(np.float32)
    resting = float(mouth_opening(base)[0])
    times = np.arange(len(samples) * FPS // RATE) / FPS
    chosen = load_config(REPO / "model_config.yaml").inference
    moving = MovementSettings(chosen.seed, chosen.movement_temperature, chosen.movement_steps)
    coefficients = chosen.mouth_gain * model.movement(model.hear(samples), resting, moving).shapes(times)
    base = np.repeat(base, len(times), axis=0)
    return mouth_opening(model.mouth_shape.parted(model.mouth_shape.decode(coefficients, base), base)) / resting


@pytest.fixture(scope="module")
def speaking(model: LipSyncModel, voice: np.ndarray) -> np.ndarray:
    return gap(model, voice)


def test_the_mouth_moves_in_speech(speaking: np.ndarray) -> None:
    assert speaking.std() > 0.2
    assert speaking.max() > 1.2
    assert speaking.min() < RESTING_PART


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_at_rest_soon_after_speech(model: LipSyncModel, voice: np.ndarray, speaking: np.ndarray, kind: str) -> None:
    pause = made(kind, 2.5)
    after = gap(model, np.concatenate([voice, pause]))[round((len(voice) / RATE + AFTER_S) * FPS) + 1 :]
    assert np.quantile(after, 0.95) < RESTING_PART
    assert after.std() < CHEWING_PART * speaking.std()


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_at_rest_where_nobody_speaks_at_all(model: LipSyncModel, speaking: np.ndarray, kind: str) -> None:
    alone = gap(model, made(kind, 4.0))
    assert np.quantile(alone, 0.95) < RESTING_PART
    assert alone.std() < CHEWING_PART * speaking.std()


@pytest.mark.parametrize("kind", ["music", "noise"])
def test_speech_is_heard_over_a_background(
    model: LipSyncModel, voice: np.ndarray, speaking: np.ndarray, kind: str
) -> None:
    mixed = voice + made(kind, len(voice) / RATE)[: len(voice)] * voice.std()  # 20 dB below: 0.1 of the voice
    assert np.corrcoef(gap(model, mixed), speaking)[0, 1] > 0.8


class TestVoiceActivity:
    @pytest.fixture(scope="class")
    def network(self) -> VoiceActivity:
        return VoiceActivity.from_pretrained(REPO / "pretrained" / "voice_activity")

    def test_speech_is_told_from_the_rest(self, network: VoiceActivity, voice: np.ndarray) -> None:
        assert network.track(voice).mean() > 0.8
        assert all(network.track(made(kind, 4.0)).mean() < 0.2 for kind in BACKGROUNDS)

    def test_the_level_does_not_matter(self, network: VoiceActivity, voice: np.ndarray) -> None:
        np.testing.assert_allclose(network.track(0.02 * voice), network.track(voice), atol=1e-3)

    def test_steps_are_those_of_the_speech_features(self, network: VoiceActivity) -> None:
        assert [len(network.track(np.zeros(n, np.float32))) for n in (0, 1, 320, 321, 16000)] == [0, 1, 1, 2, 50]

    def test_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"model\.safetensors"):
            VoiceActivity.from_pretrained(tmp_path)
