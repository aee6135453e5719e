"""What networks take from diffusers, loaded without what they do not need: half of the program's start otherwise.

While it is loaded, diffusers marks functions for PyTorch's compiler (`torch._dynamo`, longer to load than PyTorch
itself), and loads `transformers` and `scipy` for adapters, quantised weights and other samplers where they are
installed. It does without what is missing, so they are hidden for that moment. The marks mean something only to
compiled networks, and none of the marked functions (hooks for offloading and caching) is used here.
`inference.compile` loads the compiler when it comes to that.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_HIDDEN = ("torch._dynamo", "transformers", "scipy")


@contextmanager
def _hidden() -> Iterator[None]:
    """What is loaded in this block finds none of these modules; afterwards all is as before.

    Where diffusers is loaded already, nothing is hidden: it would miss what it has found.
    """
    if "diffusers" in sys.modules:
        yield
        return
    kept = {name: sys.modules.pop(name) for name in _HIDDEN if name in sys.modules}
    disable = torch.compiler.disable
    sys.modules.update(dict.fromkeys(_HIDDEN))  # None says: there is no such module
    torch.compiler.disable = _unmarked
    try:
        yield
    finally:
        torch.compiler.disable = disable
        for name in _HIDDEN:
            del sys.modules[name]
        sys.modules.update(kept)


def _unmarked(function: Callable | None = None, *_: Any, **__: Any) -> Callable:
    """A decorator, with or without arguments, that changes nothing."""
    return function if function is not None else _unmarked


with _hidden():
    from diffusers import AutoencoderTiny, ConfigMixin, ModelMixin, UNetMotionModel
    from diffusers.configuration_utils import register_to_config
    from diffusers.models.attention_processor import AttnProcessor

__all__ = ["AttnProcessor", "AutoencoderTiny", "ConfigMixin", "ModelMixin", "UNetMotionModel", "register_to_config"]
