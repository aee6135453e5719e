"""The training loop: progress, exact resume, stopping, errors, exports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.autoencoder import MouthAutoencoder
from tests.conftest import REPO
from tests.processed import make_processed
from trainer import main
from training.autoencoder import AutoencoderStage

STEPS = 6
OFTEN = ("--set", "training.common.checkpoint_every_s=0.0001")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_processed(tmp_path_factory.mktemp("processed"), people=2, clips=2, frames=24)


def train(data: Path, output: Path, *extra: str, stage: str = "autoencoder") -> int:
    settings = {
        "data.processed_dir": data, "training.common.num_workers": 0, "training.max_steps": STEPS,
        "training.batch_size": 2, "training.validate_every": 3, "training.warmup_steps": 2,
        "training.precision": "fp32",
    }  # fmt: skip
    if stage == "autoencoder":
        settings |= {"training.crop": 32, "training.adversarial_from_step": 2}
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    place = ["--size", "debug", "--output", str(output), "--device", "cpu"]
    return main(["--stage", stage, *place, *pairs, *extra])


def checkpoint(output: Path, stage: str = "autoencoder") -> dict:
    return torch.load(output / "debug" / stage / "checkpoint.pt", weights_only=True)


def same(one: object, other: object) -> bool:
    """Equal down to the last bit, through dictionaries and lists."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other


def train_with_trouble(data: str, output: str, how: str) -> int:
    """Train in this process, which fails in step 2 or gets a signal during it."""
    original = AutoencoderStage.training_step

    def step_with_trouble(self: AutoencoderStage, batch: dict, number: int) -> dict:
        if number == 2 and how == "crash":
            raise MemoryError("killed")
        if number == 2:
            os.kill(os.getpid(), getattr(signal, how))
        return original(self, batch, number)

    AutoencoderStage.training_step = step_with_trouble
    return train(Path(data), Path(output), *OFTEN)


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing has disturbed."""
    output = tmp_path_factory.mktemp("straight")
    assert train(data, output, *OFTEN) == 0
    return output


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "crash"])
def test_the_same_command_goes_on_exactly(how: str, data: Path, straight: Path, tmp_path: Path) -> None:
    code = "import sys; from tests.test_trainer import train_with_trouble; sys.exit(train_with_trouble(*sys.argv[1:]))"
    command = [sys.executable, "-c", code, str(data), str(tmp_path / "broken"), how]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert ended.returncode == (1 if how == "crash" else 0), ended.stderr
    assert checkpoint(tmp_path / "broken")["step"] == (2 if how == "crash" else 3)
    assert train(data, tmp_path / "broken", *OFTEN) == 0
    undisturbed, resumed = checkpoint(straight), checkpoint(tmp_path / "broken")
    assert resumed["step"] == STEPS
    for part in ("modules", "averages", "optimizer", "random"):
        assert same(undisturbed[part], resumed[part]), part


def test_training_measures_and_exports(data: Path, tmp_path: Path) -> None:
    assert train(data, tmp_path, "--set", "training.validate_every=2") == 0
    run = tmp_path / "debug" / "autoencoder"
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert [record["step"] for record in history] == [2, 4, 6]
    assert all(5 < record["psnr_window"] < 60 for record in history)
    assert {file.name for file in (run / "export").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    loaded = MouthAutoencoder.from_pretrained(run / "export", torch_dtype=torch.float32)
    assert not torch.equal(loaded.latent_std, torch.ones(16))
    assert (run / "validation.png").stat().st_size > 1000
    assert list((run / "logs").glob("events*"))
    assert not list(run.glob(".tmp*")) and not (run / "export.tmp").exists()


def test_starts_from_exported_weights(data: Path, straight: Path, tmp_path: Path) -> None:
    export = straight / "debug" / "autoencoder" / "export"
    frozen = ("--set", "training.learning_rate=1e-12", "--set", "training.max_steps=1")
    assert train(data, tmp_path / "second", "--init", str(export), *frozen) == 0
    first = MouthAutoencoder.from_pretrained(export, torch_dtype=torch.float32)
    begun = checkpoint(tmp_path / "second")["modules"]["model"]
    for name, tensor in first.network.state_dict().items():
        assert torch.allclose(tensor, begun[f"network.{name}"], atol=1e-5)


def test_a_checkpoint_of_another_size_is_named(
    data: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(straight, tmp_path, dirs_exist_ok=True)
    assert train(data, tmp_path, "--set", "models.debug.autoencoder.width=12") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "checkpoint.pt" in message and "[8, 12, 3, 3]" in message and "[12, 12, 3, 3]" in message


def test_a_damaged_checkpoint_is_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "debug" / "autoencoder" / "checkpoint.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a checkpoint")
    assert train(data, tmp_path) == 2
    assert "checkpoint.pt" in capsys.readouterr().err


def test_the_time_budget_ends_training(data: Path, tmp_path: Path) -> None:
    budget = ("--set", "training.max_steps=1000000", "--set", "training.max_minutes=0.02")
    assert train(data, tmp_path, "--set", "training.validate_every=1000000", *budget) == 0
    state = checkpoint(tmp_path)
    assert 1 <= state["step"] < 1000000
    assert state["elapsed"] >= 1.2
    assert (tmp_path / "debug" / "autoencoder" / "export").is_dir()


def test_dry_run_prints_choices_and_leaves_nothing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(data, tmp_path, "--dry-run", "--set", "training.batch_size=5") == 0
    choices = json.loads(capsys.readouterr().out)
    assert choices["stage"] == "autoencoder" and choices["size"] == "debug"
    assert choices["training.autoencoder"]["batch_size"] == 5
    assert choices["data"]["processed_dir"] == str(data)
    assert choices["parameters"]["model"] > 1000
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("setting", ["training.batchsize=2", "training.crop=20", "training.precision=fp8"])
def test_a_wrong_setting_is_named(
    setting: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(data, tmp_path, "--set", setting) == 2
    assert setting.partition("=")[0].removeprefix("training.") in capsys.readouterr().err


def test_missing_data_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "nothing", tmp_path) == 2
    assert "data/preprocess.py" in capsys.readouterr().err
