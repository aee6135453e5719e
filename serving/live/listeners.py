"""Between a session's thread and the event loop: moments wait here for the connections that carry them away.

Nobody waits for a slow client: pictures and sound that are too old are dropped, and it goes on with the next key
picture. Events are not lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.session import Moment

MOST_MOMENTS = 50
"""Frames that wait for one client; about two seconds."""

_MOST_EVENTS = 1000  # kept for a client that takes nothing


class Waiting:
    """A listener whose moments are taken by a coroutine of the event loop in which it is made.

    Args:
        wants_packets, wants_pictures: see `pipeline.session.Listener`.

    Attributes:
        dropped: moments that a slow client did not get.
    """

    def __init__(self, wants_packets: bool, wants_pictures: bool = False):
        self.wants_packets, self.wants_pictures = wants_packets, wants_pictures
        self.dropped = 0
        self._loop = asyncio.get_running_loop()
        self._moments: deque[Moment] = deque()
        self._came = asyncio.Event()
        self._needs_key = wants_packets
        self._closed = False

    def put(self, moment: Moment) -> None:
        """See `pipeline.session.Listener`; called by the session's thread."""
        if not self._closed:
            try:
                self._loop.call_soon_threadsafe(self._take, moment)
            except RuntimeError:  # the loop has ended
                self._closed = True

    def close(self) -> None:
        """No more moments are wanted; whoever waits gets None."""
        self._closed = True
        self._came.set()

    def _take(self, moment: Moment) -> None:
        if len(self._moments) >= MOST_MOMENTS:
            self.dropped += len(self._moments)
            told = [event for old in self._moments for event in old.events][-_MOST_EVENTS:]
            moment = replace(moment, events=(*told, *moment.events))
            self._moments.clear()
            self._needs_key = self.wants_packets
        self._moments.append(moment)
        self._came.set()

    async def next(self) -> Moment | None:
        """The next moment; None after `close`."""
        while not self._closed:
            if self._moments:
                return self._moments.popleft()
            self._came.clear()
            await self._came.wait()
        return None

    def usable(self, moment: Moment) -> bool:
        """Whether the moment's packet can be decoded after what this client got before."""
        if moment.packet is not None and moment.packet.is_key:
            self._needs_key = False
        return moment.packet is not None and not self._needs_key


