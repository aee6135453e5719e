"""The speech engine espeak-ng: robotic, but light, and it speaks nearly every language with exact phoneme times.

The library is loaded at run time from the package `espeakng-loader`. espeak-ng is under the GNU General Public
License 3, unlike this project: nothing of it is copied here, and everything else works when it is not installed.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np

from models.phonemes import Phoneme, share_time, split_ipa
from utils.helpers import InputError
from voices.base import Speech, Voice, VoiceEngine
from voices.japanese import kana_reading

# From speak_lib.h of espeak-ng 1.52.
_AUDIO_SYNCHRONOUS = 2
_PHONEME_EVENTS, _PHONEMES_AS_IPA, _DONT_EXIT = 0x0001, 0x0002, 0x8000
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7
_CHARS_UTF8 = 1
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4
_IPA_MODE, _TIED_IPA_MODE = 0x02, 0x02 | 0x80 | ord("^") << 8
_WORDS_PER_MINUTE = 165
_RATES = (80, 450)

_LANGUAGES = {"en": "en-us", "zh": "cmn", "ja": "ja", "fr": "fr-fr", "de": "de", "es": "es"}
_VARIANTS = {"espeak-female": "f2", "espeak-male": "m3"}


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", _Id),
    ]  # fmt: skip


class _VoiceEntry(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("languages", ctypes.c_char_p), ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte), ("age", ctypes.c_ubyte), ("variant", ctypes.c_ubyte), ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int), ("spare", ctypes.c_void_p),
    ]  # fmt: skip


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Library:
    """The one instance of espeak-ng in this process. It has global state, so calls are made one at a time."""

    def __init__(self) -> None:
        import espeakng_loader

        self._lock = threading.Lock()
        self._c = ctypes.CDLL(espeakng_loader.get_library_path())
        self._c.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._c.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_VoiceEntry))
        options = _PHONEME_EVENTS | _PHONEMES_AS_IPA | _DONT_EXIT
        data = espeakng_loader.get_data_path().encode()
        self.rate = self._c.espeak_Initialize(_AUDIO_SYNCHRONOUS, 0, data, options)
        if self.rate <= 0:
            raise InputError("espeak-ng cannot be started: reinstall the package espeakng-loader.")
        self._sound: list[np.ndarray] = []
        self._events: list[tuple[int, str]] = []
        self._callback = _Callback(self._receive)  # kept: C holds only a pointer to it
        self._c.espeak_SetSynthCallback(self._callback)
        self.languages = self._list_languages()

    def _receive(self, wave: ctypes.Array, count: int, events: ctypes.Array) -> int:
        if wave and count:
            self._sound.append(np.ctypeslib.as_array(wave, (count,)).copy())
        number = 0
        while events[number].type != _EVENT_END_OF_LIST:
            event = events[number]
            if event.type == _EVENT_PHONEME:
                # Eight bytes, not always ended by a zero, and a character may be cut.
                name = ctypes.string_at(ctypes.addressof(event.id), 8).split(b"\0")[0]
                self._events.append((event.sample, name.decode("utf-8", "ignore")))
            number += 1
        return 0

    def synthesise(
        self, text: str, voice: str, words_per_minute: int, pitch: int, pitch_range: int
    ) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """Samples int16 and phoneme events (first sample, IPA; "" = pause)."""
        with self._lock:
            self._choose(voice)
            for parameter, value in ((_RATE, words_per_minute), (_PITCH, pitch), (_PITCH_RANGE, pitch_range)):
                self._c.espeak_SetParameter(parameter, value, 0)
            self._sound.clear()
            self._events.clear()
            data = text.encode()
            self._c.espeak_Synth(data, len(data) + 1, 0, 1, 0, _CHARS_UTF8, None, None)
            sound = np.concatenate(self._sound) if self._sound else np.zeros(0, np.int16)
            return sound, list(self._events)

    def ipa(self, text: str, voice: str, mode: int) -> str:
        """Pronunciation of a text; clauses are separated by spaces."""
        with self._lock:
            self._choose(voice)
            pointer = ctypes.c_char_p(text.encode())
            clauses = []
            while pointer.value is not None:
                clause = self._c.espeak_TextToPhonemes(ctypes.byref(pointer), _CHARS_UTF8, mode)
                clauses.append((clause or b"").decode("utf-8", "ignore"))
            return " ".join(clauses)

    def _list_languages(self) -> dict[str, str]:
        """Codes such as "en-gb" of all languages, and the names of their files, such as "gmw/en"."""
        entries, found, number = self._c.espeak_ListVoices(None), {}, 0
        while entries[number]:
            entry = entries[number].contents
            found.setdefault(entry.languages[1:].decode().lower(), entry.identifier.decode())
            number += 1
        return found

    def _choose(self, voice: str) -> None:
        code, _, variant = voice.partition("+")
        voice = self.languages.get(code, code) + ("+" + variant if variant else "")
        if self._c.espeak_SetVoiceByName(voice.encode()) != 0:
            raise InputError(f"espeak-ng has no voice '{voice}': reinstall the package espeakng-loader.")


@lru_cache(maxsize=1)
def _library() -> _Library:
    return _Library()


def espeak_ipa(text: str, language: str) -> str:
    """Pronunciation of a text in IPA with stress marks.

    Args:
        text: plain text.
        language: code such as "en", or espeak-ng's own such as "en-gb".
    """
    text = kana_reading(text) if language == "ja" else text
    return _without_notes(_library().ipa(text, _LANGUAGES.get(language, language), _IPA_MODE))


def tied_ipa(text: str, language: str) -> str:
    """As `espeak_ipa`, with "^" between the letters of one sound, as in "t^ʃ"."""
    return _without_notes(_library().ipa(text, _LANGUAGES.get(language, language), _TIED_IPA_MODE))


def _without_notes(ipa: str) -> str:
    """Without notes of a change of language, "(en)"."""
    return re.sub(r"\([a-z-]+\)", "", ipa)


class EspeakEngine(VoiceEngine):
    """See the module."""

    name = "espeak-ng"

    def missing(self) -> str | None:
        try:
            import espeakng_loader  # noqa: F401
        except ImportError:
            return "espeak-ng is not installed: pip install espeakng-loader"
        return None

    def voices(self) -> Sequence[Voice]:
        return self._voices

    @cached_property
    def _voices(self) -> tuple[Voice, ...]:
        languages = [*_LANGUAGES, *(c for c in sorted(_library().languages) if c.split("-")[0] not in _LANGUAGES)]
        licence = "espeak-ng, GPL-3.0 (its sound is not)"
        return tuple(
            Voice(name, language, "female" if name.endswith("female") else "male", self.name, False, licence)
            for language in languages
            for name in _VARIANTS
        )

    def speak(self, text: str, voice: Voice, speed: float) -> Speech:
        return self.speak_variant(text, voice.language, _VARIANTS[voice.name], speed)

    def speak_variant(
        self, text: str, language: str, variant: str, speed: float = 1.0, pitch: int = 50, pitch_range: int = 50
    ) -> Speech:
        """Speak with one of espeak-ng's own voice variants, such as "f3", and another pitch (0 to 100)."""
        text = kana_reading(text) if language == "ja" else text
        library = _library()
        words_per_minute = int(np.clip(round(_WORDS_PER_MINUTE * speed), *_RATES))
        voice = f"{_LANGUAGES.get(language, language)}+{variant}"
        sound, events = library.synthesise(text, voice, words_per_minute, pitch, pitch_range)
        return Speech(sound.astype(np.float32) / 32768, library.rate, _timed(events, sound.size, library.rate))

    def pronounce(self, text: str, language: str) -> tuple[int, ...]:
        return split_ipa(_plain(espeak_ipa(text, language)))


def _plain(ipa: str) -> str:
    """Without what espeak-ng writes for Mandarin alone: "ts." for a retroflex, "th" for an aspirate."""
    return re.sub(r"(?<=[ptkɕʂs])h", "", ipa.replace("s.", "ʂ"))


def _timed(events: list[tuple[int, str]], samples: int, rate: int) -> tuple[Phoneme, ...]:
    """Events, each of which lasts until the next, to phonemes; parts of a diphthong share its time."""
    ends = [start for start, _ in events[1:]] + [samples]
    timed = []
    for (start, name), end in zip(events, ends, strict=True):
        if name.startswith("("):
            continue
        if end > start:
            timed.extend(share_time(split_ipa(_plain(name) if len(name) > 1 else name), start / rate, end / rate))
    return tuple(timed)
