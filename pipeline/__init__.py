"""The pipeline: one job, from the door to the file. Its public names are the Python API:

    from pathlib import Path
    from language_processor import SpokenText
    from pipeline import LipSyncPipeline, Options
    from utils.config import load_config
    from utils.helpers import resolve_device

    config = load_config(Path("model_config.yaml"))
    pipeline = LipSyncPipeline.load(config, resolve_device("auto"))
    summary = pipeline.run(Path("talk.mp4"), Path("speech.wav"), Path("result.mp4"), Options())
    pipeline.run(Path("talk.mp4"), None, Path("greeting.mp4"), Options(), text=SpokenText("Hello.", "en"))
    print(summary.generated, "of", summary.frames, "frames have a new mouth")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import utils  # noqa: F401 - before any library: nothing phones home

if TYPE_CHECKING:
    from pipeline.job import ProgressCallback, Summary
    from pipeline.lip_sync import LipSyncPipeline
    from pipeline.live import LiveFrame
    from pipeline.options import Options
    from pipeline.preview import Preview

__all__ = ["LipSyncPipeline", "LiveFrame", "Options", "Preview", "ProgressCallback", "Summary"]

_HOMES = {"LiveFrame": "live", "Options": "options", "Preview": "preview", "ProgressCallback": "job", "Summary": "job"}


def __getattr__(name: str) -> Any:
    """A public name from its module, which is loaded only now: `pipeline.options` must not bring PyTorch along."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'lip_sync')}"), name)
