"""The phoneme inventory, the recogniser, its training on synthesised speech, and the search for times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data.synthesise import Shard, make_shard, texts
from models.audio_encoder import SAMPLE_RATE, SpeechEncoder
from models.checkpoint import load_pretrained
from models.phoneme_recogniser import PhonemeRecogniser
from models.phonemes import (
    BILABIALS,
    INVENTORY_SIZE,
    SILENCE,
    SYMBOLS,
    Phoneme,
    phoneme_track,
    split_ipa,
)
from tests.conftest import REPO
from trainer import Trainer, make_stage
from utils.config import Config, load_config
from utils.helpers import InputError
from voices.aligner import align_phonemes
from voices.espeak import EspeakEngine


def symbols(ipa: str) -> list[str]:
    return [SYMBOLS[number] for number in split_ipa(ipa)]


@pytest.mark.parametrize(
    ("ipa", "expected"),
    [
        ("həlˈoʊ", ["h", "ə", "l", "o", "ʊ"]),
        ("t͡ʃˈiːz", ["tʃ", "i", "z"]),
        ("ʧˈAnʤ", ["tʃ", "e", "ɪ", "n", "dʒ"]),
        ("bɔ̃ vɛ̃", ["b", "ɔ̃", "v", "ɛ̃"]),
        ("ɪç", ["ɪ", "ç"]),
        ("ɪc\u0327", ["ɪ", "ç"]),
        ("pʰjɛ→n", ["p", "j", "ɛ", "n"]),
        ("ä e̞ ɯᵝ", ["a", "e", "ɯ"]),
        ("!? 12", []),
    ],
)
def test_ipa_is_read_in_all_its_spellings(ipa: str, expected: list[str]) -> None:
    import unicodedata

    assert symbols(ipa) == [unicodedata.normalize("NFD", s).replace("c\u0327", "ç") for s in expected]


def test_inventory_fits_the_models_and_has_no_doubles() -> None:
    config = load_config(REPO / "model_config.yaml")
    assert len(set(SYMBOLS)) == len(SYMBOLS) <= INVENTORY_SIZE
    assert config.models.lite.speech.phonemes == config.models.lite.phonemes.phonemes == INVENTORY_SIZE
    assert {SYMBOLS[number] for number in BILABIALS} == {"p", "b", "m"}


def test_track_has_each_phoneme_at_its_time() -> None:
    track = phoneme_track([Phoneme("p", 1, 0.1, 0.2), Phoneme("a", 5, 0.2, 0.5)], 20)
    assert track[:5].tolist() == [0] * 5
    assert track[5:10].tolist() == [1] * 5
    assert track[10:].tolist() == [5] * 10


def heard(track: np.ndarray, certainty: float = 0.9) -> np.ndarray:
    """Log-probabilities of a recogniser that is right with that certainty."""
    chances = np.full((len(track), INVENTORY_SIZE), (1 - certainty) / (INVENTORY_SIZE - 1), np.float32)
    chances[np.arange(len(track)), track] = certainty
    return np.log(chances)


def test_times_are_found_again() -> None:
    track = np.repeat([0, 7, 7, 0, 12, 3], [10, 4, 0, 6, 5, 8])
    found = align_phonemes(heard(track), [7, 12, 3])
    assert [(round(p.start * 50), round(p.end * 50)) for p in found] == [(10, 14), (20, 25), (25, 33)]


def test_times_survive_sounds_that_were_misheard_and_hours_of_text() -> None:
    random = np.random.default_rng(1)
    ids = random.integers(1, 80, 4000)
    lengths = random.integers(2, 6, 4000)
    track = np.repeat(ids, lengths)
    wrong = track.copy()
    wrong[random.random(len(track)) < 0.3] = 99
    found = align_phonemes(heard(wrong, 0.5), ids)
    errors = np.abs(np.array([p.start for p in found]) - np.concatenate([[0], np.cumsum(lengths)[:-1]]) / 50)
    assert np.median(errors) <= 0.02
    assert np.percentile(errors, 95) < 0.1


def test_a_sound_too_short_for_its_text_is_refused() -> None:
    with pytest.raises(InputError, match="too short"):
        align_phonemes(heard(np.zeros(5, int)), [1, 2, 3, 4, 5, 6])


def test_posteriors_do_not_depend_on_how_the_sound_is_cut() -> None:
    torch.manual_seed(0)
    model = PhonemeRecogniser(width=16, blocks=2).eval()
    features = np.random.default_rng(0).standard_normal((250, 5, 384)).astype(np.float32)
    assert np.allclose(model.posteriors(features, chunk=60), model.posteriors(features), atol=1e-4)
    assert np.allclose(np.exp(model.posteriors(features)).sum(axis=1), 1, atol=1e-4)


def test_texts_of_every_language_do_not_end() -> None:
    for language in ("en", "zh", "ja", "fr", "de", "es"):
        source = texts(language, np.random.default_rng(0))
        assert len({next(source) for _ in range(100)}) > 60


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few seconds of English and Spanish by one voice each, another voice for validation."""
    folder = tmp_path_factory.mktemp("corpus")
    encoder = SpeechEncoder.from_pretrained(REPO / "pretrained" / "whisper_tiny_en_encoder")
    engine = EspeakEngine()
    for split, variant in (("train", "m3"), ("val", "f2")):
        for language in ("en", "es"):
            shard = Shard(
                f"{language}-espeak-{variant}", language, 6.0,
                lambda text, random, spoken=language, v=variant: engine.speak_variant(text, spoken, v),
            )  # fmt: skip
            make_shard(shard, folder / split, encoder, altered=False)
    return folder


