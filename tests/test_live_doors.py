"""The doors of live hosts: a WebSocket for programs, what it refuses, and that nobody suffers for somebody else."""

from __future__ import annotations

import asyncio
import gc
import io
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import httpx2 as httpx
import numpy as np
import psutil
import pytest
import websocket

from pipeline import LipSyncPipeline
from pipeline.host import Host
from pipeline.session import Moment
from serving.http.security import new_key
from serving.http.server import build_parser, live_command
from serving.jobs.setup import read_settings
from serving.live.listeners import Waiting
from tests import footage
from tests.conftest import REPO
from tests.live_server import LiveServer, live_server
from video_processor import Packet


@pytest.fixture(scope="module")
def server(made_host: tuple[LipSyncPipeline, Host]) -> Iterator[LiveServer]:
    with live_server(made_host, most=12, linger_s=2.0) as running:
        yield running


def test_a_text_becomes_pictures_and_sound_as_fragments_of_mp4(server: LiveServer) -> None:
    client = server.connect("video=mp4&host=anna")
    assert client.first["width"] == 320 and client.first["fps"] == 25
    client.send(type="say", text="你好。", tag="a")
    client.wait("idle")
    names = [event["event"] for event in client.events]
    assert names.index("speaking") < names.index("word") < names.index("idle")
    assert [event["text"] for event in client.events if event["event"] == "word"] == ["你", "好。"]
    client.close()
    with av.open(io.BytesIO(b"".join(client.media))) as container:
        assert "Synthetic" in container.metadata["comment"]
        frames = [frame.time for frame in container.decode(video=0)]
    with av.open(io.BytesIO(b"".join(client.media))) as container:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(frames) > 20 and np.median(np.diff(frames)) < 0.09  # on a busy machine some are left out
    assert np.abs(heard).max() > 0.05 and abs(len(heard) / 48000 - frames[-1]) < 0.3


def test_raw_pictures_and_sound_carry_one_clock(server: LiveServer) -> None:
    client = server.connect("video=i420")
    client.send(type="audio", rate=16000, format="f32le", channels=2)
    sound = np.repeat(footage.speech_like(0.8, 16000)[:, None], 2, axis=1).astype("<f4")
    for start in range(0, len(sound), 1600):
        client.send_raw(sound[start : start + 1600].tobytes())
    client.send(type="audio_end")
    client.wait("idle")
    client.close()
    kinds = [message[0] for message in client.media]
    times = [np.frombuffer(message[4:12], "<f8")[0] for message in client.media]
    pictures = [message for message in client.media if message[0] == 1]
    assert all(len(message) == 12 + 320 * 480 for message in pictures)
    played = [np.frombuffer(m[12:], "<i2") for m, kind in zip(client.media, kinds, strict=True) if kind == 2]
    assert np.abs(np.concatenate(played)).max() > 3000
    assert sorted(times) == times and np.diff(sorted(set(times))).max() == pytest.approx(0.04)


def test_two_watch_one_session_and_an_interruption_reaches_both(server: LiveServer) -> None:
    first = server.connect()
    second = server.connect(f"video=none&session={first.first['session']}")
    second.send(type="say", text="One two three four five six seven eight nine ten eleven twelve.", lang="en")
    first.wait("speaking")
    second.send(type="ping", at=3.5)
    assert second.wait("pong")["at"] == 3.5
    first.send(type="interrupt")
    asked = time.monotonic()
    second.wait("interrupted")
    assert time.monotonic() - asked < 0.5
    assert first.wait("idle") and second.wait("idle")
    first.close()
    second.close()


def test_a_cut_connection_can_come_back_and_who_stays_away_ends_the_session(server: LiveServer) -> None:
    client = server.connect()
    name = client.first["session"]
    client.drop()
    again = server.connect(f"video=none&session={name}")
    assert again.first["session"] == name
    again.drop()
    deadline = time.monotonic() + 30
    while len(server.sessions) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not len(server.sessions)
    with pytest.raises(websocket.WebSocketBadStatusException, match="404"):
        server.connect(f"session={name}")


