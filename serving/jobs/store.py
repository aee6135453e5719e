"""Job rows: what a job is, and where its state is kept so that a killed process loses nothing.

`change` is the only way to alter a row, and it is atomic, so that two workers can never own the same job.
SQLite serves any number of processes of one machine; Redis (`serving/jobs/redis_store.py`) those of many.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from serving.jobs.outbox import Delivery, Outbox, SqliteOutbox
from serving.jobs.rates import Rates, SqliteCount

QUEUED, RUNNING, DONE, FAILED, CANCELLED, EXPIRED = "queued", "running", "done", "failed", "cancelled", "expired"
STATES = (QUEUED, RUNNING, DONE, FAILED, CANCELLED, EXPIRED)
ACTIVE = (QUEUED, RUNNING)

_BUSY_S = 30.0  # how long a process waits for another one's write
_WORKER_SILENT_S = 10.0


@dataclass(frozen=True)
class Job:
    """One job as it is stored. Times are seconds since 1970.

    Attributes:
        id: random, 32 hexadecimal digits.
        owner: name of the API key, "local" where there are none.
        state: one of `STATES`.
        created: when it was accepted.
        request: what to do: options, names of the input files, text.
        inputs: names of the files in its folder; none any more when it has failed for good.
        input_size: bytes of these files.
        idempotency_key: as the client gave it; None again when it is free for another request.
        fingerprint: of the request that came with the key.
        reference: the client's own name for it.
        attempt: how often it was started.
        crashes: how often its worker died.
        lease: when its worker counts as dead, unless it is heard of.
        started: when its last attempt began.
        finished: when it reached its last state.
        frames: frames written so far.
        frames_expected: frames in the result, None if unknown.
        fps: frames written per second.
        error: why it failed, one sentence.
        error_code: the same for programs, a key of `serving.jobs.views.ERROR_CODES`.
        refused: it failed because of what the client sent.
        result: name of the result in its folder.
        result_size: bytes.
        subtitles: name of the subtitles in its folder.
        preview: name of the first seconds in its folder, while it runs.
        preview_size: bytes.
        summary: what the run did.
        webhook: where to tell that it has ended.
        base_url: address under which its client reached this service.
        secret_of: whose secret signs what is told, see `serving.jobs.webhooks.secrets_of`.
    """

    id: str
    owner: str
    state: str
    created: float
    request: dict[str, Any] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    input_size: int = 0
    idempotency_key: str | None = None
    fingerprint: str | None = None
    reference: str | None = None
    attempt: int = 0
    crashes: int = 0
    lease: float = 0.0
    started: float | None = None
    finished: float | None = None
    frames: int = 0
    frames_expected: int | None = None
    fps: float = 0.0
    error: str | None = None
    error_code: str | None = None
    refused: bool = False
    result: str | None = None
    result_size: int | None = None
    subtitles: str | None = None
    preview: str | None = None
    preview_size: int | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    webhook: str | None = None
    base_url: str | None = None
    secret_of: str | None = None

    @property
    def is_retryable(self) -> bool:
        """It has failed, but not because of what was sent, and its inputs are still here."""
        return self.state == FAILED and not self.refused and bool(self.inputs)

    @property
    def kept(self) -> int:
        """Bytes of its files that are kept: of its inputs while it may still need them, of its preview and result."""
        if self.state == DONE:
            return self.result_size or 0
        if self.state in ACTIVE:
            return self.input_size + (self.preview_size or 0)
        return self.input_size if self.is_retryable else 0

    def to_json(self) -> str:
        """The whole row as text."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str | bytes) -> Job:
        """Undo `to_json`; what only earlier versions knew is left out."""
        known = Job.__dataclass_fields__
        return Job(**{name: value for name, value in json.loads(text).items() if name in known})


Change = Callable[[Job], "Job | None"]
Mark = tuple[float, str]
"""Where a job stands in lists: time of creation and id."""
Tell = Callable[[Job, Job], "Delivery | None"]
"""What is to be told about a change of a row: before, after -> message, None for nothing."""


