"""Makes a corpus of spoken text with known phoneme times, for training the phoneme recogniser.

    python -m data.synthesise --output synthetic_speech

One folder for each voice and language under `<output>/{train,val}/`; the voices of `val` never speak in `train`.
Each holds features.npy (N, 5, 384) float16, phonemes.npy (N,) uint8 ids at 50 Hz and utterances.json. A folder that is
there is not made again, and one appears only when it is complete.
"""

from __future__ import annotations

import argparse
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from tqdm import tqdm

from data.speech_variants import speech_variants
from models.audio_encoder import SAMPLE_RATE, SpeechEncoder
from models.phonemes import phoneme_track
from utils.config import load_config
from voices.base import Speech
from voices.espeak import EspeakEngine
from voices.kokoro import KokoroEngine

LANGUAGES = ("en", "zh", "ja", "fr", "de", "es")
SENTENCES = Path(__file__).parent / "sentences"

# Voice variants of espeak-ng. Those for validation are of other people than any in training.
ESPEAK = {"train": ("f1", "f2", "f4", "m1", "m3", "m7", "klatt2", "Annie"), "val": ("f5", "m2")}
# Kokoro's voices also speak languages that are not theirs: an accent does not matter here, a new voice does.
KOKORO = {
    "train": {
        "en": ("af_heart", "am_michael", "am_fenrir", "bf_emma"),
        "zh": ("zf_xiaoxiao", "zm_yunjian", "af_heart"),
        "ja": ("jf_alpha", "jf_gongitsune", "am_michael"),
        "fr": ("if_sara", "im_nicola", "bf_emma"),
        "es": ("ef_dora", "im_nicola", "am_fenrir"),
    },
    "val": {
        "en": ("af_bella", "bm_george"), "zh": ("zf_xiaoyi", "zm_yunxi"), "ja": ("jf_nezumi", "jm_kumo"),
        "fr": ("ff_siwis",), "es": ("em_alex",),
    },
}  # fmt: skip
SYLLABLES = {
    "en": "bay boo pie poe may moo fee vow thigh the shay sue zoo jaw chew gay key day tea nay lie ray woo yow hay "
    "bat pep mob fib vim thud ship job chop gap kick dog tap nook lip rib web yam hut ping tang fur bird more",
    "de": "ba pö mü fei wau schu ro lä ni do te ki gu ha jo zeu pfa bim pap muff wach schön recht los nein durch "
    "tief kalt gern hüb jung zog tsche ring fühl bei möp",
    "fr": "ba pi mou feu vin chant jeu ro lu ni don ta quai gui ha yeu beau pain mon fou vent chien joue rang lac "
    "nuit dans tu coq gant soie peu brin plume vigne abeille",
    "es": "ba pi mo fu ve cha ja rro la ni do te qui gue lla ño be pan mun fin bue ciel jo ra li nue dos tor cal gos "
    "hue yer zum pre bla",
    "zh": "八 不 妈 明 飞 风 大 天 你 老 路 高 可 好 家 七 西 中 吃 是 人 子 次 四 云 月 雨 雪 对 桌 爸 跑 "
    "朋 门 方 多 听 女 六 国 快 黑 街 全 向 找 车 双 日 热 走 草 岁 安 爱 五 王 外",
    "ja": "ば ぱ ま ふ わ さ し ち つ ず じ ら り の に な た と で か こ ご ぐ は ひ へ よ や ゆ ぴゃ びょ みゅ "
    "きゃ しょ ちゅ じゃ りょ ん え お う い あ ぶ ぷ む べ ぺ め も ぽ ぼ",
}
_JOIN = {"zh": "", "ja": ""}


@dataclass(frozen=True)
class Shard:
    """One voice in one language: how it speaks, and how much of it is wanted in seconds."""

    name: str
    language: str
    seconds: float
    speak: Callable[[str, np.random.Generator], Speech]


def texts(language: str, random: np.random.Generator) -> Iterator[str]:
    """Sentences without end: written ones in a random order, between words made up of syllables and numbers."""
    written = (SENTENCES / f"{language}.txt").read_text(encoding="utf-8").split("\n")[:-1]
    joint = _JOIN.get(language, " ")
    while True:
        for sentence in random.permutation(written):
            yield str(sentence)
            syllables = list(random.choice(SYLLABLES[language].split(), random.integers(6, 14)))
            if random.random() < 0.5:
                syllables.insert(int(random.integers(len(syllables))), str(random.integers(1, 1000)))
            yield joint.join(syllables) + ("。" if language in _JOIN else ".")


