"""What a model has learnt of a person, in files: the speech model and the generator, which `adapt` changes."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from engines.lite.model import LipSyncModel
from models.checkpoint import load_checked
from utils.helpers import InputError


def save_learned(model: LipSyncModel, folder: Path) -> None:
    """Write the changed parts of a model into an empty folder."""
    for name, part in _parts(model).items():
        state = {key: value.contiguous() for key, value in part.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")


def with_learned(model: LipSyncModel, folder: Path) -> LipSyncModel:
    """A copy of the model with the parts that `save_learned` wrote.

    Raises:
        InputError: they are not there, or do not fit this model.
    """
    other = model.copy()
    for name, part in _parts(other).items():
        path = folder / f"{name}.safetensors"
        if not path.is_file():
            raise InputError(f"What was learnt of the person is not complete: {path.name} is missing.")
        load_checked(part, load_file(path), path.name)
    return other


def _parts(model: LipSyncModel) -> dict[str, nn.Module]:
    return {"speech": model.speech_model, "generator": model.generator}
