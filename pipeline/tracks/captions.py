"""Words with their times: SubRip with a word in each cue, WebVTT with the time of each word inside its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

from pipeline.track import Track
from voices.base import Word

_LONGEST = 84  # letters of a cue, two lines of 42
_PAUSE_S = 1.0  # between two words from which a new cue begins


def write_srt(track: Track, path: Path) -> None:
    """A cue for each word."""
    ends = [min(word.end, after.start) for word, after in pairwise(track.words)]
    ends += [word.end for word in track.words[-1:]]
    cues = (
        f"{number}\n{_clock(word.start, ',')} --> {_clock(max(end, word.start + 0.001), ',')}\n{word.text}\n"
        for number, (word, end) in enumerate(zip(track.words, ends, strict=True), 1)
    )
    path.write_text("\n".join(cues), encoding="utf-8")


def write_vtt(track: Track, path: Path) -> None:
    """A cue for each line; between its words stand their times, so that players can colour what was said."""
    blocks = ["WEBVTT\n"]
    for words in _lines(track.words):
        said = escape(words[0].text, quote=False)
        for before, word in pairwise(words):
            said += f"{' ' if before.spaced else ''}<{_clock(word.start, '.')}>{escape(word.text, quote=False)}"
        blocks.append(f"{_clock(words[0].start, '.')} --> {_clock(words[-1].end, '.')}\n{said}\n")
    path.write_text("\n".join(blocks), encoding="utf-8")


def _lines(words: Sequence[Word]) -> Iterator[list[Word]]:
    """Words that are shown together: of one sentence, without a long pause, not too many."""
    line: list[Word] = []
    for word in words:
        full = sum(len(other.text) + 1 for other in line) + len(word.text) > _LONGEST
        if line and (full or word.sentence != line[-1].sentence or word.start - line[-1].end > _PAUSE_S):
            yield line
            line = []
        line.append(word)
    if line:
        yield line


def _clock(seconds: float, point: str) -> str:
    minutes, milliseconds = divmod(round(1000 * seconds), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