def test_what_cannot_be_used_is_refused_in_a_sentence_and_the_connection_stays(server: LiveServer) -> None:
    client = server.connect()
    refused = [
        ("no JSON", "message"),
        ('{"type": "dance"}', "dance"),
        ('{"type": "say"}', "text"),
        ('{"type": "say", "text": ""}', "text"),
        ('{"type": "say", "text": "Hello.", "lang": "klingon"}', "klingon"),
        ('{"type": "say", "text": "Hello.", "lang": "en", "voice": "nobody"}', "nobody"),
        ('{"type": "say", "text": "' + "x" * 2001 + '"}', "longer"),
        ('{"type": "audio", "rate": 1}', "rate"),
        ('{"type": "audio", "rate": 16000, "format": "mp3"}', "format"),
        ('{"type": "ask", "text": "Why?"}', "--chat"),
        ("[" * 10000, "message"),
        (b"\x00\x00", "what sound comes"),
    ]
    for message, said in refused:
        client.send_raw(message)
        assert said in client.wait("error")["message"]
    client.send(type="audio", rate=16000, format="f32le")
    client.send_raw(b"\x00" * 3)
    assert "whole samples" in client.wait("error")["message"]
    client.send_raw(np.full(100, np.nan, "<f4").tobytes())
    assert "no numbers" in client.wait("error")["message"]
    client.send(type="say", text="Still here.", lang="en")
    client.wait("idle")
    client.close()


def test_floods_and_giants_end_the_connection_and_nothing_else(server: LiveServer) -> None:
    calm = server.connect()
    flood = server.connect()
    with pytest.raises((BrokenPipeError, ConnectionError, websocket.WebSocketException)):
        for _ in range(3000):
            flood.send(type="ping", at=0)
        code, reason = flood.closing()
        assert code == 1008 and "Too many messages" in reason
        raise ConnectionError
    faults = server.connect()
    for _ in range(20):
        faults.send_raw("nonsense")
    assert faults.closing()[0] == 1008
    giant = server.connect()
    giant.send_raw(b"\x00" * (2**18 + 1))
    assert giant.closing()[0] == 1009
    calm.send(type="say", text="I am not disturbed.", lang="en")
    calm.wait("idle")
    calm.close()


def test_a_client_that_never_reads_does_not_slow_others(server: LiveServer) -> None:
    deaf = server.connect("video=i420")  # 6 MB a second that nobody takes
    quick = server.connect(f"video=none&session={deaf.first['session']}")
    quick.send(type="say", text="One two three four five six seven eight nine ten eleven twelve.", lang="en")
    started = quick.wait("speaking")["time"]
    begun = time.monotonic()
    over = quick.wait("idle")["time"]
    assert over - started > 1.5
    assert abs((time.monotonic() - begun) - (over - started)) < 0.7  # at the pace of the clock
    deaf.drop()
    quick.close()


def test_there_is_room_for_so_many_and_no_more(made_host: tuple[LipSyncPipeline, Host]) -> None:
    with live_server(made_host, most=2, most_listeners=2) as server:
        first, second = server.connect(), server.connect()
        with pytest.raises(websocket.WebSocketBadStatusException, match="503"):
            server.connect()
        again = server.connect(f"video=none&session={first.first['session']}")
        with pytest.raises(websocket.WebSocketBadStatusException, match="503"):
            server.connect(f"video=none&session={first.first['session']}")
        again.close()
        answer = httpx.delete(f"http://{server.address}/live/sessions/{first.first['session']}", timeout=60)
        assert answer.status_code == 204
        first.wait("closed")
        server.connect().close()
        second.close()


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/live/socket?host=nobody", {}, 404),
        ("/live/socket?video=gif", {}, 422),
        ("/live/socket?session=../../etc", {}, 404),
        ("/live/socket", {"origin": "https://example.org"}, 403),
        ("/live/socket", {"host": "example.org"}, 421),
    ],
)
def test_strangers_are_refused(server: LiveServer, path: str, options: dict[str, str], status: int) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException, match=str(status)):
        silent = "origin" not in options
        websocket.create_connection(f"ws://{server.address}{path}", timeout=60, suppress_origin=silent, **options)


