"""The small protocol of live sessions, the same over WebSocket and over a data channel of WebRTC; see docs/live.md.

Commands are JSON objects with a `type`; sound is sent as binary messages between `audio` and `audio_end`.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from utils.helpers import InputError

LARGEST_MESSAGE = 2**18
"""Bytes of one message."""

_MOST_PER_S, _BURST = 120, 240  # messages of one connection
_FORMATS = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}


class _Command(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Say(_Command):
    """Speak a text after all that waits."""

    type: Literal["say"]
    text: str = Field(min_length=1)
    lang: str = Field("auto", max_length=20)
    voice: str | None = Field(None, max_length=80)
    speed: float = 1.0
    tag: str | None = Field(None, max_length=80)


class Ask(_Command):
    """Let the chat service answer a text, and speak the answer."""

    type: Literal["ask"]
    text: str = Field(min_length=1)
    lang: str = Field("auto", max_length=20)
    voice: str | None = Field(None, max_length=80)
    tag: str | None = Field(None, max_length=80)


class Audio(_Command):
    """The binary messages from now on are sound that the host says."""

    type: Literal["audio"]
    rate: int = Field(ge=8000, le=96000)
    format: Literal["s16le", "f32le"] = "s16le"
    channels: Literal[1, 2] = 1
    tag: str | None = Field(None, max_length=80)


class AudioEnd(_Command):
    """That was all of the sound."""

    type: Literal["audio_end"]


class Interrupt(_Command):
    """Fall silent, and forget what waits."""

    type: Literal["interrupt"]


class Talk(_Command):
    """The microphone of this WebRTC connection is what the host says, while `on`."""

    type: Literal["talk"]
    on: bool


class Ping(_Command):
    """Answered at once with `pong` and the same `at`."""

    type: Literal["ping"]
    at: float = 0.0


Command = Say | Ask | Audio | AudioEnd | Interrupt | Talk | Ping
_COMMANDS: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="type")])


def read_command(text: str | bytes) -> Command:
    """A command of a message.

    Raises:
        InputError: it is none; the sentence says why.
    """
    if len(text) > LARGEST_MESSAGE:
        raise InputError(f"The message is larger than {LARGEST_MESSAGE} bytes.")
    try:
        return _COMMANDS.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "message"
        raise InputError(f"The message cannot be used ({where}: {first['msg'].lower()}); see docs/live.md.") from error


def read_samples(data: bytes, audio: Audio) -> np.ndarray:
    """Samples of a binary message, mono float32 (N,) in [-1, 1].

    Raises:
        InputError: the bytes are no samples of the announced format.
    """
    kind = _FORMATS[audio.format]
    if len(data) > LARGEST_MESSAGE:
        raise InputError(f"The message is larger than {LARGEST_MESSAGE} bytes; send sound in smaller pieces.")
    if len(data) % (kind.itemsize * audio.channels):
        raise InputError(f"A piece of sound must hold whole samples: {kind.itemsize * audio.channels} bytes each.")
    samples = np.frombuffer(data, kind).astype(np.float32)
    if audio.format == "s16le":
        samples = samples / 32768
    if not np.isfinite(samples).all():
        raise InputError("The sound holds values that are no numbers.")
    return np.clip(samples.reshape(-1, audio.channels).mean(axis=1), -1, 1)


class Pace:
    """Counts the messages of one connection."""

    def __init__(self) -> None:
        self._left, self._then = float(_BURST), time.monotonic()

    def allows(self) -> bool:
        """Whether one more may come now."""
        now = time.monotonic()
        self._left = min(self._left + (now - self._then) * _MOST_PER_S, _BURST)
        self._then = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def error_event(message: str, tag: str | None = None) -> dict[str, Any]:
    """What a client is told whose message was refused."""
    return {"event": "error", "message": message, **({} if tag is None else {"tag": tag})}
