"""Whether a test leaves threads behind. Those of earlier tests may end meanwhile, and new ones get a moment to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 5.0  # in which a thread that was told to end does so, on a busy machine too


@contextmanager
def none_left(prefix: str = "") -> Iterator[None]:
    """Nothing runs after the block that did not run before it; only threads whose names start with prefix count."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + PATIENCE_S
    while (left := new_threads(before, prefix)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left


def new_threads(before: set[threading.Thread], prefix: str) -> list[str]:
    new = set(threading.enumerate()) - before
    return [thread.name for thread in new if thread.name.startswith(prefix)]
