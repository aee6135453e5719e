"""The user's cache folder: what can be made again at any time, but not quickly."""

from __future__ import annotations

import os
from pathlib import Path

_NAME = "lipsync"


def user_cache(part: str) -> Path | None:
    """A folder for one kind of thing, made where it is missing; None where nothing can be written.

    It lies in $XDG_CACHE_HOME, or ~/.cache without that.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # A relative path is to be ignored, says the standard.
        base = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
        folder = base / _NAME / part
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None
