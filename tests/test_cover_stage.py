"""Training of the network that sees covered mouths: which windows it looks at, and that it can be used afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.cover import main as measure
from faces.mouth_shape import SHAPE_POINTS
from models.cover import CoverJudge, MouthCover
from tests.conftest import REPO
from tests.processed import make_processed, resting_mouth, write_clip
from trainer import main as train
from training.cover import CoverSampler
from utils.config import Config, load_config

ASIDE = (0, 255, 0)


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People who look ahead, and one of another colour who looks aside."""
    root = make_processed(tmp_path_factory.mktemp("cover"), people=2, clips=1)
    for split in ("train", "val"):
        write_clip(root / split / "aside", f"{split}aside", np.array(ASIDE), 40, np.random.default_rng(5))
        for folder in (root / split).iterdir():
            _place_mouth(folder / "tracks.npz", 30.0 if folder.name == "aside" else 0.0)
    return root


def _place_mouth(file: Path, yaw: float) -> None:
    tracks = dict(np.load(file))
    tracks["points"][:, SHAPE_POINTS] = resting_mouth()
    tracks["pose"][:, 0] = yaw
    np.savez(file, **tracks)


def configured(processed: Path, *overrides: str) -> Config:
    return load_config(REPO / "model_config.yaml", [f"data.processed_dir={processed}", *overrides])


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0.2, 0.5), (1.0, 1.0, 1.0)])
def test_as_many_turned_heads_as_asked(processed: Path, share: float, least: float, most: float) -> None:
    config = configured(processed, f"training.cover.turned_share={share}", "training.cover.things_share=0")
    sampler, random = CoverSampler(config, "train"), np.random.default_rng(0)
    windows = [sampler.draw(random)["windows"] for _ in range(60)]
    green = np.mean([bool(w[1].mean() > max(w[0].mean(), w[2].mean()) + 0.8) for w in windows])
    assert least <= green <= most


def test_the_stage_leaves_a_network_that_judges(processed: Path, tmp_path: Path) -> None:
    steps = ["max_steps=4", "validate_every=4", "batch_size=4", "width=8", "common.num_workers=0"]
    options = [part for step in steps for part in ("--set", f"training.{step}")]
    run = ["--config", str(REPO / "model_config.yaml"), "--size", "debug", "--stage", "cover"]
    where = ["--set", f"data.processed_dir={processed}", "--output", str(tmp_path), "--device", "cpu"]
    assert train([*run, *where, *options]) == 0
    judge = CoverJudge(tmp_path / "debug" / "cover" / "export")
    chance = judge(np.full((160, 160, 3), 128, np.uint8))
    assert 0 <= chance <= 1


def test_the_measure_tells_a_network_that_always_sees_something(
    processed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = []
    for name, bias in (("never", -20.0), ("always", 20.0)):
        network = MouthCover(8)
        torch.nn.init.zeros_(network.head[-1].weight)
        torch.nn.init.constant_(network.head[-1].bias, bias)
        network.save_pretrained(tmp_path / name)
        assert measure(["--processed", str(processed), "--weights", str(tmp_path / name)]) == 0
        tables.append(json.loads(capsys.readouterr().out))
    never, always = tables
    assert never["free"]["ahead"] == never["free"]["turned"] == 0 and always["free"]["ahead"] == 1
    assert never["free"]["turned_windows"] == 14 and never["free"]["ahead_windows"] == 28
    assert sum(count for name, count in never["covered"].items() if name.endswith("_windows")) > 35
    assert {share for name, share in always["covered"].items() if not name.endswith("_windows")} == {1.0}
    assert measure(["--processed", str(processed), "--weights", str(tmp_path / "none")]) == 2
