"""Live frames: those of a file, nearly, and none waits longer than is said."""

from __future__ import annotations

import re
import runpy
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from audio_processor import load_audio
from models.audio_encoder import SpeechEncoder
from models.live_speech import LiveSpeech
from models.voice_activity import VoiceActivity
from pipeline import LipSyncPipeline, LiveFrame
from pipeline.options import Options
from tests import footage, threads
from tests.conftest import REPO
from tests.tiny_weights import tiny_config
from utils.config import load_config
from utils.helpers import InputError
from video_processor import VideoReader

RATE, FPS, SECONDS = 16000, 25, 2.4
OPTIONS = Options(steps=1)
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def lip_sync(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> LipSyncPipeline:
    config = load_config(tiny_config(tmp_path_factory.mktemp("config"), tiny_weights))
    return LipSyncPipeline.load(config, torch.device("cpu"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return footage.make_video(tmp_path_factory.mktemp("live") / "video.mp4", SECONDS)


@pytest.fixture(scope="module")
def frames(video: Path) -> list[LiveFrame]:
    with VideoReader(video) as reader:
        return [LiveFrame(frame.image, frame.time) for frame in reader]


@pytest.fixture(scope="module")
def sound(video: Path) -> np.ndarray:
    return load_audio(footage.make_sound(video.parent / "speech.wav", SECONDS))


def chunks(sound: np.ndarray) -> Iterator[np.ndarray]:
    return (sound[start : start + 1000] for start in range(0, len(sound), 1000))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    with threads.none_left():
        yield


def test_live_frames_are_those_of_a_file(
    lip_sync: LipSyncPipeline, video: Path, frames: list[LiveFrame], sound: np.ndarray, tmp_path: Path
) -> None:
    given = [frame.image.copy() for frame in frames]
    live = list(lip_sync.stream(frames, chunks(sound), OPTIONS))
    assert [frame.time for frame in live] == [frame.time for frame in frames]
    assert all(np.array_equal(frame.image, image) for frame, image in zip(frames, given, strict=True))
    first = load_config(REPO / "model_config.yaml").live.meeting_frames
    assert all(np.array_equal(live[i].image, given[i]) for i in range(first - 1))
    lip_sync.run(video, footage.make_sound(video.parent / "speech.wav", SECONDS), tmp_path / "a.mkv", _lossless())
    with VideoReader(tmp_path / "a.mkv") as reader:
        filed = [frame.image for frame in reader]
    settled = range(first + 5, len(frames) - 5)
    apart = np.mean([np.abs(live[i].image.astype(int) - filed[i]).mean() for i in settled])
    changed = np.mean([np.abs(filed[i].astype(int) - given[i]).mean() for i in settled])
    # Not the same: live, the person's closed mouth and the bank of mouths come from the first frames alone.
    assert apart < 0.9 * changed


def _lossless() -> Options:
    return Options(steps=1, codec="ffv1")


def test_no_frame_waits_for_what_is_later_than_said(
    lip_sync: LipSyncPipeline, frames: list[LiveFrame], sound: np.ndarray
) -> None:
    """Nothing is given before the frames are back that must not wait for it; else both sides would wait for ever."""
    look_ahead, back = lip_sync.live_look_ahead(FPS), threading.Condition()
    assert look_ahead < 0.4
    done = [-1.0]  # time of the last frame that is back

    def may_be_given(time: float) -> None:
        latest = max((frame.time for frame in frames if frame.time + look_ahead < time - 1e-6), default=-1.0)
        with back:
            assert back.wait_for(lambda: done[0] >= latest - 1e-6, PATIENCE_S), f"waits for {time:.2f} s"

    def slow_frames() -> Iterator[LiveFrame]:
        for frame in frames:
            may_be_given(frame.time)
            yield frame

    def slow_sound() -> Iterator[np.ndarray]:
        for start in range(0, len(sound), 160):
            may_be_given((start + 160) / RATE)
            yield sound[start : start + 160]

    count = 0
    for frame in lip_sync.stream(slow_frames(), slow_sound(), OPTIONS):
        count += 1
        with back:
            done[0] = frame.time
            back.notify_all()
    assert count == len(frames)


def test_leaving_stops_everything(lip_sync: LipSyncPipeline, frames: list[LiveFrame]) -> None:
    given = []

    def endless() -> Iterator[LiveFrame]:
        for number in range(10**6):
            given.append(number)
            yield LiveFrame(frames[number % len(frames)].image, number / FPS)

    stream = lip_sync.stream(endless(), np.zeros(RATE, np.float32), OPTIONS)
    for _ in range(40):
        next(stream)
    stream.close()
    assert len(given) < 150  # it did not read far ahead


def test_faults_of_the_sources_and_options_come_out(lip_sync: LipSyncPipeline, frames: list[LiveFrame]) -> None:
    def broken() -> Iterator[LiveFrame]:
        yield frames[0]
        raise OSError("the camera is gone")

    with pytest.raises(OSError, match="camera"):
        list(lip_sync.stream(broken(), np.zeros(0, np.float32), OPTIONS))
    with pytest.raises(InputError, match="steps"):
        lip_sync.stream([], [], Options(steps=0))


@pytest.fixture(scope="module")
def networks() -> tuple[SpeechEncoder, VoiceActivity]:
    weights = REPO / "pretrained"
    return (
        SpeechEncoder.from_pretrained(weights / "whisper_tiny_en_encoder"),
        VoiceActivity.from_pretrained(weights / "voice_activity"),
    )


def test_live_sound_is_nearly_that_of_a_file_and_little_is_kept(networks: tuple[SpeechEncoder, VoiceActivity]) -> None:
    samples = load_audio(REPO / "examples" / "speech.wav")
    samples = np.tile(samples, 8)[: 45 * RATE]
    whole, activity = networks[0].features(samples), networks[1].track(samples)
    read = []
    live = LiveSpeech(*networks, (read.append(i) or samples[i : i + 700] for i in range(0, len(samples), 700)), 10)
    alike = []
    for stop in range(60, 50 * 44, 23):
        part = live.part(stop - 60, stop)
        assert part.features.shape == (60, 5, 384) and part.activity.shape == (60,)
        assert read[-1] <= stop * 320  # nothing later than asked for
        if stop > 500:  # the level is known by then
            alike.append(np.corrcoef(part.features[:50].ravel(), whole[stop - 60 : stop - 10].ravel())[0, 1])
            assert np.abs(part.activity[:45] - activity[stop - 60 : stop - 15]).mean() < 0.1
    assert np.mean(alike) > 0.9
    assert len(live._samples) < 7 * RATE and len(live._features) <= 400 and len(live._activity._chances) <= 1000
    after = live.part(50 * 60 - 50, 50 * 60)  # long after the end: silence
    assert np.isfinite(after.features).all() and after.activity[-10:].max() < 0.3


def test_the_example_prints_latencies_and_writes_the_frames(
    video: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = runpy.run_path(str(REPO / "examples" / "live.py"))
    sound = footage.make_sound(tmp_path / "speech.wav", 1.6)
    files = ["--video", str(video), "--audio", str(sound), "--output", str(tmp_path / "out.mp4")]
    more = ["--config", str(tiny_config(tmp_path, tiny_weights)), "--set", "live.hop=2", "--device", "cpu"]
    assert example["main"]([*files, *more]) == 0
    said = capsys.readouterr().out
    assert "40 frames at 25 per second; look-ahead at most 280 ms" in said
    assert re.search(r"latency p50 \d+ ms, p95 \d+ ms, p99 \d+ ms", said)
    with VideoReader(tmp_path / "out.mp4") as reader:
        assert sum(1 for _ in reader) == 40
    assert example["main"]([*files, "--device", "abacus"]) == 2
