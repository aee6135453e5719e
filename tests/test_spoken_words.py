"""Which words a written text is spoken in: its language, its numbers and abbreviations, its scripts."""

from __future__ import annotations

import csv

import pytest

from language_processor import LanguageProcessor, SpokenText
from serving.cli.spoken_text import system_language
from serving.http.speech import preferred_language
from tests.conftest import REPO
from utils.helpers import InputError
from voices.detection import SURE, LanguageDetector
from voices.espeak import EspeakEngine
from voices.scripts import main_script, script_runs
from voices.spoken import spoken_text
from voices.text import plain_text, sentences

WEIGHTS = REPO / "pretrained"
with open(REPO / "tests" / "spoken_cases.tsv", encoding="utf-8") as _file:
    CASES = list(csv.DictReader(_file, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.fixture(scope="module")
def speaker() -> LanguageProcessor:
    return LanguageProcessor(WEIGHTS, WEIGHTS / "lite" / "phonemes", [EspeakEngine()])


@pytest.fixture(scope="module")
def detector() -> LanguageDetector:
    return LanguageDetector({voice.language for voice in EspeakEngine().voices()})


def test_the_table_has_two_hundred_cases_in_six_languages() -> None:
    counts = {code: sum(case["language"] == code for case in CASES) for code in ("en", "de", "fr", "es", "zh", "ja")}
    assert sum(counts.values()) == len(CASES) >= 200
    assert min(counts.values()) >= 30


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "zh", "ja"])
def test_numbers_money_units_and_abbreviations_are_spoken_in_words(language: str) -> None:
    cases = [(case["written"], case["spoken"]) for case in CASES if case["language"] == language]
    wrong = {w: said for w, s in cases if (said := spoken_text(w, language).lower()) != s.lower()}
    assert not wrong


@pytest.mark.parametrize(
    ("text", "language", "spoken"),
    [
        ("12.05.2024: 3 €", "pl", "dwanaście maja dwa tysiące dwadzieścia cztery: trzy euro"),
        ("¥500 ＡＢＣ ①", "en", "five hundred yen A B C one"),
        ("99/99/2024", "tlh", "99/99/2024"),
        ("Vitamin C", "en", "Vitamin C"),
        ("Plan B, XL, MIX", "fr", "Plan B, XL, MIX"),
        ("Hi 😀👍🏽 there 👨‍👩‍👧!", "en", "Hi there !"),
        ("Ελλάδα 5", "grc", "Ελλάδα 5"),
    ],
)
def test_other_texts_become_what_is_spoken_too(text: str, language: str, spoken: str) -> None:
    assert spoken_text(plain_text(text), language) == spoken


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("See [my page](http://a.b/c?d=e), **now**", "See my page, now"),
        ("# Title\n* `code` and __bold__ snake_case", "Title\n code and bold snake_case"),
        ("<p>5 &lt; 6 & 7</p><script>alert(1)</script>", "5 < 6 & 7"),
        ("https://a.b/c_d_e?f=*g* 😀 A\u200bB\ufeff", "https://a.b/c_d_e?f=*g* 😀 AB"),
    ],
)
def test_markup_is_left_out(text: str, plain: str) -> None:
    assert plain_text(text) == plain


@pytest.mark.parametrize(
    ("language", "parts"),
    [
        ("de", ["Am 24. Dezember 2025 ist Heiligabend.", "Und 1999?", "Auch z. B. Dr. Müller."]),
        ("en", ["Dr. Smith's car is on Main St. in Boston.", "He has 3.5 kg.", "Vitamin C is here.", "M. is not."]),
        ("fr", ["M. Dupont est là.", "Mme Durand aussi !"]),
        ("es", ["El Sr. López vive aquí.", "¿Qué?", "¡Hola!"]),
        ("zh", ["你好。", "“他说！”", "然后走了？"]),
    ],
)
def test_sentences_end_where_they_end(language: str, parts: list[str]) -> None:
    assert list(sentences(("" if language == "zh" else " ").join(parts), language)) == parts


def test_subtitles_have_what_was_written(speaker: LanguageProcessor) -> None:
    text = "Dr. Smith paid $5 million 😀 on 05/12/2024. See https://example.com/a_b?c=1 !"
    said = speaker.synthesize(text, "en").sentences
    assert " ".join(sentence.text for sentence in said) == text
    assert said[0].end > 3.0  # in words it takes longer than its letters


