"""A host who listens and speaks: one clock for sound and picture, whoever watches, whatever the machine can draw.

A session has a thread of its own that makes a `Moment` for every frame, a little before it is due. Mouths are drawn
elsewhere (`pipeline.studio`), ahead of the moment at which they are shown. Where they are late, the last mouth stays,
and the sound goes on.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import av
import numpy as np
from av.video.reformatter import ColorRange

from pipeline.host import Host
from pipeline.live_mouths import SHORT_BLOCK, Mouths
from pipeline.live_sound import PLAYED_RATE, Streamed
from utils.planes import blend, copy_frame
from video_processor import LiveEncoder, Packet

LEAD_FRAMES = 2
"""Frames that are made before they are due."""

_FADE = 4  # frames in which a mouth comes from rest, and goes back to it
_HELD = 3  # frames that a late mouth is waited for, before the one that is shown goes to rest
_DECLICK_S = 0.01  # in which the sound falls silent when it is interrupted
_STREAM_GAP_S = 0.5  # a stream in which nothing arrives for so long is over
_MOST_STRIDE = 3
_FULL, _SPARE = 0.85, 0.65
_HURRY = 0.7  # of the time until its first frame is shown that drawing a block may take
_LAG_EVERY_S = 1.0
_BT709 = 1

Event = dict[str, Any]
"""What clients are told: `event` names it, `time` is the session's, in seconds."""


@dataclass(frozen=True)
class Moment:
    """A frame and the sound that is heard with it.

    Attributes:
        number: of the frame since the session began.
        time: seconds since then.
        due: when it is to be shown and heard, by `time.monotonic`.
        picture: yuv420p; None where there was no time for it, or nobody asked for it.
        packet: the same as H.264.
        sound: int16 mono at `PLAYED_RATE`.
        events: what happens now.
    """

    number: int
    time: float
    due: float
    picture: av.VideoFrame | None
    packet: Packet | None
    sound: np.ndarray
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Wish:
    """What should be drawn next.

    Attributes:
        ahead: frames until its first one is shown.
        mouths: of what.
        shown: the host's frame at its beginning.
        most: frames that there is time for.
    """

    ahead: int
    mouths: Mouths
    shown: int
    most: int


class Listener(Protocol):
    """Somebody who gets all moments from now on.

    Attributes:
        wants_packets: H.264.
        wants_pictures: the raw pictures.
    """

    wants_packets: bool
    wants_pictures: bool

    def put(self, moment: Moment) -> None:
        """Take a moment; must not wait for anything."""
        ...


