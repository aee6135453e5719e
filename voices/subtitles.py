"""Subtitles in the SubRip format (.srt), timed by the phonemes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence

from models.phonemes import Phoneme
from voices.base import Sentence

MAX_CUE = 84
"""Characters of one subtitle: two lines of 42, as broadcasters do; wide characters count twice."""

_SHORTEST_S = 0.3


def srt(sentences: Sequence[Sentence], phonemes: Sequence[Phoneme]) -> str:
    """The text of an .srt file.

    Args:
        sentences: what is spoken and when, in order of time.
        phonemes: of the whole sound, in order of time; they time the parts of a long sentence.
    """
    cues = [cue for sentence in sentences for cue in _cues(sentence, phonemes)]
    blocks = [f"{k}\n{_clock(c.start)} --> {_clock(c.end)}\n{c.text}\n" for k, c in enumerate(cues, 1)]
    return "\n".join(blocks)


def _cues(sentence: Sentence, phonemes: Sequence[Phoneme]) -> Iterator[Sentence]:
    """Parts of a sentence that fit on the screen, each until the next one starts."""
    parts = _parts(sentence.text)
    first = bisect_left(phonemes, sentence.start, key=lambda p: p.start)
    count = bisect_left(phonemes, sentence.end, key=lambda p: p.start) - first
    letters = sum(map(len, parts))
    done, start = 0, sentence.start
    for part in parts:
        done += len(part)
        place = first + round(count * done / letters)
        last = done == letters or place >= len(phonemes)
        end = max(sentence.end if last else phonemes[place].start, start + _SHORTEST_S)
        yield Sentence(part, start, end)
        start = end


def _parts(text: str) -> list[str]:
    """Pieces of a text of about equal length, none too wide, parted at spaces where there are any."""
    words = text.split() if " " in text else list(text)
    glue = " " if " " in text else ""
    pieces = [""]
    widest = _width(text) / -(-_width(text) // MAX_CUE)
    for word in words:
        joined = f"{pieces[-1]}{glue}{word}" if pieces[-1] else word
        if pieces[-1] and (_width(joined) > MAX_CUE or _width(pieces[-1]) >= widest):
            pieces.append(word)
        else:
            pieces[-1] = joined
    return pieces


def _width(text: str) -> int:
    return sum(2 if character >= "\u2e80" else 1 for character in text)


def _clock(seconds: float) -> str:
    milliseconds = round(1000 * seconds)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02},{milliseconds % 1000:03}"
