"""Lips meet at p, b and m where only a sound is given and nobody knows its text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audio_processor import SAMPLE_RATE, load_audio
from engines.lite.model import LipSyncModel
from evaluation.reading import look
from faces.mouth_shape import SHAPE_POINTS, mouth_opening
from language_processor import LanguageProcessor, SpokenText
from models.phonemes import BILABIALS, VOWELS, Phoneme, phoneme_track
from pipeline import LipSyncPipeline
from pipeline.options import Options
from tests.conftest import REPO
from utils.config import load_config

TEXT = "My mama bought a big map, and Bob may keep it by the lamp."


@pytest.fixture(scope="module")
def said(lite_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Phoneme, ...]]:
    """A sound, and what is said in it when."""
    sound = tmp_path_factory.mktemp("said") / "said.wav"
    language = LanguageProcessor(lite_weights.parent, lite_weights / "phonemes")
    return sound, tuple(language.speak_to_file(SpokenText(TEXT, "en", "espeak-female"), sound).phonemes)


def test_what_is_heard_is_what_is_said(lite_weights: Path, said: tuple[Path, tuple[Phoneme, ...]]) -> None:
    model, samples = LipSyncModel.load(lite_weights.parent), load_audio(said[0], SAMPLE_RATE)
    alone, known = model.hear_lazily(samples), model.hear_lazily(samples, said[1])
    met, truth = model.lips_met(alone, 0, len(alone)), model.lips_met(known, 0, len(known))
    track = phoneme_track(said[1], len(alone))
    assert set(np.unique(truth)) == {0, 1} and met.min() >= 0 and met.max() <= 1
    assert met[truth == 1].mean() > 0.7 and met[np.isin(track, list(VOWELS))].mean() < 0.1
    np.testing.assert_allclose(model.lips_met(alone, 60, 75), met[60:75], atol=1e-3)
    assert model.lips_met(model.hear_live(iter([samples]), 5), 0, 10) is None


@pytest.mark.parametrize("closing", [1.0, 0.0])
def test_lips_meet_in_the_picture(
    closing: float, said: tuple[Path, tuple[Phoneme, ...]], example_portrait: Path, tmp_path: Path
) -> None:
    config = load_config(REPO / "model_config.yaml", [f"inference.lip_closing={closing}"])
    LipSyncPipeline.load(config).run(example_portrait, said[0], tmp_path / "x.mp4", Options(crf=14))
    seen = look(tmp_path / "x.mp4", config)
    opening = mouth_opening(seen.points[:, SHAPE_POINTS])
    opening = (opening - opening.min()) / (np.percentile(opening, 95) - opening.min())
    least = [_near(opening, sound, seen.first).min() for sound in said[1] if sound.id in BILABIALS]
    most = [_near(opening, sound, seen.first).max() for sound in said[1] if sound.id in VOWELS]
    assert (np.mean(np.array(least) < 0.35) > 0.85) == (closing > 0)
    assert np.mean(np.array(most) > 0.35) > 0.7  # and vowels stay open


def _near(opening: np.ndarray, sound: Phoneme, first: int) -> np.ndarray:
    """The opening in the frames of a sound."""
    begin = max(round(sound.start * 25) - first, 0)
    return opening[begin : max(round(sound.end * 25) - first, begin) + 1]
