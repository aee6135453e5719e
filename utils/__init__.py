"""What all rooms share. Whatever is loaded of this program, this comes first: from here on nothing phones home.

OpenVINO reports every import to Google Analytics, from a process that it forks, and keeps an id for that in the home
folder; it does not if that part cannot be imported. The other libraries heed variables, which they read when they are
imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_SWITCHES = {
    "DO_NOT_TRACK": "1",
    "DISABLE_TELEMETRY": "1",  # diffusers, transformers and older huggingface_hub
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
}


def stay_quiet() -> None:
    """Stop all telemetry of the libraries in this process and in those that it starts. No weights come from a hub
    either; HF_HUB_OFFLINE=0 in the environment lets one's own code fetch some."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    os.environ.update(_SWITCHES)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


@contextmanager
def hub_allowed() -> Iterator[None]:
    """Within this block huggingface_hub may fetch files: somebody has asked for weights by name."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, False
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


stay_quiet()
