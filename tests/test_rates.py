"""Frame rates that are asked for, too few frames for a mouth, and files whose first frames have no times."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import video.reader
from pipeline import LipSyncPipeline, Summary
from pipeline.options import Options
from tests.footage import make_sound, make_video
from tests.test_formats import read_all
from tests.tiny_weights import tiny_config
from utils.config import load_config
from utils.helpers import InputError
from video_processor import Filled, at_rate, fitted_frames


@pytest.fixture(scope="module")
def lip_sync(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> LipSyncPipeline:
    config = load_config(tiny_config(tmp_path_factory.mktemp("config"), tiny_weights))
    return LipSyncPipeline.load(config, torch.device("cpu"))


def spoken(lip_sync: LipSyncPipeline, video: Path, seconds: float, **options: object) -> tuple[Summary, np.ndarray]:
    """The summary and the times of the frames of a result."""
    speech = make_sound(video.parent / "speech.wav", seconds)
    summary = lip_sync.run(video, speech, video.parent / "out.mp4", Options(steps=1, **options))
    return summary, np.array([frame.time for frame in read_all(summary.output)])


def test_a_slide_show_gets_frames_while_somebody_speaks(lip_sync: LipSyncPipeline, tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 2.0, fps=2, sound=False)

    summary, times = spoken(lip_sync, source, 0.8)

    speaking = times[times < 0.8]
    assert len(speaking) == 20 and np.diff(speaking).max() < 0.062 and np.diff(speaking).min() > 0.019
    assert {0.0, 0.5} <= set(np.round(times, 2))  # each frame of the video is still there at its time
    assert set(np.round(times[times > 0.8], 2)) == {1.0, 1.5}
    assert any("frames were put in" in note for note in summary.notes)
    assert summary.generated >= 18


def test_a_gap_in_a_recording_is_filled_and_nothing_else(tmp_path: Path):
    moments = [*np.arange(5) / 25, *(1.0 + np.arange(5) / 25)]
    source = make_video(tmp_path / "in.mp4", 0, times=moments, sound=False)

    filled = Filled(fitted_frames(source), until=9.0)
    frames = list(filled)

    assert filled.added == 20 and [frame.index for frame in frames] == list(range(30))
    assert [frame.time for frame in frames] == pytest.approx(np.arange(30) / 25, abs=2e-3)
    assert len({id(frame.picture) for frame in frames[4:25]}) == 1


@pytest.mark.parametrize("fps", [12, 25, Fraction(30000, 1001)])
def test_usual_rates_stay_as_they_are(tmp_path: Path, fps: Fraction):
    source = make_video(tmp_path / "in.mp4", 0.5, fps=fps, sound=False)

    filled = Filled(fitted_frames(source), until=9.0)

    assert [frame.time for frame in filled] == [frame.time for frame in read_all(source)] and not filled.added


@pytest.mark.parametrize("fps", [10, 24, 50, Fraction(30000, 1001)])
def test_any_rate_can_be_asked_for(tmp_path: Path, fps: Fraction):
    source = make_video(tmp_path / "in.mp4", 1.0, sound=False, numbered=True)

    frames = list(at_rate(fitted_frames(source), Fraction(fps)))

    assert len(frames) == pytest.approx(float(fps), abs=1)
    assert [frame.time for frame in frames] == pytest.approx([float(i / Fraction(fps)) for i in range(len(frames))])
    assert all(0 <= frame.time - frame.source_index / 25 + 1e-3 < 0.04 + 2e-3 for frame in frames)


def test_the_rate_of_the_result_is_that_asked_for(lip_sync: LipSyncPipeline, tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 0.6, sound=False)

    summary, times = spoken(lip_sync, source, 0.6, fps=30)

    assert summary.frames == 18 and times == pytest.approx(np.arange(18) / 30, abs=1e-3)
    assert any("30 frames a second" in note for note in summary.notes)
    with pytest.raises(InputError, match="fps"):
        Options(fps=500).check()


@pytest.mark.parametrize("without", [1, 5])
@pytest.mark.parametrize("late", [0.0, 3.0])
def test_first_frames_without_times_are_put_before_the_first_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: int, late: float
):
    source = make_video(tmp_path / "in.mkv", 0, times=[late + i / 25 for i in range(20)], sound=False)
    decode = video.reader.decoded

    def bare(*given: object) -> Iterator[av.VideoFrame]:
        for index, frame in enumerate(decode(*given)):
            if index < without:
                frame.pts = None
            yield frame

    monkeypatch.setattr(video.reader, "decoded", bare)

    assert [frame.time for frame in read_all(source)] == pytest.approx(np.arange(20) / 25, abs=2e-3)
    assert len(list(fitted_frames(source, 0.8))) == 20
