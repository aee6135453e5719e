"""Hosts: prepared from real files, opened again, and played in a circle without a jump."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import app
from faces.motion import lid_movement, moving_portrait
from faces.person import Liveliness
from pipeline import LipSyncPipeline, Options
from pipeline.host import CARD, RESTS, Host, list_hosts
from pipeline.host_making import HostWish
from tests import footage
from tests.tiny_weights import tiny_config
from utils.config import load_config
from utils.helpers import InputError


@pytest.fixture(scope="module")
def lip_sync(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> LipSyncPipeline:
    folder = tmp_path_factory.mktemp("hosts")
    changes = [f"hosts.dir={folder / 'hosts'}", "hosts.portrait_s=2", "hosts.seconds=1"]
    return LipSyncPipeline.load(load_config(tiny_config(folder, tiny_weights), changes), torch.device("cpu"))


@pytest.fixture(scope="module")
def filmed(lip_sync: LipSyncPipeline, tmp_path_factory: pytest.TempPathFactory) -> Host:
    folder = tmp_path_factory.mktemp("source")
    video = footage.make_video(folder / "talk.mp4", 1.6, faceless=(0.0, 0.2))
    return lip_sync.make_host(HostWish(video, "filmed"), Options())[0]


@pytest.fixture(scope="module")
def portrait(lip_sync: LipSyncPipeline, tmp_path_factory: pytest.TempPathFactory) -> Host:
    picture = footage.make_portrait(tmp_path_factory.mktemp("source") / "portrait.png")
    return lip_sync.make_host(HostWish(picture, "portrait"), Options())[0]


def shown(host: Host, count: int) -> list[np.ndarray]:
    with host.loop() as loop:
        return [next(loop).to_ndarray(format="rgb24").astype(int) for _ in range(count)]


def steps(frames: list[np.ndarray]) -> list[float]:
    return [float(np.abs(a - b).mean()) for a, b in zip(frames, frames[1:], strict=False)]


def test_a_video_runs_forwards_and_backwards_without_a_jump(filmed: Host) -> None:
    assert (filmed.card.width, filmed.card.height, filmed.fps) == (320, 320, 25)
    assert filmed.card.pictures == 25 and filmed.card.bounce
    count = len(filmed.order)
    assert count == 48
    frames = shown(filmed, count + 5)
    assert max(steps(frames)) < 3 * np.median(steps(frames))
    apart = np.abs(frames[0] - frames[12]).mean()
    assert all(np.abs(frames[i] - frames[count + i]).mean() < 0.5 * apart for i in range(5))
    assert np.abs(frames[3] - frames[count - 3]).mean() < 0.5 * apart  # backwards the same pictures


def test_a_portrait_moves_in_a_circle_and_stands_still_if_told_to(
    portrait: Host, lip_sync: LipSyncPipeline, tmp_path: Path
) -> None:
    frames = shown(portrait, 51)
    assert portrait.card.pictures == 50 and not portrait.card.bounce
    assert np.abs(frames[0] - frames[25]).mean() > 0.5
    assert max(steps(frames)) < 4 * np.median(steps(frames))
    picture = footage.make_portrait(tmp_path / "portrait.png")
    still = lip_sync.make_host(HostWish(picture, "still", moves=False), Options())[0]
    frames = shown(still, 20)
    assert max(steps(frames)) < 0.3
    shutil.rmtree(still.folder)


def test_a_host_has_the_size_that_is_asked_for(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    picture = footage.make_portrait(tmp_path / "portrait.png")  # 320x320
    for name, size, expected in (("half", "161", (160, 160)), ("barred", "256x192", (256, 192))):
        host = lip_sync.make_host(HostWish(picture, name, moves=False), Options(size=size))[0]
        (frame,) = shown(host, 1)
        assert (host.card.width, host.card.height) == frame.shape[1::-1] == expected
        assert host.patch(0, np.zeros_like(host.mouth(0, 0.0).window)) is not None
        shutil.rmtree(host.folder)
    with pytest.raises(InputError, match="The size 'big' cannot be used"):
        lip_sync.make_host(HostWish(picture, "big"), Options(size="big"))


def test_a_host_opens_at_once_and_draws_where_the_face_is(filmed: Host, lip_sync: LipSyncPipeline) -> None:
    started = time.perf_counter()
    host = Host.open(filmed.folder)
    person = lip_sync.engine.unpack(host.person)
    assert time.perf_counter() - started < 2
    assert len(person.bank) >= 1 and len(person.faces) == 2
    calm = replace(person, lively=Liveliness(0.7, 1.2))
    assert lip_sync.engine.unpack(lip_sync.engine.pack(calm)).lively == calm.lively
    (frame,) = shown(host, 1)
    window = np.full_like(host.mouth(0, 0.0).window, 0)
    patch = host.patch(0, window)
    height, width = patch.alpha.shape
    assert patch.alpha.max() == 1.0 and 0 < patch.x < 320 - width and 0 < patch.y < 320 - height
    rested = np.array(np.load(host.folder / RESTS)[0])
    same = host.patch(0, rested)
    part = frame[same.y : same.y + height, same.x : same.x + width]
    inside = same.alpha > 0.5
    assert np.abs(same.image - part)[inside].mean() < 6  # the resting mouth over the resting mouth
    assert host.patch(0, rested, fade=0.0) is None
    assert [one.card.name for one in list_hosts(filmed.folder.parent)][0] == "filmed"


def test_what_cannot_be_a_host_is_refused(
    lip_sync: LipSyncPipeline, filmed: Host, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nobody = footage.make_video(tmp_path / "nobody.mp4", 1.0, faceless=(0.0, 9.0))
    with pytest.raises(InputError, match="no face that can be used"):
        lip_sync.make_host(HostWish(nobody, "nobody"), Options())
    for name in ("../out", "", "a/b", ".hidden", "x" * 65):
        with pytest.raises(InputError, match="cannot be a host's"):
            lip_sync.make_host(HostWish(nobody, name), Options())
    with pytest.raises(InputError, match="already"):
        lip_sync.make_host(HostWish(nobody, "filmed"), Options())
    assert not [path for path in filmed.folder.parent.iterdir() if path.name.startswith(".tmp")]
    with pytest.raises(InputError, match="no prepared host"):
        Host.open(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(filmed.folder, broken)
    (broken / RESTS).unlink()
    with pytest.raises(InputError, match="damaged"):
        Host.open(broken)
    (broken / CARD).write_text('{"version": 99}')
    with pytest.raises(InputError, match="no prepared host"):
        Host.open(broken)


def test_what_was_learnt_is_kept(filmed: Host, lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    """Every weight comes back; the engine that was loaded stays as it is."""
    folder = tmp_path / "host"
    shutil.copytree(filmed.folder, folder)
    (folder / "learned").mkdir()
    engine = lip_sync.engine
    other = type(engine)(engine.model.copy(), engine.facts, engine._manner)
    with torch.no_grad():
        for parameter in other.model.generator.parameters():
            parameter.add_(0.5)
    other.save(folder / "learned")
    again = Host.open(folder).engine(engine)
    pairs = zip(again.model.generator.parameters(), other.model.generator.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(engine.model.generator.parameters()), next(other.model.generator.parameters()))
    assert filmed.engine(engine) is engine
    (folder / "learned" / "speech.safetensors").unlink()
    with pytest.raises(InputError, match="missing"):
        Host.open(folder).engine(engine)


def test_eyes_blink_and_only_there() -> None:
    closed = lid_movement(250, 25, np.random.default_rng(0))
    assert closed[0] == closed[-1] == 0 and closed.max() > 0.8
    blinks = np.flatnonzero((closed[1:] > 0) & (closed[:-1] == 0))
    assert 2 <= len(blinks) <= 5 and 0.05 < (closed > 0).mean() < 0.25
    points = np.zeros((468, 3), np.float32)
    points[:, :2] = np.random.default_rng(0).uniform(100, 200, (468, 2))
    image = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    frames = list(moving_portrait(image, points, 1.0, 25))
    assert len(frames) == 25 and frames[0].shape == image.shape
    assert np.array_equal(frames[3][:20, :20], image[:20, :20])  # far from the head nothing moves


def test_the_command_line_makes_a_host(
    tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_config(tmp_path, tiny_weights)
    text = config.read_text(encoding="utf-8").replace("portrait_s: 16", "portrait_s: 1")
    config.write_text(text.replace("dir: hosts", f"dir: {tmp_path / 'hosts'}"), encoding="utf-8")
    picture = footage.make_portrait(tmp_path / "portrait.png")
    common = ["--mode", "cli", "--config", str(config), "--make-host", "小美"]
    assert app.main([*common, "--video", str(picture)]) == 0
    assert "320x320, 25 pictures" in capsys.readouterr().out
    assert Host.open(tmp_path / "hosts" / "小美").card.name == "小美"
    assert app.main([*common, "--video", str(picture)]) == 2
    assert "already" in capsys.readouterr().err
    assert app.main(common) == 2
    assert "--video" in capsys.readouterr().err
    assert app.main([*common, "--video", str(picture), "--text", "hello"]) == 2
    assert app.main([*common, "--video", str(picture), "--fps", "50"]) == 2
    assert "leave --fps out" in capsys.readouterr().err
