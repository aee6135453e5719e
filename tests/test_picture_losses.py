"""What makes pictures sharp: the perceptual difference, the patch discriminator, and who learns from them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.autoencoder import PatchDiscriminator
from training.adversary import fooling_losses, telling_loss
from training.autoencoder import AutoencoderStage
from training.perceptual import PerceptualDifference
from utils.config import load_config
from utils.helpers import InputError

CONFIG = Path(__file__).resolve().parent.parent / "model_config.yaml"
CPU = torch.device("cpu")


class Edges(nn.Module):
    """A stand-in for a network's stages: edges of the picture at two sizes."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        small = F.avg_pool2d(images, 2)
        return images[..., 1:] - images[..., :-1], small[..., 1:] - small[..., :-1]


@pytest.fixture
def edges(tmp_path: Path) -> Path:
    path = tmp_path / "edges.pt"
    torch.jit.script(Edges()).save(str(path))
    return path


def noise(seed: int, side: int = 32) -> torch.Tensor:
    return torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_blur_is_far_in_features_and_a_copy_is_not(edges: Path) -> None:
    difference, real = PerceptualDifference(edges, CPU), noise(0)
    blurred = F.avg_pool2d(F.pad(real, [1] * 4, mode="reflect"), 3, 1).requires_grad_()
    darker = real - 0.1
    assert difference(real, real) == 0
    assert difference(blurred, real) > 10 * difference(darker, real)
    difference(blurred, real).backward()
    assert blurred.grad.abs().sum() > 0


@pytest.mark.parametrize("path", [None, Path("no/such/file.pt")])
def test_a_missing_network_is_one_sentence(path: Path | None) -> None:
    with pytest.raises(InputError, match="tools/perceptual_network.py"):
        PerceptualDifference(path, CPU)


def test_each_side_of_the_game_trains_only_itself() -> None:
    discriminator = PatchDiscriminator(8)
    real, drawn = noise(0), noise(1).requires_grad_()
    sum(fooling_losses(discriminator, drawn, real)).backward()
    assert drawn.grad.abs().sum() > 0
    assert all(p.grad is None for p in discriminator.parameters())
    drawn.grad = None
    telling_loss(discriminator, drawn, real).backward()
    assert drawn.grad is None
    assert all(p.grad is not None for p in discriminator.parameters())


def test_the_discriminator_learns_to_tell_blurred_pictures() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(8)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-3)
    for step in range(60):
        real = noise(step)
        loss = telling_loss(discriminator, F.avg_pool2d(real, 5, 1, 2), real)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unseen = noise(1000)
    fooling, matching = fooling_losses(discriminator, F.avg_pool2d(unseen, 5, 1, 2), unseen)
    copied, none = fooling_losses(discriminator, unseen, unseen)
    assert fooling > copied + 0.5  # blurred pictures do not pass for real ones
    assert matching > none == 0


def test_the_decoder_can_be_trained_alone() -> None:
    """Latents then stay what a trained generator knows, to the last bit."""
    torch.manual_seed(0)
    stage = AutoencoderStage()
    changes = ["size=debug", "training.autoencoder.decoder_only=true", "training.autoencoder.adversarial_from_step=0"]
    stage.build(load_config(CONFIG, changes), CPU)
    pictures = noise(0)
    latents, decoded = stage.model.encode(pictures), stage.model(pictures)
    optimizer = torch.optim.AdamW(stage.parameter_groups(), lr=1e-2)
    for step in range(3):
        losses = stage.training_step({"frames": pictures, "weights": torch.ones(4, 1, 32, 32)}, step)
        optimizer.zero_grad()
        (losses["loss"] + losses["loss_discriminator"]).backward()
        optimizer.step()
    stage.finish()
    assert torch.equal(stage.model.encode(pictures), latents)
    assert not torch.allclose(stage.model(pictures), decoded, atol=1e-3)
