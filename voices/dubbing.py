"""Scripts for dubbing: subtitle files (.srt, .vtt, .ass), of which each line is spoken at its time."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from pysubs2 import SSAFile
from pysubs2.exceptions import Pysubs2Error

from utils.helpers import InputError
from voices.base import Speech, moved
from voices.text import plain_text

SLOWEST, FASTEST = 0.85, 1.5
"""How much slower or faster than asked for a line may be spoken to fill its time."""

_CLOSE_S = 0.1  # a line that ends this near the end of its time fits
_TRIES = 3  # an engine's speed is not exact
_SILENCE_S = 10.0  # the longest piece of silence that is held in memory
_NAMED = 5  # lines that do not fit are told one by one up to here
_CLOCK = r"(?:\d+:)?\d{1,2}:\d{2}[,.]\d{1,3}"
_FORMATS = {
    "srt": re.compile(rf"(?:\d+[ \t]*\r?\n)?[ \t]*{_CLOCK}[ \t]*-->[ \t]*{_CLOCK}"),
    "vtt": re.compile(r"WEBVTT\b"),
    "ass": re.compile(r"\[(?:Script Info|V4\+? Styles)\]", re.IGNORECASE),
}
_SOUNDS = re.compile(r"\[[^\]]*\]|[♪♫#]+")
_DASH = re.compile(r"(?m)^\s*[-–—]\s*")


@dataclass(frozen=True)
class Line:
    """What is to be said from `start` to `end`, seconds."""

    text: str
    start: float
    end: float


def read_script(text: str) -> tuple[Line, ...]:
    """The lines of a text that is a subtitle file; none where it is any other text.

    What describes sounds, as [door slams] and ♪ do, is left out, and so are comments, drawings and empty lines.

    Raises:
        InputError: it begins like a subtitle file and cannot be read, or nothing in it can be spoken.
    """
    start = text.lstrip("\ufeff \t\r\n")
    kind = next((name for name, pattern in _FORMATS.items() if pattern.match(start)), None)
    if kind is None:
        return ()
    try:
        events = SSAFile.from_string(_cues_only(start) if kind == "vtt" else start, format_=kind).events
    except (Pysubs2Error, ValueError, KeyError, IndexError) as error:
        raise InputError(f"The text looks like subtitles (.{kind}) and cannot be read as such: {error}.") from error
    spoken = [event for event in events if not event.is_comment and not event.is_drawing]
    lines = [Line(_words(event.plaintext), event.start / 1000, event.end / 1000) for event in spoken]
    lines = sorted((line for line in lines if any(map(str.isalnum, line.text))), key=lambda line: line.start)
    if not lines:
        raise InputError(f"The subtitles (.{kind}) hold nothing that can be spoken: give at least one line of words.")
    return tuple(lines)


def _cues_only(text: str) -> str:
    """WebVTT without names of cues, notes and styles, which the library takes for words."""
    blocks = re.split(r"\r?\n[ \t]*\r?\n", text)
    cues = [block[block.rfind("\n", 0, block.find("-->")) + 1 :] for block in blocks[1:] if "-->" in block]
    return "\n\n".join(["WEBVTT", *cues])


def _words(text: str) -> str:
    return " ".join(plain_text(_DASH.sub("", _SOUNDS.sub(" ", text))).split())


@dataclass
class Dubbing:
    """Speaks lines at their times.

    A line is spoken faster or slower so that it ends with its time, within `SLOWEST` and `FASTEST`. One that is too
    long even so goes on, and what follows waits for it.

    Attributes:
        lines: in order of time.
        speak: a line at a tempo (1 = as asked for) -> its sound, with sentences and a pause after the last of them.
        notes: filled while it speaks: what did not fit.
    """

    lines: Sequence[Line]
    speak: Callable[[str, float], Speech]
    notes: list[str] = field(default_factory=list)

    def parts(self) -> Iterator[Speech]:
        """Silence and speech in turn, all at one rate; times count from the start of the script."""
        position, now, late = 0, 0.0, []  # samples and seconds so far
        for line in self.lines:
            speech = self._fitted(line, max(line.start, now))
            rate = speech.rate
            for silence in _silence(round(line.start * rate) - position, rate):
                position += silence.samples.size
                yield silence
            yield moved(speech, position / rate)
            position += speech.samples.size
            now = position / rate
            if now > line.end + _CLOSE_S:
                late.append((line, now - line.end))
        self.notes += _told(late)

    def _fitted(self, line: Line, start: float) -> Speech:
        """The line at the tempo at which it fills the time from `start` to its end best."""
        room, tempo = max(line.end - start, 0.0), 1.0
        speech = _without_pause(self.speak(line.text, tempo))
        for _ in range(_TRIES - 1):
            wanted = tempo * speech.duration / room if room else FASTEST
            wanted = min(max(wanted, SLOWEST), FASTEST)
            if abs(speech.duration - room) <= _CLOSE_S or abs(wanted - tempo) < 0.01:
                break
            tempo = wanted
            speech = _without_pause(self.speak(line.text, tempo))
        return speech


def _without_pause(speech: Speech) -> Speech:
    return dataclasses.replace(speech, samples=speech.samples[: round(speech.sentences[-1].end * speech.rate)])


def _silence(samples: int, rate: int) -> Iterator[Speech]:
    """Nothing for a number of samples, in pieces that fit in memory."""
    longest = round(_SILENCE_S * rate)
    for done in range(0, samples, longest):
        yield Speech(np.zeros(min(longest, samples - done), np.float32), rate, ())


def _told(late: Sequence[tuple[Line, float]]) -> list[str]:
    """Which lines end how much too late."""
    notes = [
        f"The line at {_clock(line.start)} (\u201c{line.text[:40]}{'…' if len(line.text) > 40 else ''}\u201d) ends "
        f"{over:.1f} s after its time."
        for line, over in late[:_NAMED]
    ]
    if len(late) > _NAMED:
        most = max(over for _, over in late)
        notes.append(f"{len(late) - _NAMED} more lines end after their time; the latest of all by {most:.1f} s.")
    return notes


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes // 60)}:{int(minutes % 60):02}:{rest:04.1f}"
