"""Scripts: which one a letter belongs to, which languages are written in it, and runs of one script in a text."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator

LANGUAGES_OF = {
    "CJK": ("zh", "yue", "hak"), "HIRAGANA": ("ja",), "KATAKANA": ("ja",), "HANGUL": ("ko",),
    "CYRILLIC": ("ru", "uk", "bg", "be", "mk", "sr", "kk", "ky", "tt", "ba", "cv", "nog"),
    "ARABIC": ("ar", "fa", "ur", "ug", "sd"), "DEVANAGARI": ("hi", "mr", "ne", "kok"), "BENGALI": ("bn", "as", "bpy"),
    "HEBREW": ("he",), "GREEK": ("el", "grc"), "THAI": ("th",), "ARMENIAN": ("hy", "hyw"), "GEORGIAN": ("ka",),
    "GURMUKHI": ("pa",), "GUJARATI": ("gu",), "ORIYA": ("or",), "TAMIL": ("ta",), "TELUGU": ("te",),
    "KANNADA": ("kn",), "MALAYALAM": ("ml",), "SINHALA": ("si",), "MYANMAR": ("my", "shn"), "ETHIOPIC": ("am", "ti"),
    "CHEROKEE": ("chr-us-qaaa-x-west",), "SHAVIAN": ("en-shaw",),
}  # fmt: skip
"""Languages of espeak-ng by the script that they are written in, the usual one first; all others use LATIN."""

_KANA = {"HIRAGANA", "KATAKANA"}
_ALSO_LATIN = {"sr"}
# Words per letter where words are not parted by spaces, about.
_WORDS_PER_LETTER = {"CJK": 0.7, "HIRAGANA": 0.3, "KATAKANA": 0.3, "THAI": 0.25, "MYANMAR": 0.25, "LAO": 0.25}


def script_of(letter: str) -> str:
    """The name of a letter's script as Unicode has it, such as "LATIN" or "CJK"; "" for what has no name."""
    usual = unicodedata.normalize("NFKC", letter)[:1]
    return unicodedata.name(usual, "").split(" ")[0].split("-")[0]


def main_script(text: str) -> str | None:
    """The script of most words; None where there are no letters. Any kana make the Chinese characters Japanese."""
    words: Counter[str] = Counter()
    for word in text.split():
        for script, count in Counter(script_of(letter) for letter in word if letter.isalpha()).items():
            words[script] += count * _WORDS_PER_LETTER.get(script, 0) or 1
    if not words:
        return None
    if any(words[kana] for kana in _KANA):
        words["HIRAGANA"] += words.pop("CJK", 0) + words.pop("KATAKANA", 0)
    return words.most_common(1)[0][0]


def written_in(language: str, script: str) -> bool:
    """Whether a language is usually written in a script."""
    if script == "CJK" and language == "ja":
        return True
    if script == "LATIN":
        return language in _ALSO_LATIN or not any(language in others for others in LANGUAGES_OF.values())
    return language in LANGUAGES_OF.get(script, ())


def script_runs(text: str, language: str, choose: Callable[[str, str], str]) -> Iterator[tuple[str, str]]:
    """Parts of a text and the language to speak each in; digits, signs and spaces stay with what is before them.

    Args:
        text: one sentence.
        language: of the sentence; what is written in one of its own scripts stays in it.
        choose: the language of a run in another script, from the run and the script.
    """
    kana = any(script_of(letter) in _KANA for letter in text)
    runs: list[list[str]] = []  # [letters, script; "" = the language's own]
    for letter in text:
        script = _spoken_as(script_of(letter), language, kana) if letter.isalpha() else None
        if runs and (script is None or runs[-1][1] == script):
            runs[-1][0] += letter
        else:
            runs.append([letter, script or ""])
    for run, script in runs:
        if any(c.isalnum() for c in run):
            yield run, choose(run, script) if script else language


def _spoken_as(script: str, language: str, kana: bool) -> str:
    """ "" for a script of the language itself or one that nobody speaks, else the script."""
    if written_in(language, script) or (language == "ja" and script == "LATIN"):
        return ""  # the Japanese dictionary knows how English words are said there
    if script in _KANA or (script == "CJK" and kana):
        return "HIRAGANA"
    return script if script == "LATIN" or script in LANGUAGES_OF else ""
