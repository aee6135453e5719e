"""Pushes a session to a broadcast: RTMP, SRT, UDP or a file, through PyAV, in a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

from serving.live.socket import TAGS

if TYPE_CHECKING:
    from pipeline.session import Moment, Session

_LOG = logging.getLogger("lipsync.live")
_MOST_MOMENTS = 100
_AGAIN_S = 3.0


class Push:
    """A listener that sends all it gets to one address; where the connection breaks, it is made anew.

    Args:
        session: what is pushed.
        target: rtmp://..., srt://..., udp://..., or a file.
    """

    wants_packets, wants_pictures = True, False

    def __init__(self, session: Session, target: str):
        self._session, self._target = session, target
        self._moments: queue.Queue[Moment | None] = queue.Queue(_MOST_MOMENTS)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="live-push", daemon=True)
        self._thread.start()
        session.attach(self)

    def put(self, moment: Moment) -> None:
        """See `pipeline.session.Listener`."""
        try:
            self._moments.put_nowait(moment)
        except queue.Full:  # the place is gone or too slow; it goes on with what comes then
            self._session.request_key()

    def close(self) -> None:
        """End it; what is written is complete."""
        self._session.detach(self)
        self._closing.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                self._push_once()
            except OSError as error:
                _LOG.warning("push: %s; trying again", error)
                self._closing.wait(_AGAIN_S)

    def _push_once(self) -> None:
        from video_processor import LiveMuxer

        card, muxer, needs_key = self._session.host.card, None, True
        self._session.request_key()
        try:
            while not self._closing.is_set():
                try:
                    moment = self._moments.get(timeout=0.2)
                except queue.Empty:
                    continue
                packet = moment.packet
                needs_key = needs_key and not (packet is not None and packet.is_key)
                if needs_key or not len(moment.sound):
                    continue
                if muxer is None:
                    muxer = LiveMuxer(
                        self._target, (card.width, card.height), self._session.host.fps, 48000, TAGS
                    )
                muxer.write(packet, moment.sound, moment.time)
        finally:
            if muxer is not None:
                muxer.close()


