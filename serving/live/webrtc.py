"""The door for browsers: WebRTC, with the protocol in a data channel and the microphone as a track.

Pictures are encoded once for a session and packed for every browser that knows H.264; others get VP8, made for them.
Both tracks hand their parts out when these are due, so the receiver's clock sees them in step.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from aiortc import RTCConfiguration, RTCDataChannel, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcrtpsender import RTCRtpSender

from serving.live.commands import Commands, Flooded
from serving.live.listeners import MOST_MOMENTS, Waiting
from serving.live.sessions import LiveSession
from serving.live.socket import pause_until
from serving.problems import bad_input

if TYPE_CHECKING:
    from pipeline.session import Moment

_LOG = logging.getLogger("lipsync.live")
_RATE, _FRAME = 48000, 960  # 20 ms
_CLOCK = 90000
_MOST_BUFFERED = 2**20  # bytes that wait in a data channel which nobody reads
_CONNECT_S = 20.0
_OVER = ("failed", "closed", "disconnected")


class Peer:
    """One browser of a session.

    Args:
        live: the session.
        commands: makes what does what this client asks for, given a way to answer it.
        ice_servers: addresses of STUN and TURN servers; usually none.
        ended: called once, when the connection is over.
    """

    def __init__(
        self,
        live: LiveSession,
        commands: Callable[[Callable[[dict[str, Any]], None]], Commands],
        ice_servers: Sequence[str],
        ended: Callable[[Peer], None],
    ):
        servers = [RTCIceServer(urls=address) for address in ice_servers]
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._session, self._ended = live.session, ended
        self._commands = commands(self._send)
        self._listener: Waiting | None = None
        self._channel: RTCDataChannel | None = None
        self._inbox: asyncio.Queue[str | bytes] = asyncio.Queue(500)
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False
        self._connection.on("connectionstatechange", self._state_changed)
        self._connection.on("datachannel", self._channel_opened)
        self._connection.on("track", self._track_added)

    async def answer(self, sdp: str) -> str:
        """Answer a browser's offer, and begin to send.

        Raises:
            Problem: 422 the offer cannot be used.
        """
        self._video, self._sound = _Video(), _Sound()
        senders = [self._connection.addTrack(track) for track in (self._video, self._sound)]
        self._prefer_h264(senders[0])  # before the offer is read: that is when codecs are chosen
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except Exception as error:  # noqa: BLE001 - aiortc raises many kinds for a faulty description
            _LOG.info("offer refused: %s: %s", type(error).__name__, error)
            await self.close()
            raise bad_input("The offer is no session description that can be used.") from error
        described = self._connection.localDescription.sdp
        packed = _first_video_codec(described) == "h264"
        if packed:  # a browser that lost a picture asks for a key picture; the encoder is the session's
            senders[0]._send_keyframe = self._session.request_key
        self._listener = Waiting(wants_packets=packed, wants_pictures=not packed)
        self._video.listener = self._listener
        self._session.attach(self._listener)
        self._tasks += [asyncio.create_task(work()) for work in (self._share_out, self._obey, self._give_up)]
        return described

    def _prefer_h264(self, sender: RTCRtpSender) -> None:
        codecs = RTCRtpSender.getCapabilities("video").codecs
        transceiver = next(one for one in self._connection.getTransceivers() if one.sender is sender)
        transceiver.setCodecPreferences(sorted(codecs, key=lambda codec: codec.mimeType.lower() != "video/h264"))

    async def close(self) -> None:
        """End the connection."""
        if self._is_over:
            return
        self._is_over = True
        if self._listener is not None:
            self._session.detach(self._listener)
            self._listener.close()
        self._commands.close()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        await self._connection.close()
        self._ended(self)

    async def _state_changed(self) -> None:
        if self._connection.connectionState in _OVER:
            await self.close()

    async def _give_up(self) -> None:
        await asyncio.sleep(_CONNECT_S)
        if self._connection.connectionState != "connected":
            await self.close()

    def _channel_opened(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        channel.on("message", self._message)

    def _message(self, message: str | bytes) -> None:
        try:
            self._inbox.put_nowait(message)
        except asyncio.QueueFull:
            asyncio.ensure_future(self.close())

    def _track_added(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            self._tasks.append(asyncio.create_task(self._listen(track)))

    async def _obey(self) -> None:
        while True:
            try:
                await self._commands.take(await self._inbox.get())
            except Flooded as error:
                self._send({"event": "error", "message": str(error)})
                await self.close()
                return

    async def _listen(self, track: MediaStreamTrack) -> None:
        """The microphone; what it hears is dropped while it is off."""
        from utils.helpers import InputError

        resampler = av.AudioResampler(format="s16", layout="mono", rate=_RATE)
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if not self._commands.microphone_is_on:
                    continue
                for part in resampler.resample(frame):
                    try:
                        self._commands.hear(part.to_ndarray()[0].astype(np.float32) / 32768)
                    except InputError as error:
                        self._send({"event": "error", "message": str(error)})
                        self._commands.end_sound()

    async def _share_out(self) -> None:
        while (moment := await self._listener.next()) is not None:
            self._video.put(moment)
            self._sound.put(moment)
            if moment.events:
                await pause_until(moment.due)
                for event in moment.events:
                    self._send(event)
                if any(event["event"] == "closed" for event in moment.events):
                    await asyncio.sleep(0.2)
                    await self.close()

    def _send(self, event: dict[str, Any]) -> None:
        channel = self._channel
        if channel is None or channel.readyState != "open":
            return
        if channel.bufferedAmount > _MOST_BUFFERED:
            asyncio.ensure_future(self.close())
            return
        channel.send(json.dumps(event, ensure_ascii=False))


class _Video(MediaStreamTrack):
    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self.listener: Waiting | None = None
        self._moments: deque[Moment] = deque(maxlen=MOST_MOMENTS)
        self._came = asyncio.Event()

    def put(self, moment: Moment) -> None:
        self._moments.append(moment)
        self._came.set()

    async def recv(self) -> av.Packet | av.VideoFrame:
        while True:
            while not self._moments:
                self._came.clear()
                await self._came.wait()
            moment = self._moments.popleft()
            packed = self.listener.wants_packets
            if packed and self.listener.usable(moment):
                await pause_until(moment.due)
                return _as_packet(moment)
            if not packed and moment.picture is not None:
                await pause_until(moment.due)
                picture = moment.picture
                picture.pts, picture.time_base = round(moment.time * _CLOCK), Fraction(1, _CLOCK)
                return picture


def _first_video_codec(sdp: str) -> str | None:
    """Name of the codec that a description puts first for pictures, in small letters."""
    match = re.search(r"^m=video \S+ \S+ (\d+)", sdp, re.MULTILINE)
    named = match and re.search(rf"^a=rtpmap:{match[1]} ([^/\s]+)/", sdp, re.MULTILINE)
    return named[1].lower() if named else None


def _as_packet(moment: Moment) -> av.Packet:
    packet = av.Packet(moment.packet.data)
    packet.pts = packet.dts = moment.packet.pts
    packet.time_base = Fraction(1, _CLOCK)
    return packet


class _Sound(MediaStreamTrack):
    """Frames of 20 ms, whatever the length of a moment."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._frames: deque[tuple[int, float, np.ndarray]] = deque(maxlen=2 * MOST_MOMENTS)
        self._rest, self._next = np.zeros(0, np.int16), 0
        self._came = asyncio.Event()

    def put(self, moment: Moment) -> None:
        first = round(moment.time * _RATE)
        if first != self._next + len(self._rest):  # something is missing: go on from here
            self._rest, self._next = np.zeros(0, np.int16), first
        samples = np.concatenate([self._rest, moment.sound])
        whole = len(samples) // _FRAME * _FRAME
        for place in range(0, whole, _FRAME):
            pts = self._next + place
            self._frames.append((pts, moment.due + (pts - first) / _RATE, samples[place : place + _FRAME]))
        self._rest, self._next = samples[whole:], self._next + whole
        self._came.set()

    async def recv(self) -> av.AudioFrame:
        while not self._frames:
            self._came.clear()
            await self._came.wait()
        pts, due, samples = self._frames.popleft()
        await pause_until(due)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = _RATE, pts, Fraction(1, _RATE)
        return frame
