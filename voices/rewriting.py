"""What the libraries of `voices.spoken` do not understand, rewritten into what they do: each rule is a case that one of
them speaks wrongly, as tests/spoken_cases.tsv shows."""

from __future__ import annotations

import re

_CURRENCIES = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY"}
_SIGN = r"[$€£¥]|USD|EUR|GBP|JPY"
# Money in thousands, millions and so on: "$20k", "EUR 3.5bn", "5 M€". French and Spanish put "de" after a million.
_MONEY_NAMES = {
    "en": {"USD": "dollars", "EUR": "euros", "GBP": "pounds", "JPY": "yen"},
    "de": {"USD": "Dollar", "EUR": "Euro", "GBP": "Pfund", "JPY": "Yen"},
    "fr": {"USD": "dollars", "EUR": "euros", "GBP": "livres", "JPY": "yens"},
    "es": {"USD": "dólares", "EUR": "euros", "GBP": "libras", "JPY": "yenes"},
}
_MAGNITUDES = {
    "en": {"thousand": ("k", "K"), "million": ("m", "M", "mn", "mln", "million"),
           "billion": ("b", "B", "bn", "billion"), "trillion": ("tn", "T", "trillion")},
    "de": {"Tausend": ("k", "K", "Tsd.", "Tausend"), "Millionen": ("M", "Mio.", "Mio", "Millionen"),
           "Milliarden": ("Mrd.", "Mrd", "Milliarden")},
    "fr": {"mille": ("k", "K", "mille"), "millions de": ("M", "millions", "million"),
           "milliards de": ("Md", "Mds", "milliards", "milliard")},
    "es": {"mil": ("k", "K", "mil"), "millones de": ("M", "mill.", "millones"), "mil millones de": ("mil millones",)},
}  # fmt: skip

# A king or a chapter: a name or one of the words below, then I to XXXIX in capitals; one letter only after the words.
_ROMAN = re.compile(r"(?<![\w.])([^\W\d_]+)( |\u00a0)(?=[IVX])(X{0,3}(?:IX|IV|V?I{0,3}))(?![\w'’ªº°])(\.?)")
_ROMAN_AFTER = {
    "en": {"war", "chapter", "part", "volume", "act", "book", "phase", "type"},
    "fr": {"chapitre", "tome", "acte", "guerre", "partie", "livre"},
    "es": {"siglo", "capítulo", "tomo", "acto", "guerra", "parte", "libro"},
}
_DIGITS = {"I": 1, "V": 5, "X": 10}

_RULES = {
    "en": [(r"\$0\.(\d\d)\b", r"\1 cents"), (r"£0\.(\d\d)\b", r"\1 pence"), (r"\b24/7\b", "24 7")],
    "de": [(r"\b(\d{4})-(\d\d)-(\d\d)\b", r"\3.\2.\1"),
           (r"(?<=[^\W\d_])str\.(?!\w)", "straße"),
           (r"(?<![\d/])1/2(?![\d/])", "½")],
    "fr": [(r"(?<!\w)p\. ?ex\.", "par exemple"), (r"(?<!\w)c\.-à-d\.", "c'est-à-dire"),
           (r"(?<![\d/])1/2(?![\d/])", "½"),
           (r"(?<=\d)\s?Go\b", " gigaoctets"), (r"(?<=\d)\s?Mo\b", " mégaoctets"), (r"(?<=\d)\s?Ko\b", " kilooctets"),
           (r"(?<=\d)\s?To\b", " téraoctets")],
    "es": [(r"(?<!\w)p\. ?ej\.", "por ejemplo"), (r"(?<!\w)Ud\.", "usted"), (r"(?<!\w)Uds\.", "ustedes"),
           (r"(?<!\w)EE\. ?UU\.", "Estados Unidos")],
    "zh": [(r"(?<=\d),(?=\d{3}(?!\d))", "")],
    "ja": [(r"(?<=\d)[〜～~](?=\d)", "から"), (r"(?<=\d)\s?°C", "度")],
}  # fmt: skip
_COMPILED = {language: [(re.compile(a), b) for a, b in rules] for language, rules in _RULES.items()}
_SPANISH_PHONE = re.compile(r"(?<!\d)(?:\+34 )?\d{2,3}(?: \d{2,3}){3}(?!\d)")


def rewritten(text: str, language: str) -> str:
    """A sentence with large sums of money, abbreviations and units as the library of its language knows them."""
    for pattern, replacement in _COMPILED.get(language, ()):
        text = pattern.sub(replacement, text)
    if language == "es":
        text = _SPANISH_PHONE.sub(lambda m: ", ".join(" ".join(group) for group in m[0].split(" ")), text)
    return _large_sums(text, language)


def _large_sums(text: str, language: str) -> str:
    """ "$20k" as "20 thousand dollars"."""
    if language not in _MAGNITUDES:
        return text
    words = {short: word for word, shorts in _MAGNITUDES[language].items() for short in shorts}
    large = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    amount = rf"(\d[\d.,]*\d|\d)\s?({large})"

    def in_words(sign: str, number: str, magnitude: str) -> str:
        said = f"{number} {words[magnitude]} {_MONEY_NAMES[language][_CURRENCIES.get(sign, sign)]}"
        return said.replace(" de euros", " d'euros") if language == "fr" else said

    text = re.sub(rf"({_SIGN})\s?{amount}(?!\w)", lambda m: in_words(m[1], m[2], m[3]), text)
    return re.sub(rf"{amount}\s?({_SIGN})(?!\w)", lambda m: in_words(m[3], m[1], m[2]), text)


def roman_numbers(text: str, language: str) -> str:
    """ "Louis XIV" as "Louis 14", "World War II" as "World War 2", where it is surely a number."""
    if language not in _ROMAN_AFTER:
        return text
    return _ROMAN.sub(lambda m: _roman_number(m, language), text)


def _roman_number(match: re.Match[str], language: str) -> str:
    word, space, numeral, stop = match.groups()
    counted = word.lower() in _ROMAN_AFTER[language]
    if not counted and (len(numeral) < 2 or not word.istitle() or len(word) < 2):
        return match[0]
    values = [_DIGITS[letter] for letter in numeral]
    number = sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True))
    ordinal = ".º" if language == "es" and not counted and number <= 10 else ""
    return f"{word}{space}{number}{ordinal}{stop}"