# ---- which language ----


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Grazie mille", "it"), ("Buongiorno a tutti", "it"), ("Tudo bem?", "pt"), ("Eu moro em Lisboa", "pt"),
        ("Teşekkür ederim", "tr"), ("Dziękuję bardzo", "pl"), ("Goedemorgen", "nl"), ("Hoe gaat het?", "nl"),
        ("Xin chào", "vi"), ("Tôi yêu bạn", "vi"), ("Guten Tag", "de"), ("Merci beaucoup", "fr"),
        ("Buenos días", "es"), ("No problem", "en"), ("Thank you", "en"), ("Hi there", "en"), ("How are you?", "en"),
        ("Hyvää päivää", "fi"), ("Tack så mycket", "sv"), ("Привет", "ru"), ("Як справи?", "uk"),
        ("வணக்கம்", "ta"), ("নমস্কার", "bn"), ("నమస్కారం", "te"), ("გამარჯობა", "ka"), ("Բարեւ", "hy"), ("ನಮಸ್ಕಾರ", "kn"),
        ("നമസ്കാരം", "ml"), ("ආයුබෝවන්", "si"), ("สวัสดี", "th"), ("שלום", "he"), ("안녕하세요", "ko"), ("Γειά σου", "el"),
        ("سلام، حال شما چطور است؟", "fa"), ("你好", "zh"), ("東京は寒い", "ja"), ("ሰላም ነው እንዴት ነህ", "am"),
    ],
)  # fmt: skip
def test_short_texts_are_recognised_whatever_is_expected(detector: LanguageDetector, text: str, language: str) -> None:
    for expected in (None, "en", "zh"):
        found = detector.detect(text, expected)
        assert (found.language, found.by in ("script", "words")) == (language, True)
        assert found.certainty >= SURE


@pytest.mark.parametrize("text", ["Hello", "Ciao", "Hola", "12345"])
def test_what_the_words_leave_open_is_spoken_in_the_expected_language(detector: LanguageDetector, text: str) -> None:
    for expected in ("en", "it", "pl"):
        found = detector.detect(text, expected)
        assert (found.language, found.by) == (expected, "expected")
        assert "the expected language" in found.note


def test_an_expected_language_of_another_script_does_not_count(detector: LanguageDetector) -> None:
    assert detector.detect("Ciao", "zh").by == "guess"
    assert detector.detect("Ciao", "klingon").by == "guess"
    assert "say the language" in detector.detect("Ciao").note
    assert detector.detect("123", "zh").language == "zh"


def test_every_sentence_about_the_language_names_it(detector: LanguageDetector) -> None:
    assert detector.detect("Grazie mille a tutti voi").note.startswith("The text is spoken as Italian, by its words (")
    assert detector.detect("வணக்கம்").note == "The text is spoken as Tamil, by its script."


def test_the_language_that_was_taken_is_said(speaker: LanguageProcessor) -> None:
    assert "Italian" in speaker.choose(SpokenText("Grazie mille a tutti voi")).notes[0]
    assert speaker.choose(SpokenText("Hello", expected="de_AT.UTF-8".split(".")[0])).voice.language == "de"
    assert speaker.choose(SpokenText("Hello", "fr")).notes == ()
    with pytest.raises(InputError, match="'khmer' is not supported"):
        speaker.choose(SpokenText("ជំរាបសួរ"))


@pytest.mark.parametrize(
    ("variables", "language"),
    [
        ({"LANG": "de_DE.UTF-8"}, "de_DE"), ({"LANG": "de_DE", "LC_ALL": "fr_FR@euro"}, "fr_FR"),
        ({"LANG": "C.UTF-8"}, None), ({}, None),
    ],
)  # fmt: skip
def test_the_systems_language(variables: dict, language: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert system_language() == language


@pytest.mark.parametrize(
    ("header", "language"),
    [("de-DE,de;q=0.9,en;q=0.8", "de-DE"), ("zh", "zh"), ("*", None), ("", None), (None, None), ("x" * 9000, None)],
)
def test_what_a_client_prefers(header: str | None, language: str | None) -> None:
    assert preferred_language(header) == language


# ---- scripts ----


def usual(run: str, script: str) -> str:
    return {"LATIN": "en", "CJK": "zh", "HIRAGANA": "ja", "CYRILLIC": "ru"}[script]


@pytest.mark.parametrize(
    ("text", "language", "runs"),
    [
        ("I said 東京タワー twice.", "en", [("I said ", "en"), ("東京タワー ", "ja"), ("twice.", "en")]),
        ("I said 你好 to Мария!", "en", [("I said ", "en"), ("你好 ", "zh"), ("to ", "en"), ("Мария!", "ru")]),
        ("我用 iPhone 看。", "zh", [("我用 ", "zh"), ("iPhone ", "en"), ("看。", "zh")]),
        ("Приветы, Anna 5!", "ru", [("Приветы, ", "ru"), ("Anna 5!", "en")]),
        ("iPhoneを買った", "ja", [("iPhoneを買った", "ja")]),
        ("5 + 3", "en", [("5 + 3", "en")]),
        ("!!", "en", []),
    ],
)
def test_mixed_scripts_are_cut_into_runs(text: str, language: str, runs: list[tuple[str, str]]) -> None:
    assert list(script_runs(text, language, usual)) == runs


def test_a_run_is_spoken_in_its_own_language(speaker: LanguageProcessor) -> None:
    mixed = speaker.phonemes("I said Як у вас справи сьогодні, друже?", "en")
    assert mixed == speaker.phonemes("I said", "en") + speaker.phonemes("Як у вас справи сьогодні, друже?", "uk")


@pytest.mark.parametrize(
    ("text", "script"),
    [("我用 iPhone 看 YouTube。", "CJK"), ("東京タワー", "HIRAGANA"), ("ＡＢＣ", "LATIN"), ("5 !", None),
     ("สวัสดีครับคุณผู้ชม OK Google", "THAI")],
)  # fmt: skip
def test_the_main_script(text: str, script: str | None) -> None:
    assert main_script(text) == script
