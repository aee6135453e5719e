"""Job rows in Redis, for workers on many machines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import redis
from limits.storage import RedisStorage

from serving.jobs.rates import Rates, StorageCount
from serving.jobs.redis_outbox import RedisOutbox
from serving.jobs.store import QUEUED, STATES, Change, Job, Mark, Tell

_WORKER_SILENT_S = 10.0
_TIMEOUT_S = 10.0  # for one answer of Redis
_RATES_TIMEOUT_S = 1.0  # the same, where every request waits for it and each process can count by itself
_PREFIX = "lip-sync:"
_KEPT = f"{_PREFIX}kept"  # owner -> bytes


class RedisJobStore:
    """Rows in Redis. See `JobStore`.

    A row is a string under `job:<id>`; sorted sets by time of creation hold the ids in each state, of each owner, and
    of each owner in each state; `kept` has the bytes of each owner's jobs, changed together with the rows.

    Args:
        url: such as redis://host:6379/0.
    """

    faults = (redis.RedisError,)

    def __init__(self, url: str):
        self._redis = redis.Redis.from_url(url, decode_responses=True, socket_timeout=_TIMEOUT_S)
        self.outbox = RedisOutbox(self._redis)
        quick = {"socket_timeout": _RATES_TIMEOUT_S, "socket_connect_timeout": _RATES_TIMEOUT_S, "retry": None}
        self.rates = Rates(StorageCount(RedisStorage(url, key_prefix=f"{_PREFIX}rates", **quick)), (redis.RedisError,))

    def prepare(self) -> None:
        """Sort the rows of earlier versions as this one looks for them."""
        self._once("sorted-by-owner-and-state", self._sort)
        self._once("bytes-counted", self._count_bytes)

    def _once(self, name: str, work: Callable[[Any, list[Job]], None]) -> None:
        """Do something about all rows, and remember that it is done."""
        if self._redis.exists(_PREFIX + name):
            return
        with self._redis.pipeline(transaction=True) as pipe:
            work(pipe, self.find())
            pipe.set(_PREFIX + name, 1)
            pipe.execute()

    def _sort(self, pipe: Any, jobs: list[Job]) -> None:
        for job in jobs:
            pipe.zadd(self._of_in(job.owner, job.state), {job.id: job.created})

    def _count_bytes(self, pipe: Any, jobs: list[Job]) -> None:
        pipe.delete(_KEPT)
        for job in jobs:
            pipe.hincrby(_KEPT, job.owner, job.kept)

    @staticmethod
    def _row(job_id: str) -> str:
        return f"{_PREFIX}job:{job_id}"

    @staticmethod
    def _set(state: str) -> str:
        return f"{_PREFIX}state:{state}"

    @staticmethod
    def _of(owner: str) -> str:
        return f"{_PREFIX}owner:{owner}"

    @staticmethod
    def _of_in(owner: str, state: str) -> str:
        return f"{_PREFIX}owner-state:{owner}:{state}"

    @staticmethod
    def _keys(owner: str) -> str:
        return f"{_PREFIX}idempotency:{owner}"

    def add(self, job: Job) -> Job:
        def attempt(pipe: Any) -> Job:
            first = pipe.hget(self._keys(job.owner), job.idempotency_key or "")
            row = None if first is None else pipe.get(self._row(first))
            pipe.multi()
            if row is not None:
                return Job.from_json(row)
            if job.idempotency_key is not None:
                pipe.hset(self._keys(job.owner), job.idempotency_key, job.id)
            pipe.set(self._row(job.id), job.to_json())
            pipe.zadd(self._set(job.state), {job.id: job.created})
            pipe.zadd(self._of(job.owner), {job.id: job.created})
            pipe.zadd(self._of_in(job.owner, job.state), {job.id: job.created})
            pipe.hincrby(_KEPT, job.owner, job.kept)
            return job

        return self._redis.transaction(attempt, self._keys(job.owner), value_from_callable=True)

    def get(self, job_id: str) -> Job | None:
        row = self._redis.get(self._row(job_id))
        return None if row is None else Job.from_json(row)

    def find_key(self, owner: str, idempotency_key: str) -> Job | None:
        job_id = self._redis.hget(self._keys(owner), idempotency_key)
        return None if job_id is None else self.get(job_id)

    def change(self, job_id: str, change: Change, tell: Tell | None = None) -> Job | None:
        def attempt(pipe: Any) -> Job | None:
            row = pipe.get(self._row(job_id))
            before = None if row is None else Job.from_json(row)
            after = None if before is None else change(before)
            pipe.multi()
            if before is None or after is None:
                return None
            pipe.set(self._row(job_id), after.to_json())
            if before.idempotency_key is not None and after.idempotency_key is None:
                pipe.hdel(self._keys(before.owner), before.idempotency_key)
            if after.state != before.state:
                pipe.zrem(self._set(before.state), job_id)
                pipe.zadd(self._set(after.state), {job_id: after.created})
                pipe.zrem(self._of_in(before.owner, before.state), job_id)
                pipe.zadd(self._of_in(after.owner, after.state), {job_id: after.created})
            if after.kept != before.kept:
                pipe.hincrby(_KEPT, after.owner, after.kept - before.kept)
            if tell is not None and (delivery := tell(before, after)) is not None:
                self.outbox.put(pipe, delivery)
            return after

        # Repeats the attempt when someone else has changed the row in between.
        return self._redis.transaction(attempt, self._row(job_id), value_from_callable=True)

    def remove(self, job_id: str) -> None:
        def attempt(pipe: Any) -> None:
            row = pipe.get(self._row(job_id))
            pipe.multi()
            if row is None:
                return
            job = Job.from_json(row)
            pipe.delete(self._row(job_id))
            pipe.zrem(self._of(job.owner), job_id)
            pipe.zrem(self._set(job.state), job_id)
            pipe.zrem(self._of_in(job.owner, job.state), job_id)
            pipe.hincrby(_KEPT, job.owner, -job.kept)
            if job.idempotency_key is not None:
                pipe.hdel(self._keys(job.owner), job.idempotency_key)

        # Repeats the attempt when someone else has changed the row in between.
        self._redis.transaction(attempt, self._row(job_id))

    def find(self, states: Collection[str] = STATES, owner: str | None = None, until: float | None = None) -> list[Job]:
        names = [self._set(state) if owner is None else self._of_in(owner, state) for state in states]
        last = "+inf" if until is None else repr(until)
        jobs = self._jobs([job_id for name in names for job_id in self._redis.zrangebyscore(name, "-inf", last)])
        return sorted((job for job in jobs if job.state in states), key=lambda job: (job.created, job.id))

    def _jobs(self, ids: Sequence[str]) -> list[Job]:
        """The rows with these ids, without those that are gone by now."""
        rows = self._redis.mget([self._row(job_id) for job_id in ids]) if ids else []
        return [Job.from_json(row) for row in rows if row is not None]

    def page(self, owner: str, state: str | None, before: Mark | None, limit: int) -> list[Job]:
        name = self._of(owner) if state is None else self._of_in(owner, state)
        first = "+inf" if before is None else repr(before[0])
        ids: list[str] = []
        seen = 0
        while len(ids) < limit:
            # Of equal times the greater id comes first, here as in the mark.
            rows = self._redis.zrevrangebyscore(name, first, "-inf", seen, limit + 1, withscores=True)
            ids += [job_id for job_id, created in rows if before is None or (created, job_id) < before]
            seen += len(rows)
            if len(rows) <= limit:
                break
        return self._jobs(ids[:limit])

    def heads(self, state: str) -> dict[str, str]:
        first: dict[str, str] = {}
        for job in self.find((state,)):
            first.setdefault(job.owner, job.id)
        return first

    def count(self, state: str | None, owner: str | None = None) -> int:
        if owner is None:
            return sum(int(self._redis.zcard(self._set(one))) for one in (STATES if state is None else (state,)))
        return int(self._redis.zcard(self._of(owner) if state is None else self._of_in(owner, state)))

    def kept(self, owner: str) -> int:
        return int(self._redis.hget(_KEPT, owner) or 0)

    def owned(self, owner: str, ids: Collection[str]) -> set[str]:
        names = list(ids)
        scores = self._redis.zmscore(self._of(owner), names) if names else []
        return {job_id for job_id, score in zip(names, scores, strict=True) if score is not None}

    def position(self, job: Job) -> int:
        return int(self._redis.zcount(self._set(QUEUED), "-inf", f"({job.created!r}"))

    def beat(self, worker: str, ready: bool) -> None:
        self._redis.set(f"{_PREFIX}worker:{worker}", int(ready), px=int(_WORKER_SILENT_S * 1000))

    def workers(self) -> dict[str, bool]:
        names = list(self._redis.scan_iter(f"{_PREFIX}worker:*"))
        values = self._redis.mget(names) if names else []
        found = zip(names, values, strict=True)
        return {name.rpartition(":")[2]: value == "1" for name, value in found if value is not None}
