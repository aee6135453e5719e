"""Weights as their authors published them: which tensors a file holds, and whether they fit our network.

Nothing in a file is run: `.safetensors`, or `torch.load(weights_only=True)`, which takes tensors and plain values only.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from utils.helpers import InputError

Network = TypeVar("Network", bound=nn.Module)

_WRAPPERS = ("state_dict", "model_state_dict")
_LISTED = "the file that --list-engines names"
_NAMED = 3  # tensors that a sentence names; the rest is counted
_ZIP_OVERHEAD = 1.05  # entries of a checkpoint are stored, not compressed, so they add up to about the file's size
_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, EOFError, MemoryError, AttributeError, TypeError,
               IndexError, AssertionError, pickle.UnpicklingError, zipfile.BadZipFile, SafetensorError)  # fmt: skip


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a published file by name, on the CPU, as they are stored.

    The table may be wrapped (`state_dict`, `model_state_dict`), and all names may begin with `module.`.

    Raises:
        InputError: the file is missing, damaged, not a table of tensors, or wants to run code.
    """
    if not path.is_file():
        raise InputError(f"The weights {path} are missing; see --list-engines for what is looked for where.")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _load(path)
    except _UNREADABLE as error:
        raise InputError(f"The weights {path} cannot be read ({_reason(error)}); get the file again.") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"The file {path} holds no table of tensors; give the weights as they were published.")
    odd = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise InputError(f"The file {path} holds something else than tensors ({_some(odd)}); give the published one.")
    return _without_prefix(dict(content), "module.")


def select(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with `prefix`, named without it."""
    return {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}


def fill(
    make: Callable[[], Network], state: dict[str, torch.Tensor], source: Path, wanted: str = _LISTED
) -> Network:
    """A network with the tensors of a file, float32 where they are floating, for evaluation.

    Args:
        make: makes the network; no memory is taken for the weights that it makes.
        state: all tensors of the network and no others.
        source: the file, for the sentence.
        wanted: the right file, for the sentence.

    Raises:
        InputError: tensors are missing, unknown, or of another shape; the sentence names them.
    """
    with torch.device("meta"):
        network = make()
    expected = network.state_dict()
    faults = [
        _fault("does not hold", expected.keys() - state.keys()),
        _fault("holds what the network does not know:", state.keys() - expected.keys()),
        _fault("holds in another shape", _misshapen(expected, state)),
    ]
    if any(faults):
        raise InputError(
            f"The weights {source} are not of this network: the file {'; it '.join(filter(None, faults))}; "
            f"give {wanted}."
        )
    network.load_state_dict({name: _single(tensor) for name, tensor in state.items()}, assign=True)
    return network.eval().requires_grad_(False)


def _load(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        _check_zip(path)
        # Mapped, not read: of 5 GB only what is used comes into memory.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_zip(path: Path) -> None:
    """Refuse an archive that claims to be larger than its file."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    packed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
    if packed or sum(entry.file_size for entry in entries) > _ZIP_OVERHEAD * path.stat().st_size:
        raise ValueError("its parts claim to be larger than the file")


def _reason(error: BaseException) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return "it wants to run code, or is damaged"
    text = str(error).strip().split("\n")[0]
    return text[:120] or type(error).__name__


def _without_prefix(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    whole = all(name.startswith(prefix) for name in state)
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()} if whole else state


def _misshapen(expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> list[str]:
    both = expected.keys() & state.keys()
    return [
        f"{name} {list(state[name].shape)} instead of {list(expected[name].shape)}"
        for name in both
        if state[name].shape != expected[name].shape
    ]


def _fault(what: str, names: Iterable[str]) -> str:
    names = sorted(names)
    return f"{what} {_some(names)}" if names else ""


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _single(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
