"""Written text to what is spoken: no markup or emoji, dates and money in words, sentences of bounded length."""

from __future__ import annotations

import datetime
import html
import re
import unicodedata
from collections.abc import Iterator

from babel.dates import format_date
from babel.numbers import get_currency_name

MAX_SENTENCE = 300
"""Characters; what an engine is given at most at a time."""

_LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]*\)")
_ADDRESS = re.compile(r"(?:https?://|www\.)([^\s/<>]+)[^\s<>]*", re.IGNORECASE)
_TAG = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>|</?[a-zA-Z][^<>]*>", re.DOTALL | re.IGNORECASE)
_MARKDOWN = re.compile(r"(?m)^\s{0,3}(?:#{1,6}|>|[-*+]|```\w*)\s+|[*`~]+|(?<!\w)_+|_+(?!\w)")
_SPOKEN_SIGNS = set("°§©®™€£¥$%&+=/@^|")

# Not after the number of a day or a place, as in "24. Dezember".
_END = re.compile(r"(?<!\b\d\.)(?<!\b\d\d\.)(?<=[.!?…])[\"'”’»)\]]*\s+|(?<=[。！？])[」』”）]*|\n+")
_PART = re.compile(r"(?<=[,;:—–])\s+|(?<=[、，；：])")
_ISO_DATE = re.compile(r"\b(\d{4})-(\d{1,2})-(\d{1,2})\b")
_LOCAL_DATE = re.compile(r"\b(\d{1,2})([/.])(\d{1,2})\2(\d{4})\b")
_CLOCK = re.compile(r"(?<!\d)([01]?\d|2[0-3])[:：]([0-5]\d)(?!\d)")
_CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY"}
_MONEY = re.compile(r"([$€£¥])\s?(\d[\d.,]*\d|\d)|(\d[\d.,]*\d|\d)\s?([$€£¥])")

_ABBREVIATIONS = {
    "en": {
        "Dr.": "Doctor", "Mr.": "Mister", "Mrs.": "Missis", "Ms.": "Miss", "Prof.": "Professor", "St.": "Saint",
        "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "vs.": "versus", "No.": "number",
        "approx.": "approximately", "Jr.": "Junior", "Sr.": "Senior",
    },
    "de": {
        "z. B.": "zum Beispiel", "z.B.": "zum Beispiel", "d. h.": "das heißt", "d.h.": "das heißt",
        "usw.": "und so weiter", "bzw.": "beziehungsweise", "Dr.": "Doktor", "Prof.": "Professor", "Nr.": "Nummer",
        "ca.": "zirka", "Str.": "Straße", "evtl.": "eventuell", "u. a.": "unter anderem", "Hr.": "Herr", "Fr.": "Frau",
    },
    "fr": {
        "M.": "Monsieur", "Mme": "Madame", "Mlle": "Mademoiselle", "Dr": "Docteur", "p. ex.": "par exemple",
        "etc.": "et cetera", "c.-à-d.": "c'est-à-dire", "n°": "numéro", "St.": "Saint",
    },
    "es": {
        "Sr.": "Señor", "Sra.": "Señora", "Srta.": "Señorita", "Dr.": "Doctor", "Dra.": "Doctora",
        "p. ej.": "por ejemplo", "etc.": "etcétera", "Ud.": "usted", "Uds.": "ustedes", "n.º": "número",
        "EE. UU.": "Estados Unidos",
    },
}  # fmt: skip


def plain_text(text: str) -> str:
    """Text without markup (HTML, SSML, Markdown), emoji and invisible characters; of a web address only its site."""
    text = _LINK.sub(r"\1", _TAG.sub(" ", text))
    text = _ADDRESS.sub(r"\1", html.unescape(text))
    # Letters and digits in their usual width and form; punctuation stays, since it says where a sentence may be parted.
    text = re.sub(r"\w+", lambda m: unicodedata.normalize("NFKC", m[0]), _MARKDOWN.sub(" ", text))
    return re.sub(r"[^\S\n]+", " ", "".join(map(_speakable, text))).strip()


def _speakable(character: str) -> str:
    """The character (a digit of any script as 0 to 9), a space for a picture, nothing for an invisible one."""
    if character == "\n" or character in _SPOKEN_SIGNS:
        return character
    kind = unicodedata.category(character)
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    if kind in ("Cf", "Mn", "Me") and (kind != "Mn" or "\ufe00" <= character <= "\ufe0f"):
        return ""
    return " " if kind in ("So", "Sk", "Cc", "Cs", "Co", "Cn", "Zl", "Zp") else character


def spoken_text(text: str, language: str) -> str:
    """Dates, times, sums of money and abbreviations in words; other numbers are left to the engine."""
    text = _ISO_DATE.sub(lambda m: _date(m, (1, 2, 3), language), text)
    order = (4, 1, 3) if language == "en" else (4, 3, 1)
    text = _LOCAL_DATE.sub(lambda m: _date(m, order, language), text)
    text = _MONEY.sub(lambda m: _money(m, language), text)
    if language in ("zh", "ja"):
        hour = "点" if language == "zh" else "時"
        text = _CLOCK.sub(rf"\1{hour}\2分", text)
    for short, long in _ABBREVIATIONS.get(language, {}).items():
        text = re.sub(rf"(?<!\w){re.escape(short)}(?!\w)", long, text)
    return text


def _date(match: re.Match[str], order: tuple[int, int, int], language: str) -> str:
    try:
        date = datetime.date(*(int(match[number]) for number in order))
    except ValueError:
        return match[0]
    return format_date(date, "long", locale=language)


def _money(match: re.Match[str], language: str) -> str:
    sign, amount = (match[1], match[2]) if match[1] else (match[4], match[3])
    code = "CNY" if sign == "¥" and language == "zh" else _CURRENCIES[sign]
    name = get_currency_name(code, count=2 if amount != "1" else 1, locale=language)
    return f"{amount}{'' if language in ('zh', 'ja') else ' '}{name}"


def sentences(text: str) -> Iterator[str]:
    """Sentences of plain text one by one; a long one is parted at commas, else at spaces, else anywhere."""
    for sentence in _END.split(text):
        yield from _parted(sentence.strip())


def _parted(sentence: str) -> Iterator[str]:
    while len(sentence) > MAX_SENTENCE:
        head = sentence[:MAX_SENTENCE]
        places = [m.end() for m in _PART.finditer(head)] or [m.end() for m in re.finditer(r"\s+", head)]
        cut = places[-1] if places else MAX_SENTENCE
        yield sentence[:cut].strip()
        sentence = sentence[cut:].strip()
    if any(c.isalnum() for c in sentence):
        yield sentence
