"""What can draw a mouth. `engines.load("lite", ...)` is the way in; `engines/base.py` says what an engine is."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from utils.helpers import InputError

if TYPE_CHECKING:
    import torch

    from engines.base import Engine
    from utils.config import Config

BUILT_IN = {"lite": "engines.lite.engine:Lite"}
"""Name -> module and class; loaded only when it is chosen."""


def find(name: str) -> type[Engine]:
    """The class of an engine.

    Args:
        name: of a built-in engine, or "module:Class" for one's own.

    Raises:
        InputError: there is no such engine.
    """
    module, _, attribute = BUILT_IN.get(name, name).partition(":")
    known = f"use one of {', '.join(BUILT_IN)}, or module:Class for your own"
    if not attribute:
        raise InputError(f"There is no engine '{name}'; {known}.")
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
