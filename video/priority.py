"""Keeps an encoder from taking the machine: SVT-AV1 gives its threads, and the one that opens it, real-time priority.

It does so wherever it may, which is where the program runs as root (`svt_create_thread` in its threads file). Such a
thread is served before everything else, and whatever it starts inherits that: a browser, a server or a worker that
waits busily then leaves the rest of the machine nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_THREADS = Path("/proc/self/task")


@contextmanager
def ordinary_threads() -> Iterator[None]:
    """Give threads that became real-time ones within the block the ordinary priority again, where there are such."""
    before = priorities()
    yield
    for thread, policy in priorities().items():
        if policy in _real_time() and before.get(thread) not in _real_time():
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))


def priorities() -> dict[int, int]:
    """Scheduling policy of each thread of this process, by its number; empty where the system does not tell."""
    if not hasattr(os, "sched_getscheduler") or not _THREADS.is_dir():
        return {}
    found = {}
    for entry in _THREADS.iterdir():
        try:
            found[int(entry.name)] = os.sched_getscheduler(int(entry.name))
        except ProcessLookupError:  # it has ended meanwhile
            continue
    return found


def _real_time() -> tuple[int, int]:
    return os.SCHED_FIFO, os.SCHED_RR
