"""A full disk is no fault of the program: it is recognised wherever it shows, and said in one sentence."""

from __future__ import annotations

import errno

FULL = "The disk is full; make room and try again."


def is_disk_full(error: BaseException | None) -> bool:
    """An error, or what led to it, is a disk or a quota that is full; SQLite says so in words only."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if type(error).__module__ == "sqlite3" and "full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
