"""Sound in: right length, right rate, in step with the pictures, and a clear sentence for bad files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio_processor import SAMPLE_RATE, load_audio, load_audio_noted, normalize_loudness, probe_audio
from tests.footage import bad_file, lag_seconds, make_sound, make_video, speech_like
from utils.helpers import InputError


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (44100, 2), (48000, 1)])
def test_any_wav_becomes_mono_16_khz_of_the_same_length_and_level(tmp_path: Path, rate: int, channels: int):
    path = make_sound(tmp_path / "speech.wav", 1.3, rate, channels)

    samples = load_audio(path)

    assert samples.dtype == np.float32 and samples.ndim == 1
    assert samples.size == pytest.approx(1.3 * SAMPLE_RATE, abs=2)
    # The mean of equal channels is the channel itself, not 3 dB more.
    assert np.abs(samples).max() == pytest.approx(np.abs(speech_like(1.3, rate)).max(), rel=0.1)


@pytest.mark.parametrize("leak", [0.0, 0.02])
def test_an_inverted_channel_is_heard_and_said(tmp_path: Path, leak: float):
    speech = speech_like(1.0, SAMPLE_RATE)
    soundfile.write(tmp_path / "turned.wav", np.stack([speech, (leak - 0.9) * speech], axis=1), SAMPLE_RATE)

    samples, notes = load_audio_noted(tmp_path / "turned.wav")

    np.testing.assert_allclose(samples, speech, atol=1e-3)
    assert len(notes) == 1 and "inverted" in notes[0] and "turned.wav" in notes[0]


@pytest.mark.parametrize("other", ["same", "silent", "unlike"])
def test_channels_that_do_not_cancel_are_mixed_without_a_word(tmp_path: Path, other: str):
    speech = speech_like(1.0, SAMPLE_RATE)
    noise = np.random.default_rng(0).normal(0, 0.05, speech.size)
    second = {"same": speech, "silent": 0 * speech, "unlike": noise}[other]
    soundfile.write(tmp_path / "two.wav", np.stack([speech, second], axis=1), SAMPLE_RATE)

    samples, notes = load_audio_noted(tmp_path / "two.wav")

    np.testing.assert_allclose(samples, (speech + second) / 2, atol=1e-3)
    assert notes == ()


def test_silence_throughout_is_said_and_a_pause_is_not(tmp_path: Path):
    speech = speech_like(0.5, SAMPLE_RATE)
    soundfile.write(tmp_path / "none.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    soundfile.write(tmp_path / "late.wav", np.concatenate([np.zeros(10 * SAMPLE_RATE), speech]), SAMPLE_RATE)

    assert "silent throughout" in load_audio_noted(tmp_path / "none.wav")[1][0]
    assert load_audio_noted(tmp_path / "late.wav")[1] == ()


def test_resampling_keeps_the_waveform(tmp_path: Path):
    time = np.arange(44100) / 44100
    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 440 * time), 44100)

    samples = load_audio(tmp_path / "tone.wav")

    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(samples.size) / SAMPLE_RATE)
    np.testing.assert_allclose(samples[200:-200], expected[200:-200], atol=2e-3)


def test_probe_tells_rate_channels_codec_and_duration(tmp_path: Path):
    info = probe_audio(make_sound(tmp_path / "speech.wav", 1.3, 44100, 2))

    assert (info.sample_rate, info.channels, info.codec) == (44100, 2, "pcm_s16le")
    assert info.duration == pytest.approx(1.3, abs=1e-3)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_sound_of_a_video_starts_with_its_first_picture(tmp_path: Path, name: str):
    reference = load_audio(make_sound(tmp_path / "same.wav", 1.0))
    at_once = load_audio(make_video(tmp_path / name, 1.0))
    later = load_audio(make_video(tmp_path / f"later-{name}", 1.0, sound_delay=0.3))

    assert lag_seconds(at_once, reference) == pytest.approx(0.0, abs=0.005)
    assert lag_seconds(later, reference) == pytest.approx(0.3, abs=0.005)
    assert np.abs(later[: int(0.25 * SAMPLE_RATE)]).max() < 0.01
    assert probe_audio(tmp_path / name).duration == pytest.approx(1.0, abs=0.06)


def test_loudness_of_speech_is_brought_to_one_level_without_clipping():
    speech = speech_like(2.0, SAMPLE_RATE)
    levels = []
    for gain in (0.02, 0.3, 1.0):
        louder = normalize_loudness(gain * speech)
        assert np.abs(louder).max() <= 1.0
        levels.append(np.sqrt(np.mean(louder**2)))

    assert max(levels) / min(levels) < 1.05


def test_pauses_do_not_change_the_level_of_the_speech():
    speech = speech_like(1.0, SAMPLE_RATE)
    with_pause = np.concatenate([speech, np.zeros(SAMPLE_RATE // 2, np.float32)])

    alone, paused = normalize_loudness(speech), normalize_loudness(with_pause)

    assert np.abs(paused).max() / np.abs(alone).max() == pytest.approx(1.0, abs=0.3)


def test_silence_is_not_made_louder():
    noise = np.random.default_rng(0).normal(0, 1e-5, SAMPLE_RATE).astype(np.float32)

    np.testing.assert_array_equal(normalize_loudness(noise), noise)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("missing", "no file"),
        ("folder", "folder"),
        ("empty", "empty"),
        ("text", "no video or sound"),
        ("no sound", "no sound stream"),
        ("zero length", "zero length"),
        ("image", "no video or sound"),
        ("no index", "cut off"),
        ("broken off", "cut off"),
    ],
)
@pytest.mark.parametrize("read", [probe_audio, load_audio])
def test_bad_files_are_refused_in_one_sentence(tmp_path: Path, kind: str, word: str, read):
    path = bad_file(kind, tmp_path)

    with pytest.raises(InputError) as caught:
        read(path)

    message = str(caught.value)
    assert word in message and str(path) in message and "\n" not in message
