"""Text on the command line: what to say, who says it, the sound of it, and its subtitles."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from audio_processor import load_audio
from language_processor import LANGUAGES, LanguageProcessor
from utils.helpers import InputError, atomic_path
from voices.base import Voice
from voices.subtitles import srt

MAX_TEXT_BYTES = 10 * 2**20


@dataclass(frozen=True)
class SpokenText:
    """A text and how it is spoken; see `LanguageProcessor.synthesize`."""

    text: str
    lang: str = "auto"
    voice: str | None = None
    speed: float = 1.0


@contextlib.contextmanager
def speech_file(
    processor: LanguageProcessor, spoken: SpokenText, audio: Path | None, subtitles: Path | None
) -> Iterator[Path]:
    """The sound of a text as a file, for as long as the block runs; the subtitles are written when it succeeds.

    Args:
        processor: speaks the text, or finds it in the sound.
        spoken: what is said.
        audio: a sound in which the text is said already; None = speak it.
        subtitles: the .srt file to write; None = none.

    Raises:
        InputError: the text cannot be spoken, or does not fit the sound.
    """
    with tempfile.TemporaryDirectory(prefix="lipsync-") as folder:
        if audio is None:
            audio = Path(folder) / "speech.wav"
            phonemes, sentences = processor.speak_to_file(
                spoken.text, audio, spoken.lang, spoken.voice, spoken.speed
            )
        else:
            phonemes, sentences = processor.align(load_audio(audio), spoken.text, spoken.lang)
        yield audio
        if subtitles is not None:
            with atomic_path(subtitles) as temporary:
                temporary.write_text(srt(sentences, phonemes), encoding="utf-8")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        InputError: it is missing, not text, or too large.
    """
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise InputError(f"The text file {path} is larger than {MAX_TEXT_BYTES // 2**20} MB; give a smaller one.")
        return path.read_text(encoding="utf-8-sig")
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
