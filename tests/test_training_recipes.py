"""The commands of docs/training.md can be given: every resolved value is printed, nothing is missing."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from data import preprocess
from latent_diffusion import LatentLipDiffusion
from models.autoencoder import MouthAutoencoder
from models.speech_model import SpeechModel
from models.syncnet import SyncNetV2
from trainer import main
from utils.config import load_config

REPO = Path(__file__).resolve().parent.parent
TEXT = (REPO / "docs" / "training.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S) for line in block.strip().splitlines()]
TRAINER = [command for command in COMMANDS if "trainer.py" in command]


class Features(nn.Module):
    """Stands in for the network of the perceptual difference."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
        return (images,)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as after the first commands of the recipe: random weights of the size `base` under runs/."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "model_config.yaml").write_text((REPO / "model_config.yaml").read_text(encoding="utf-8"))
    (folder / "pretrained").symlink_to(REPO / "pretrained")
    sizes = load_config(REPO / "model_config.yaml", ["size=base"]).model
    speech = sizes.speech.model_dump()
    networks = {
        "base/autoencoder": MouthAutoencoder(**sizes.autoencoder.model_dump()),
        "base/syncnet": SyncNetV2(**sizes.syncnet.model_dump()),
        "base/syncnet_shapes": SyncNetV2(**sizes.syncnet_shapes.model_dump()),
        "first/base/syncnet": SyncNetV2(**sizes.syncnet.model_dump()),
        "base/speech": SpeechModel(**speech),
        "base/fusion": SpeechModel(**speech),
        "pictures/base/generator": LatentLipDiffusion(speech_settings=speech, **sizes.generator.model_dump()),
    }
    for name, network in networks.items():
        network.half().save_pretrained(folder / "runs" / name / "export")
    torch.jit.script(Features()).save(str(folder / "runs" / "perceptual.pt"))
    return folder


def test_the_recipe_trains_every_stage() -> None:
    stages = re.findall(r"--stage (\w+)", " ".join(TRAINER))
    wanted = {"autoencoder", "syncnet", "syncnet_judge", "syncnet_shapes", "speech", "fusion", "movement", "generator"}
    assert wanted <= set(stages)
    assert any(command.startswith("torchrun") for command in TRAINER)


@pytest.mark.parametrize("command", TRAINER, ids=lambda command: re.search(r"--stage (\w+)", command)[1])
def test_dry_run(
    command: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    arguments = shlex.split(command)
    assert main([*arguments[arguments.index("trainer.py") + 1 :], "--device", "cpu", "--dry-run"]) == 0
    choices = json.loads(capsys.readouterr().out)
    assert choices["size"] == "base"
    assert choices["parameters"]["model"] > 1e6


def test_several_processes(workplace: Path) -> None:
    """The command for several GPUs, with two processes on the processor."""
    command = next(c for c in TRAINER if c.startswith("torchrun") and "--stage autoencoder" in c)
    arguments = shlex.split(command)[shlex.split(command).index("trainer.py") + 1 :]
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29577"]
    ended = subprocess.run(
        [*start, str(REPO / "trainer.py"), *arguments, "--device", "cpu", "--dry-run"],
        cwd=workplace, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert '"processes": 2' in ended.stdout


@pytest.mark.parametrize("command", [command for command in COMMANDS if "preprocess.py" in command])
def test_preprocessing_knows_the_options(command: str) -> None:
    arguments = shlex.split(command)
    options = preprocess.parse_arguments(arguments[arguments.index("data/preprocess.py") + 1 :])
    assert options.raw_data_dir == Path("raw_dataset")
