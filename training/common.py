"""What every training stage offers to the training loop in `trainer.py`."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter

from models.checkpoint import load_weights
from utils.config import Config
from utils.helpers import atomic_path
from utils.training_config import StageConfig

Batch = dict[str, Any]
Losses = dict[str, torch.Tensor]


class Stage(ABC):
    """One stage of training: its networks, its batches, its losses and its validation.

    The loop calls `build` once, then for each step `training_step` (under autocast), and now and then
    `validate` and `export` with the averaged (EMA) weights in place. The loop owns everything else: optimizer,
    learning rate, precision, gradients, EMA, checkpoints, logs and signals.

    Attributes:
        name: the stage's name on the command line and in `training.<name>` of the configuration.
        model: the network that is exported (a diffusers `ModelMixin`); set by `build`.
        progress: how far training is, 0 to 1, by steps or by the time budget; set by the loop before each step.
        run_dir: where the stage may leave pictures of its validation; set by the loop after `build`.
    """

    name: ClassVar[str]
    model: nn.Module
    config: Config
    device: torch.device
    run_dir: Path
    progress: float = 0.0

    @property
    def settings(self) -> StageConfig:
        """This stage's section of the configuration, `training.<name>`."""
        return getattr(self.config.training, self.name)

    @abstractmethod
    def build(self, config: Config, device: torch.device) -> None:
        """Make the networks on `device`; load frozen ones. Must set `config`, `device` and `model`.

        Raises:
            InputError: something that the stage needs (data, frozen weights) is not there.
        """

    @abstractmethod
    def train_batches(self, rank: int = 0) -> Dataset:
        """A map-style data set: item `step` is the whole batch of that step for process `rank`.

        The batch must depend on nothing but (seed, step, rank), so that a resumed run sees the same data.
        """

    @abstractmethod
    def training_step(self, batch: Batch, step: int) -> Losses:
        """Compute the losses of one batch (already on the device, called under autocast).

        Returns:
            Scalars. "loss", and every key that starts with "loss_", is summed and back-propagated (a loss_* must
            then reach only its own parameters, like a discriminator's); other keys are only logged and must be
            detached.
        """

    @abstractmethod
    def validate(self, step: int, writer: SummaryWriter) -> dict[str, float]:
        """Measure on the validation people; may write pictures. Key "score" (higher is better) picks the best."""

    def modules(self) -> dict[str, nn.Module]:
        """All trained networks by name: optimised, averaged and checkpointed. Default: only `model`."""
        return {"model": self.model}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups; each may carry its own "lr". Default: all trained weights, decay on matrices only."""
        return [group for module in self.modules().values() for group in decay_groups(module)]

    def finish(self) -> None:
        """Called with EMA weights in place before an export, e.g. to measure statistics of the latents."""

    def export(self, directory: Path) -> None:
        """Write `model` in half precision as config.json + safetensors into `directory`."""
        save_half(self.model, directory)

    def initialise(self, directory: Path) -> None:
        """Start from weights exported earlier. Raises InputError when missing or of another size."""
        load_weights(self.model, directory)


def decay_groups(module: nn.Module, **options: Any) -> list[dict[str, Any]]:
    """Split a network's trainable parameters into matrices (with weight decay) and the rest (without)."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": matrices, **options}, {"params": others, "weight_decay": 0.0, **options}]
    return [group for group in groups if group["params"]]


def save_half(model: nn.Module, directory: Path) -> None:
    """Save a float16 copy of a diffusers model as config.json + safetensors."""
    # nn.Module's own `to`: that of diffusers warns about layers kept in float32, and there are none.
    nn.Module.to(copy.deepcopy(model), device="cpu", dtype=torch.float16).save_pretrained(directory)


def save_picture(
    images: torch.Tensor, columns: int, path: Path, title: str, writer: SummaryWriter, step: int
) -> None:
    """Write images as one grid, row after row, to a PNG file and to TensorBoard.

    Args:
        images: (N, 3, H, W) in [-1, 1].
        columns: images in a row; N is a multiple of it.
        path: the PNG file, replaced each time.
        title: name in TensorBoard; also says what the rows are.
    """
    _, channels, height, width = images.shape
    grid = images.reshape(-1, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    grid = grid.reshape(channels, -1, columns * width)
    pixels = ((grid.float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(temporary)
    writer.add_image(title, pixels, step)
