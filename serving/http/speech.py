"""Texts that are to be spoken: which languages and voices there are, and whether a text can be spoken at all."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from serving.problems import Problem


class Speaker:
    """The speech from text of this installation, loaded when it is first asked for.

    Args:
        weights_dir: folder of the trained weights.
        recogniser_dir: folder of the phoneme recogniser.
        engines: own voices as "module:Class".
    """

    def __init__(self, weights_dir: Path, recogniser_dir: Path, engines: Sequence[str] = ()):
        self._folders = weights_dir, recogniser_dir
        self._engines = engines
        self._loading = threading.Lock()

    @cached_property
    def _processor(self) -> Any:
        try:
            from language_processor import LanguageProcessor
        except ImportError as error:
            raise _cannot_speak(f"it lacks the package {error.name}") from error
        processor = LanguageProcessor(*self._folders, own=self._engines)
        if not processor.voices:
            raise _cannot_speak(" ".join(processor.missing.values()) or "it has no voices")
        return processor

    @property
    def processor(self) -> Any:
        """The `LanguageProcessor`.

        Raises:
            Problem: 501, this installation cannot speak.
        """
        with self._loading:
            return self._processor

    @property
    def names(self) -> dict[str, str]:
        """Names of the languages that are looked after, by code."""
        from language_processor import LANGUAGES

        return LANGUAGES

    def check(self, text: str, lang: str, voice: str | None, speed: float) -> None:
        """Refuse what cannot be spoken, without speaking it.

        Raises:
            InputError: unknown language or voice, or nothing to speak.
            Problem: 501.
        """
        self.processor.stream(text, lang, voice, speed)


def _cannot_speak(reason: str) -> Problem:
    return Problem(501, "no-voices", f"This server cannot speak texts ({reason}); send a sound file (audio_file).")
