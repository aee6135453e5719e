"""Speech features: the right spectrogram, the right length, no seams, any level, clear errors."""

import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from models import audio_encoder
from models.audio_encoder import FLOOR, SpeechEncoder, log_mel
from utils.helpers import InputError

FOLDER = Path(__file__).parent.parent / "pretrained" / "whisper_tiny_en_encoder"
RATE = 16000


@pytest.fixture(scope="module")
def encoder():
    return SpeechEncoder.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def sound():
    """7 s that change all the time: chirps and bursts of noise with pauses."""
    random = np.random.default_rng(0)
    time = np.arange(7 * RATE) / RATE
    tone = np.sin(2 * np.pi * (200 * time + 300 * np.sin(2 * np.pi * 0.7 * time)))
    envelope = np.clip(np.sin(2 * np.pi * 2.3 * time) + 0.3, 0, None)
    return (0.2 * envelope * (tone + 0.3 * random.normal(size=len(time)))).astype(np.float32)


def unlike(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Squared difference of each hidden state, as a share of its variance."""
    return ((ours - theirs) ** 2).mean(axis=(0, 2)) / theirs.var(axis=(0, 2))


def test_mel_is_whispers_apart_from_the_level(sound):
    power = librosa.feature.melspectrogram(
        y=sound, sr=RATE, n_fft=400, hop_length=160, n_mels=80, fmax=8000, window="hann", pad_mode="reflect"
    )
    expected = np.log10(np.maximum(power, 1e-10))[:, : len(sound) // 160]
    ours = log_mel(sound).numpy() * 4 - 4
    loud = (ours > FLOOR + 0.01) & (expected > -9)
    gain = np.median((ours - expected)[loud])
    assert loud.mean() > 0.3
    np.testing.assert_allclose(ours[loud], expected[loud] + gain, atol=2e-3)


@pytest.mark.parametrize("samples", [0, 1, 319, 320, 321, 16000, 70001])
def test_length_covers_all_of_the_sound(encoder, samples):
    noise = np.random.default_rng(1).normal(size=samples).astype(np.float32) * 0.1
    features = encoder.features(noise)
    assert features.shape == (-(-samples // 320), 5, 384)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_features_are_about_standardised(encoder, sound):
    features = encoder.features(sound)
    assert abs(features.mean()) < 0.3
    assert 0.4 < features.std() < 2.5


def test_level_does_not_matter(encoder, sound):
    assert unlike(encoder.features(sound * 0.05), encoder.features(sound)).max() < 0.02


def test_no_seam_where_windows_meet(encoder, sound):
    """The same sound cut 0.7 s later has its windows' ends elsewhere; no place may stand out."""
    whole = encoder.features(sound)
    shift = 35
    later = encoder.features(sound[shift * 320 :])
    # Away from the new start, which has lost its past.
    error = ((later[60:] - whole[shift + 60 :]) ** 2).mean(axis=(1, 2)) / whole.var()
    assert error.mean() < 0.35
    smooth = np.convolve(error, np.ones(5) / 5, mode="valid")
    assert smooth.max() < 6 * error.mean()


def test_short_clip_gets_the_features_it_has_in_a_longer_sound(encoder, sound):
    whole = encoder.features(sound)
    alone = encoder.features(sound[100 * 320 : 200 * 320])
    assert unlike(alone[25:75], whole[125:175])[:4].max() < 0.35


def test_features_follow_the_sound_in_time(encoder):
    """A burst after silence is found at its own time."""
    samples = np.zeros(4 * RATE, np.float32)
    samples[2 * RATE : 3 * RATE] = np.random.default_rng(2).normal(size=RATE) * 0.2
    change = np.abs(np.diff(encoder.features(samples)[:, 0], axis=0)).mean(axis=1)
    assert set(np.sort(np.argsort(change)[-4:])) & {98, 99, 100}
    assert set(np.sort(np.argsort(change)[-4:])) & {148, 149, 150}


def test_same_sound_gives_same_features(encoder, sound):
    np.testing.assert_array_equal(encoder.features(sound[:RATE]), encoder.features(torch.from_numpy(sound[:RATE])))


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="config.json"):
        SpeechEncoder.from_pretrained(tmp_path)


def test_the_states_are_those_of_transformers_own_class(encoder: SpeechEncoder) -> None:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    theirs = WhisperEncoder(WhisperConfig.from_pretrained(FOLDER, local_files_only=True)).eval()
    theirs.load_state_dict(encoder.encoder.state_dict())
    hidden = torch.randn(2, 60, 384, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for ours, other in zip(encoder.encoder.layers, theirs.layers, strict=True):
            assert torch.equal(ours(hidden), other(hidden, None))


def test_the_filters_are_those_of_transformers() -> None:
    from transformers.audio_utils import mel_filter_bank

    theirs = mel_filter_bank(201, 80, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    assert np.array_equal(audio_encoder._filters().numpy(), theirs.T.astype(np.float32))


def test_a_run_loads_neither_the_compiler_nor_transformers() -> None:
    code = (
        "import sys, torch; kept = torch.compiler.disable; import pipeline.lip_sync, engines.lite.engine; "
        "assert torch.compiler.disable is kept; print(sorted(sys.modules)); import transformers, scipy, torch._dynamo"
    )
    program = [sys.executable, "-c", code]
    done = subprocess.run(program, cwd=FOLDER.parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "'engines.lite.engine'" in done.stdout, done.stderr
    for name in ("torch._dynamo", "transformers", "scipy", "engines.latentsync", "training"):
        assert f"'{name}'" not in done.stdout
