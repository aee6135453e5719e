"""Text on the command line: a file with what to say, and who can say it."""

from __future__ import annotations

import codecs
from pathlib import Path

from language_processor import LANGUAGES, LanguageProcessor
from utils.helpers import InputError
from voices.base import Voice

MAX_TEXT_BYTES = 10 * 2**20


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark at the start (as Windows' editors write it).

    Raises:
        InputError: it is missing, not text, or too large.
    """
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise InputError(f"The text file {path} is larger than {MAX_TEXT_BYTES // 2**20} MB; give a smaller one.")
        data = path.read_bytes()
        return data.decode("utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    except OSError as error:
        raise InputError(f"Cannot read the text file {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The text file {path} is not UTF-8 text; save it as UTF-8.") from error


def describe_voice(voice: Voice, processor: LanguageProcessor) -> str:
    """One line for a person: who speaks, and how to get a better voice."""
    line = f"Voice: {voice.name} ({LANGUAGES.get(voice.language, voice.language)}, {voice.engine})."
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
