"""A chat service answers, and the host says it: against a server that speaks as OpenAI's does, on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import pytest

from pipeline import LipSyncPipeline
from pipeline.host import Host
from serving.live.chat import Chat, finished_parts
from serving.live.push import Push
from tests.live_server import live_server
from utils.helpers import InputError


class Fake(ThreadingHTTPServer):
    """An OpenAI-compatible service that says its sentences slowly, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.hold = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        self.server.keys.append(self.headers.get("authorization"))
        if body["model"] == "broken":
            self.send_error(500)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for piece in ("Good ", "day. I am", " well."):
            self._say({"choices": [{"delta": {"content": piece}}]})
        self.server.hold.wait(30)
        self._say({"choices": [{"delta": {"content": " And you?"}}]})
        self.wfile.write(b"data: [DONE]\n\n")

    def _say(self, value: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def fake() -> Iterator[Fake]:
    with Fake() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_question_becomes_an_answer_that_is_said_while_it_is_written(
    made_host: tuple[LipSyncPipeline, Host], fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPSYNC_CHAT_KEY", "secret")
    chat = Chat(f"http://127.0.0.1:{fake.server_port}/v1", "small", "Be short.")
    with live_server(made_host, chat=chat) as server:
        client = server.connect()
        client.send(type="ask", text="How are you?", lang="en", tag="q")
        first = client.wait("speaking")
        assert first["text"] == "Good day." and first["tag"] == "q"  # though the answer is not complete
        fake.hold.set()
        client.wait("answer")
        client.wait("idle")
        said = [event["text"] for event in client.events if event["event"] == "speaking"]
        assert said == ["Good day.", "I am well.", "And you?"]
        client.send(type="ask", text="Again?", lang="en")
        client.wait("answer")
        client.close()
    assert [message["content"] for message in fake.asked[1]["messages"]] == [
        "Be short.", "How are you?", "Good day. I am well. And you?", "Again?",
    ]  # fmt: skip
    assert fake.keys[0] == "Bearer secret" and fake.asked[0]["stream"] is True


@pytest.mark.parametrize(("port", "model", "said"), [(1, "small", "does not answer"), (None, "broken", "status 500")])
def test_a_service_that_fails_is_said_in_a_sentence(
    made_host: tuple[LipSyncPipeline, Host], fake: Fake, port: int | None, model: str, said: str
) -> None:
    chat = Chat(f"http://127.0.0.1:{port or fake.server_port}/v1", model)
    with live_server(made_host, chat=chat) as server:
        client = server.connect()
        client.send(type="ask", text="How are you?")
        assert said in client.wait("error")["message"]
        client.close()


def test_sentences_are_cut_where_they_end() -> None:
    assert finished_parts("Good day. I a") == ["Good day.", "I a"]
    assert finished_parts("Dr. Smith is") == ["Dr. Smith is"]
    assert finished_parts("你好。我是") == ["你好。", "我是"]
    with pytest.raises(InputError, match="http"):
        Chat("ftp://example.org", "small")


def test_a_session_is_pushed_and_what_was_pushed_plays(made_host: tuple[LipSyncPipeline, Host], tmp_path: Path) -> None:
    with live_server(made_host) as server:
        client = server.connect()
        live = server.sessions.find(client.first["session"], "local")
        push = Push(live.session, str(tmp_path / "air.ts"))
        client.send(type="say", text="On air.", lang="en")
        client.wait("idle")
        time.sleep(0.3)
        push.close()
        client.close()
    with av.open(str(tmp_path / "air.ts")) as container:
        assert sum(1 for _ in container.decode(video=0)) > 20
    with av.open(str(tmp_path / "air.ts")) as container:
        assert max(abs(frame.to_ndarray()).max() for frame in container.decode(audio=0)) > 0.05
