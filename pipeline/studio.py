"""Draws the mouths of all live sessions, and speaks their texts: one thread for each, whoever is most in need first."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.base import Engine
from language_processor import LanguageProcessor, SpokenText
from pipeline.captions import timed_words
from pipeline.drawing import DrawingSettings
from pipeline.host import Host
from pipeline.live_mouths import SHORT_BLOCK, Mouths
from pipeline.live_sound import HEARD_RATE, Sound, Spoken, Streamed
from pipeline.options import Options
from pipeline.session import Session
from utils.helpers import InputError, torch_threads
from voices.base import Speech, Voice, moved

_AHEAD_FRAMES = 50  # drawn before they are shown, at most
_IDLE_WAIT_S = 1.0
_WARM_UP_FRAMES = 8
_WARM_UP = "Hello, this is a first sentence. 你好，这是第一句话。"
_USUAL_LOAD = 0.5  # seconds of drawing for each second that is shown, before it is known
_LOWER = 2  # niceness of the drawing thread: it may be late, sound may not


@dataclass(frozen=True)
class StudioSettings:
    """Limits of every session.

    Attributes:
        sound_ahead_s: see `utils.config.LiveConfig`.
        most_waiting: texts and sounds that may wait to be said.
        most_sound_s: seconds of streamed sound that may wait to be played.
    """

    sound_ahead_s: float
    most_waiting: int
    most_sound_s: float


@dataclass(frozen=True)
class _Known:
    """A host with what draws it."""

    host: Host
    engine: Engine
    person: Any


class Studio:
    """Sessions of one process.

    Args:
        engine: what draws the mouths.
        language: what speaks texts; None: only sounds are said.
        settings: see there.
        options: steps, guidance and seed count.
    """

    def __init__(
        self, engine: Engine, language: LanguageProcessor | None, settings: StudioSettings, options: Options
    ) -> None:
        self._engine, self._language, self.settings = engine, language, settings
        self._style = DrawingSettings.of(engine, options).style
        self._known: dict[Path, _Known] = {}
        self._load = _USUAL_LOAD
        self._sessions: tuple[Session, ...] = ()
        self._changed = threading.Condition()
        self._closing = self._is_woken = False
        self._at_end = contextlib.ExitStack()
        if engine.is_accelerated:  # PyTorch has little to do; more threads of it would only wait for each other
            self._at_end.enter_context(torch_threads(1))
        self._speaker = ThreadPoolExecutor(1, thread_name_prefix="live-speech")
        self._drawer = threading.Thread(target=self._draw, name="live-drawing", daemon=True)
        self._drawer.start()

    @property
    def voices(self) -> tuple[Voice, ...]:
        """Who speaks texts."""
        return () if self._language is None else self._language.voices

    def open(self, host: Host) -> Session:
        """Begin a session with a host.

        Raises:
            InputError: the host was made for another engine or other weights.
        """
        self._know(host)
        session = Session(host, self._wake, self._load)
        with self._changed:
            self._sessions = (*self._sessions, session)
        return session

    def warm_up(self, host: Host) -> None:
        """Speak and draw once what nobody sees, so that what loads at the first use is there when somebody comes."""
        known, silence = self._know(host), Spoken.of(np.zeros(HEARD_RATE, np.float32), HEARD_RATE)
        mouths = Mouths(known.engine, known.host, known.person, silence, self._style, self.settings.sound_ahead_s)
        for most in (SHORT_BLOCK, _WARM_UP_FRAMES):
            started = time.monotonic()
            frames = mouths.draw(0, 1, most)
        self._load = (time.monotonic() - started) / frames * float(host.fps)
        host.patch(0, mouths.at(0)[0])
        if self._language is not None:
            with contextlib.suppress(InputError):  # no voice for it
                job = _Text(SpokenText(_WARM_UP), None, 0, None)
                job.sound(next(job.parts(self._language)), self._language)

    def close(self, session: Session) -> None:
        """End a session."""
        with self._changed:
            self._sessions = tuple(one for one in self._sessions if one is not session)
        session.close()

    def shut(self) -> None:
        """End everything."""
        for session in self._sessions:
            self.close(session)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._drawer.join()
        self._speaker.shutdown(cancel_futures=True)
        self._at_end.close()

    def check(self, spoken: SpokenText) -> None:
        """Refuse a text that cannot be spoken.

        Raises:
            InputError: it cannot, or nothing here speaks.
        """
        if self._language is None:
            raise InputError("This server speaks no texts; send sound instead.")
        self._language.choose(spoken)

    def say(self, session: Session, spoken: SpokenText, tag: str | None = None) -> None:
        """Say a text after all that waits; it is spoken sentence by sentence, so the first one is heard early.

        Raises:
            InputError: too much is waiting, or the text cannot be spoken.
        """
        self._check_room(session)
        self.check(spoken)
        with self._changed:
            session.waiting += 1
        job = _Text(spoken, session, session.epoch, tag)
        self._speaker.submit(self._speak, job)

    def play(self, session: Session, samples: np.ndarray, rate: int, tag: str | None = None) -> None:
        """Say a whole sound, mono float (N,) in [-1, 1]; errors as of `say`."""
        self._check_room(session)
        session.add(self._mouths(session, Spoken.of(samples, rate, tag=tag)))

    def stream(self, session: Session, rate: int, tag: str | None = None) -> Streamed:
        """Begin to say a sound that arrives in pieces; errors as of `say`."""
        self._check_room(session)
        sound = Streamed(rate, tag)
        sound.arrived_at = time.monotonic()
        session.add(self._mouths(session, sound))
        return sound

    def feed(self, sound: Streamed, samples: np.ndarray) -> None:
        """Hand on a piece of such a sound: mono float (N,) in [-1, 1].

        Raises:
            InputError: far more has come than was played.
        """
        if sound.waiting_s > self.settings.most_sound_s:
            raise InputError(f"More than {self.settings.most_sound_s:g} s of sound wait to be played; send it slower.")
        sound.add(samples, time.monotonic())
        self._wake()

    def _check_room(self, session: Session) -> None:
        if session.queued + session.waiting >= self.settings.most_waiting:
            raise InputError(f"{self.settings.most_waiting} texts and sounds wait already; try again later.")

    def _know(self, host: Host) -> _Known:
        if host.folder not in self._known:
            engine = host.engine(self._engine)
            self._known[host.folder] = _Known(host, engine, engine.unpack(host.person))
        return self._known[host.folder]

    def _mouths(self, session: Session, sound: Sound) -> Mouths:
        known = self._know(session.host)
        return Mouths(known.engine, known.host, known.person, sound, self._style, self.settings.sound_ahead_s)

    def _speak(self, job: _Text) -> None:
        """Speak the next sentence of a text, then let other texts have their turn."""
        session = job.session
        try:
            speech = None if session.closed or session.epoch != job.epoch else next(job.parts(self._language), None)
        except InputError as error:
            session.tell("error", message=str(error), tag=job.tag)
            speech = None
        if speech is not None and session.add(self._mouths(session, job.sound(speech, self._language)), job.epoch):
            self._speaker.submit(self._speak, job)
            return
        with self._changed:
            session.waiting -= 1

    def _wake(self) -> None:
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()

    def _draw(self) -> None:
        lower_priority(_LOWER)
        while True:
            with self._changed:
                if not self._is_woken and not self._closing:
                    self._changed.wait(_IDLE_WAIT_S)
                self._is_woken = False
                if self._closing:
                    return
                sessions = self._sessions
            while self._draw_most_needed(sessions):
                sessions = self._sessions

    def _draw_most_needed(self, sessions: tuple[Session, ...]) -> bool:
        """Draw a block for whoever would be late first; False: nobody needs any."""
        wishes = [(wish, session) for session in sessions if (wish := session.wanted()) is not None]
        wishes = [one for one in wishes if one[0].ahead < _AHEAD_FRAMES]
        if not wishes or self._closing:
            return False
        wish, session = min(wishes, key=lambda one: one[0].ahead)
        was_first, started = not wish.mouths.begun, time.monotonic()
        frames = wish.mouths.draw(wish.shown, session.stride, wish.most)
        session.drew(time.monotonic() - started, frames, len(wishes), was_first)
        return True


@dataclass(eq=False)
class _Text:
    """A text that is being spoken."""

    spoken: SpokenText
    session: Session | None
    epoch: int
    tag: str | None
    _parts: Iterator[Speech] | None = None
    _until: float = 0.0
    _language: str = "en"

    def parts(self, language: LanguageProcessor) -> Iterator[Speech]:
        if self._parts is None:
            said = self.spoken
            self._language = language.choose(said).voice.language
            self._parts = language.stream(said.text, said.lang, said.voice, said.speed, said.expected)
        return self._parts

    def sound(self, speech: Speech, language: LanguageProcessor) -> Spoken:
        """A sentence with its captions; its own times count from its start."""
        here = moved(speech, -self._until)
        self._until += speech.duration
        text = here.sentences[0].text if here.sentences else None
        words = () if text is None else timed_words(text, here.phonemes, self._counter(language))
        return Spoken.of(
            here.samples, here.rate, phonemes=here.phonemes, text=text, words=tuple(words), tag=self.tag
        )

    def _counter(self, language: LanguageProcessor) -> Callable[[str], int]:
        def count(word: str) -> int:
            try:
                return len(language.phonemes(word, self._language))
            except InputError:  # a sign that nobody pronounces
                return 1

        return count


def lower_priority(by: int) -> None:
    """Let this thread stand back behind others of the process, where the system knows priorities of threads."""
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), by)
    except (AttributeError, OSError):
        pass
