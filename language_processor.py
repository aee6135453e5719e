"""Text in many languages: which language it is, how it sounds, and when each phoneme is spoken.

Six languages are looked after (`LANGUAGES`); espeak-ng adds about a hundred more. Every language has a default voice:
a natural one where it is installed (`make voices`), else espeak-ng's.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import os
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
from voices.base import Sentence, Speech, Voice, VoiceEngine, Word, joined, whole, with_pause
from voices.detection import Detected, LanguageDetector
from voices.dubbing import Dubbing, Line, read_script
from voices.espeak import EspeakEngine
from voices.kokoro import KokoroEngine
from voices.scripts import LANGUAGES_OF, script_runs
from voices.spoken import spoken_text
from voices.text import plain_text, sentences
from voices.words import timed_words

if TYPE_CHECKING:
    from models.audio_encoder import SpeechEncoder
    from models.phoneme_recogniser import PhonemeRecogniser

LANGUAGES = {
    "en": "English", "zh": "Chinese (Mandarin)", "ja": "Japanese", "fr": "French", "de": "German", "es": "Spanish",
}  # fmt: skip
SPEEDS = (0.5, 2.0)

_SENTENCE_PAUSE_S = 0.25
_ALIASES = {"cmn": "zh", "cn": "zh", "jp": "ja", "no": "nb", "nn": "nb"}


@dataclass(frozen=True)
class SpokenText:
    """A text and how it is spoken.

    Attributes:
        text: any text; markup is left out, and emoji are not spoken. Of subtitles (.srt, .vtt, .ass) each line is
            spoken at its time.
        lang: code such as "en" or "pt-br", or "auto".
        voice: a name from `LanguageProcessor.voices`, or None for the default of the language.
        speed: 0.5 to 2; 1 = the voice's own.
        expected: a code; the language where lang is "auto" and the text does not tell, such as that of the page.
    """

    text: str
    lang: str = "auto"
    voice: str | None = None
    speed: float = 1.0
    expected: str | None = None


@dataclass(frozen=True)
class Utterance:
    """A sound file, and what is said in it when.

    Attributes:
        audio: the file.
        phonemes: in order of time; empty where nobody knows them.
        sentences: as they were written, in order of time; empty where nobody knows the text.
        notes: sentences for a person: which language was taken, and what of a script did not fit.
    """

    audio: Path
    phonemes: tuple[Phoneme, ...] = ()
    sentences: tuple[Sentence, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """Who speaks a text.

    Attributes:
        voice: who.
        detected: how its language was found; None where it was given.
    """

    voice: Voice
    detected: Detected | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about it."""
        return () if self.detected is None else (self.detected.note,)


@dataclass(frozen=True)
class _Piece:
    """A sentence as it was written, for subtitles, and in the words that are spoken."""

    written: str
    spoken: str


