"""Text on the command line: a file with what to say, and who can say it."""

from __future__ import annotations

import argparse
import os

from language_processor import LANGUAGES, LanguageProcessor, SpokenText
from pipeline.text_file import read_text
from utils.helpers import InputError
from voices.base import Voice
from voices.detection import language_name


def system_language() -> str | None:
    """The language of the user's system, such as "de"; None where there is none, as under LANG=C."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(variable, "").split(".")[0].split("@")[0]
        if value:
            return None if value in ("C", "POSIX") else value
    return None


def spoken_text_of(arguments: argparse.Namespace, needed: bool = True) -> SpokenText | None:
    """What the command line says about a text; None without one.

    Args:
        arguments: text, text_file, lang, voice, speed, audio and srt are looked at.
        needed: whether a sound or a text must be there.

    Raises:
        InputError: neither a sound nor a text is there, or subtitles are wanted without a text.
    """
    text = arguments.text if arguments.text_file is None else read_text(arguments.text_file)
    if text is not None:
        return SpokenText(text, arguments.lang, arguments.voice, arguments.speed, system_language())
    if needed and arguments.audio is None:
        raise InputError("Nothing to speak: give a sound with --audio, or a text with --text or --text-file.")
    if arguments.srt:
        raise InputError("Subtitles need the text: add --text or --text-file with what is said in the sound.")
    return None


def describe_voice(voice: Voice, processor: LanguageProcessor) -> str:
    """One line for a person: who speaks, and how to get a better voice."""
    line = f"Voice: {voice.name} ({language_name(voice.language)}, {voice.engine})."
    hints = [] if voice.natural else list(processor.missing.values())
    return " ".join([line, *(f"Better: {hint}." for hint in hints)])


def list_voices(processor: LanguageProcessor) -> str:
    """A table of all voices for a person; the first of a language is its default."""
    lines = []
    for code, name in LANGUAGES.items():
        lines.append(f"{code}  {name}")
        lines += [
            f"      {v.name:<16} {v.gender:<7} {'natural' if v.natural else 'robotic':<8} {v.engine}: {v.licence}"
            for v in processor.voices
            if v.language == code
        ]
    others = sorted({v.language for v in processor.voices} - set(LANGUAGES))
    if others:
        lines.append("and robotic voices for " + ", ".join(others))
    lines += [f"not available: {name}: {reason}" for name, reason in processor.missing.items()]
    return "\n".join(lines)
