"""The measurement of the languages: what counts as closed lips, which people are taken, and a run from end to end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from evaluation import languages
from evaluation.languages import SENTENCES, Closures, closures
from language_processor import LANGUAGES
from models.phonemes import SYMBOLS, Phoneme
from tests import footage
from tests.tiny_weights import tiny_config


def said(symbol: str, start: float, end: float) -> Phoneme:
    return Phoneme(symbol, SYMBOLS.index(symbol), start, end)


def test_every_language_has_twenty_sentences_with_lips_that_meet() -> None:
    for code in LANGUAGES:
        texts = (SENTENCES / f"{code}.txt").read_text(encoding="utf-8").splitlines()
        assert len(set(texts)) == 20 and all(text == text.strip() != "" for text in texts)


def test_lips_count_as_closed_below_a_quarter_of_the_vowels_opening() -> None:
    times = np.arange(20) / 25
    spoken = [said("a", 0.0, 0.2), said("m", 0.2, 0.3), said("a", 0.3, 0.5), said("p", 0.5, 0.6), said("s", 0.6, 0.8)]
    gaps = np.where(times < 0.5, 9.0, 4.0)
    gaps[6] = 1.9  # at m: below (9 - 1) / 4 + 1 and below 9 / 4
    assert closures(gaps, 1.0, times, spoken) == Closures(closed=1, raw=1, count=2)
    gaps[6] = 2.9  # closed by the opening above the mesh's zero, but not by the gap as it is
    assert closures(gaps, 1.0, times, spoken) == Closures(closed=1, raw=0, count=2)
    gaps[6] = 3.5
    assert closures(gaps, 1.0, times, spoken) == Closures(closed=0, raw=0, count=2)
    assert closures(gaps, 1.0, times, spoken[1:2]) == Closures()


def test_a_result_is_made_spoken_and_measured(
    tiny_weights: Path, lite_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(tiny_weights, weights, symlinks=True, ignore=shutil.ignore_patterns("phonemes"))
    (weights / "debug" / "syncnet_judge").symlink_to(lite_weights / "syncnet_judge")
    (weights / "debug" / "phonemes").symlink_to(lite_weights / "phonemes")
    faces = tmp_path / "faces"
    faces.mkdir()
    footage.make_video(faces / "anna.mp4", seconds=2.0)
    monkeypatch.setattr(languages, "SENTENCES", tmp_path)
    (tmp_path / "de.txt").write_text("Mama mag Papa.\nBob kommt am Abend.\n", encoding="utf-8")
    run = ["--faces", str(faces), "--languages", "de", "--videos", "1", "--output", str(tmp_path / "made")]
    config = str(tiny_config(tmp_path, weights))
    assert languages.main([*run, "--json", str(tmp_path / "found.json"), "--config", config]) == 0
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert row["sentences"] == 2 and row["names"] == ["espeak-female", "espeak-male"]
    assert row["asked_for"]["count"] == 10 and row["text"]["closed"]["count"] == 5
    assert row["sound"] is None and row["wer"] is None and len(row["text"]["offsets"]) == 1
