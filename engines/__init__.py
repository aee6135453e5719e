"""What can draw a mouth. `engines.load("lite", ...)` is the way in; `engines/base.py` says what an engine is."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from engines.catalogue import ENTRIES, Shelf
from utils.helpers import InputError

if TYPE_CHECKING:
    import torch

    from engines.base import Engine
    from utils.config import Config

GROUP = "lip_sync.engines"
"""Entry points by which other packages announce engines."""


OURS = "lite"
"""The engine whose weights are part of this program."""


def announced() -> dict[str, str]:
    """Engines of other packages that are installed: name -> "module:Class"."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


def names() -> list[str]:
    """All engines that can be chosen by name; whether their weights are there is for `engines.catalogue.Shelf`."""
    return [*ENTRIES, *(name for name in announced() if name not in ENTRIES)]


def check_name(name: str) -> None:
    """Raise InputError where no engine can have this name; nothing is imported."""
    if name not in names() and ":" not in name:
        known = f"use one of {', '.join(names())}, or module:Class for your own"
        raise InputError(f"There is no engine '{name}'; {known}.", "no-engine")


def check_ready(name: str, folder: Path) -> None:
    """Refuse an engine that cannot be loaded, without loading anything.

    Args:
        name: see `find`.
        folder: of the weights of all other engines than `lite`, see `engines.catalogue.Shelf`.

    Raises:
        InputError: there is no such engine, its weights are missing, or its licence is not accepted.
    """
    check_name(name)
    if name in ENTRIES:
        Shelf(folder).check(name)


def find(name: str) -> type[Engine]:
    """The class of an engine.

    Args:
        name: of a built-in engine or one of another package (`GROUP`), or "module:Class" for one's own.

    Raises:
        InputError: there is no such engine.
    """
    check_name(name)
    target = ENTRIES[name].target if name in ENTRIES else announced().get(name, name)
    module, _, attribute = target.partition(":")
    known = f"use one of {', '.join(names())}, or module:Class for your own"
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"The engine '{name}' cannot be loaded ({error}); {known}.") from error
    from engines.base import Engine

    if not (isinstance(found, type) and issubclass(found, Engine)):
        raise InputError(f"The engine '{name}' is not a class made from engines.base.Engine; {known}.")
    return found


def load(name: str, config: Config, device: torch.device, weights: Path) -> Engine:
    """An engine, ready to draw.

    Args:
        name: see `find`.
        config: the configuration.
        device: where it computes.
        weights: folder of its weights.

    Raises:
        InputError: there is no such engine, or its weights are missing or do not fit.
    """
    return find(name).load(config, device, weights)