def shards(split: str, seconds: float, kokoro_seconds: float, voices_dir: Path) -> list[Shard]:
    """All voices of a split.

    Args:
        split: "train" or "val".
        seconds: speech of espeak-ng for each language, shared by its voices.
        kokoro_seconds: the same for Kokoro; nothing where it is not installed.
        voices_dir: folder of Kokoro's voices.
    """
    espeak, kokoro = EspeakEngine(), KokoroEngine(voices_dir)
    found = []
    for language in LANGUAGES:
        for variant in ESPEAK[split]:
            share = seconds / len(ESPEAK[split])
            found.append(Shard(f"{language}-espeak-{variant}", language, share, _espeak(espeak, language, variant)))
        names = KOKORO[split].get(language, ()) if kokoro.missing() is None else ()
        for name in names:
            share = kokoro_seconds / len(names)
            found.append(Shard(f"{language}-kokoro-{name}", language, share, _kokoro(kokoro, language, name)))
    return found


def _espeak(engine: EspeakEngine, language: str, variant: str) -> Callable[[str, np.random.Generator], Speech]:
    def speak(text: str, random: np.random.Generator) -> Speech:
        pitch, pitch_range = int(random.integers(25, 75)), int(random.integers(20, 80))
        return engine.speak_variant(text, language, variant, float(random.uniform(0.75, 1.4)), pitch, pitch_range)

    return speak


def _kokoro(engine: KokoroEngine, language: str, name: str) -> Callable[[str, np.random.Generator], Speech]:
    def speak(text: str, random: np.random.Generator) -> Speech:
        return engine.speak_style(text, language, name, float(random.uniform(0.8, 1.25)))

    return speak


def make_shard(shard: Shard, directory: Path, encoder: SpeechEncoder, altered: bool) -> None:
    """Speak, encode and store one voice. `altered`: half of the utterances get noise, a room or another pitch."""
    random = np.random.default_rng(zlib.crc32(shard.name.encode()))
    features, tracks, utterances, count = [], [], [], 0
    for text in texts(shard.language, random):
        speech = shard.speak(text, random)
        samples = soxr.resample(speech.samples, speech.rate, SAMPLE_RATE).astype(np.float32)
        if altered and random.random() < 0.5:
            samples = speech_variants(samples, SAMPLE_RATE, 2, random)[1]
        found = encoder.features(samples)
        track = phoneme_track(speech.phonemes, len(found))
        features.append(found.astype(np.float16))
        tracks.append(track.astype(np.uint8))
        utterances.append({"text": text, "start": count, "stop": count + len(found)})
        count += len(found)
        if count >= shard.seconds * 50:
            break
    _store(directory / shard.name, np.concatenate(features), np.concatenate(tracks), utterances)


def _store(directory: Path, features: np.ndarray, track: np.ndarray, utterances: list[dict]) -> None:
    temporary = directory.with_name(f".tmp-{directory.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    np.save(temporary / "features.npy", features)
    np.save(temporary / "phonemes.npy", track)
    (temporary / "utterances.json").write_text(json.dumps(utterances, ensure_ascii=False), encoding="utf-8")
    temporary.rename(directory)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="model_config.yaml", help="configuration file")
    parser.add_argument("--output", type=Path, help="folder of the corpus (default: training.phonemes.corpus)")
    parser.add_argument("--minutes", type=float, default=30, help="speech of espeak-ng in all, minutes")
    parser.add_argument("--natural_minutes", type=float, default=10, help="speech of Kokoro in all, minutes")
    options = parser.parse_args(argv)
    config = load_config(options.config)
    output = options.output or config.training.phonemes.corpus
    weights = config.training.common.weights_dir
    encoder = SpeechEncoder.from_pretrained(weights / "whisper_tiny_en_encoder")
    shares = {"train": 0.85, "val": 0.15}
    for split, share in shares.items():
        seconds = 60 * share * options.minutes / len(LANGUAGES)
        natural = 60 * share * options.natural_minutes / len(KOKORO[split])
        wanted = shards(split, seconds, natural, weights / "voices")
        for shard in tqdm([s for s in wanted if s.seconds and not (output / split / s.name).exists()], desc=split):
            make_shard(shard, output / split, encoder, altered=split == "train")


if __name__ == "__main__":
    main()
