"""Does what a client of a session asks for; one for each connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from anyio import to_thread

from language_processor import SpokenText
from serving.live.chat import Chat, Conversation
from serving.live.protocol import (
    Ask,
    Audio,
    AudioEnd,
    Interrupt,
    Pace,
    Ping,
    Say,
    Talk,
    error_event,
    read_command,
    read_samples,
)
from serving.live.sessions import LiveSession, Sessions
from utils.helpers import InputError

if TYPE_CHECKING:
    from pipeline.live_sound import Streamed

_MOST_FAULTS = 20
_MICROPHONE = Audio(type="audio", rate=48000, format="f32le")


class Flooded(Exception):
    """The client sends too much, or nothing that could be used; the connection ends. The message says why."""


class Commands:
    """See above.

    Args:
        sessions: of the server.
        live: the session of the connection.
        answer: sends an event to this client alone, at once.
        chat: what answers `ask`; None: nothing does.
        longest: characters of a text.
    """

    def __init__(
        self,
        sessions: Sessions,
        live: LiveSession,
        answer: Callable[[dict[str, Any]], None],
        chat: Chat | None,
        longest: int,
    ):
        self._studio, self._session, self._answer = sessions.studio, live.session, answer
        self._talk = None if chat is None else Conversation(chat, self._say_sentence, live.session.tell)
        self._longest = longest
        self._pace, self._faults = Pace(), 0
        self._sound: Streamed | None = None
        self._format: Audio | None = None
        self.microphone_is_on = False

    async def take(self, message: str | bytes) -> None:
        """A message as it came: text is a command, bytes are sound.

        Raises:
            Flooded: too many came, or too many that could not be used.
        """
        if not self._pace.allows():
            raise Flooded("Too many messages in a second; put sound into larger pieces.")
        try:
            if isinstance(message, str):
                await self._do(read_command(message))
            else:
                self._feed(message)
        except InputError as error:
            self._faults += 1
            self._answer(error_event(str(error)))
            if self._faults >= _MOST_FAULTS:
                raise Flooded(f"{_MOST_FAULTS} messages could not be used; the connection ends.") from error

    async def _do(self, command: Any) -> None:
        if isinstance(command, Say):
            self._check_length(command.text)
            said = SpokenText(command.text, command.lang, command.voice, command.speed)
            await to_thread.run_sync(self._studio.say, self._session, said, command.tag)
        elif isinstance(command, Ask):
            self._check_length(command.text)
            if self._talk is None:
                raise InputError("This server answers no questions: it was started without --chat.")
            self._talk.ask(command.text, (command.lang, command.voice, command.tag))
        elif isinstance(command, Audio):
            self.end_sound()
            self._format = command
        elif isinstance(command, AudioEnd):
            self.end_sound()
        elif isinstance(command, Interrupt):
            self.interrupt()
        elif isinstance(command, Talk):
            self.end_sound()
            self.microphone_is_on, self._format = command.on, _MICROPHONE if command.on else None
        elif isinstance(command, Ping):
            self._answer({"event": "pong", "at": command.at})

    def interrupt(self) -> None:
        """Fall silent, and forget what waits."""
        if self._talk is not None:
            self._talk.stop()
        self._session.interrupt()
        self._sound = None

    def hear(self, samples: np.ndarray) -> None:
        """What the microphone of this client hears: mono float32 (N,) at 48 kHz."""
        if self.microphone_is_on:
            self._hand_on(samples)

    def end_sound(self) -> None:
        """No more sound comes."""
        if self._sound is not None:
            self._sound.end()
        self._sound = self._format = None
        self.microphone_is_on = False

    def close(self) -> None:
        """The client is gone."""
        self.end_sound()
        if self._talk is not None:
            self._talk.stop()

    def _feed(self, data: bytes) -> None:
        if self._format is None or self.microphone_is_on:
            raise InputError('Say first what sound comes: {"type": "audio", "rate": 16000, "format": "s16le"}.')
        self._hand_on(read_samples(data, self._format))

    def _hand_on(self, samples: np.ndarray) -> None:
        if self._sound is None or self._sound.ended:
            self._sound = self._studio.stream(self._session, self._format.rate, self._format.tag)
        self._studio.feed(self._sound, samples)

    async def _say_sentence(self, text: str, how: tuple[str, str | None, str | None]) -> None:
        lang, voice, tag = how
        await to_thread.run_sync(self._studio.say, self._session, SpokenText(text, lang, voice), tag)

    def _check_length(self, text: str) -> None:
        if len(text) > self._longest:
            raise InputError(f"The text is longer than {self._longest} characters; send it in parts.")
