"""Temporary files and folders of runs that were killed: the next run that works in the same place removes them.

Whoever makes one keeps it locked (flock) as long as it lives; the system takes the lock away when the process ends in
whatever way. What has a name of ours, is not locked and is not brand new belongs to nobody. Where there are no such
locks (Windows) nothing is removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_NEW_S = 60.0  # a file is made a moment before it is locked
_swept: set[tuple[Path, re.Pattern[str]]] = set()


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep a file or folder that is there from being taken for abandoned while the block lasts."""
    if fcntl is None:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def sweep(folder: Path, names: re.Pattern[str]) -> None:
    """Remove what has such a name in a folder and belongs to no living process; once for each folder and process."""
    if fcntl is None or (folder, names) in _swept:
        return
    _swept.add((folder, names))
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if names.fullmatch(entry.name) and not entry.is_symlink():
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(Path(entry.path))


def _remove_if_abandoned(path: Path) -> None:
    if time.time() - path.stat().st_mtime < _NEW_S:
        return
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises BlockingIOError where somebody holds it
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    finally:
        os.close(handle)
