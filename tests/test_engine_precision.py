"""What the public engines do on a GPU, as far as a CPU can do it too: memory order, 16-bit numbers, tiles."""

from __future__ import annotations

import importlib
from functools import partial

import numpy as np
import pytest
import torch

from engines.base import Engine, Style
from engines.public import as_on_a_gpu, placed
from engines.vae import decode, make_vae
from pipeline.lip_sync import load_engine
from pipeline.speed import _frame
from tests.conftest import REPO
from tests.public_weights import TINY_VAE, write_public_weights
from utils.config import Config, load_config

CPU = torch.device("cpu")
NAMES = ["latentsync-1.5", "musetalk-1.5", "wav2lip"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    shelf = write_public_weights(tmp_path_factory.mktemp("engine_weights"))
    return load_config(REPO / "model_config.yaml", [f"inference.engine_weights={shelf}"])


def pictures(engine: Engine) -> np.ndarray:
    """What an engine makes of a frame (1, H, W, 3), float64 in grey levels."""
    sound = np.random.default_rng(0).normal(0, 0.2, 16000).astype(np.float32)
    frames = [_frame(engine, 0.3)]
    drawn = engine.painter("anybody", engine.hear(sound), Style(steps=1, guidance=1.0))(frames)
    assert drawn.dtype == np.float32 and np.isfinite(drawn).all()
    return engine.render(frames, drawn).astype(np.float64)


@pytest.mark.parametrize("name", NAMES)
def test_memory_order_changes_nothing_and_16_bit_numbers_little(
    name: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"engines.{name.split('-')[0]}.engine")
    usual = pictures(load_engine(name, config, CPU))
    placings = []

    def place(dtype: torch.dtype, network: torch.nn.Module, device: torch.device, compiled: bool = False):  # noqa: ANN202
        placings.append(dtype)
        return as_on_a_gpu(network, device, dtype)

    for dtype, most in ((torch.float32, 0.05), (torch.bfloat16, 4.0)):
        monkeypatch.setattr(module, "placed", partial(place, dtype))
        made = pictures(load_engine(name, config, CPU))
        assert made.shape == usual.shape and np.abs(made - usual).mean() < most, dtype
    assert placings and {torch.float32, torch.bfloat16} == set(placings)


def test_convolutions_lie_in_the_order_and_format_that_was_asked_for() -> None:
    network = as_on_a_gpu(make_vae(TINY_VAE), CPU, torch.bfloat16)
    weight = network.encoder.conv_in.weight
    assert weight.dtype == torch.bfloat16 and weight.is_contiguous(memory_format=torch.channels_last)
    assert not any(parameter.requires_grad for parameter in network.parameters()) and not network.training


def test_a_large_picture_in_tiles_is_nearly_the_whole_one() -> None:
    torch.manual_seed(0)
    vae = placed(make_vae(TINY_VAE), CPU)
    # A pattern that repeats: the network's normalisation depends on all that it sees, and each tile sees the same.
    latents = torch.randn(1, 4, 8, 8).repeat(1, 1, 8, 5)
    whole = decode(vae, latents)
    vae.enable_tiling()
    tiled = decode(vae, latents)
    assert tiled.shape == whole.shape == (1, 3, 512, 320) and not torch.equal(tiled, whole)  # tiles were used
    assert torch.corrcoef(torch.stack([whole.flatten(), tiled.flatten()]))[0, 1] > 0.9
