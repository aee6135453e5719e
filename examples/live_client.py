"""What the adapters for LiveKit and Pipecat share: a WebSocket to a live server that takes sound and gives both back.

Needs `pip install websockets`. The protocol is in docs/live.md.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

_HEAD = struct.Struct("<Bxxxd")


@dataclass(frozen=True)
class Picture:
    """A frame.

    Attributes:
        planes: I420, Y then U then V.
        width, height: px.
        time: seconds of the session's clock.
    """

    planes: bytes
    width: int
    height: int
    time: float


@dataclass(frozen=True)
class Sound:
    """Samples int16 mono at 48 kHz, and their time in seconds of the session's clock."""

    samples: bytes
    time: float


class LiveHost:
    """A host of a live server.

    Args:
        url: such as ws://127.0.0.1:8010/live/socket?host=anna
        key: API key, where the server wants one.
    """

    def __init__(self, url: str, key: str | None = None):
        self._url = url + ("&" if "?" in url else "?") + "video=i420"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._socket: Any = None
        self._rate: int | None = None
        self.width = self.height = 0
        self.fps = 25.0

    async def connect(self) -> None:
        """Begin a session."""
        from websockets.asyncio.client import connect

        self._socket = await connect(self._url, additional_headers=self._headers, max_size=2**24)
        first = json.loads(await self._socket.recv())
        self.width, self.height, self.fps = first["width"], first["height"], first["fps"]

    async def say(self, samples: bytes, rate: int, channels: int = 1) -> None:
        """Hand on sound, int16, as it comes."""
        if self._rate != rate:
            self._rate = rate
            await self._tell(type="audio", rate=rate, channels=channels)
        for start in range(0, len(samples), 2**16):
            await self._socket.send(samples[start : start + 2**16])

    async def end(self) -> None:
        """That was all of what is to be said."""
        if self._rate is not None:
            self._rate = None
            await self._tell(type="audio_end")

    async def interrupt(self) -> None:
        """Fall silent."""
        self._rate = None
        await self._tell(type="interrupt")

    async def close(self) -> None:
        """End the session."""
        if self._socket is not None:
            await self._socket.close()

    async def __aiter__(self) -> AsyncIterator[Picture | Sound | dict[str, Any]]:
        """Pictures, sound and events, at the pace of the clock."""
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                message = await self._socket.recv()
                if isinstance(message, str):
                    yield json.loads(message)
                    continue
                kind, time = _HEAD.unpack_from(message)
                body = message[_HEAD.size :]
                yield Picture(body, self.width, self.height, time) if kind == 1 else Sound(body, time)
        except ConnectionClosed:
            return

    async def _tell(self, **command: Any) -> None:
        await self._socket.send(json.dumps(command))


async def _show(url: str) -> None:
    host = LiveHost(url)
    await host.connect()
    print(f"{host.width}x{host.height} at {host.fps:g} frames per second")
    async for part in host:
        if isinstance(part, dict):
            print(part)


if __name__ == "__main__":
    import sys

    asyncio.run(_show(sys.argv[1]))