def test_only_keys_open_the_doors(made_host: tuple[LipSyncPipeline, Host], tmp_path: Path) -> None:
    key, other = (new_key(tmp_path / "keys", name) for name in ("anna", "ben"))
    with live_server(made_host, keys=tmp_path / "keys") as server:
        for header in ([], ["Authorization: Bearer wrong"]):
            with pytest.raises(websocket.WebSocketBadStatusException, match="401"):
                server.connect(header=header)
        client = server.connect(header=[f"Authorization: Bearer {key}"])
        with pytest.raises(websocket.WebSocketBadStatusException, match="404"):  # somebody else's
            server.connect(f"session={client.first['session']}", header=[f"Authorization: Bearer {other}"])
        client.close()
        http = f"http://{server.address}"
        assert httpx.get(f"{http}/live/hosts", timeout=60).status_code == 401
        assert httpx.get(f"{http}/live/hosts/anna/poster", timeout=60).status_code == 401
        assert httpx.post(f"{http}/live/offer", json={"sdp": "x" * 20}, timeout=60).status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.get(f"{http}/live/hosts/anna/poster", headers=headers, timeout=60).content[:2] == b"\xff\xd8"
        faulty = {"sdp": "v=0 nonsense nonsense"}
        assert httpx.post(f"{http}/live/offer", json=faulty, headers=headers, timeout=60).status_code == 422
        large = {"sdp": "x" * 2**18}
        assert httpx.post(f"{http}/live/offer", json=large, headers=headers, timeout=60).status_code == 413
        foreign = {**headers, "Origin": "https://example.org"}
        assert httpx.post(f"{http}/live/offer", json=faulty, headers=foreign, timeout=60).status_code == 403


def threads() -> int:
    """Threads but those of the pool that the event loop keeps for later."""
    return sum("AnyIO" not in thread.name for thread in threading.enumerate())


def test_fifty_sessions_leave_nothing(made_host: tuple[LipSyncPipeline, Host]) -> None:
    process = psutil.Process()
    with live_server(made_host, most=50, linger_s=0.1) as server:

        def open_and_drop(count: int) -> None:
            for number in range(count):
                client = server.connect("video=mp4")
                if number % 5 == 0:
                    client.send(type="say", text="Hello.", lang="en")
                client.drop()
            deadline = time.monotonic() + 60
            while len(server.sessions) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert not len(server.sessions)
            gc.collect()

        open_and_drop(8)  # what is loaded at the first use
        time.sleep(1)
        before = (threads(), process.num_fds(), process.memory_info().rss)
        open_and_drop(50)
        deadline = time.monotonic() + 20
        while (threads() > before[0] or process.num_fds() > before[1]) and time.monotonic() < deadline:
            time.sleep(0.2)
        after = (threads(), process.num_fds(), process.memory_info().rss)
    assert after[0] <= before[0] and after[1] <= before[1]
    assert after[2] - before[2] < 60e6


def test_the_client_in_the_documentation_works(server: LiveServer, tmp_path: Path) -> None:
    text = (REPO / "docs" / "live.md").read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "create_connection" in block)
    assert code.count("\n") <= 22
    (tmp_path / "client.py").write_text(code, encoding="utf-8")
    sound = footage.make_sound(tmp_path / "speech.wav", 0.6, 16000)
    words = [f"ws://{server.address}/live/socket", str(sound), str(tmp_path / "result.mp4")]
    subprocess.run([sys.executable, str(tmp_path / "client.py"), *words], check=True, timeout=120)
    with av.open(str(tmp_path / "result.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) > 5  # of 15; a slow machine drops pictures


def test_a_slow_client_misses_frames_and_no_event() -> None:
    async def take() -> tuple[list[str], int, bool]:
        listener = Waiting(wants_packets=True)
        for number in range(120):
            packet = Packet(b"", is_key=number in (0, 110), pts=number)
            events = ({"event": f"e{number}"},) if number % 10 == 0 else ()
            listener.put(Moment(number, number / 25, 0.0, None, packet, np.zeros(0, np.int16), events))
        await asyncio.sleep(0.1)
        told, usable = [], []
        while listener._moments:
            moment = await listener.next()
            told += [event["event"] for event in moment.events]
            usable.append(listener.usable(moment))
        return told, listener.dropped, usable[0]

    told, dropped, first_usable = asyncio.run(take())
    assert told == [f"e{number}" for number in range(0, 120, 10)]
    assert dropped == 100 and not first_usable  # it goes on with the next key picture


def test_web_and_api_start_a_live_server_for_the_same_people(tmp_path: Path) -> None:
    words = ["--live-port", "8011", "--keys", "--data-dir", str(tmp_path), "--device", "cpu"]
    arguments = build_parser("api", "", 8000).parse_args(words)
    command = live_command(arguments, read_settings(arguments))
    told = dict(zip(command, command[1:], strict=False))
    assert told["--mode"] == "live" and told["--port"] == "8011" and told["--data-dir"] == str(tmp_path)
    assert {"--keys", "--end-with-parent"} <= set(command) and "--insecure" not in command
    build_parser("live", "", 8010).parse_args(["--port", "8011"])
    with pytest.raises(SystemExit):  # it has no other beside it
        build_parser("live", "", 8010).parse_args(["--live-port", "8011"])
