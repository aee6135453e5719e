"""Networks run by OpenVINO: the pictures of PyTorch, kept in the cache, made again where that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from engines.base import Style
from engines.lite.model import LipSyncModel, Running, Seen
from faces.bank import MouthBank, MouthPicker, lips_of, mouth_of
from faces.mouth_shape import mouth_opening
from latent_diffusion import LIPS_PX
from models.autoencoder import MouthAutoencoder
from models.openvino_networks import OpenVinoNetworks
from tests.processed import resting_mouth
from utils.user_cache import user_cache

FRAMES = 6


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "lipsync" / "networks"


@pytest.fixture(scope="module")
def autoencoder() -> MouthAutoencoder:
    torch.manual_seed(0)
    return MouthAutoencoder(16).eval()


class _Unet(torch.nn.Module):
    """Frames influence each other, as in the real one."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Conv3d(44, 16, 3, padding=1)

    def forward(
        self, stacked: torch.Tensor, timestep: torch.Tensor, tokens: torch.Tensor, return_dict: bool
    ) -> tuple[torch.Tensor]:
        return (self.mix(stacked) + timestep.view(-1, 1, 1, 1, 1) / 1000 + tokens.mean(),)


def networks(autoencoder: MouthAutoencoder, unet: torch.nn.Module) -> OpenVinoNetworks:
    return OpenVinoNetworks(autoencoder, unet, (44, 4, 32), FRAMES)


def test_results_are_those_of_pytorch_for_any_number_of_frames(cache: Path, autoencoder: MouthAutoencoder) -> None:
    unet = _Unet().eval()
    made = networks(autoencoder, unet)
    for frames in (1, 4, FRAMES):
        # Smooth, as photographs are: the ranges of the integers are made for them.
        pictures = functional.interpolate(torch.rand(frames, 3, 12, 12) * 2 - 1, scale_factor=8, mode="bicubic")
        latents = autoencoder.encode(pictures).detach()
        stacked, tokens = torch.randn(1, 44, frames, 12, 12), torch.randn(frames, 4, 32)
        with torch.no_grad():
            expected = autoencoder.encode(pictures), autoencoder.decode(latents)
            drawn = unet(stacked, torch.tensor([500.0]), tokens, False)[0]
        for found, wanted in zip((made.encode(pictures), made.decode(latents)), expected, strict=True):
            assert found.shape == wanted.shape
            assert (found - wanted).square().mean().sqrt() < 0.03 * wanted.std()
        found = made.difference(stacked, torch.tensor([500.0]), tokens)
        assert found.shape == drawn.shape
        if frames == FRAMES:
            assert (found - drawn).square().mean().sqrt() < 0.03 * drawn.std()
    with pytest.raises(ValueError, match="takes one of 6"):
        made.difference(torch.zeros(1, 44, 7, 12, 12), torch.zeros(1), torch.zeros(7, 4, 32))


def test_the_cache_spares_the_making_and_follows_the_weights(
    cache: Path, autoencoder: MouthAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, unet = torch.rand(2, 3, 96, 96), _Unet().eval()
    first = networks(autoencoder, unet).encode(pictures)
    networks(autoencoder, unet).difference(torch.zeros(1, 44, 1, 12, 12), torch.zeros(1), torch.zeros(1, 4, 32))
    kept = sorted(cache.iterdir())
    assert [file.name.split("-")[0] for file in kept] == ["decode", "encode", "unet"]
    with monkeypatch.context() as patch:
        patch.setattr("models.openvino_networks._converted", _must_not_be_called)
        assert torch.equal(networks(autoencoder, unet).encode(pictures), first)
    other = MouthAutoencoder(16).eval()
    assert not torch.equal(networks(other, unet).encode(pictures), first)
    kept[1].write_bytes(kept[1].read_bytes()[:1000])
    assert torch.equal(networks(autoencoder, unet).encode(pictures), first)


def _must_not_be_called(*_: object) -> None:
    raise AssertionError("made again although it is in the cache")


def test_without_a_place_for_the_cache_it_works_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autoencoder: MouthAutoencoder
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert user_cache("networks") is None
    assert networks(autoencoder, _Unet().eval()).encode(torch.zeros(1, 3, 96, 96)).shape == (1, 16, 12, 12)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache("networks") == tmp_path / ".cache" / "lipsync" / "networks"


@pytest.fixture(scope="module")
def scene() -> Callable[[LipSyncModel], np.ndarray]:
    """A model's mouths in a smooth picture."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:160, :160] / 160
    picture = np.stack([120 + 60 * rows, 100 + 40 * columns, 90 + 30 * rows], -1)
    window = np.stack([picture + shift for shift in range(16)]).astype(np.uint8)
    points = np.repeat(resting_mouth()[None], 16, axis=0).astype(np.float32)
    points[:, :, 1] += np.linspace(0, 3, 16)[:, None]
    samples = random.normal(size=16000).astype(np.float32) * 0.1

    def draw(model: LipSyncModel) -> np.ndarray:
        nothing = np.zeros((16, 3), np.float32)
        mouths = [mouth_of(window[0], points[0], 0 * points[0], np.zeros(10, np.float32), nothing[0])] * 2
        picks = MouthPicker().pick(MouthBank(tuple(mouths)), lips_of(points - points[:1]), nothing)
        seen = Seen(window, points[[0] * 16], float(mouth_opening(points[:1])[0]))
        drafts = model.draft(seen, points, picks, np.ones(16, np.float32))
        times = 0.1 + np.arange(16) / 25
        latents = model.draw(drafts, model.face_tokens(mouths), model.hear(samples), times, Style())
        return model.render(drafts, latents)[:, LIPS_PX[0], LIPS_PX[1]]

    return draw


def test_no_visible_loss_with_the_embedded_weights(
    cache: Path, lite_weights: Path, scene: Callable[[LipSyncModel], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = scene(LipSyncModel.load(lite_weights.parent, running=Running("openvino")))
    # Two ways indeed, also where the CPU has single precision only and both give the same pictures.
    assert {file.name.split("-")[0] for file in cache.iterdir()} == {"decode", "encode", "unet"}
    monkeypatch.setattr("engines.lite.model.fast_dtype", lambda device: torch.float32)
    monkeypatch.setattr("models.networks.fast_dtype", lambda device: torch.float32)
    monkeypatch.setattr("models.openvino_networks._network", _must_not_be_called)
    exact = scene(LipSyncModel.load(lite_weights.parent))
    error = (fast.astype(np.float32) - exact) ** 2
    assert 10 * np.log10(255**2 / error.mean()) > 38
