"""Texts that are to be spoken: which languages and voices there are, and whether a text can be spoken at all."""

from __future__ import annotations

import re
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

    def check(self, text: str, lang: str, voice: str | None, speed: float, expected: str | None = None) -> Any:
        """Refuse what cannot be spoken, without speaking it. Arguments: see `SpokenText`.

        Returns:
            The `Choice` of who speaks and in which language.

        Raises:
            InputError: unknown language or voice, or nothing to speak.
            Problem: 501.
        """
        processor = self.processor
        from language_processor import SpokenText

        return processor.choose(SpokenText(text, lang, voice, speed, expected))


def preferred_language(accepted: str | None) -> str | None:
    """The language that a client wants most, by its header Accept-Language; None where it says nothing."""
    first = (accepted or "").split(",")[0].split(";")[0].strip()
    return first if re.fullmatch(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,3}", first) else None


def _cannot_speak(reason: str) -> Problem:
    return Problem(501, "no-voices", f"This server cannot speak texts ({reason}); send a sound file (audio_file).")
