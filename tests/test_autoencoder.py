"""The autoencoder as a network: sizes, latents, saving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.autoencoder import MouthAutoencoder
from models.checkpoint import load_weights
from training.autoencoder import AutoencoderStage, mouth_weights, psnr, pyramid_difference
from training.common import save_half
from utils.config import load_config
from utils.data_augmentation import colour_jitter
from utils.helpers import InputError

SHIPPED = Path(__file__).resolve().parent.parent / "model_config.yaml"


@pytest.fixture
def small() -> MouthAutoencoder:
    torch.manual_seed(0)
    return MouthAutoencoder(width=8, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))


@pytest.mark.parametrize(("height", "width"), [(160, 160), (96, 96), (64, 128)])
def test_latents_are_eight_times_smaller(small: MouthAutoencoder, height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width) * 2 - 1
    latents = small.encode(images)
    assert latents.shape == (2, 16, height // 8, width // 8)
    assert small.decode(latents).shape == images.shape


def test_latent_statistics_normalise_and_do_not_change_the_picture(small: MouthAutoencoder) -> None:
    images = torch.rand(8, 3, 64, 64) * 2 - 1
    raw, before = small.encode(images), small(images)
    small.set_latent_statistics(raw.mean((0, 2, 3)), raw.std((0, 2, 3)))
    latents = small.encode(images)
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(16), atol=1e-4)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(16), atol=1e-3)
    assert torch.allclose(small(images), before, atol=1e-4)


def test_saved_weights_load_without_other_knowledge(small: MouthAutoencoder, tmp_path: Path) -> None:
    small.set_latent_statistics(torch.arange(16.0), torch.arange(1.0, 17.0))
    save_half(small, tmp_path / "autoencoder")
    loaded = MouthAutoencoder.from_pretrained(tmp_path / "autoencoder", torch_dtype=torch.float32)
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    assert torch.allclose(loaded(images), small(images), atol=0.05)
    assert torch.equal(loaded.latent_mean, torch.arange(16.0))


def test_weights_of_another_size_are_named(small: MouthAutoencoder, tmp_path: Path) -> None:
    save_half(small, tmp_path)
    wider = MouthAutoencoder(width=12, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))
    with pytest.raises(InputError, match=r"size \[.*8.*\] but the model needs \[.*12.*\]"):
        load_weights(wider, tmp_path)
    deeper = MouthAutoencoder(width=8, encoder_blocks=(2, 1, 1), decoder_blocks=(1, 1, 1))
    with pytest.raises(InputError, match="missing in"):
        load_weights(deeper, tmp_path)


def test_no_weights_in_a_folder(small: MouthAutoencoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No weights"):
        load_weights(small, tmp_path)


def test_the_loss_falls() -> None:
    """A hundred steps on four pictures with the real losses, discriminator included: half the loss is gone."""
    stage = AutoencoderStage()
    changes = ["size=debug", "models.debug.autoencoder.width=24", "training.autoencoder.adversarial_from_step=90"]
    torch.manual_seed(0)
    stage.build(load_config(SHIPPED, changes), torch.device("cpu"))
    pictures = F.interpolate(torch.rand(4, 3, 2, 2), size=32, mode="bilinear") * 2 - 1
    batch = {"frames": pictures, "weights": torch.ones(4, 1, 32, 32)}
    optimizer = torch.optim.AdamW(stage.parameter_groups(), lr=3e-3)
    history = []
    for step in range(100):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 10)
        losses = stage.training_step(batch, step)
        optimizer.zero_grad()
        sum(value for name, value in losses.items() if name.startswith("loss")).backward()
        torch.nn.utils.clip_grad_norm_(stage.model.parameters(), 1.0)
        optimizer.step()
        history.append(losses["l1"].item())
    assert "loss_discriminator" in losses
    assert history[-1] < 0.5 * history[0]


def test_edges_count_more_than_brightness() -> None:
    """The same mean error costs more as a blurred edge than as an even shift."""
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[..., ::2] = 0.4
    weights = torch.ones(1, 1, 32, 32)
    shifted = pyramid_difference(stripes + 0.2, stripes, weights)
    blurred = pyramid_difference(torch.full_like(stripes, 0.2), stripes, weights)
    assert blurred > 2 * shifted
    assert pyramid_difference(stripes, stripes, weights) == 0


def test_psnr_of_known_errors() -> None:
    """Values in [-1, 1]: an error of a hundredth of the range is 40 dB."""
    errors = torch.full((2, 3, 8, 8), 0.02**2)
    assert torch.allclose(psnr(errors), torch.tensor([40.0, 40.0]), atol=1e-3)


def test_mouth_weights_peak_at_the_mouth() -> None:
    weights = mouth_weights(3.0)
    assert weights.shape == (160, 160)
    assert weights[92, 80] > 2.9
    assert weights[0, 0] < 1.05
    assert np.allclose(weights[:, 1:], weights[:, :0:-1])


def test_colour_jitter_is_the_same_for_all_frames() -> None:
    frames = np.tile(np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3), (4, 1, 1, 1))
    changed = colour_jitter(frames, np.random.default_rng(0), 0.3)
    assert changed.shape == frames.shape and changed.dtype == np.uint8
    assert (changed != frames).any()
    assert all((frame == changed[0]).all() for frame in changed)
    assert (colour_jitter(frames, np.random.default_rng(0), 0.0) == frames).all()
