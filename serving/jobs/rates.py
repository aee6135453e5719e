"""How many requests somebody has sent in the last minute, counted for all processes that share a store."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from pathlib import Path
from typing import Protocol

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage, Storage
from limits.strategies import MovingWindowRateLimiter

_MINUTE_S = 60.0
_BUSY_S = 2.0  # another process may write meanwhile
_AWAY_S = 5.0  # for so long a count that did not answer is not asked again
_SCHEMA = """
create table if not exists hits (
    name text not null, second integer not null, count integer not null, primary key (name, second)) without rowid;
create index if not exists hits_second on hits (second);
"""
_LOG = logging.getLogger("lipsync.rates")


class Count(Protocol):
    """Counts requests of the last 60 s. Its method may be called from any thread."""

    def wait(self, who: str, per_minute: int) -> int | None:
        """Count a request.

        Args:
            who: whose.
            per_minute: how many may come from one in any 60 s.

        Returns:
            Seconds until the next one may come, where this one is too many and was not counted; else None.
        """


class StorageCount:
    """See `Count`.

    Args:
        storage: of the library `limits`, with a moving window.
    """

    def __init__(self, storage: Storage):
        self._limiter = MovingWindowRateLimiter(storage)

    def wait(self, who: str, per_minute: int) -> int | None:
        item = RateLimitItemPerMinute(per_minute)
        if self._limiter.hit(item, who):
            return None
        return _left(self._limiter.get_window_stats(item, who).reset_time - time.time())


class SqliteCount:
    """See `Count`, by whole seconds. The library has no storage in SQLite.

    Args:
        path: a file that holds nothing else; made if it is missing. The last requests may be lost in a power cut, so
            nothing waits for the disk.
    """

    def __init__(self, path: Path):
        self._path = path
        self._local = threading.local()
        self._one = threading.Lock()
        self._connection.executescript(_SCHEMA)

    @property
    def _connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        if not hasattr(self._local, "connection"):
            connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=normal")
            self._local.connection = connection
        return self._local.connection

    def wait(self, who: str, per_minute: int) -> int | None:
        connection = self._connection
        # Who asks far too often, and is refused, keeps nobody from writing.
        if (wait := _full(connection, who, per_minute)) is not None:
            return wait
        with self._one:  # a thread that waits for a lock of SQLite sleeps and tries again
            connection.execute("begin immediate")
            try:
                wait = _full(connection, who, per_minute)
                if wait is None:
                    _count(connection, who)
            except BaseException:
                connection.execute("rollback")
                raise
            connection.execute("commit")
        return wait


def _full(connection: sqlite3.Connection, who: str, per_minute: int) -> int | None:
    """Seconds until there is room for one more request; None: there is."""
    now = time.time()
    sql = "select sum(count), min(second) from hits where name = ? and second >= ?"
    count, first = connection.execute(sql, (who, int(now - _MINUTE_S))).fetchone()
    return _left(first + 1 + _MINUTE_S - now) if count is not None and count >= per_minute else None


def _count(connection: sqlite3.Connection, who: str) -> None:
    now = time.time()
    connection.execute("delete from hits where second < ?", (int(now - _MINUTE_S),))
    more = "on conflict do update set count = count + 1"
    connection.execute(f"insert into hits values (?, ?, 1) {more}", (who, int(now)))


def _left(seconds: float) -> int:
    return max(1, round(seconds))


class Rates:
    """See `Count`: of what processes share; while that does not answer, each of them counts by itself.

    Args:
        shared: None: of this process alone.
        faults: what it raises when it does not answer.
    """

    def __init__(self, shared: Count | None = None, faults: tuple[type[Exception], ...] = ()):
        self._own = StorageCount(MemoryStorage())
        self._shared = shared or self._own
        self._faults = faults
        self._away_until = 0.0

    def wait(self, who: str, per_minute: int) -> int | None:
        if time.monotonic() >= self._away_until:
            try:
                return self._shared.wait(who, per_minute)
            except self._faults as error:
                self._away_until = time.monotonic() + _AWAY_S
                _LOG.warning("each process counts requests by itself for now: %s", error)
        return self._own.wait(who, per_minute)
