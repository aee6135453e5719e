"""Text to speech and phonemes, through the public interface; espeak-ng really speaks, Kokoro where it is installed."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from language_processor import LANGUAGES, LanguageProcessor, SpokenText
from models.phonemes import BILABIALS, SYMBOLS, VOWELS, Phoneme
from tests.conftest import REPO
from tests.server import FULL
from utils.helpers import InputError
from voices.base import Speech, Voice, VoiceEngine
from voices.espeak import EspeakEngine
from voices.japanese import dictionary_installed
from voices.kokoro import KokoroEngine
from voices.text import MAX_SENTENCE, plain_text, sentences

WEIGHTS = REPO / "pretrained"
PLOSIVES = frozenset(SYMBOLS.index(symbol) for symbol in ("p", "b", "t", "d", "k", "ts", "tɕ"))
GREETINGS = {
    "en": "Good morning, my name is Peter and I live in Boston.",
    "zh": "早上好，我的名字叫明明，我住在北京。",
    "ja": "おはようございます。わたしはみほです。",
    "fr": "Bonjour, je m'appelle Pauline et j'habite à Bordeaux.",
    "de": "Guten Morgen, ich heiße Bernd und wohne in München.",
    "es": "Buenos días, me llamo Pablo y vivo en Barcelona.",
}


def processor(*engines: VoiceEngine) -> LanguageProcessor:
    return LanguageProcessor(WEIGHTS, WEIGHTS / "lite" / "phonemes", engines or None)


@pytest.fixture(scope="module")
def robotic() -> LanguageProcessor:
    """Only with the voices that every installation has."""
    return processor(EspeakEngine())


@pytest.fixture(scope="module")
def natural() -> LanguageProcessor:
    reason = KokoroEngine(WEIGHTS / "voices").missing()
    if reason:
        pytest.skip(reason)
    return processor(KokoroEngine(WEIGHTS / "voices"), EspeakEngine())


def check(speech: Speech, text: str) -> None:
    """It sounds, in a believable time, and its phonemes follow each other within it."""
    assert speech.samples.dtype == np.float32
    assert np.abs(speech.samples).max() <= 1
    assert 0.02 < np.sqrt(np.mean(speech.samples**2)) < 0.5
    assert len(speech.phonemes) >= 0.4 * sum(c.isalpha() for c in text)
    assert 0.04 < speech.duration / len(speech.phonemes) < 0.25
    starts, ends = (np.array([getattr(p, side) for p in speech.phonemes]) for side in ("start", "end"))
    assert (ends > starts).all()
    assert (starts[1:] >= ends[:-1] - 1e-6).all()
    assert starts[0] >= 0
    assert ends[-1] <= speech.duration
    assert all(SYMBOLS[p.id] == p.symbol != "" for p in speech.phonemes)


def loudness(speech: Speech, ids: frozenset[int]) -> float:
    """Of the middle of the given phonemes."""
    middles = [round((p.start + p.end) / 2 * speech.rate) for p in speech.phonemes if p.id in ids]
    return float(np.median([np.sqrt(np.mean(speech.samples[m - 100 : m + 100] ** 2)) for m in middles]))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", ["espeak-female", "espeak-male"])
def test_every_language_has_a_female_and_a_male_voice(robotic: LanguageProcessor, language: str, name: str) -> None:
    speech = robotic.synthesize(GREETINGS[language], language, name)
    check(speech, GREETINGS[language])
    assert {p.id for p in speech.phonemes} & BILABIALS
    # The times are real ones: a plosive stops the air, a vowel lets it out.
    assert loudness(speech, PLOSIVES) < 0.7 * loudness(speech, VOWELS)


@pytest.mark.parametrize("language", ["en", "zh", "ja", "fr", "es"])
def test_natural_voices(natural: LanguageProcessor, language: str) -> None:
    voices = [v for v in natural.voices if v.language == language]
    if not voices[0].natural:
        pytest.skip(f"the natural voice for {language} is not installed: run `make voices`")
    speech = natural.synthesize(GREETINGS[language], language)
    check(speech, GREETINGS[language])
    assert loudness(speech, PLOSIVES) < 0.7 * loudness(speech, VOWELS)


def test_default_is_natural_where_there_is_one(natural: LanguageProcessor) -> None:
    defaults = {language: next(v for v in natural.voices if v.language == language) for language in LANGUAGES}
    assert defaults["en"].natural
    assert not defaults["de"].natural
    assert {v.gender for v in natural.voices if v.language == "zh"} == {"female", "male"}


def test_speed_changes_the_length(robotic: LanguageProcessor) -> None:
    lengths = [robotic.synthesize(GREETINGS["en"], "en", speed=s).duration for s in (0.7, 1.0, 1.6)]
    assert lengths[0] > 1.2 * lengths[1] > 1.2 * 1.2 * lengths[2]


@pytest.mark.parametrize("language", LANGUAGES)
def test_language_is_detected(robotic: LanguageProcessor, language: str) -> None:
    assert robotic.detect(GREETINGS[language]).language == language


def test_language_codes_are_read_generously(robotic: LanguageProcessor) -> None:
    expected = robotic.phonemes("Guten Tag", "de")
    assert robotic.phonemes("Guten Tag", "de-AT") == robotic.phonemes("Guten Tag", "DE") == expected
    assert robotic.phonemes("你好", "zh_CN") == robotic.phonemes("你好", "zh")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"text": ""}, "nothing that can be spoken"),
        ({"text": " \n\t"}, "nothing that can be spoken"),
        ({"text": "!!! ... 😀 <br>"}, "nothing that can be spoken"),
        ({"text": "Hello", "lang": "xx"}, r"'xx' is not supported; choose auto, en \(English\), zh .* es \(Spanish\)"),
        ({"text": "Hello", "lang": ""}, "is not supported"),
        ({"text": "Hello", "lang": "en", "voice": "nobody"}, "no voice 'nobody' .* espeak-female, espeak-male"),
        ({"text": "Hello", "lang": "en", "speed": 0.0}, "speed 0 is out of range"),
        ({"text": "Hello", "lang": "en", "speed": float("nan")}, "out of range"),
    ],
)
def test_wrong_requests_are_one_clear_sentence(robotic: LanguageProcessor, arguments: dict, named: str) -> None:
    with pytest.raises(InputError, match=named):
        robotic.synthesize(**arguments)


def test_unsupported_language_names_the_others_too(robotic: LanguageProcessor) -> None:
    with pytest.raises(InputError, match=r"of espeak-ng: .*\bit\b.*\bru\b"):
        robotic.synthesize("Hello", "tlh")


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        ("It costs 1,234.56 dollars, i.e. 12% more than in 1999.", "en"),
        ("Das kostet 1.234,56 € am 12.05.2024 um 14:30 Uhr, z. B. in Köln.", "de"),
        ("2024年5月12日 14:30，一共花了 ¥1234，涨了 5%。", "zh"),
        ("I said 你好 to Мария in Tokyo 東京.", "en"),
        ("我今天买了一个 iPhone 手机。", "zh"),
        ("Hi 😀👍🏽 there 👨‍👩‍👧!", "en"),
        ("<speak>Hello <b>bold</b> &amp; <break time='1s'/> **you**</speak>", "en"),
        ("A\u200bB\u0000C \ufeffD\u202eE", "en"),
        ("a" * 400, "en"),
        ("CAPITALS AND lower, e\u0301te\u0301.", "fr"),
        ("7", "auto"),
        ("٣٤٥", "en"),
        ("12345678901234567890", "zh"),
        ("ABC 你好 123 Привет", "ja"),
        ("1/2 + 3 = ?", "en"),
        ("ok", "auto"),
    ],
)
def test_all_kinds_of_text_are_spoken(robotic: LanguageProcessor, text: str, lang: str) -> None:
    if lang == "ja" and not dictionary_installed():
        pytest.skip("kanji need the dictionary that `make voices` installs")
    speech = robotic.synthesize(text, lang)
    assert speech.duration > 0.15
    assert speech.phonemes


def test_japanese_with_kanji(robotic: LanguageProcessor) -> None:
    if dictionary_installed():
        assert "".join(p.symbol for p in robotic.synthesize("東京は寒いです。", "ja").phonemes).startswith("to")
    else:
        with pytest.raises(InputError, match="make voices"):
            robotic.synthesize("東京は寒いです。", "ja")


def test_letters_of_another_script_are_spoken_in_its_language(robotic: LanguageProcessor) -> None:
    mixed, foreign = robotic.phonemes("Hello 你好", "en"), robotic.phonemes("你好", "zh")
    assert mixed == robotic.phonemes("Hello", "en") + foreign


def test_long_text_is_streamed(robotic: LanguageProcessor, tmp_path: Path) -> None:
    count = 510 if FULL else 90
    text = " ".join(f"Sentence number {k} is spoken by someone" + " and again" * 6 + "." for k in range(count))
    assert len(text) > 95 * count
    parts = robotic.stream(text, "en", speed=2.0)
    first, second = next(parts), next(parts)
    assert first.duration < 10
    assert second.phonemes[0].start >= first.duration
    path = tmp_path / "long.wav"
    said = robotic.speak_to_file(SpokenText(text, "en", speed=2.0), path)
    info = soundfile.info(said.audio)
    assert len(said.sentences) == count
    assert info.duration > 2.5 * count
    assert said.sentences[-1].end <= info.duration
    assert said.phonemes[-1].end <= info.duration


def test_a_text_that_takes_too_long_stops_early_and_leaves_no_file(robotic: LanguageProcessor, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with pytest.raises(InputError, match="longer than 3 s to speak"):
        robotic.speak_to_file(SpokenText("This is a sentence. " * 1000, "en"), path, longest=3.0)
    assert not list(tmp_path.iterdir())


def test_sentences_are_bounded_and_nothing_is_lost() -> None:
    text = "Short one. " + "word " * 500 + "end! " + "x" * 1000 + "。" + "好" * 700 + "。最后，一句。"
    parts = list(sentences(plain_text(text), "en"))
    assert max(map(len, parts)) <= MAX_SENTENCE
    assert parts[0] == "Short one."
    assert parts[-1] == "最后，一句。"
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_given_speech_is_aligned_with_its_text(robotic: LanguageProcessor) -> None:
    if not (WEIGHTS / "lite" / "phonemes" / "config.json").is_file():
        pytest.skip("no trained phoneme recogniser: run trainer.py --stage phonemes")
    import soxr

    text = "The boy from the pub bought a map. My mother made a big apple pie."
    speech = robotic.synthesize(text, "en", "espeak-male")
    said = robotic.align(soxr.resample(speech.samples, speech.rate, 16000), SpokenText(text, "en"), "said.wav")
    found, spoken = said.phonemes, said.sentences
    truth = [p for p in speech.phonemes if p.id in BILABIALS]
    times = [p for p in found if p.id in BILABIALS]
    assert len(times) == len(truth)
    assert np.median([abs(a.start - b.start) for a, b in zip(times, truth, strict=True)]) < 0.04
    assert [s.text for s in spoken] == ["The boy from the pub bought a map.", "My mother made a big apple pie."]
    assert abs(spoken[1].start - speech.sentences[1].start) < 0.3


class BeepEngine(VoiceEngine):
    """An engine as a user may write one: each letter is a beep of 0.1 s."""

    name = "beep"

    def missing(self) -> str | None:
        return None

    def voices(self) -> Sequence[Voice]:
        return [Voice("beeper", "de", "male", self.name, False, "none")]

    def speak(self, text: str, voice: Voice, speed: float) -> Speech:
        ids = self.pronounce(text, voice.language)
        samples = np.sin(np.arange(round(len(ids) * 800 / speed)) / 3).astype(np.float32)
        step = 0.1 / speed
        return Speech(samples, 8000, tuple(Phoneme("a", i, k * step, (k + 1) * step) for k, i in enumerate(ids)))

    def pronounce(self, text: str, language: str) -> tuple[int, ...]:
        return tuple(SYMBOLS.index("a") for c in text if c.isalpha())


class AbsentEngine(BeepEngine):
    name = "absent"

    def missing(self) -> str | None:
        return "it is on strike"


def test_an_engine_of_the_user_comes_first_where_it_is_given_first() -> None:
    mine = processor(AbsentEngine(), BeepEngine(), EspeakEngine())
    assert mine.missing == {"absent": "it is on strike"}
    speech = mine.synthesize("Ja, gut. Nein.", "de")
    assert speech.rate == 8000
    assert len(speech.phonemes) == 9
    assert mine.synthesize("Ja, gut.", "de", "espeak-male").rate == 22050
    assert mine.synthesize("Yes.", "en").rate == 22050


def test_announced_engines_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("language_processor")

    class Announced:
        def load(self) -> type[VoiceEngine]:
            return BeepEngine

    monkeypatch.setattr(module, "entry_points", lambda group: [Announced()] if group == "lipsync.voices" else [])
    assert processor().synthesize("Ja", "de").rate == 8000


class TimelessEngine(BeepEngine):
    """An engine that does not know when it says what."""

    name = "timeless"

    def speak(self, text: str, voice: Voice, speed: float) -> Speech:
        spoken = EspeakEngine().speak_variant(text, voice.language, "m3", speed)
        return Speech(spoken.samples, spoken.rate, ())

    def pronounce(self, text: str, language: str) -> tuple[int, ...]:
        return EspeakEngine().pronounce(text, language)


def test_phonemes_that_an_engine_does_not_time_are_found_in_its_sound(lite_weights: Path) -> None:
    text = "Papa kauft im Mai einen Baum."
    truth = EspeakEngine().speak_variant(text, "de", "m3").phonemes
    found = processor(TimelessEngine()).synthesize(text, "de").phonemes
    assert [p.id for p in found] == [p.id for p in truth]
    assert np.median([abs(a.start - b.start) for a, b in zip(found, truth, strict=True)]) < 0.04


def test_the_voice_of_the_documentation_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import VitsConfig, VitsModel, VitsTokenizer

    code = re.search(r"```python\n(.*?)```", (REPO / "docs" / "voices.md").read_text(encoding="utf-8"), re.S)[1]
    (tmp_path / "my_voices.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    mine = LanguageProcessor(WEIGHTS, WEIGHTS / "lite" / "phonemes", own=["my_voices:VitsVoice"])
    assert "download it" in mine.missing["vits"]

    letters = "_ abcdefghijklmnopqrstuvwxyzäöü"
    vocabulary = tmp_path / "vocab.json"
    vocabulary.write_text(json.dumps({letter: number for number, letter in enumerate(letters)}))
    VitsTokenizer(str(vocabulary), pad_token="_", unk_token="_", phonemize=False).save_pretrained("mms-tts-deu")
    sizes = VitsConfig(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, flow_size=16,
        spectrogram_bins=17, upsample_initial_channel=32, prior_encoder_num_flows=1, wavenet_dilation_rate=1,
        posterior_encoder_num_wavenet_layers=1, prior_encoder_num_wavenet_layers=1, depth_separable_num_layers=1,
    )  # fmt: skip
    VitsModel(sizes).save_pretrained("mms-tts-deu")
    mine = LanguageProcessor(WEIGHTS, WEIGHTS / "lite" / "phonemes", own=["my_voices:VitsVoice"])
    speech = mine.synthesize("Guten Tag.", "de")
    assert speech.rate == 16000 and speech.samples.size > 0
    assert [p.id for p in speech.phonemes] == [*EspeakEngine().pronounce("Guten Tag.", "de")]


@pytest.mark.parametrize("name", ["no_such_module:Voice", "json:NoSuchClass", "json", "voices.base:VoiceEngine"])
def test_an_engine_that_cannot_be_loaded_is_one_sentence(name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' of the configuration cannot be loaded"):
        LanguageProcessor(WEIGHTS, WEIGHTS / "lite" / "phonemes", own=[name])


@pytest.mark.parametrize(
    ("text", "language"),
    [("我用 iPhone 看 YouTube。", "zh"), ("Tell me how you say 你好, please.", "en"), ("Привет, Anna и Maria!", "ru")],
)
def test_the_script_of_most_words_decides(robotic: LanguageProcessor, text: str, language: str) -> None:
    assert robotic.detect(text).language == language
