"""A written sentence as it is spoken: numbers, dates, money, units, abbreviations and addresses in words.

Libraries know how: WeTextProcessing's grammars (package wetext, Apache-2.0) for Chinese and Japanese, spokenform
(Apache-2.0) for the other languages that it knows, CLDR (package Babel) for dates and money in the rest.
"""

from __future__ import annotations

import datetime
import logging
import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

from babel import Locale, UnknownLocaleError
from babel.dates import format_date
from babel.numbers import get_currency_name

from voices.rewriting import rewritten, roman_numbers

if TYPE_CHECKING:
    from wetext import Normalizer

_LOG = logging.getLogger(__name__)
_SPOKEN_SIGNS = set("°§©®™€£¥$%&+=/@^|")
_ADDRESS = re.compile(
    r"(?:https?://(?:www\.)?|www\.)([^\s/<>?#]*[^\s/<>?#.,;:!)])[^\s<>]*?(?=[.,;:!?)]*(?:\s|$))", re.IGNORECASE
)
_WETEXT = {"zh": "zh", "yue": "zh", "ja": "ja"}

_CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY"}
_SUM = r"\d[\d.,]*\d|\d"
_ISO_DATE = re.compile(r"\b(\d{4})-(\d{1,2})-(\d{1,2})\b")
_LOCAL_DATE = re.compile(r"\b(\d{1,2})([/.])(\d{1,2})\2(\d{4})\b")
_MONEY = re.compile(rf"([$€£¥])\s?({_SUM})|({_SUM})\s?([$€£¥])")
# Forms of usual letters, digits and signs; of the kept ones the sentence's melody is made.
_KEPT = set("…，。！？：；（）")
_SHAPES = ("<wide>", "<narrow>", "<font>", "<compat>", "<square>", "<circle>")


def spoken_text(text: str, language: str) -> str:
    """A sentence in the words that are spoken; what stays in digits is left to the voice's engine.

    Args:
        text: one sentence from `voices.text.sentences`.
        language: its code; of a dialect such as "es-419" the language's rules count.
    """
    text = "".join(map(_usual_shape, unicodedata.normalize("NFC", _ADDRESS.sub(r"\1", text))))
    text = " ".join("".join(map(_speakable, text)).split())
    base = language.split("-")[0]
    text = rewritten(text, _WETEXT.get(base, base))
    if base in _WETEXT:
        return _wetext(_WETEXT[base]).normalize(text)
    return _by_rules(text, base)


def _usual_shape(character: str) -> str:
    """A wide, bold, squared or circled letter or digit, or a sign such as ℃, as its usual letters."""
    shape = unicodedata.decomposition(character).split(" ")[0]
    return unicodedata.normalize("NFKC", character) if shape in _SHAPES and character not in _KEPT else character


def _speakable(character: str) -> str:
    """The character (a digit of any script as 0 to 9), a space for a picture, nothing for its variants."""
    if character in _SPOKEN_SIGNS:
        return character
    kind = unicodedata.category(character)
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    if "\ufe00" <= character <= "\ufe0f" or kind == "Me" or (kind == "Cf" and character != "\u200c"):
        return ""
    return " " if kind in ("So", "Sk") else character


@lru_cache(maxsize=2)
def _wetext(language: str) -> Normalizer:
    from wetext import Normalizer

    return Normalizer(lang=language, operator="tn", traditional_to_simple=False)


def _by_rules(text: str, language: str) -> str:
    # The library knows English kings, and numbers them; what it leaves is "Rocky IV" and the like.
    text = text if language == "en" else roman_numbers(text, language)
    known, dates = _support(language)
    text = text if dates else _by_cldr(text, language)
    if not known:
        return text
    spoken = _prepared(text, language).replace("yens", "yen" if language == "en" else "yens")
    left = roman_numbers(spoken, language) if language == "en" else spoken
    return spoken if left == spoken else _prepared(left, language)


@lru_cache
def _support(language: str) -> tuple[bool, bool]:
    """Whether spokenform knows a language, and its dates and money as well."""
    import spokenform

    known = spokenform.supports_language(language)
    return known, known and spokenform.language_support(language).structured


def _prepared(text: str, language: str) -> str:
    import spokenform

    try:
        return spokenform.prepare(text, language=language, normalize_literals=True).spoken_text
    except ValueError as error:  # of a number that the language's rules do not reach, for example
        _LOG.debug("left as it is: %s", error)
        return text


def _by_cldr(text: str, language: str) -> str:
    """Dates and sums of money in words."""
    try:
        Locale.parse(language)
    except (UnknownLocaleError, ValueError):
        return text
    text = _ISO_DATE.sub(lambda m: _date(m, (1, 2, 3), language), text)
    text = _LOCAL_DATE.sub(lambda m: _date(m, (4, 3, 1), language), text)
    return _MONEY.sub(lambda m: _money(m, language), text)


def _date(match: re.Match[str], order: tuple[int, int, int], language: str) -> str:
    try:
        date = datetime.date(*(int(match[number]) for number in order))
    except ValueError:
        return match[0]
    return format_date(date, "long", locale=language)


def _money(match: re.Match[str], language: str) -> str:
    sign, amount = (match[1], match[2]) if match[1] else (match[4], match[3])
    return f"{amount} {get_currency_name(_CURRENCIES[sign], count=2 if amount != '1' else 1, locale=language)}"