class Session:
    """See above. All methods may be called from any thread.

    Args:
        host: who is seen.
        wake: called when there may be something to draw.
        load: seconds that drawing is expected to take for each second that is shown.
    """

    def __init__(self, host: Host, wake: Callable[[], None], load: float):
        self.host, self._wake = host, wake
        self._fps = float(host.fps)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._listeners: tuple[Listener, ...] = ()
        self._line: deque[Mouths] = deque()  # what is said, and what is said next
        self._begun_at: int | None = None  # frame at which the first in line began
        self._shown_at = 0  # the host's frame at that moment
        self._rested = 0  # frames since the mouth last was at rest
        self._leaving: tuple[np.ndarray, int] | None = None  # an interrupted mouth, and frames until it rests
        self._cut: np.ndarray | None = None  # the last samples of an interrupted sound
        self._events: list[Event] = []
        self._is_speaking, self._told_words = False, 0
        self._number = self._shown = 0
        self._load, self.stride, self._lag_told = load, _stride_for(load), 0.0
        self.late = 0
        """Frames whose mouth was not there in time; another one's was shown, or the mouth at rest."""
        self._missed = 0  # the last ones of them, in a row
        self.epoch = 0
        """Counts up when everything is interrupted; what was ordered before is not said any more."""
        self.waiting = 0
        """Texts that are still being spoken into sounds."""
        self.active_at = self.listened_at = time.monotonic()
        self._closing = False
        self._encoder: LiveEncoder | None = None
        self._thread = threading.Thread(target=self._run, name="live-session", daemon=True)
        self._thread.start()

    # What clients ask for

    def add(self, mouths: Mouths, epoch: int | None = None) -> bool:
        """Say a sound after all that is waiting. False: it was ordered before the last interruption."""
        with self._changed:
            if self._closing or epoch not in (None, self.epoch):
                return False
            self._line.append(mouths)
            self.active_at = time.monotonic()
            self._changed.notify_all()
        self._wake()
        return True

    def interrupt(self) -> None:
        """Fall silent, and forget what was still to be said."""
        with self._changed:
            self.epoch += 1
            current = self._line[0] if self._line and self._begun_at is not None else None
            if current is not None:
                index = self._number - self._begun_at
                picture, _ = current.at(index)
                self._leaving = None if picture is None else (picture, _FADE)
                first = round(index / self._fps * PLAYED_RATE)
                fade = np.linspace(1, 0, round(_DECLICK_S * PLAYED_RATE))
                self._cut = np.rint(current.sound.part(first, first + len(fade)) * fade).astype(np.int16)
            for mouths in self._line:
                if isinstance(mouths.sound, Streamed):
                    mouths.sound.end()
            self._line.clear()
            self._begun_at = None
            self.active_at = time.monotonic()
            self.tell("interrupted")
            self._changed.notify_all()

    def tell(self, event: str, **more: Any) -> None:
        """Tell all listeners something with the next moment."""
        with self._changed:
            self._events.append({"event": event, **{name: value for name, value in more.items() if value is not None}})
            self._changed.notify_all()

    def attach(self, listener: Listener) -> None:
        """Let somebody watch and listen from now on."""
        with self._changed:
            self._listeners = (*self._listeners, listener)
            self.listened_at = time.monotonic()
            self._changed.notify_all()
        self.request_key()

    def detach(self, listener: Listener) -> None:
        """No longer; nothing happens where somebody is gone already."""
        with self._changed:
            self._listeners = tuple(one for one in self._listeners if one is not listener)
            self.listened_at = time.monotonic()

    def request_key(self) -> None:
        """Make the next picture one that a decoder can begin with."""
        with self._lock:
            if self._encoder is not None:
                self._encoder.request_key()

    def close(self) -> None:
        """End the session, and its thread."""
        with self._changed:
            self._closing = True
            self._line.clear()
            self._changed.notify_all()
        self._thread.join()

    @property
    def closed(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._closing

    @property
    def listeners(self) -> int:
        """How many watch."""
        return len(self._listeners)

    @property
    def is_busy(self) -> bool:
        """Whether something is said, or waits to be."""
        with self._lock:
            return bool(self._line or self.waiting)

    @property
    def queued(self) -> int:
        """Sounds in line."""
        return len(self._line)

    # What is to be drawn

    def wanted(self) -> Wish | None:
        """What should be drawn next; None: nothing."""
        with self._lock:
            if self._closing or not self._listeners:
                return None
            offset, shown = 0, self._shown + LEAD_FRAMES
            for place, mouths in enumerate(list(self._line)[:2]):
                begun = place == 0 and self._begun_at is not None
                if begun:
                    shown, offset = self._shown_at, self._begun_at - self._number
                    if -offset > mouths.next:  # late: go on where a short block will be in time
                        mouths.skip_to(-offset + 1 + int(np.ceil(min(self._load, _MOST_STRIDE) * SHORT_BLOCK)))
                ahead = offset + mouths.next
                most = int(_HURRY * ahead / self._load)
                if mouths.can_draw(self.stride, most):
                    return Wish(ahead, mouths, shown, most)
                if not mouths.complete:
                    return None
                frames = int(np.ceil((mouths.sound.seconds() or 0.0) * self._fps))
                offset, shown = offset + frames, shown + frames
            return None

    def drew(self, seconds: float, frames: int, sharing: int, was_first: bool) -> None:
        """Take note of what drawing cost, and draw fewer frames where the machine is too slow.

        Args:
            seconds: that passed.
            frames: that were drawn in them.
            sharing: sessions that speak at the moment.
            was_first: the first block of a sound, which also was heard for the first time.
        """
        with self._lock:
            if was_first:
                return
            load = seconds / frames * self._fps * sharing
            self._load += 0.4 * (load - self._load)
            needed = _stride_for(self._load)
            if needed > self.stride or self._load / _SPARE < self.stride - 1 + 1e-9:
                self._set_stride(min(max(needed, self.stride - 1), _MOST_STRIDE))

    def _set_stride(self, stride: int) -> None:
        if stride != self.stride:
            self.stride = stride
            self.tell("lag", every=stride, late=self.late)

    # The clock

    def _run(self) -> None:
        start: float | None = None
        with self.host.loop() as loop:
            while True:
                with self._changed:
                    while not self._listeners and not self._closing:
                        start = None  # nobody is there: the clock stands still
                        self._changed.wait()
                    if self._closing:
                        return self._say_farewell()
                    now = time.monotonic()
                    lead = LEAD_FRAMES / self._fps
                    start = now + lead - self._number / self._fps if start is None else start
                    due = start + self._number / self._fps
                    if (wait := due - lead - now) > 0:
                        self._changed.wait(wait)
                        if time.monotonic() < due - lead:
                            continue  # woken for another reason
                self._make(loop, due)

    def _say_farewell(self) -> None:
        """Tell everybody that nothing more comes."""
        time_s, nothing = self._number / self._fps, np.zeros(0, np.int16)
        events = tuple({**event, "time": round(time_s, 3)} for event in (*self._events, {"event": "closed"}))
        for listener in self._listeners:
            listener.put(Moment(self._number, time_s, time.monotonic(), None, None, nothing, events))

    def _make(self, loop: Any, due: float) -> None:
        hurries = time.monotonic() > due
        with self._lock:
            number, listeners = self._number, self._listeners
            sound, mouth, fade = self._said(number)
            events = self._due_events(number)
            shown = self._shown
            self._number += 1
            self._shown += not hurries
            encoder = self._encoding(listeners)
        packet = picture = None
        if not hurries or number == 0:
            picture = self._picture(next(loop), shown, mouth, fade)
            packet = None if encoder is None else encoder.encode(picture, number / self._fps)
        moment = Moment(number, number / self._fps, due, picture, packet, sound, events)
        for listener in listeners:
            listener.put(moment)
        self._wake()

    def _encoding(self, listeners: tuple[Listener, ...]) -> LiveEncoder | None:
        if not any(listener.wants_packets for listener in listeners):
            return None
        if self._encoder is None:
            self._encoder = LiveEncoder(self.host.card.width, self.host.card.height, self.host.fps)
        return self._encoder

    def _picture(self, frame: av.VideoFrame, shown: int, mouth: np.ndarray | None, fade: float) -> av.VideoFrame:
        picture = copy_frame(frame, "yuv420p")
        picture.colorspace, picture.color_range = _BT709, ColorRange.MPEG
        patch = None if mouth is None else self.host.patch(shown, mouth, fade)
        if patch is not None:
            image = patch.image.astype(np.float32) / 255
            blend(picture, (patch.x, patch.y), image, patch.alpha, _BT709, full_range=False)
        return picture

    def _said(self, number: int) -> tuple[np.ndarray, np.ndarray | None, float]:
        """Sound, mouth (None: at rest) and the mouth's opacity of a frame; goes on in the line."""
        first, stop = (round(place / self._fps * PLAYED_RATE) for place in (number, number + 1))
        self._go_on(number)
        if self._begun_at is None:
            return self._silence(stop - first)
        current, index = self._line[0], number - self._begun_at
        began = round(self._begun_at / self._fps * PLAYED_RATE)
        sound = current.sound.part(first - began, stop - began)
        mouth, in_time = current.at(index)
        self._missed = 0 if in_time else self._missed + 1
        if not in_time:
            self.late += 1
            self._tell_lag()
        # A mouth that is late stays for a moment; then it goes to rest, and comes back when there is one again.
        self._rested = int(np.clip(self._rested + (1 if self._missed <= _HELD else -1), 0, _FADE))
        left = _FADE if current.frames is None else current.frames - index
        return sound, mouth, min(self._rested, left, _FADE) / _FADE

    def _silence(self, count: int) -> tuple[np.ndarray, np.ndarray | None, float]:
        sound, cut = np.zeros(count, np.int16), self._cut
        if cut is not None:
            sound[: len(cut)] = cut[:count]
            self._cut = None
        self._rested = 0
        if self._leaving is None:
            return sound, None, 0.0
        picture, left = self._leaving
        self._leaving = (picture, left - 1) if left > 1 else None
        self._rested = left - 1
        return sound, picture, left / (_FADE + 1)

    def _go_on(self, number: int) -> None:
        """Begin what is ready, and end what is over."""
        if self._begun_at is not None:
            current, index = self._line[0], number - self._begun_at
            self._end_stream(current)
            seconds = current.sound.seconds()
            if seconds is not None and index >= np.ceil(seconds * self._fps):
                follows = len(self._line) > 1 and self._line[1].begun
                if follows or index >= (current.frames or 0):
                    self._line.popleft()
                    self._begun_at = None
        if self._begun_at is None and self._line and self._line[0].begun:
            self._begun_at, self._shown_at, self._told_words = number, self._shown, 0
            self._leaving = None
            sound = self._line[0].sound
            self._is_speaking = True
            self.tell("speaking", text=sound.text, tag=sound.tag)
        if self._is_speaking and not self._line and not self.waiting:
            self._is_speaking = False
            self.tell("idle")
        if self._line:
            self.active_at = time.monotonic()

    def _end_stream(self, mouths: Mouths) -> None:
        sound = mouths.sound
        if isinstance(sound, Streamed) and time.monotonic() - sound.arrived_at > _STREAM_GAP_S:
            sound.end()

    def _due_events(self, number: int) -> tuple[Event, ...]:
        """What is told with a frame: the words that are said in it, and whatever else waits."""
        if self._begun_at is not None:
            words, until = self._line[0].sound.words, (number + 1 - self._begun_at) / self._fps
            while self._told_words < len(words) and words[self._told_words].start < until:
                word = words[self._told_words]
                start = self._begun_at / self._fps
                self.tell("word", text=word.text, start=round(start + word.start, 3), end=round(start + word.end, 3))
                self._told_words += 1
        events, self._events = self._events, []
        return tuple({**event, "time": round(number / self._fps, 3)} for event in events)

    def _tell_lag(self) -> None:
        now = time.monotonic()
        if now - self._lag_told >= _LAG_EVERY_S:
            self._lag_told = now
            self.tell("lag", every=self.stride, late=self.late)


def _stride_for(load: float) -> int:
    """Draw every n-th frame, for seconds of drawing that each second would take."""
    return int(np.clip(np.ceil(load / _FULL), 1, _MOST_STRIDE))
