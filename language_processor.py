"""Text in many languages: which language it is, how it sounds, and when each phoneme is spoken.

Six languages are looked after (`LANGUAGES`); espeak-ng adds about a hundred more. Every language has a default voice:
a natural one where it is installed (`make voices`), else espeak-ng's.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr

from audio_processor import SAMPLE_RATE
from models.phonemes import Phoneme, share_time
from utils.helpers import InputError, atomic_path
from utils.stages import stop_point
from voices.aligner import align_phonemes
from voices.base import Sentence, Speech, Voice, VoiceEngine
from voices.espeak import EspeakEngine
from voices.kokoro import KokoroEngine
from voices.text import plain_text, sentences, spoken_text

if TYPE_CHECKING:
    from models.audio_encoder import SpeechEncoder
    from models.phoneme_recogniser import PhonemeRecogniser

LANGUAGES = {
    "en": "English", "zh": "Chinese (Mandarin)", "ja": "Japanese", "fr": "French", "de": "German", "es": "Spanish",
}  # fmt: skip
SPEEDS = (0.5, 2.0)

_SENTENCE_PAUSE_S = 0.25
_WORDS_PER_CHARACTER = 0.7  # of Chinese, in which most words have one or two
_ALIASES = {"cmn": "zh", "cn": "zh", "jp": "ja"}
# A language that is written like that; for letters of another script than the text's language.
_SCRIPTS = {"CJK": "zh", "HIRAGANA": "ja", "KATAKANA": "ja", "LATIN": "en", "CYRILLIC": "ru", "GREEK": "el",
            "HANGUL": "ko", "ARABIC": "ar", "HEBREW": "he", "DEVANAGARI": "hi", "THAI": "th"}  # fmt: skip
# Scripts that a language's voices read themselves; the Latin one where nothing is said.
_OWN_SCRIPTS = {"zh": {"CJK"}, "ja": {"CJK", "HIRAGANA", "KATAKANA", "LATIN"}, "ru": {"CYRILLIC"}, "el": {"GREEK"},
              "ko": {"HANGUL"}, "ar": {"ARABIC"}, "he": {"HEBREW"}, "hi": {"DEVANAGARI"}, "th": {"THAI"}}  # fmt: skip


@dataclass(frozen=True)
class SpokenText:
    """A text and how it is spoken; see `LanguageProcessor.synthesize`."""

    text: str
    lang: str = "auto"
    voice: str | None = None
    speed: float = 1.0


@dataclass(frozen=True)
class Utterance:
    """A sound file, and what is said in it when.

    Attributes:
        audio: the file.
        phonemes: in order of time; empty where nobody knows them.
        sentences: in order of time; empty where nobody knows the text.
    """

    audio: Path
    phonemes: tuple[Phoneme, ...] = ()
    sentences: tuple[Sentence, ...] = ()


class LanguageProcessor:
    """Speaks text and finds its phonemes.

    Args:
        weights_dir: folder with whisper_tiny_en_encoder/ and voices/.
        recogniser_dir: folder of the phoneme recogniser, needed by `align` only.
        engines: speech engines, the preferred ones first. Default: `own`, then those that other packages announce as
            the entry point "lipsync.voices" (a class without arguments), then Kokoro, then espeak-ng.
        own: engines of the user as "module:Class", see docs/voices.md.

    Raises:
        InputError: one of `own` cannot be loaded.
    """

    def __init__(
        self,
        weights_dir: str | Path,
        recogniser_dir: str | Path,
        engines: Sequence[VoiceEngine] | None = None,
        own: Sequence[str] = (),
    ) -> None:
        self._weights_dir, self._recogniser_dir = Path(weights_dir), Path(recogniser_dir)
        if engines is None:
            announced = [entry.load()() for entry in entry_points(group="lipsync.voices")]
            kokoro = KokoroEngine(self._weights_dir / "voices")
            engines = [*map(load_engine, own), *announced, kokoro, EspeakEngine()]
        self._missing = {engine.name: reason for engine in engines if (reason := engine.missing())}
        self._engines = {engine.name: engine for engine in engines if engine.name not in self._missing}

    @cached_property
    def voices(self) -> tuple[Voice, ...]:
        """All voices that can be used now; the first of a language is its default."""
        return tuple(voice for engine in self._engines.values() for voice in engine.voices())

    @property
    def missing(self) -> dict[str, str]:
        """Engines that cannot be used, and why."""
        return dict(self._missing)

    def synthesize(self, text: str, lang: str = "auto", voice: str | None = None, speed: float = 1.0) -> Speech:
        """Speak a text as a whole; for a long one see `stream` and `speak_to_file`.

        Args:
            text: any text; markup and emoji are left out.
            lang: code such as "en" or "pt-br", or "auto".
            voice: name from `voices`, or None for the default of the language.
            speed: 0.5 to 2; 1 = the voice's own.

        Raises:
            InputError: nothing to speak, an unknown language or voice, or a speed out of range.
        """
        parts = list(self.stream(text, lang, voice, speed))
        rate = parts[0].rate
        return Speech(
            np.concatenate([part.samples for part in parts]),
            rate,
            tuple(phoneme for part in parts for phoneme in part.phonemes),
            tuple(sentence for part in parts for sentence in part.sentences),
        )

    def stream(
        self, text: str, lang: str = "auto", voice: str | None = None, speed: float = 1.0
    ) -> Iterator[Speech]:
        """Speak sentence by sentence, with bounded memory; arguments as for `synthesize`.

        Yields:
            Speech of one sentence and the pause after it, all at one rate; times count from the start of the text.
        """
        chosen, pieces = self._prepare(text, lang, voice, speed)
        return self._spoken(pieces, chosen, speed)

    def speak_to_file(
        self, spoken: SpokenText, path: str | os.PathLike[str], longest: float | None = None
    ) -> Utterance:
        """Speak into a WAV file, sentence by sentence.

        Args:
            spoken: what to say and how.
            path: the file to write.
            longest: seconds of speech that are too much; None = there is no limit.

        Raises:
            InputError: as for `synthesize`, or the speech is too long; then there is no file.
        """
        parts = self.stream(spoken.text, spoken.lang, spoken.voice, spoken.speed)
        phonemes: list[Phoneme] = []
        said: list[Sentence] = []
        with atomic_path(path) as temporary:
            first = next(parts)
            with soundfile.SoundFile(temporary, "w", first.rate, 1, "PCM_16", format="WAV") as file:
                for part in _chained(first, parts):
                    stop_point()
                    file.write(part.samples)
                    phonemes += part.phonemes
                    said += part.sentences
                    if longest is not None and said[-1].end > longest:
                        raise InputError(f"The text takes longer than {longest:g} s to speak; give less of it.")
        return Utterance(Path(path), tuple(phonemes), tuple(said))

    def phonemes(self, text: str, lang: str = "auto") -> tuple[int, ...]:
        """Ids of the phonemes of a text (see `models.phonemes.SYMBOLS`), without times."""
        chosen, pieces = self._prepare(text, lang, None, 1.0)
        return tuple(identity for piece in pieces for identity in self._pronounced(piece, chosen))

    def align(
        self, samples: np.ndarray, text: str, lang: str = "auto"
    ) -> tuple[tuple[Phoneme, ...], tuple[Sentence, ...]]:
        """When each phoneme and each sentence of a text is spoken in a sound.

        Args:
            samples: mono float32 (N,) at 16 kHz.
            text: what is said in it.
            lang: as for `synthesize`.

        Raises:
            InputError: as for `synthesize`, or the sound is too short for the text.
        """
        chosen, pieces = self._prepare(text, lang, None, 1.0)
        pieces = list(pieces)
        ids = [self._pronounced(piece, chosen) for piece in pieces]
        heard = self._recogniser.posteriors(self._encoder.features(samples))
        found = align_phonemes(heard, [identity for part in ids for identity in part])
        spoken, position = [], 0
        for piece, part in zip(pieces, ids, strict=True):
            if part:
                last = position + len(part)
                spoken.append(Sentence(piece, found[position].start, found[last - 1].end))
                position = last
        return found, tuple(spoken)

    def choose(self, text: str, lang: str = "auto", voice: str | None = None, speed: float = 1.0) -> Voice:
        """Who would speak a text; arguments and errors as for `synthesize`, but nothing is spoken."""
        return self._prepare(text, lang, voice, speed)[0]

    def detect(self, text: str) -> str:
        """The language of a text: by the script of most words, and within the Latin script by the words themselves.

        Text without any letters counts as English. Without spaces, every character counts as a word, or nearly so.
        """
        scripts: Counter[str] = Counter()
        for word in re.findall(r"[^\W\d_]+", text):
            letters = Counter(_script(letter) for letter in word)
            scripts.update({s: n * _WORDS_PER_CHARACTER if s == "CJK" else 1 for s, n in letters.items()})
        if not scripts:
            return "en"
        if scripts["HIRAGANA"] or scripts["KATAKANA"]:
            return "ja"
        common = scripts.most_common(1)[0][0]
        if common != "LATIN":
            return _SCRIPTS.get(common, common.lower())
        return self._classifier.classify(text)[0]

    def _prepare(
        self, text: str, lang: str, voice: str | None, speed: float
    ) -> tuple[Voice, Iterable[str]]:
        """Check everything before any sound is made -> the voice and the sentences."""
        if not SPEEDS[0] <= speed <= SPEEDS[1]:
            raise InputError(f"The speed {speed:g} is out of range: give {SPEEDS[0]:g} to {SPEEDS[1]:g}.")
        cleaned = plain_text(text)
        if not any(c.isalnum() for c in cleaned):
            raise InputError("The text holds nothing that can be spoken: give at least one word.")
        language = self.detect(cleaned) if lang.lower() == "auto" else lang
        chosen = self._voice(self._language(language), voice)
        return chosen, sentences(spoken_text(cleaned, chosen.language))

    def _language(self, language: str) -> str:
        """The code of a supported language, for "EN", "en-US", "zh_CN" and the like."""
        code = language.lower().replace("_", "-")
        spoken = {voice.language for voice in self.voices}
        if not spoken:
            raise InputError(f"No voice is installed: {'; '.join(self._missing.values())}.")
        for candidate in (code, code.split("-")[0]):
            candidate = _ALIASES.get(candidate, candidate)
            if candidate in spoken:
                return candidate
        listed = ", ".join(f"{c} ({name})" for c, name in LANGUAGES.items() if c in spoken)
        others = ", ".join(sorted(spoken - set(LANGUAGES)))
        raise InputError(
            f"The language '{language}' is not supported; choose auto, {listed}"
            + (f", or of espeak-ng: {others}." if others else ".")
        )

    def _voice(self, language: str, name: str | None) -> Voice:
        fitting = [voice for voice in self.voices if voice.language == language]
        if name is None:
            return fitting[0]
        for voice in fitting:
            if voice.name == name:
                return voice
        known = ", ".join(voice.name for voice in fitting)
        raise InputError(f"There is no voice '{name}' for the language '{language}'; choose one of: {known}.")

    def _spoken(self, pieces: Iterable[str], voice: Voice, speed: float) -> Iterator[Speech]:
        start, rate = 0.0, None
        for piece in pieces:
            parts = [self._speech(run, v, speed) for run, v in self._runs(piece, voice)]
            rate = rate or parts[0].rate
            joined = _joined(parts, rate, start, piece)
            if joined.phonemes:
                yield joined
                start += joined.duration
        if start == 0.0:
            raise InputError(f"The voice {voice.name} finds nothing to speak in the text: check the language.")

    def _speech(self, text: str, voice: Voice, speed: float) -> Speech:
        """What the voice's engine makes of a text; phonemes that it does not time are searched for in the sound."""
        engine = self._engines[voice.engine]
        speech = engine.speak(text, voice, speed)
        ids = () if speech.phonemes else engine.pronounce(text, voice.language)
        if not ids:
            return speech
        heard = self._recogniser.posteriors(self._encoder.features(_at_16_khz(speech)))
        try:
            return dataclasses.replace(speech, phonemes=align_phonemes(heard, ids))
        except InputError:  # spoken too fast to be told apart
            return dataclasses.replace(speech, phonemes=tuple(share_time(ids, 0.0, speech.duration)))

    def _pronounced(self, piece: str, voice: Voice) -> tuple[int, ...]:
        return tuple(
            identity
            for run, v in self._runs(piece, voice)
            for identity in self._engines[v.engine].pronounce(run, v.language)
        )

    def _runs(self, text: str, voice: Voice) -> Iterator[tuple[str, Voice]]:
        """Parts of a sentence in another script get a language that is written so, if possible in the same voice."""
        for run, language in _script_runs(text, voice.language):
            if language == voice.language:
                yield run, voice
                continue
            others = [v for v in self.voices if v.language == language]
            same_engine = any(v.engine == voice.engine for v in others)
            if same_engine:
                yield run, dataclasses.replace(voice, language=language)
            elif others:
                yield run, others[0]

    @cached_property
    def _classifier(self):  # noqa: ANN202  a class of a library without types
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        classifier = LanguageIdentifier.from_model_file(MODEL_FILE)
        classifier.set_languages([code for code in LANGUAGES if code not in _OWN_SCRIPTS])
        return classifier

    @cached_property
    def _encoder(self) -> SpeechEncoder:
        from models.audio_encoder import SpeechEncoder  # loads PyTorch, which speaking does without

        return SpeechEncoder.from_pretrained(self._weights_dir / "whisper_tiny_en_encoder")

    @cached_property
    def _recogniser(self) -> PhonemeRecogniser:
        from models.checkpoint import load_pretrained
        from models.phoneme_recogniser import PhonemeRecogniser

        return load_pretrained(PhonemeRecogniser, self._recogniser_dir)


