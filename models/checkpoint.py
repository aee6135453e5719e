"""Loads exported networks strictly: a tensor that is missing, unknown or of another size is named."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file
from torch import nn

from models.library import ModelMixin
from utils.helpers import InputError

Model = TypeVar("Model", bound=ModelMixin)


def load_pretrained(kind: type[Model], directory: str | Path) -> Model:
    """Build a network from its config.json and fill it with the weights beside it, in float32 and for evaluation.

    Raises:
        InputError: the folder lacks one of them, or they do not fit each other; the sentence names the tensor.
    """
    directory = Path(directory)
    if not (directory / "config.json").is_file():
        raise InputError(f"No weights in {directory} (config.json is missing): train them or restore the folder.")
    model = kind.from_config(kind.load_config(directory))
    load_weights(model, directory)
    return model.eval()


def load_weights(model: nn.Module, directory: str | Path, part: str = "") -> None:
    """Copy exported weights into `model`, whatever their precision.

    Args:
        model: the network.
        directory: folder of the weights.
        part: what the names of its tensors begin with, where the weights are those of a larger network.

    Raises:
        InputError: there are no weights in `directory`, or they belong to a model of another size.
    """
    files = sorted(Path(directory).glob("*.safetensors"))
    if not files:
        raise InputError(f"No weights (*.safetensors) in {directory}: give a folder that training exported.")
    state = {name: tensor for file in files for name, tensor in load_file(file).items()}
    state = {name.removeprefix(part): tensor for name, tensor in state.items() if name.startswith(part)}
    load_checked(model, state, str(directory))


def load_checked(module: nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    """Load a state dict strictly.

    Raises:
        InputError: names or sizes differ; the sentence names the first tensor that does not fit.
    """
    expected = module.state_dict()
    odd = sorted(set(expected) ^ set(state))
    if odd:
        where = "missing in" if odd[0] in expected else "unknown to the model but present in"
        raise InputError(f"Tensor '{odd[0]}' ({len(odd)} in all) is {where} {source}: model settings differ.")
    for name, tensor in expected.items():
        if tensor.shape != state[name].shape:
            raise InputError(
                f"Tensor '{name}' in {source} has size {list(state[name].shape)} but the model needs "
                f"{list(tensor.shape)}: use the --size and model settings that the weights were made with."
            )
    module.load_state_dict(state)
