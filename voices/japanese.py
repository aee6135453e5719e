"""Readings of Japanese text, from the dictionary of pyopenjtalk-plus (MIT; Open JTalk and NAIST dictionary: BSD)."""

from __future__ import annotations

import contextlib
import io
import re
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType

from utils.helpers import InputError

_KANJI = re.compile(r"[\u3005\u3400-\u9fff\uf900-\ufaff]")
_LONG = re.compile(r"([aɯeio])\1")

# Open JTalk's phones in the notation of misaki 0.7, which Kokoro was trained with.
_IPA = {
    "ch": "ʨ", "ts": "ʦ", "sh": "ɕ", "j": "ʥ", "f": "ɸ", "r": "ɾ", "w": "β", "y": "j", "g": "ɡ", "u": "ɯ", "cl": "ʔ",
    "ky": "kʲ", "gy": "ɡʲ", "by": "bʲ", "py": "pʲ", "my": "mʲ", "ry": "ɾʲ", "hy": "ç", "ny": "ɲ", "ty": "tʲ",
    "dy": "dʲ", "kw": "kβ", "gw": "ɡβ", "v": "v",
}  # fmt: skip
_CONTEXT = (("hi", "çi"), ("ni", "ɲi"), ("ʦɯ", "ʦɨ"), ("sɯ", "sɨ"), ("zɯ", "zɨ"))
_NASALS = {"m": "mpb", "ŋ": "kɡ", "ɲ": "ɲʨʥ", "n": "ntdɾzsʦ"}


def dictionary_installed() -> bool:
    """Whether text with kanji can be read."""
    return find_spec("pyopenjtalk") is not None


def kana_reading(text: str) -> str:
    """Japanese text in katakana, as it is spoken; where no dictionary is installed, text without kanji stays as it is.

    Raises:
        InputError: the text has kanji and there is no dictionary.
    """
    if dictionary_installed():
        return "".join(_PUNCTUATION.get(word, kana) for word, kana, _ in _words(text))
    if _KANJI.search(text):
        raise InputError(
            "Japanese text with kanji needs a dictionary: pip install -r requirements.txt, or write the text in kana."
        )
    return text


def japanese_ipa(text: str) -> str:
    """Pronunciation in the notation that Kokoro reads, words separated by spaces, punctuation kept."""
    pieces: list[str] = []
    for word, kana, glued in _words(text):
        if word in _PUNCTUATION:
            pieces.append(_PUNCTUATION[word])
        elif kana:
            pieces.append(("" if glued or not pieces else " ") + _word_ipa(kana))
    return "".join(pieces).strip()


@lru_cache(maxsize=1)
def _openjtalk() -> ModuleType:
    """The library; when it is loaded, it prints that a network for the readings of one word is missing."""
    with contextlib.redirect_stdout(io.StringIO()):
        import pyopenjtalk
    return pyopenjtalk


def _words(text: str) -> list[tuple[str, str, bool]]:
    """(word, katakana, whether it is spoken as part of the word before it, like particles and endings)."""
    pyopenjtalk = _openjtalk()
    nodes = pyopenjtalk.run_frontend(text, use_sudachi_kanji_yomi=True)
    found = [(n["string"], re.sub(r"[^ァ-ヺー]", "", n["pron"]), n["pos"] in ("助詞", "助動詞")) for n in nodes]
    return [(word, kana, glued and k > 0 and bool(found[k - 1][1])) for k, (word, kana, glued) in enumerate(found)]


_PUNCTUATION = {"、": ",", "。": ".", "？": "?", "！": "!", "，": ",", "．": ".", "…": "…", "：": ":", "；": ";"}


def _word_ipa(kana: str) -> str:
    pyopenjtalk = _openjtalk()
    phones = [p for p in pyopenjtalk.g2p(kana, use_vanilla=True).split() if p not in ("pau", "sil")]
    ipa = "".join("N" if p == "N" else _IPA.get(p.lower(), p.lower()) for p in phones)
    for written, spoken in _CONTEXT:
        ipa = ipa.replace(written, spoken)
    for nasal, before in _NASALS.items():
        ipa = re.sub(f"N(?=[{before}])", nasal, ipa)
    return _LONG.sub(r"\1ː", ipa.replace("N", "ɴ"))
