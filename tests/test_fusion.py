"""What phonemes add to the sound: the clips' tracks, the stage, and that a sound alone gives what it gave before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from data.phoneme_tracks import Noise, add_tracks
from data.shape_offsets import best_shift
from data.shape_offsets import main as shape_offsets
from evaluation.fusion import main as measure_fusion
from latent_diffusion import LatentLipDiffusion
from models.checkpoint import load_pretrained
from models.phonemes import SYMBOLS
from models.speech_model import SpeechModel
from tests.conftest import REPO
from tests.processed import make_processed
from tools.replace_speech import replace_speech
from trainer import main as train
from training.fusion import CONDITIONS
from utils.config import load_config

CLIPS, FRAMES = 2, 60


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """Clips with phonemes and noise, as after `python -m data.phoneme_tracks`; one clip has a text."""
    root = make_processed(tmp_path_factory.mktemp("said"), people=2, clips=CLIPS, frames=FRAMES)
    meta = root / "train" / "train_0_0" / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"text": "Pam, my mummy."}))
    add_tracks(load_config(REPO / "model_config.yaml"), root, copies=1, decibels=(0.0, 5.0))
    return root


def test_clips_get_the_phonemes_of_their_text_and_noisy_copies(processed: Path) -> None:
    track = np.load(processed / "train" / "train_0_0" / "phonemes.npy")
    assert track.shape == (2 * FRAMES,)
    changes = [track[0], *track[1:][np.diff(track.astype(int)) != 0]]
    assert "".join(SYMBOLS[i] for i in changes if i) == "pæmmaɪmʌmi"
    noisy, clean = (np.load(processed / "val" / "val_1_1" / f"{name}.npy") for name in ("noisy", "speech"))
    assert noisy.shape == (1, *clean.shape[1:])
    assert np.abs(noisy[0].astype(float) - clean[0]).mean() > 0.05


def test_noise_has_the_level_that_is_asked_for(processed: Path) -> None:
    from data.dataset import load_clips

    noise = Noise(load_clips(processed, "train", 5, 25))
    samples = 0.05 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    for kind in ("babble", "noise"):
        added = noise.mixed(samples, 6.0, kind, np.random.default_rng(1)) - samples
        assert 20 * np.log10(samples.std() / added.std()) == pytest.approx(6.0, abs=0.3)


def test_the_stage_learns_phonemes_and_leaves_the_sound_alone(
    processed: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    generator = tiny_weights / "debug" / "generator"
    values = {
        "data.processed_dir": processed, "data.window": 5, "training.common.num_workers": 0, "training.batch_size": 2,
        "training.common.weights_dir": REPO / "pretrained", "training.speech": generator, "training.max_steps": 4,
        "training.validate_every": 2, "training.window_s": 1.0,
    }  # fmt: skip
    options = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    run = ["--config", str(REPO / "model_config.yaml"), "--size", "debug", "--stage", "fusion", "--device", "cpu"]
    assert train([*run, "--output", str(tmp_path), *options]) == 0

    export = tmp_path / "debug" / "fusion" / "export"
    history = [json.loads(line) for line in (export.parent / "history.jsonl").read_text().splitlines()]
    assert {f"gate {name}" for name in CONDITIONS} <= set(history[-1])
    assert history[-1]["gate audio"] == 1 and history[-1]["gate text"] == 0
    before, after = load_pretrained(LatentLipDiffusion, generator).speech, load_pretrained(SpeechModel, export)
    assert after.config.knows_phonemes and not before.config.knows_phonemes
    speech, times = torch.randn(1, 60, 5, 384), torch.arange(20)[None] / 25
    old, new = (model.half().float()(speech, None, times) for model in (before, after))
    torch.testing.assert_close(old.tokens, new.tokens)
    torch.testing.assert_close(old.shape, new.shape)
    assert (before.fusion.embedding.weight.half().float() != after.fusion.embedding.weight).any()

    shipped = tmp_path / "generator"
    load_pretrained(LatentLipDiffusion, generator).save_pretrained(shipped)
    replace_speech(shipped, export)
    assert load_pretrained(LatentLipDiffusion, shipped).speech.config.knows_phonemes


def test_clips_without_phonemes_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_processed(tmp_path, people=1, clips=1)
    options = ["--set", f"data.processed_dir={root}", "--set", f"training.common.weights_dir={REPO / 'pretrained'}"]
    run = ["--config", str(REPO / "model_config.yaml"), "--stage", "fusion", "--device", "cpu"]
    assert train([*run, "--output", str(tmp_path / "runs"), *options]) == 2
    assert "data.phoneme_tracks" in capsys.readouterr().err


def test_a_shift_is_found_where_shapes_and_sound_agree() -> None:
    random = np.random.default_rng(0)
    mouth = np.convolve(random.normal(size=80), np.hanning(7), mode="same")
    valid = np.ones(60, bool)
    assert best_shift(mouth[:68], mouth[6:66], valid, 4) == 2
    assert best_shift(random.normal(size=68), mouth[6:66], valid, 4) == 0


def test_shape_offsets_are_written(processed: Path) -> None:
    assert shape_offsets(["--config", str(REPO / "model_config.yaml"), "--processed", str(processed)]) == 0
    metas = [json.loads(path.read_text()) for path in processed.glob("*/*/meta.json")]
    assert all(isinstance(meta["sync_offset"], int) for meta in metas)
    _, samples = wavfile.read(processed / "train" / "train_0_0" / "audio.wav")
    assert len(samples) == FRAMES * 640


def test_sound_text_and_both_are_measured(
    processed: Path, lite_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(REPO)
    target = tmp_path / "fusion.json"
    assert measure_fusion(["--processed", str(processed / "val"), "--clips", "2", "--json", str(target)]) == 0
    shapes = json.loads(target.read_text())["shapes"]
    assert set(shapes) == {"clean", "babble", "noise", "music"}
    assert shapes["clean"]["sound alone"]["gate"] == 1 and shapes["clean"]["text alone"]["gate"] == 0
    assert all(0 < row["gate"] < 1 for row in (shapes[kind]["both, aligned in it"] for kind in shapes))
    assert all(-1 <= row["opening"] <= 1 for by in shapes.values() for row in by.values())
    assert "Gate: weight of the sound" in capsys.readouterr().out
