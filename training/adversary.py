"""The game with a patch discriminator, shared by the stages that draw pictures."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from models.autoencoder import PatchDiscriminator


def fooling_losses(
    discriminator: PatchDiscriminator, drawn: torch.Tensor, real: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The drawing side of the game; no gradient reaches the discriminator.

    Args:
        discriminator: of patches.
        drawn: pictures to be taken for real (B, 3, H, W) in [-1, 1].
        real: the pictures that they stand for, same shape.

    Returns:
        How little the drawn patches are taken for real, and how far the discriminator's features of the drawn pictures
        are from those of the real ones (feature matching, Salimans et al. 2016).
    """
    discriminator.requires_grad_(False)
    scores, features = discriminator.score(drawn)
    with torch.no_grad():
        _, wanted = discriminator.score(real)
    discriminator.requires_grad_(True)
    matching = [F.l1_loss(a.float(), b.float()) for a, b in zip(features, wanted, strict=True)]
    return -scores.float().mean(), torch.stack(matching).mean()


def telling_loss(discriminator: PatchDiscriminator, drawn: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """The discriminator's side: hinge loss on the patch scores of real and drawn pictures (B, 3, H, W)."""
    told_real, told_drawn = discriminator(real).float(), discriminator(drawn.detach()).float()
    return 0.5 * (F.relu(1 - told_real).mean() + F.relu(1 + told_drawn).mean())
