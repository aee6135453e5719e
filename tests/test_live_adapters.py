"""The adapters in examples/: against a real live server, with stand-ins for the classes of LiveKit and Pipecat.

The stand-ins have the names, arguments and calls that the documentation of these packages has; nothing more.
"""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pipeline import LipSyncPipeline
from pipeline.host import Host
from tests import footage
from tests.conftest import REPO
from tests.live_server import LiveServer, live_server

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def server(made_host: tuple[LipSyncPipeline, Host]) -> Iterator[LiveServer]:
    pytest.importorskip("websockets", reason="requirements-dev.txt")
    with live_server(made_host) as running:
        yield running


def simple(name: str, *fields: str, **more: Any) -> type:
    """A class that keeps its arguments."""

    def begin(self: Any, *values: Any, **named: Any) -> None:
        for field, value in {**dict(zip(fields, values, strict=False)), **named}.items():
            setattr(self, field, value)

    return type(name, (), {"__init__": begin, **more})


def module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    parts = name.split(".")
    for index in range(1, len(parts) + 1):
        path = ".".join(parts[:index])
        if path not in sys.modules:
            monkeypatch.setitem(sys.modules, path, ModuleType(path))
    for key, value in content.items():
        setattr(sys.modules[name], key, value)


def example(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    monkeypatch.syspath_prepend(str(REPO / "examples"))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(name)


def speech() -> bytes:
    return (footage.speech_like(0.8, 24000) * 32767).astype("<i2").tobytes()


def test_a_host_is_the_avatar_of_a_livekit_agent(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    rtc = ModuleType("rtc")
    rtc.AudioFrame = simple("AudioFrame", "data", "sample_rate", "num_channels", "samples_per_channel")
    rtc.VideoFrame = simple("VideoFrame", "width", "height", "type", "data")
    rtc.VideoBufferType = simple("VideoBufferType", I420=5)
    module(monkeypatch, "livekit", rtc=rtc)
    kinds = ("AudioSegmentEnd", "AvatarOptions", "AvatarRunner", "DataStreamAudioReceiver", "VideoGenerator")
    module(monkeypatch, "livekit.agents.voice.avatar", **{kind: simple(kind) for kind in kinds})
    adapter = example(monkeypatch, "livekit_avatar")

    async def talk() -> list[Any]:
        host = adapter.LiveHost(f"ws://{server.address}/live/socket?host=anna")
        await host.connect()
        generator, got = adapter.HostGenerator(host), []
        await generator.push_audio(rtc.AudioFrame(speech(), 24000, 1, 19200))
        await generator.push_audio(adapter.AudioSegmentEnd())
        async for part in generator:
            got.append(part)
            if isinstance(part, adapter.AudioSegmentEnd):
                break
        await generator.clear_buffer()
        await host.close()
        return got

    got = asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))
    pictures = [part for part in got if isinstance(part, rtc.VideoFrame)]
    sounds = [part for part in got if isinstance(part, rtc.AudioFrame)]
    assert len(pictures) > 10 and len(pictures[0].data) == 320 * 320 * 3 // 2
    heard = np.frombuffer(b"".join(part.data for part in sounds), "<i2")
    assert 0.7 < len(heard) / 48000 < 2 and np.abs(heard).max() > 3000


def test_a_host_is_a_video_service_of_pipecat(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("CancelFrame", "EndFrame", "Frame", "InterruptionFrame", "StartFrame", "TTSStoppedFrame")
    frames = {name: simple(name) for name in names}
    frames["OutputImageRawFrame"] = simple("OutputImageRawFrame", "image", "size", "format")
    frames["TTSAudioRawFrame"] = simple("TTSAudioRawFrame", "audio", "sample_rate", "num_channels")
    pushed: list[Any] = []

    class FrameProcessor:
        async def process_frame(self, frame: Any, direction: Any) -> None:
            pass

        async def push_frame(self, frame: Any, direction: Any = None) -> None:
            pushed.append(frame)

        def create_task(self, work: Any) -> Any:
            return asyncio.create_task(work)

        async def cancel_task(self, task: Any) -> None:
            task.cancel()

    module(monkeypatch, "pipecat.frames.frames", **frames)
    module(
        monkeypatch,
        "pipecat.processors.frame_processor",
        FrameDirection=simple("FrameDirection", DOWNSTREAM=1),
        FrameProcessor=FrameProcessor,
    )
    adapter = example(monkeypatch, "pipecat_video")
    image, sound = frames["OutputImageRawFrame"], frames["TTSAudioRawFrame"]

    async def talk() -> None:
        service = adapter.LipSyncVideoService(f"ws://{server.address}/live/socket?host=anna")
        for frame in (frames["StartFrame"](), sound(speech(), 24000, 1), frames["TTSStoppedFrame"]()):
            await service.process_frame(frame, 1)
        while sum(isinstance(frame, sound) for frame in pushed) < 15:
            await asyncio.sleep(0.05)
        assert service.size == (320, 320)
        for name in ("InterruptionFrame", "EndFrame"):
            await service.process_frame(frames[name](), 1)

    asyncio.run(asyncio.wait_for(talk(), PATIENCE_S))
    pictures = [frame for frame in pushed if isinstance(frame, image)]
    assert len(pictures) > 5 and len(pictures[0].image) == 320 * 320 * 3
    assert all(frame.sample_rate == 48000 for frame in pushed if isinstance(frame, sound))


@pytest.mark.parametrize("name", ["livekit_avatar", "pipecat_video"])
def test_without_the_package_a_sentence_says_what_to_install(name: str) -> None:
    command = [sys.executable, f"examples/{name}.py"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "pip install" in done.stderr and "Traceback" not in done.stderr