class JobStore(Protocol):
    """Where rows are kept. Every method may be called from any thread.

    Attributes:
        faults: what its methods raise when they cannot reach the rows.
        outbox: messages to other programs.
        rates: requests of the last minute.
    """

    faults: tuple[type[Exception], ...]
    outbox: Outbox
    rates: Rates

    def add(self, job: Job) -> Job:
        """Store a new job; if its owner already has one with its idempotency key, return that one instead."""

    def get(self, job_id: str) -> Job | None:
        """The job, None if there is none."""

    def find_key(self, owner: str, idempotency_key: str) -> Job | None:
        """The owner's job with this idempotency key, None if there is none."""

    def change(self, job_id: str, change: Change, tell: Tell | None = None) -> Job | None:
        """Replace a row by `change(row)`, atomically, and put what `tell(row, changed)` makes into the outbox. None,
        and nothing is changed, if there is no such row or `change` returns None. Both may be called more than once."""

    def remove(self, job_id: str) -> None:
        """Forget a job."""

    def find(self, states: Collection[str] = STATES, owner: str | None = None, until: float | None = None) -> list[Job]:
        """Jobs by age, oldest first; with `until` only those that were made before this time."""

    def page(self, owner: str, state: str | None, before: Mark | None, limit: int) -> list[Job]:
        """The newest jobs of an owner, newest first.

        Args:
            owner: whose.
            state: only those in this state; None: all.
            before: only those that come after this one in the list.
            limit: no more than so many.
        """

    def heads(self, state: str) -> dict[str, str]:
        """Owner -> id of its oldest job in a state, by age of these jobs, oldest first."""

    def count(self, state: str | None, owner: str | None = None) -> int:
        """How many jobs are in a state (None: in any) and of an owner (None: of anybody)."""

    def kept(self, owner: str) -> int:
        """Bytes of files that are kept of an owner's jobs, see `Job.kept`."""

    def owned(self, owner: str, ids: Collection[str]) -> set[str]:
        """Which of these jobs are an owner's."""

    def position(self, job: Job) -> int:
        """How many queued jobs are older than this one."""

    def beat(self, worker: str, ready: bool) -> None:
        """Note that a worker lives, and whether its networks are loaded."""

    def workers(self) -> dict[str, bool]:
        """Workers heard of in the last seconds, and whether they are ready."""


_SCHEMA = """
create table if not exists jobs (
    id text primary key, owner text not null, state text not null, created real not null, idempotency_key text,
    row text not null, kept integer not null default 0);
create unique index if not exists jobs_key on jobs (owner, idempotency_key) where idempotency_key is not null;
create index if not exists jobs_state on jobs (state, created);
create index if not exists jobs_owner on jobs (owner, created, id);
create index if not exists jobs_owner_state on jobs (owner, state, created, id);
create table if not exists workers (name text primary key, ready integer not null, seen real not null);
"""
_INDEX_OF_KEPT = "create index if not exists jobs_kept on jobs (owner, kept)"
_RATES = "rates.db"  # beside the rows, which nobody must wait for because of it
_MOST_NAMES = 500  # in one question; SQLite takes at least 999


