"""The door for engines: a trivial one goes the whole way, through every door of the program."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import app
import engines
from audio_processor import load_audio
from engines.lite.engine import Lite
from faces.usable import NO_FACE
from pipeline import LipSyncPipeline, LiveFrame, Options, Preview
from tests import footage
from tests.one_colour import COLOUR, OneColour
from tests.server import ended, running, submit
from tests.tiny_weights import tiny_config
from utils.config import Config, load_config
from utils.helpers import InputError
from video_processor import VideoReader

NAME = "tests.one_colour:OneColour"
LOSSLESS = Options(codec="ffv1")
SAMPLE_RATE = 16000


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(tiny_config(tmp_path, tmp_path), [f"inference.engine={NAME}"])


@pytest.fixture
def lip_sync(config: Config) -> LipSyncPipeline:
    return LipSyncPipeline.load(config, torch.device("cpu"))


def painted(image: np.ndarray) -> float:
    """How much of a picture has the engine's colour, within what 4:2:0 and limited range leave of it."""
    return float((np.abs(image.astype(int) - COLOUR).max(-1) < 12).mean())


def shares(path: Path) -> np.ndarray:
    with VideoReader(path) as reader:
        return np.array([painted(frame.image) for frame in reader])


def test_a_portrait_is_painted_where_the_engine_wants_it(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    portrait = footage.make_portrait(tmp_path / "portrait.png")
    sound = footage.make_sound(tmp_path / "speech.wav", 0.6)
    summary = lip_sync.run(portrait, sound, tmp_path / "out.mkv", LOSSLESS)
    assert summary.frames == summary.generated == 15 and summary.notes == ()
    with VideoReader(summary.output) as reader:
        image = next(iter(reader)).image
    rows, columns = np.nonzero(np.abs(image.astype(int) - COLOUR).max(-1) < 12)
    assert 0.02 < painted(image) < 0.3
    # The lower half of an upright box: full to its corners, which no face is.
    assert len(rows) > 0.95 * (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    engine = lip_sync._engine
    assert engine.heard == pytest.approx((0.6 + 1.1) * SAMPLE_RATE, abs=2)  # the silence at the end too
    assert [len(times) for times in engine.asked] == [5, 5, 5, 5, 5] and engine.asked[1][:2] == engine.asked[0][3:]
    assert np.allclose(engine.asked[0], np.arange(5) / 25)


def test_cuts_and_frames_without_a_face(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    """Face, no face, face: each run is painted, and what lies between stays as it is, to the pixel."""
    from tests.test_planning import write

    face = [footage.face_frame(index / 25) for index in range(10)]
    other = [np.ascontiguousarray(image[:, ::-1]) for image in face]
    none = [footage.faceless_frame(0.0)] * 8
    video = write(tmp_path / "video.mp4", [*face, *none, *other])
    sound = footage.make_sound(tmp_path / "speech.wav", 1.2)
    summary = lip_sync.run(video, sound, tmp_path / "out.mkv", replace(LOSSLESS, fit="cut"))
    assert summary.passed_through == {NO_FACE: 8} and summary.generated == 20
    share = shares(summary.output)
    assert (share[:10] > 0.02).all() and (share[10:18] == 0).all() and (share[18:] > 0.02).all()
    with VideoReader(video) as before, VideoReader(summary.output) as after:
        pairs = list(zip(before, after, strict=True))[10:18]
    assert all(np.array_equal(a.image, b.image) for a, b in pairs)


def test_a_video_without_a_face_is_refused(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    from tests.test_planning import write

    video = write(tmp_path / "video.mp4", [footage.faceless_frame(0.0)] * 10)
    sound = footage.make_sound(tmp_path / "speech.wav", 0.4)
    with pytest.raises(InputError, match="No face can be used anywhere"):
        lip_sync.run(video, sound, tmp_path / "out.mkv", LOSSLESS)
    assert not (tmp_path / "out.mkv").exists()


def test_frames_are_asked_for_at_their_own_times(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 0.5, fps=Fraction(60000, 1001))
    sound = footage.make_sound(tmp_path / "speech.wav", 0.5)
    summary = lip_sync.run(video, sound, tmp_path / "out.mkv", replace(LOSSLESS, fast=True))
    assert summary.notes == ("The engine one-colour was made for 25 frames a second; this video has 59.9401.",)
    with VideoReader(video) as reader:
        times = [frame.time for frame in reader][: summary.generated]
    assert sorted({time for window in lip_sync._engine.asked for time in window}) == pytest.approx(times)
    assert lip_sync._engine.asked[1][:1] == lip_sync._engine.asked[0][4:]  # --fast overlaps less


def test_the_preview_shows_it_too(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 1.0)
    sound = footage.make_sound(tmp_path / "speech.wav", 1.0)
    lip_sync.run(video, sound, tmp_path / "out.mp4", Options(), preview=Preview(tmp_path / "early.mp4", 0.4, 240))
    assert (shares(tmp_path / "early.mp4") > 0.02).all()


def test_live_frames_begin_at_once_where_nobody_has_to_be_known(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    frames = [LiveFrame(footage.face_frame(index / 25), index / 25) for index in range(12)]
    sound = load_audio(footage.make_sound(tmp_path / "speech.wav", 0.5))
    live = list(lip_sync.stream(frames, sound, Options()))
    assert [frame.time for frame in live] == [frame.time for frame in frames]
    assert painted(live[-1].image) > 0.02


def test_adaptation_says_that_the_engine_does_not_learn(lip_sync: LipSyncPipeline, config: Config) -> None:
    from engines.base import Budget, Lesson, Skipped

    with pytest.raises(Skipped, match="one-colour does not learn"):
        lip_sync._engine.adapt(Lesson([], np.zeros(0), []), config.adaptation, Budget(0.0))


def test_a_list_of_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = yaml.safe_load(tiny_config(tmp_path, tmp_path).read_text(encoding="utf-8"))
    values["inference"]["engine"] = NAME
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    footage.make_portrait(tmp_path / "portrait.png")
    footage.make_sound(tmp_path / "speech.wav", 0.4)
    (tmp_path / "jobs.csv").write_text("video,audio,output\nportrait.png,speech.wav,out.mkv\n", encoding="utf-8")
    command = ["--mode", "cli", "--batch", str(tmp_path / "jobs.csv"), "--config", str(tmp_path / "config.yaml")]
    assert app.main([*command, "--codec", "ffv1"]) == 0
    assert "1 done" in capsys.readouterr().out and (shares(tmp_path / "out.mkv") > 0.02).all()


def test_the_api(service_media: Path, tmp_path: Path) -> None:
    values = yaml.safe_load((service_media / "tiny_config.yaml").read_text(encoding="utf-8"))
    values["inference"]["engine"] = NAME
    for name in ("portrait.png", "speech.wav"):
        (tmp_path / name).symlink_to(service_media / name)
    (tmp_path / "tiny_config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with running(tmp_path, tmp_path / "data") as server:
        job = ended(server, submit(server, tmp_path))
        assert job["state"] == "done", job
        (result,) = (server.data / "jobs").rglob("result*.mp4")
        assert (shares(result) > 0.02).all()


def test_engines_are_found_by_name(config: Config, tiny_weights: Path) -> None:
    device = torch.device("cpu")
    assert isinstance(engines.load(NAME, config, device, tiny_weights), OneColour)
    assert isinstance(engines.load("lite", config, device, tiny_weights), Lite)


@pytest.mark.parametrize("name", ["nothing", "tests.one_colour:Box", "tests.one_colour:None_", "no.such.module:X"])
def test_what_is_no_engine_is_refused_in_a_sentence(name: str, config: Config, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        engines.load(name, config, torch.device("cpu"), tmp_path)
    assert name in str(error.value) and "lite" in str(error.value) and "\n" not in str(error.value)
