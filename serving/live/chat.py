"""Answers of an OpenAI-compatible chat service, spoken while they are still being written.

Only the address that the operator names with --chat is asked, and only when a visitor asks something.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import httpx2 as httpx

from utils.helpers import InputError
from voices.text import plain_text, sentences

KEY = "LIPSYNC_CHAT_KEY"
"""Environment variable with the key of the chat service."""

_LOG = logging.getLogger("lipsync.live")
_REMEMBERED = 20  # messages of a talk that are sent along
_LONGEST_ANSWER = 8000  # characters
_WAIT_S = 60.0

How = tuple[str, "str | None", "str | None"]
"""Language, voice and tag of what is said."""


@dataclass(frozen=True)
class Chat:
    """The service.

    Attributes:
        url: its address, up to and including /v1.
        model: what it is to answer with.
        prompt: what it is told before all else; empty: nothing.
    """

    url: str
    model: str
    prompt: str = ""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise InputError(f"The address '{self.url}' of --chat cannot be used; it begins with http:// or https://.")

    async def answer(self, messages: list[dict[str, str]]) -> AsyncIterator[str]:
        """Pieces of the answer as they come.

        Raises:
            InputError: the service does not answer, or not in the known way.
        """
        told = [{"role": "system", "content": self.prompt}] if self.prompt else []
        wish = {"model": self.model, "messages": [*told, *messages], "stream": True}
        key = os.environ.get(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        address = self.url.rstrip("/") + "/chat/completions"
        try:
            async with (
                httpx.AsyncClient(timeout=_WAIT_S) as client,
                client.stream("POST", address, json=wish, headers=headers) as response,
            ):
                if response.status_code != 200:
                    raise InputError(f"The chat service answered with status {response.status_code}.")
                async for line in response.aiter_lines():
                    if (piece := _piece(line)) is not None:
                        yield piece
        except httpx.HTTPError as error:
            _LOG.warning("chat service: %s", error)
            raise InputError("The chat service does not answer; try again later.") from error


def _piece(line: str) -> str | None:
    """The text of one line of the stream; None: there is none in it."""
    data = line.removeprefix("data:").strip()
    if not line.startswith("data:") or data == "[DONE]":
        return None
    try:
        return json.loads(data)["choices"][0]["delta"].get("content")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError("The chat service answers in an unknown way.") from error


class Conversation:
    """A talk of one visitor with the service.

    Args:
        chat: the service.
        say: speaks a sentence.
        tell: tells the session's listeners something.
    """

    def __init__(self, chat: Chat, say: Callable[[str, How], Awaitable[None]], tell: Callable[..., None]):
        self._chat, self._say, self._tell = chat, say, tell
        self._said: list[dict[str, str]] = []
        self._task: asyncio.Task[None] | None = None

    def ask(self, text: str, how: How) -> None:
        """Ask, and speak the answer; a question that comes before the end of it takes its place."""
        self.stop()
        self._said = [*self._said, {"role": "user", "content": text}][-_REMEMBERED:]
        self._task = asyncio.create_task(self._answer(how))

    def stop(self) -> None:
        """Listen no further."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _answer(self, how: How) -> None:
        whole = rest = ""
        try:
            async for piece in self._chat.answer(self._said):
                whole, rest = whole + piece, rest + piece
                *ready, rest = finished_parts(rest)
                for sentence in ready:
                    await self._say(sentence, how)
                if len(whole) > _LONGEST_ANSWER:
                    break
            if any(character.isalnum() for character in rest):
                await self._say(plain_text(rest), how)
        except InputError as error:
            self._tell("error", message=str(error), tag=how[2])
        finally:
            if whole:
                self._said = [*self._said, {"role": "assistant", "content": whole}][-_REMEMBERED:]
                self._tell("answer", text=whole, tag=how[2])


def finished_parts(text: str) -> list[str]:
    """The sentences of an unfinished text that are complete, and the rest."""
    found = list(sentences(plain_text(text), "en"))
    if len(found) < 2:
        return [text]
    place = text.rfind(found[-1])
    return [*found[:-1], text[place:] if place > 0 else found[-1]]
