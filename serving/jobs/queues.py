"""Where the jobs' rows and the messages that wake workers are kept: SQLite on one machine, Redis on many."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from huey import Huey, RedisHuey, SqliteHuey
from huey.registry import Message
from huey.serializer import Serializer

from serving.jobs.store import JobStore, SqliteJobStore
from utils.config import ServiceConfig
from utils.helpers import InputError


class QueueAway(InputError):
    """Redis does not answer; it may later."""


class _JsonSerializer(Serializer):
    """Messages as JSON. Huey's own way is pickle, which lets whoever can write to the queue run code in a worker."""

    def _serialize(self, data: Message) -> bytes:
        return json.dumps(data).encode()

    def _deserialize(self, data: bytes) -> Message:
        return Message(*json.loads(data))


class Queue:
    """Wakes workers up.

    Args:
        huey: where the messages lie.
        work: what a worker does when it is woken; None in processes that are none.
    """

    def __init__(self, huey: Huey, work: Callable[[], None] | None = None):
        def run() -> None:  # registered under the same name in every process
            (work or _no_worker)()

        self.huey = huey
        self._task = huey.task(name="work")(run)

    def wake(self) -> None:
        """Tell one worker that there is a job."""
        self._task()

    def is_empty(self) -> bool:
        """No worker is on its way."""
        return self.huey.storage.queue_size() == 0


def _no_worker() -> None:
    raise RuntimeError("this process runs no jobs")


def open_queue(config: ServiceConfig, url: str | None, work: Callable[[], None] | None = None) -> Queue:
    """The queue: SQLite in the data folder, or Redis.

    Args:
        config: the service's configuration.
        url: redis://..., None for SQLite.
        work: see `Queue`.

    Raises:
        InputError: the URL is of another kind.
    """
    settings: dict[str, Any] = {"results": False, "serializer": _JsonSerializer()}
    if url is None:
        config.data_dir.mkdir(parents=True, exist_ok=True)
        return Queue(SqliteHuey("lipsync", filename=str(config.data_dir / "queue.db"), timeout=30, **settings), work)
    return Queue(RedisHuey("lipsync", url=url, **settings), work)


def open_store(config: ServiceConfig, url: str | None) -> JobStore:
    """The rows: SQLite in the data folder, or Redis.

    Raises:
        InputError: the URL is of another kind.
        QueueAway: Redis does not answer.
    """
    if url is None:
        return SqliteJobStore(config.data_dir / "jobs.db")
    if not url.startswith(("redis://", "rediss://", "unix://")):
        raise InputError(f"The queue {url} cannot be used; give redis://host:port/number, or leave it out for SQLite.")
    try:
        import redis

        from serving.jobs.redis_store import RedisJobStore
    except ImportError as error:
        raise InputError("Redis needs one package more: pip install -r requirements-service.txt.") from error
    store = RedisJobStore(url)
    try:
        store.prepare()
    except redis.RedisError as error:
        raise QueueAway(f"Redis does not answer at {url}: {error}.") from error
    return store
