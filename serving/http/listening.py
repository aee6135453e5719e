"""Listens for HTTP, and hangs up on connections that ask for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol

_KEEP_ALIVE_S = 15
_LARGEST_SOCKET_MESSAGE = 2**18  # bytes


class Impatient(AutoHTTPProtocol):
    """A connection that is closed when no request begins on it for a while; uvicorn itself would wait for ever for
    headers that trickle in.

    Args:
        patience_s: seconds until the headers of a request must have come.
        options: see uvicorn's protocols.
    """

    def __init__(self, *, patience_s: float, **options: Any):
        super().__init__(**options)
        self._patience_s = patience_s
        self._deadline: asyncio.TimerHandle | None = None
        self._is_socket = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, error: Exception | None) -> None:
        self._forget()
        super().connection_lost(error)

    def handle_websocket_upgrade(self, *event: Any) -> None:
        self._is_socket = True
        self._forget()
        super().handle_websocket_upgrade(*event)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if self._is_socket or not self._is_idle():
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self._patience_s, self._hang_up)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _hang_up(self) -> None:
        self._deadline = None
        if self._is_idle():
            self.transport.close()


def serve(app: ASGIApp, host: str, port: int, patience_s: float, proxies: Sequence[str] = ()) -> None:
    """Listen until interrupted; see `Impatient`.

    Args:
        app: what answers.
        host: address to listen on.
        port: to listen on.
        patience_s: see `Impatient`.
        proxies: addresses of the proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.
    """
    uvicorn.run(
        app,
        host=host,
        port=port,
        http=partial(Impatient, patience_s=patience_s),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=list(proxies),
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=5,
        ws="wsproto",  # whatever else is installed
        ws_max_size=_LARGEST_SOCKET_MESSAGE,
    )
