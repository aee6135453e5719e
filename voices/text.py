"""Written text without its markup, cut into sentences of bounded length."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator

from sentencex import segment

MAX_SENTENCE = 300
"""Characters; what an engine is given at most at a time."""

_LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]*\)")
_TAG = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>|</?[a-zA-Z][^<>]*>", re.DOTALL | re.IGNORECASE)
_MARKDOWN = re.compile(r"(?m)^\s{0,3}(?:#{1,6}|>|[-*+]|```\w*)\s+|[*`~]+|(?<!\w)_+|_+(?!\w)")
_ADDRESS = re.compile(r"((?:https?://|www\.)[^\s<>]+)", re.IGNORECASE)
_PART = re.compile(r"(?<=[,;:—–])\s+|(?<=[、，；：])")
_JOINERS = "\u200c\u200d"  # they shape letters and emoji
# Titles that sentencex takes for the end of a sentence.
_TITLES = re.compile(r"(?<!\w)(?:M|MM|Hr|Fr)\.\s*$")


def plain_text(text: str) -> str:
    """Text as a person reads it: without markup (HTML, SSML, Markdown) and invisible characters."""
    pieces = _ADDRESS.split(html.unescape(_LINK.sub(r"\1", _TAG.sub(" ", text))))
    # Every second piece is an address, whose signs are no markup.
    pieces[::2] = [_MARKDOWN.sub(" ", piece) for piece in pieces[::2]]
    return re.sub(r"[^\S\n]+", " ", "".join(map(_visible, "".join(pieces)))).strip()


def _visible(character: str) -> str:
    """The character, a space for a control character, nothing for one that is not to be seen."""
    if character == "\n" or character in _JOINERS:
        return character
    kind = unicodedata.category(character)
    return "" if kind == "Cf" else " " if kind in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp") else character


def sentences(text: str, language: str) -> Iterator[str]:
    """Sentences of plain text one by one; a long one is parted at commas, else at spaces, else anywhere.

    Args:
        text: from `plain_text`.
        language: code; says which abbreviations end no sentence.
    """
    for line in text.split("\n"):
        whole = ""
        for sentence in segment(language, line) if line.strip() else ():
            whole += sentence
            if not _TITLES.search(whole):
                yield from _parted(whole.strip())
                whole = ""
        yield from _parted(whole.strip())


def _parted(sentence: str) -> Iterator[str]:
    while len(sentence) > MAX_SENTENCE:
        head = sentence[:MAX_SENTENCE]
        places = [m.end() for m in _PART.finditer(head)] or [m.end() for m in re.finditer(r"\s+", head)]
        cut = places[-1] if places else MAX_SENTENCE
        yield sentence[:cut].strip()
        sentence = sentence[cut:].strip()
    if any(c.isalnum() for c in sentence):
        yield sentence
