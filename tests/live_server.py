"""The live server within the test process: real sockets, small networks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
import websocket

from language_processor import LanguageProcessor
from pipeline import LipSyncPipeline, Options
from pipeline.host import Host
from pipeline.studio import Studio, StudioSettings
from serving.http.context import Access
from serving.http.listening import Impatient
from serving.http.security import LOOPBACK_NAMES, ApiKeys
from serving.live.app import LiveApp
from serving.live.chat import Chat
from serving.live.protocol import LARGEST_MESSAGE
from serving.live.sessions import Sessions
from tests.conftest import REPO
from tests.service import free_port
from utils.config import SessionsConfig, load_config

PATIENCE_S = 60.0


class LiveServer:
    """A running server.

    Attributes:
        address: host and port.
        sessions: of it.
    """

    def __init__(self, address: str, sessions: Sessions):
        self.address, self.sessions = address, sessions

    def connect(self, query: str = "video=none", **more: Any) -> Client:
        """Open a WebSocket."""
        return Client(f"ws://{self.address}/live/socket?{query}", **more)


class Client:
    """A WebSocket client that keeps what it is told."""

    def __init__(self, address: str, **more: Any):
        self._socket = websocket.create_connection(address, timeout=PATIENCE_S, suppress_origin=True, **more)
        self.events: list[dict[str, Any]] = []
        self.media: list[bytes] = []
        self.first = self.wait("session")

    def send(self, **command: Any) -> None:
        self._socket.send(json.dumps(command))

    def send_raw(self, message: str | bytes) -> None:
        self._socket.send(message) if isinstance(message, str) else self._socket.send_binary(message)

    def wait(self, event: str) -> dict[str, Any]:
        """Read until such an event comes."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            self.read()
            if self.events and self.events[-1]["event"] == event:
                return self.events[-1]
        raise AssertionError([event, self.events])

    def read(self) -> None:
        """Take one message."""
        message = self._socket.recv()
        if isinstance(message, str) and message:
            self.events.append(json.loads(message))
        elif message:
            self.media.append(message)

    def closing(self) -> tuple[int, str]:
        """Read until the server ends the connection; its code and reason."""
        while True:
            opcode, data = self._socket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return int.from_bytes(data[:2], "big"), data[2:].decode()

    def close(self) -> None:
        self._socket.close()

    def drop(self) -> None:
        """Cut the connection without a word."""
        self._socket.sock.close()


@contextmanager
def live_server(
    made: tuple[LipSyncPipeline, Host],
    keys: Path | None = None,
    chat: Chat | None = None,
    most: int = 4,
    **limits: Any,
) -> Iterator[LiveServer]:
    """Serve a host until the block ends.

    Args:
        made: see `tests.live_host.make_small_host`.
        keys: file of API keys; None: everybody is let in.
        chat: what answers.
        most: sessions at once.
        limits: other values of `SessionsConfig`.
    """
    config = load_config(REPO / "model_config.yaml").sessions.model_copy(update=limits)
    port = free_port()
    language = LanguageProcessor(REPO / "pretrained", REPO / "pretrained" / "lite" / "phonemes")
    studio = Studio(made[0].engine, language, StudioSettings(0.2, config.most_waiting, config.most_sound_s), Options())
    sessions = _sessions(studio, made[1], config, most)
    access = Access(None if keys is None else ApiKeys(keys), LOOPBACK_NAMES)
    app = LiveApp(sessions, access, chat, longest=2000).build()
    settings = uvicorn.Config(
        app,
        port=port,
        http=partial(Impatient, patience_s=2.0),
        log_config=None,
        ws="wsproto",
        ws_max_size=LARGEST_MESSAGE,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, name="live-server", daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield LiveServer(f"127.0.0.1:{port}", sessions)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def _sessions(studio: Studio, host: Host, config: SessionsConfig, most: int) -> Sessions:
    return Sessions(studio, {host.card.name: host}, config, most)
