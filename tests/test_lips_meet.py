"""Lips meet at p, b and m where only a sound is given and nobody knows its text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audio_processor import SAMPLE_RATE, load_audio
from engines.lite.model import LipSyncModel
from evaluation.reading import look
from faces.mouth_shape import SHAPE_POINTS, mouth_opening, mouth_width
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


def test_lips_meet_in_the_picture(
    said: tuple[Path, tuple[Phoneme, ...]], example_portrait: Path, tmp_path: Path
) -> None:
    """And most vowels that are open without that stay open."""
    meet, apart = (shares(closing, said, example_portrait, tmp_path / f"{closing}.mp4") for closing in (1.0, 0.0))
    assert meet[0] > 0.85 > apart[0]
    assert meet[1] > 0.6 and meet[1] > apart[1] - 0.25


def test_lips_part_further_where_that_is_asked(
    said: tuple[Path, tuple[Phoneme, ...]], example_portrait: Path, tmp_path: Path
) -> None:
    """`inference.opening_gain`: the corners of the mouth move as before."""
    seen = []
    for gain in (0.6, 1.3):
        config = load_config(REPO / "model_config.yaml", [f"inference.opening_gain={gain}"])
        LipSyncPipeline.load(config).run(example_portrait, said[0], tmp_path / f"{gain}.mp4", Options())
        points = look(tmp_path / f"{gain}.mp4", config).points[:, SHAPE_POINTS]
        seen.append((mouth_opening(points).std(), mouth_width(points).std()))
    (calm, narrow), (far, wide) = seen
    assert far > 1.4 * calm and 0.7 < wide / narrow < 1.4


def shares(closing: float, said: tuple[Path, tuple[Phoneme, ...]], portrait: Path, result: Path) -> tuple[float, float]:
    """Of p, b and m, how many are closed in a result; of its vowels, how many are open."""
    config = load_config(REPO / "model_config.yaml", [f"inference.lip_closing={closing}"])
    LipSyncPipeline.load(config).run(portrait, said[0], result, Options(crf=14))
    seen = look(result, config)
    opening = mouth_opening(seen.points[:, SHAPE_POINTS])
    opening = (opening - opening.min()) / (np.percentile(opening, 95) - opening.min())
    least = [_near(opening, sound, seen.first).min() for sound in said[1] if sound.id in BILABIALS]
    most = [_near(opening, sound, seen.first).max() for sound in said[1] if sound.id in VOWELS]
    return float(np.mean(np.array(least) < 0.35)), float(np.mean(np.array(most) > 0.35))


def _near(opening: np.ndarray, sound: Phoneme, first: int) -> np.ndarray:
    """The opening in the frames of a sound."""
    begin = max(round(sound.start * 25) - first, 0)
    return opening[begin : max(round(sound.end * 25) - first, begin) + 1]