class SqliteJobStore:
    """Rows in a SQLite file. See `JobStore`.

    Args:
        path: the file; made if it is missing.
    """

    faults = (sqlite3.OperationalError,)

    def __init__(self, path: Path):
        self._path = path
        self._local = threading.local()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._connection() as connection:
            connection.executescript(_SCHEMA + SqliteOutbox.SCHEMA)
        self._count_bytes()
        self.outbox = SqliteOutbox(self._transaction, self._rows)
        self.rates = Rates(SqliteCount(path.with_name(_RATES)), (sqlite3.Error,))

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection."""
        if not hasattr(self._local, "connection"):
            connection = sqlite3.connect(self._path, timeout=_BUSY_S, isolation_level=None)
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=full")  # an accepted job also survives a power cut
            self._local.connection = connection
        yield self._local.connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connection() as connection:
            connection.execute("begin immediate")
            try:
                yield connection
            except BaseException:
                connection.execute("rollback")
                raise
            connection.execute("commit")

    def _count_bytes(self) -> None:
        """Note how much is kept of the jobs of versions that did not."""
        with self._transaction() as connection:
            if "kept" not in (row[1] for row in connection.execute("pragma table_info(jobs)")):
                connection.execute("alter table jobs add column kept integer not null default 0")
                jobs = (Job.from_json(row) for (row,) in connection.execute("select row from jobs").fetchall())
                connection.executemany("update jobs set kept = ? where id = ?", ((job.kept, job.id) for job in jobs))
            connection.execute(_INDEX_OF_KEPT)

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._connection() as connection:
            return connection.execute(sql, values).fetchall()

    def add(self, job: Job) -> Job:
        with self._transaction() as connection:
            connection.execute(
                "insert or ignore into jobs values (?, ?, ?, ?, ?, ?, ?)",
                (job.id, job.owner, job.state, job.created, job.idempotency_key, job.to_json(), job.kept),
            )
        if job.idempotency_key is None:
            return job
        return self.find_key(job.owner, job.idempotency_key) or job

    def get(self, job_id: str) -> Job | None:
        rows = self._rows("select row from jobs where id = ?", job_id)
        return Job.from_json(rows[0][0]) if rows else None

    def find_key(self, owner: str, idempotency_key: str) -> Job | None:
        rows = self._rows("select row from jobs where owner = ? and idempotency_key = ?", owner, idempotency_key)
        return Job.from_json(rows[0][0]) if rows else None

    def change(self, job_id: str, change: Change, tell: Tell | None = None) -> Job | None:
        with self._transaction() as connection:
            row = connection.execute("select row from jobs where id = ?", (job_id,)).fetchone()
            before = Job.from_json(row[0]) if row else None
            changed = change(before) if before else None
            if changed is not None:
                connection.execute(
                    "update jobs set state = ?, idempotency_key = ?, row = ?, kept = ? where id = ?",
                    (changed.state, changed.idempotency_key, changed.to_json(), changed.kept, job_id),
                )
                if tell is not None and (delivery := tell(before, changed)) is not None:
                    self.outbox.put(connection, delivery)
        return changed

    def remove(self, job_id: str) -> None:
        with self._transaction() as connection:
            connection.execute("delete from jobs where id = ?", (job_id,))

    def find(self, states: Collection[str] = STATES, owner: str | None = None, until: float | None = None) -> list[Job]:
        where, values = [f"state in ({', '.join('?' * len(states))})"], list(states)
        for condition, value in (("owner = ?", owner), ("created <= ?", until)):
            if value is not None:
                where.append(condition)
                values.append(value)
        rows = self._rows(f"select row from jobs where {' and '.join(where)} order by created, id", *values)
        return [Job.from_json(row) for (row,) in rows]

    def page(self, owner: str, state: str | None, before: Mark | None, limit: int) -> list[Job]:
        where, values = ["owner = ?"], [owner]
        if state is not None:
            where.append("state = ?")
            values.append(state)
        if before is not None:
            where.append("(created, id) < (?, ?)")
            values += before
        sql = f"select row from jobs where {' and '.join(where)} order by created desc, id desc limit ?"
        return [Job.from_json(row) for (row,) in self._rows(sql, *values, limit)]

    def heads(self, state: str) -> dict[str, str]:
        sql = "select owner, id, min(created) as first from jobs where state = ? group by owner order by first"
        return {owner: job_id for owner, job_id, _ in self._rows(sql, state)}

    def count(self, state: str | None, owner: str | None = None) -> int:
        given = {name: value for name, value in (("owner", owner), ("state", state)) if value is not None}
        where = " and ".join(f"{name} = ?" for name in given)
        sql = "select count(*) from jobs" + (f" where {where}" if where else "")
        return int(self._rows(sql, *given.values())[0][0])

    def kept(self, owner: str) -> int:
        return int(self._rows("select coalesce(sum(kept), 0) from jobs where owner = ?", owner)[0][0])

    def owned(self, owner: str, ids: Collection[str]) -> set[str]:
        names, found = list(ids), set()
        for first in range(0, len(names), _MOST_NAMES):
            part = names[first : first + _MOST_NAMES]
            sql = f"select id from jobs where owner = ? and id in ({', '.join('?' * len(part))})"
            found |= {job_id for (job_id,) in self._rows(sql, owner, *part)}
        return found

    def position(self, job: Job) -> int:
        sql = "select count(*) from jobs where state = ? and created < ?"
        return int(self._rows(sql, QUEUED, job.created)[0][0])

    def beat(self, worker: str, ready: bool) -> None:
        with self._transaction() as connection:
            connection.execute("insert or replace into workers values (?, ?, ?)", (worker, ready, time.time()))
            connection.execute("delete from workers where seen < ?", (time.time() - _WORKER_SILENT_S,))

    def workers(self) -> dict[str, bool]:
        rows = self._rows("select name, ready from workers where seen >= ?", time.time() - _WORKER_SILENT_S)
        return {name: bool(ready) for name, ready in rows}