def training_config(corpus: Path, *more: str) -> Config:
    settings = (
        "size=debug", f"training.phonemes.corpus={corpus}", "training.phonemes.max_steps=60",
        "training.phonemes.validate_every=30", "training.phonemes.batch_size=4", "training.phonemes.warmup_steps=5",
        "training.phonemes.learning_rate=0.005", "training.common.num_workers=0",
    )  # fmt: skip
    return load_config(REPO / "model_config.yaml", [*settings, *more])


def test_training_learns_to_hear_phonemes_and_exports(corpus: Path, tmp_path: Path) -> None:
    trainer = Trainer(training_config(corpus), make_stage("phonemes"), tmp_path, torch.device("cpu"))
    trainer.run()
    model = load_pretrained(PhonemeRecogniser, tmp_path / "debug" / "phonemes" / "export")
    features = np.load(corpus / "train" / "en-espeak-m3" / "features.npy")
    track = np.load(corpus / "train" / "en-espeak-m3" / "phonemes.npy")
    right = (model.posteriors(features).argmax(axis=1) == track)[track != SILENCE].mean()
    most_common = np.bincount(track[track != SILENCE]).max() / np.count_nonzero(track)
    assert right > 2 * most_common


def test_training_without_a_corpus_says_how_to_make_one(tmp_path: Path) -> None:
    stage = make_stage("phonemes")
    stage.build(training_config(tmp_path / "nothing"), torch.device("cpu"))
    with pytest.raises(InputError, match="data.synthesise"):
        stage.train_batches()


@pytest.mark.parametrize("language", ["en", "zh", "fr", "de", "es"])
def test_shipped_recogniser_hears_a_voice_it_was_not_trained_on(language: str, recogniser: PhonemeRecogniser) -> None:
    import soxr

    texts_of = {
        "en": "Please bring the big map to the library.", "zh": "请把地图带到图书馆来。",
        "fr": "Apportez la grande carte à la bibliothèque.", "de": "Bitte bringen Sie die große Karte mit.",
        "es": "Por favor, traiga el mapa grande a la biblioteca.",
    }  # fmt: skip
    speech = EspeakEngine().speak_variant(texts_of[language], language, "m2")
    encoder = SpeechEncoder.from_pretrained(REPO / "pretrained" / "whisper_tiny_en_encoder")
    features = encoder.features(soxr.resample(speech.samples, speech.rate, SAMPLE_RATE))
    track = phoneme_track(speech.phonemes, len(features))
    found = recogniser.posteriors(features)
    assert (found.argmax(axis=1) == track).mean() > 0.5
    times = align_phonemes(found, [p.id for p in speech.phonemes])
    errors = [abs(a.start - b.start) for a, b in zip(times, speech.phonemes, strict=True)]
    assert np.median(errors) < 0.04


@pytest.fixture(scope="module")
def recogniser() -> PhonemeRecogniser:
    folder = REPO / "pretrained" / "lite" / "phonemes"
    if not (folder / "config.json").is_file():
        pytest.skip(f"no trained phoneme recogniser at {folder}: run trainer.py --stage phonemes")
    return load_pretrained(PhonemeRecogniser, folder)