@dataclass(frozen=True)
class _Checked:
    """A text that can be spoken, without its markup, or its lines where it is a script."""

    text: str
    lines: tuple[Line, ...]
    choice: Choice
    speed: float


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

    def synthesize(
        self, text: str, lang: str = "auto", voice: str | None = None, speed: float = 1.0, expected: str | None = None
    ) -> Speech:
        """Speak a text as a whole; for a long one see `stream` and `speak_to_file`. Arguments: see `SpokenText`.

        Raises:
            InputError: nothing to speak, an unknown language or voice, or a speed out of range.
        """
        return whole(list(self.stream(text, lang, voice, speed, expected)))

    def stream(
        self, text: str, lang: str = "auto", voice: str | None = None, speed: float = 1.0, expected: str | None = None
    ) -> Iterator[Speech]:
        """Speak piece by piece, with bounded memory; arguments and errors as for `synthesize`.

        Yields:
            Speech of one sentence and the pause after it, or silence between the lines of a script, all at one rate;
            times count from the start of the text.
        """
        return self._parts(self._checked(SpokenText(text, lang, voice, speed, expected)), [])

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
        checked = self._checked(spoken)
        notes = [*checked.choice.notes]
        phonemes: list[Phoneme] = []
        said: list[Sentence] = []
        parts = self._parts(checked, notes)
        with atomic_path(path) as temporary:
            first = next(parts)
            with soundfile.SoundFile(temporary, "w", first.rate, 1, "PCM_16", format="WAV") as file:
                for part in itertools.chain([first], parts):
                    stop_point()
                    file.write(part.samples)
                    phonemes += part.phonemes
                    said += part.sentences
                    if longest is not None and file.tell() > (longest + _SENTENCE_PAUSE_S) * first.rate:
                        raise InputError(f"The text takes longer than {longest:g} s to speak; give less of it.")
        return Utterance(Path(path), tuple(phonemes), tuple(said), tuple(notes))

    def phonemes(self, text: str, lang: str = "auto") -> tuple[int, ...]:
        """Ids of the phonemes of a text (see `models.phonemes.SYMBOLS`), without times."""
        checked = self._checked(SpokenText(text, lang))
        voice = checked.choice.voice
        pieces = self._sentences(checked.text, voice)
        return tuple(identity for piece in pieces for identity in self._pronounced(piece, voice))

    def align(self, samples: np.ndarray, spoken: SpokenText, audio: str | os.PathLike[str]) -> Utterance:
        """When each phoneme and each sentence of a text is spoken in a sound.

        Args:
            samples: mono float32 (N,) at 16 kHz.
            spoken: what is said in it; the times of subtitles are not read.
            audio: where the sound is from.

        Raises:
            InputError: as for `synthesize`, or the sound is too short for the text.
        """
        self._checked(spoken)
        return self.align_heard(self._recogniser.posteriors(self._encoder.features(samples)), spoken, audio)

    def align_heard(self, heard: np.ndarray, spoken: SpokenText, audio: str | os.PathLike[str]) -> Utterance:
        """As `align`, where the sound was heard already: `heard` as `PhonemeRecogniser.posteriors` gives it."""
        checked = self._checked(spoken)
        pieces = list(self._sentences(checked.text, checked.choice.voice))
        ids = [self._pronounced(piece, checked.choice.voice) for piece in pieces]
        found = align_phonemes(heard, [identity for part in ids for identity in part])
        said, position = [], 0
        for piece, part in zip(pieces, ids, strict=True):
            if part:
                last = position + len(part)
                said.append(Sentence(piece.written, found[position].start, found[last - 1].end))
                position = last
        return Utterance(Path(audio), found, tuple(said), checked.choice.notes)

    def words(self, said: Utterance, spoken: SpokenText) -> tuple[Word, ...]:
        """When each word of a text is said, where its sentences and phonemes are known."""
        voice = self.choose(spoken).voice

        def pronounce(word: str) -> tuple[int, ...]:
            return self._pronounced(_Piece(word, spoken_text(word, voice.language)), voice)

        return timed_words(said.sentences, said.phonemes, voice.language, pronounce)

    def choose(self, spoken: SpokenText) -> Choice:
        """Who would speak a text, and in which language; errors as for `synthesize`, but nothing is spoken."""
        return self._checked(spoken).choice

    def detect(self, text: str, expected: str | None = None) -> Detected:
        """The language of a text among those that can be spoken; see `voices.detection`.

        Args:
            text: as it was written.
            expected: a code; the language to take where the text does not tell.
        """
        return self._detector.detect(plain_text(text), expected and self._known(expected))

    def _checked(self, spoken: SpokenText) -> _Checked:
        """Check everything before any sound is made."""
        if not SPEEDS[0] <= spoken.speed <= SPEEDS[1]:
            raise InputError(f"The speed {spoken.speed:g} is out of range: give {SPEEDS[0]:g} to {SPEEDS[1]:g}.")
        lines = read_script(spoken.text)
        text = "\n".join(line.text for line in lines) if lines else plain_text(spoken.text)
        if not any(c.isalnum() for c in text):
            raise InputError("The text holds nothing that can be spoken: give at least one word.")
        detected = self.detect(text, spoken.expected) if spoken.lang.lower() == "auto" else None
        language = self._language(detected.language if detected else spoken.lang)
        return _Checked(text, lines, Choice(self._voice(language, spoken.voice), detected), spoken.speed)

    def _parts(self, checked: _Checked, notes: list[str]) -> Iterator[Speech]:
        """The sound of a text; `notes` gets what did not fit."""
        voice = checked.choice.voice
        if not checked.lines:
            yield from self._spoken(self._sentences(checked.text, voice), voice, checked.speed)
            return

        def speak(line: str, tempo: float) -> Speech:
            speed = min(max(checked.speed * tempo, SPEEDS[0]), SPEEDS[1])
            return whole(list(self._spoken(self._sentences(line, voice), voice, speed)))

        dubbing = Dubbing(checked.lines, speak)
        yield from dubbing.parts()
        notes += dubbing.notes

    def _sentences(self, text: str, voice: Voice) -> Iterator[_Piece]:
        for written in sentences(text, voice.language):
            spoken = spoken_text(written, voice.language)
            if any(c.isalnum() for c in spoken):
                yield _Piece(written, spoken)

    def _known(self, language: str) -> str | None:
        """The code of a language that can be spoken, for "EN", "en-US", "zh_CN" and the like; None for any other."""
        code = language.lower().replace("_", "-")
        for candidate in (code, code.split("-")[0]):
            candidate = _ALIASES.get(candidate, candidate)
            if candidate in self._spoken_languages:
                return candidate
        return None

    def _language(self, language: str) -> str:
        """As `_known`, but there is no other."""
        spoken = self._spoken_languages
        if not spoken:
            raise InputError(f"No voice is installed: {'; '.join(self._missing.values())}.")
        known = self._known(language)
        if known is not None:
            return known
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

    def _spoken(self, pieces: Iterable[_Piece], voice: Voice, speed: float) -> Iterator[Speech]:
        start, rate = 0.0, None
        for piece in pieces:
            parts = [self._speech(run, v, speed) for run, v in self._runs(piece.spoken, voice)]
            rate = rate or parts[0].rate
            sentence = with_pause(joined(parts, rate), piece.written, start, _SENTENCE_PAUSE_S)
            if sentence.phonemes:
                yield sentence
                start += sentence.duration
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

    def _pronounced(self, piece: _Piece, voice: Voice) -> tuple[int, ...]:
        return tuple(
            identity
            for run, v in self._runs(piece.spoken, voice)
            for identity in self._engines[v.engine].pronounce(run, v.language)
        )

    def _runs(self, text: str, voice: Voice) -> Iterator[tuple[str, Voice]]:
        """Parts of a sentence in another script get a language that is written so, if possible in the same voice."""
        for run, language in script_runs(text, voice.language, self._language_of_run):
            others = [v for v in self.voices if v.language == language]
            if language == voice.language or not others:
                yield run, voice
            elif any(v.engine == voice.engine for v in others):
                yield run, dataclasses.replace(voice, language=language)
            else:
                yield run, others[0]

    def _language_of_run(self, run: str, script: str) -> str:
        """The language of a part in another script; a few Latin letters are mostly English."""
        usual = "en" if script == "LATIN" else LANGUAGES_OF[script][0]
        return self._detector.detect(run, usual).language

    @cached_property
    def _spoken_languages(self) -> frozenset[str]:
        return frozenset(voice.language for voice in self.voices)

    @cached_property
    def _detector(self) -> LanguageDetector:
        return LanguageDetector(self._spoken_languages)

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
