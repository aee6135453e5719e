"""The sessions of this server: who has which, how many there may be, and when they end."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from serving.problems import RETRY_S, Problem
from utils.config import SessionsConfig
from utils.helpers import InputError

if TYPE_CHECKING:
    from pipeline.host import Host
    from pipeline.session import Session
    from pipeline.studio import Studio

_LOG = logging.getLogger("lipsync.live")
_SWEEP_S = 1.0
ON_AIR = "on-air"
"""Name of the session that is pushed to a broadcast; everybody who is let in may speak to it."""


@dataclass(eq=False)
class LiveSession:
    """A session of somebody.

    Attributes:
        id: by which it is joined; nobody guesses it.
        owner: name of the key that began it.
        session: itself.
        stays: it does not end by itself.
    """

    id: str
    owner: str
    session: Session
    stays: bool = False
    opened_at: float = field(default_factory=time.monotonic)


class Sessions:
    """See above.

    Args:
        studio: draws and speaks for all of them.
        hosts: by name.
        config: limits.
        most: sessions that this machine can carry.
    """

    def __init__(self, studio: Studio, hosts: dict[str, Host], config: SessionsConfig, most: int):
        self.studio, self.hosts, self.config, self.most = studio, hosts, config, most
        self._open: dict[str, LiveSession] = {}
        self._opening = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._open)

    async def begin(self, host: str, owner: str, name: str | None = None) -> LiveSession:
        """A new session.

        Raises:
            Problem: 404 no such host, 503 no room for another one.
        """
        if host not in self.hosts:
            raise Problem(404, "no-such-host", "There is no host of that name; see /live/hosts.")
        async with self._opening:
            if len(self._open) >= self.most:
                detail = f"{self.most} sessions run already, as many as this machine can draw; try again later."
                raise Problem(503, "no-room", detail, {"Retry-After": str(RETRY_S)})
            try:
                session = await to_thread.run_sync(self.studio.open, self.hosts[host])
            except InputError as error:
                raise Problem(409, "host-does-not-fit", str(error)) from error
            live = LiveSession(name or secrets.token_urlsafe(16), owner, session, stays=name is not None)
            self._open[live.id] = live
        _LOG.info("live session begins", extra={"host": host, "sessions": len(self._open)})
        return live

    def find(self, session_id: str, owner: str) -> LiveSession:
        """A session of the same owner.

        Raises:
            Problem: 404 there is none, or it is somebody else's; 503 enough people watch it.
        """
        live = self._open.get(session_id)
        if live is None or (live.owner != owner and not live.stays):
            raise Problem(404, "no-such-session", "There is no such session; it ends some time after the last word.")
        if live.session.listeners >= self.config.most_listeners:
            raise Problem(503, "no-room", f"{self.config.most_listeners} watch this session already.")
        return live

    async def end(self, live: LiveSession) -> None:
        """End a session now."""
        if self._open.pop(live.id, None) is not None:
            await to_thread.run_sync(self.studio.close, live.session)
            _LOG.info("live session ends", extra={"sessions": len(self._open)})

    async def sweep(self) -> None:
        """End sessions that nobody watches, or to which nothing is said, for as long as this runs."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            for live in [one for one in self._open.values() if self._is_over(one)]:
                await self.end(live)

    async def shut(self) -> None:
        """End all of them."""
        for live in list(self._open.values()):
            await self.end(live)
        await to_thread.run_sync(self.studio.shut)

    def _is_over(self, live: LiveSession) -> bool:
        if live.stays:
            return False
        now, session = time.monotonic(), live.session
        alone = session.listeners == 0 and now - max(session.listened_at, live.opened_at) > self.config.linger_s
        return alone or (not session.is_busy and now - session.active_at > self.config.idle_s)


def poster(host: Host) -> Path:
    """A small picture of a host."""
    from pipeline.host import POSTER

    return host.folder / POSTER