def load_engine(name: str) -> VoiceEngine:
    """An engine of the user.

    Args:
        name: "module:Class"; the module lies where Python finds it, for example beside app.py.

    Raises:
        InputError: there is no such class, or it cannot be made.
    """
    module, _, kind = name.partition(":")
    try:
        return getattr(importlib.import_module(module), kind)()
    except Exception as error:  # a user's module may raise anything
        raise InputError(
            f"The voice engine '{name}' of the configuration cannot be loaded ({type(error).__name__}: {error}): "
            "name it as module:Class, see docs/voices.md."
        ) from error


def _at_16_khz(speech: Speech) -> np.ndarray:
    return soxr.resample(speech.samples.astype(np.float32), speech.rate, SAMPLE_RATE)


def _script(character: str) -> str:
    return unicodedata.name(character, "").split(" ")[0].split("-")[0]


def _script_runs(text: str, language: str) -> Iterator[tuple[str, str]]:
    """Parts of a text and the language to speak each in; digits, signs and spaces stay with what is before them."""
    own = _OWN_SCRIPTS.get(language, {"LATIN"})
    runs: list[list[str]] = []
    for word in re.findall(r"[^\W\d_]+|[\W\d_]+", text):
        for letter in word if word[0].isalpha() else [word]:
            script = _script(letter) if letter.isalpha() else None
            foreign = _SCRIPTS.get(script) if script and script not in own else None
            spoken = language if foreign is None else foreign
            if runs and (script is None or runs[-1][1] == spoken):
                runs[-1][0] += letter
            else:
                runs.append([letter, spoken])
    return ((run, spoken) for run, spoken in runs if any(c.isalnum() for c in run))


def _joined(parts: Sequence[Speech], rate: int, start: float, text: str) -> Speech:
    """Parts of one sentence one after the other, and a pause; times are moved to `start`."""
    sound, phonemes, now = [], [], start
    for part in parts:
        samples = part.samples if part.rate == rate else soxr.resample(part.samples, part.rate, rate)
        sound.append(samples.astype(np.float32))
        phonemes += [Phoneme(p.symbol, p.id, p.start + now, p.end + now) for p in part.phonemes]
        now += samples.size / rate
    sound.append(np.zeros(round(_SENTENCE_PAUSE_S * rate), np.float32))
    return Speech(np.concatenate(sound), rate, tuple(phonemes), (Sentence(text, start, now),))


def _chained(first: Speech, others: Iterator[Speech]) -> Iterator[Speech]:
    yield first
    yield from others
