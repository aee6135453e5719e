"""The job service: takes jobs in, hands them to workers, and gets every one of them to an end exactly once.

What counts is a job's row (`serving/jobs/store.py`). The queue (huey) only wakes workers; the one that is woken takes
a queued row, by turns between owners: a lost message loses nothing, a doubled one doubles nothing. A worker holds a job
by a lease; when it is killed, the lease runs out and the job is queued again, under the number of a new attempt.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from serving.jobs import changes
from serving.jobs.limits import LOCAL_OWNER, check_queue, check_quota, has_disk
from serving.jobs.outbox import Delivery
from serving.jobs.queues import Queue
from serving.jobs.storage import JobFiles
from serving.jobs.store import (
    ACTIVE,
    CANCELLED,
    DONE,
    EXPIRED,
    FAILED,
    QUEUED,
    RUNNING,
    Job,
    JobStore,
    Mark,
)
from serving.jobs.telling import told
from serving.problems import disk_full, has_ended, no_such_job, not_retryable
from utils.config import ServiceConfig

INCOMING, WORK, JOBS = "incoming", "work", "jobs"
"""Folders in the data folder: uploads on their way in, results being made, files of jobs."""

_LOG = logging.getLogger("lipsync.jobs")
_LEFTOVER_S = 600.0  # files without a job may still be on their way in for so much longer than the longest upload


@dataclass(frozen=True)
class Submission:
    """What a client wants.

    Attributes:
        request: what to do: {"options": {...}, "addresses": {field: where an input came from}, "text": str | None,
            "lang": ..., "voice": ..., "speed": ..., "expected": ..., "srt": subtitles are wanted; "language" and
            "notes": what was found about it}.
        files: name within the job -> local file, which is moved away.
        owner: name of the API key.
        idempotency_key: the same one gives the same job, until that is cancelled, deleted or expired.
        fingerprint: of what the client sent with the key; another one under the same key is refused.
        webhook: where to tell that the job has ended.
        base_url: address under which the client reached this service.
        secret_of: whose secret signs what is told, see `serving.jobs.webhooks.secrets_of`.
        reference: the client's own name for the job.
    """

    request: dict[str, Any]
    files: dict[str, Path] = field(default_factory=dict)
    owner: str = LOCAL_OWNER
    idempotency_key: str | None = None
    fingerprint: str | None = None
    webhook: str | None = None
    base_url: str | None = None
    secret_of: str | None = None
    reference: str | None = None


class JobService:
    """Everything that can be done with jobs; web page, HTTP API and workers all go through here.

    Args:
        config: the service's configuration.
        store: the rows.
        queue: wakes workers.
        files: the jobs' files.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        config: ServiceConfig,
        store: JobStore,
        queue: Queue,
        files: JobFiles,
        clock: Callable[[], float] = time.time,
    ):
        self.config = config
        self.store = store
        self.files = files
        self._queue = queue
        self._clock = clock
        self._is_blind = False  # nothing could be noted the last time
        self._lenient_until = 0.0  # no lease counts as run out before this time
        self._submitting = threading.Lock()
        self._served: dict[str, float] = {}  # owner -> when this process last took one of its jobs

    # ---- for clients ----

    def check_room(self, owner: str, incoming: int = 0, arrived: int = 0) -> None:
        """Refuse what there is no room for.

        Args:
            owner: name of the API key.
            incoming: bytes about to be uploaded, as far as known.
            arrived: bytes that are on the disk already, but not yet this owner's.

        Raises:
            Problem: 429 queue, key or its quota at the limit, 507 disk nearly full.
        """
        check_queue(self.config, self.store, owner)
        self.check_space(owner, incoming, arrived)

    def check_space(self, owner: str, incoming: int = 0, arrived: int = 0) -> None:
        """Refuse bytes that there is no room for; see `check_room`."""
        check_quota(self.config, self.store, owner, incoming + arrived)
        if not self.has_disk(incoming):
            raise disk_full()

    def has_disk(self, incoming: int = 0) -> bool:
        """There is room for so many bytes more."""
        return has_disk(self.config, incoming)

    def submit(self, submission: Submission) -> Job:
        """Accept a job. Once this returns, the job will get to an end, whatever is killed.

        Raises:
            Problem: see `check_room` and `known`.
        """
        job = Job(
            id=uuid.uuid4().hex,
            owner=submission.owner,
            state=QUEUED,
            created=self._clock(),
            request=submission.request,
            inputs=sorted(submission.files),
            input_size=sum(path.stat().st_size for path in submission.files.values()),
            idempotency_key=submission.idempotency_key,
            fingerprint=submission.fingerprint,
            webhook=submission.webhook,
            base_url=submission.base_url,
            secret_of=submission.secret_of,
            reference=submission.reference,
        )
        try:
            for name, path in submission.files.items():
                self.files.put(job.id, name, path)
            with self._submitting:  # so that the limits hold for clients that come at the same time
                self.check_room(job.owner, arrived=job.input_size)
                stored = self.store.add(job)
        except BaseException:
            self.files.remove(job.id)
            raise
        if stored.id != job.id:  # another request with the same key was faster
            self.files.remove(job.id)
            return changes.same(stored, job.fingerprint)
        self._queue.wake()
        _LOG.info("job accepted", extra={"job": job.id, "owner": job.owner})
        return job

    def known(self, owner: str, idempotency_key: str, fingerprint: str) -> Job | None:
        """The job that a request with this key has made before; None: the key is free.

        Raises:
            Problem: 409, that request was another one.
        """
        job = self.store.find_key(owner, idempotency_key)
        return None if job is None else changes.same(job, fingerprint)

    def get(self, job_id: str, owner: str) -> Job:
        """A job of this owner.

        Raises:
            Problem: 404.
        """
        job = self.store.get(job_id)
        if job is None or job.owner != owner:
            raise no_such_job()
        return job

    def page(self, owner: str, state: str | None = None, before: Mark | None = None, limit: int = 100) -> list[Job]:
        """Jobs of this owner, newest first; see `JobStore.page`."""
        return self.store.page(owner, state, before, limit)

    def cancel(self, job_id: str, owner: str) -> Job:
        """Cancel a job and remove its files at once; it can still be seen. Its worker notices within a second.

        Returns:
            The job, also if it was cancelled already.

        Raises:
            Problem: 404; 409, it has come to its end before.
        """
        job = self.get(job_id, owner)
        if (changed := self._cancelled(job_id)) is not None:
            self.files.remove(job_id)
            _LOG.info("job cancelled", extra={"job": job_id})
            return changed
        if (job := self.get(job_id, owner)).state == CANCELLED:
            return job
        raise has_ended(job.state)

    def delete(self, job_id: str, owner: str) -> None:
        """Forget a job and remove its files at once, in whatever state it is; a worker that has it stops.

        Raises:
            Problem: 404.
        """
        self.get(job_id, owner)
        self._cancelled(job_id)  # whoever waits for a message gets it
        self.store.remove(job_id)
        self.files.remove(job_id)
        _LOG.info("job deleted", extra={"job": job_id})

    def _cancelled(self, job_id: str) -> Job | None:
        return self.store.change(job_id, partial(changes.cancelled, now=self._clock()), self._told)

    def retry(self, job_id: str, owner: str) -> Job:
        """Queue a failed job again, with the same inputs.

        Raises:
            Problem: 404; 409, it has not failed, or would fail again; see `check_room`.
        """
        job = self.get(job_id, owner)
        if not job.is_retryable:
            raise not_retryable(job.state == FAILED)
        self.check_room(owner)
        if (changed := self.store.change(job_id, changes.queued_again)) is None:
            raise not_retryable(has_failed=False)
        self._queue.wake()
        _LOG.info("job queued again", extra={"job": job_id})
        return changed

    # ---- for workers ----

    def take(self) -> Job | None:
        """Take a job: the oldest of the owner that has waited longest for a turn; None if there is none."""
        while heads := self.store.heads(QUEUED):
            owner = min(heads, key=lambda name: self._served.get(name, 0.0))  # of equals the one with the oldest job
            if (job := self.store.change(heads[owner], self._taken)) is not None:
                self._served[owner] = self._clock()
                _LOG.info("job started", extra={"job": job.id, "attempt": job.attempt})
                return job
        return None

    def _taken(self, job: Job) -> Job | None:
        now = self._clock()
        return changes.taken(job, now, now + self.config.lease_s)

    def renew(self, job: Job) -> None:
        """Renew the lease."""
        self._change_mine(job, lambda now: replace(now, lease=self._clock() + self.config.lease_s))

    def progress(self, job: Job, frames: int, expected: int | None, fps: float) -> bool:
        """Note progress where there is any. False: the job is no longer this worker's, stop it."""
        now = self.store.get(job.id)
        if now is None or now.state != RUNNING or now.attempt != job.attempt:
            return False
        if (now.frames, now.frames_expected) == (frames, expected):
            return True
        return (
            self._change_mine(job, lambda row: replace(row, frames=frames, frames_expected=expected, fps=fps))
            is not None
        )

    def show_preview(self, job: Job, path: Path) -> None:
        """Hand in the first seconds of the result; the file is moved away. They are kept until the job ends."""
        name, size = f"preview-{job.attempt}{path.suffix}", path.stat().st_size
        self.files.put(job.id, name, path)
        if self._change_mine(job, lambda now: replace(now, preview=name, preview_size=size)) is None:
            self._drop(job, name)

    def complete(self, job: Job, result: Path, summary: dict[str, Any], subtitles: Path | None = None) -> bool:
        """Hand in the result, and its subtitles if there are any; the files are moved away. False: the job was
        cancelled or given to another worker, and they are dropped. May be repeated where the job queue did not
        answer."""
        name = self._hand_in(job, result, "result")
        words = None if subtitles is None else self._hand_in(job, subtitles, "subtitles")
        size = self.files.size(job.id, name)

        def done(now: Job) -> Job:
            frames = summary["frames"]
            return replace(
                changes.ended(now, DONE, self._clock()),
                result=name,
                result_size=size,
                subtitles=words,
                summary=summary,
                frames=frames,
                frames_expected=frames,
                fps=frames / max(summary["seconds"], 1e-3),
            )

        if self._change_mine(job, done) is None and not self._has_result(job, name):
            for dropped in filter(None, (name, words)):
                self._drop(job, dropped)
            return False
        self._keep_only(job.id, [name, words])
        _LOG.info("job done", extra={"job": job.id, "attempt": job.attempt, "bytes": size})
        return True

    def _hand_in(self, job: Job, path: Path, kind: str) -> str:
        """Move a file to the job's, unless that was done before; returns its name there."""
        name = f"{kind}-{job.attempt}{path.suffix}"
        if path.exists():
            self.files.put(job.id, name, path)
        return name

    def _has_result(self, job: Job, name: str) -> bool:
        """It was done before, only that the answer got lost."""
        now = self.store.get(job.id)
        return now is not None and now.result == name

    def _keep_only(self, job_id: str, kept: Collection[str | None]) -> None:
        """Remove all other files of a job that has ended: inputs, preview, what killed attempts have handed in."""
        if not kept:
            self.files.remove(job_id)
        for name in self.files.names(job_id):
            if name not in kept:
                self.files.remove(job_id, name)

    def _drop(self, job: Job, name: str) -> None:
        """Remove a file that nobody waits for, and the folder if the whole job is gone."""
        now = self.store.get(job.id)
        gone = now is None or now.state not in (*ACTIVE, DONE)
        self.files.remove(job.id, None if gone else name)

    def fail(self, job: Job, sentence: str, refused: bool = False, code: str = "internal") -> None:
        """The job cannot be done.

        Args:
            job: as it was taken.
            sentence: why, for the client.
            refused: because of what the client sent.
            code: why, for programs.
        """

        def failed(now: Job) -> Job:
            return changes.failed(now, self._clock(), sentence, code, refused)

        if (changed := self._change_mine(job, failed)) is not None:
            self._keep_only(job.id, changed.inputs)
            _LOG.info("job failed", extra={"job": job.id, "attempt": job.attempt})

    def release(self, job: Job, count: bool) -> None:
        """Give a job back that this worker cannot go on with.

        Args:
            job: as it was taken.
            count: its worker died of it, which may happen `max_attempts` times; else the worker was told to stop.
        """

        def back(now: Job) -> Job:
            crashes = now.crashes + count
            if crashes >= self.config.max_attempts:
                error = f"The job took its worker down {crashes} times and was given up."
                return replace(changes.failed(now, self._clock(), error, "worker-lost"), crashes=crashes)
            return replace(now, state=QUEUED, lease=0.0, crashes=crashes)

        changed = self._change_mine(job, back)
        if changed is not None and changed.state == QUEUED:
            self._queue.wake()
        elif changed is not None:
            self._keep_only(job.id, changed.inputs)

    def _change_mine(self, job: Job, change: Callable[[Job], Job]) -> Job | None:
        def if_mine(now: Job) -> Job | None:
            return change(now) if now.state == RUNNING and now.attempt == job.attempt else None

        return self.store.change(job.id, if_mine, self._told)

    def _told(self, before: Job, after: Job) -> Delivery | None:
        return told(before, after, self.config.public_url, self.config.keep_h)

    # ---- housekeeping, by every worker ----

    def beat(self, worker: str, ready: bool) -> None:
        """Show that a worker lives. Where that cannot be noted, nor can leases be renewed: none counts as run out until
        it can again, and there was time to renew them."""
        try:
            self.store.beat(worker, ready)
        except self.store.faults:
            self._is_blind = True
            raise
        if self._is_blind:
            self._is_blind, self._lenient_until = False, self._clock() + self.config.lease_s

    def maintain(self) -> None:
        """Queue the jobs of dead workers again, and wake workers for jobs whose message was lost."""
        now = self._clock()
        for job in self.store.find((RUNNING,)):
            if job.lease < now and now >= self._lenient_until and not self._is_blind:
                _LOG.warning("worker lost", extra={"job": job.id, "attempt": job.attempt})
                self.release(job, count=True)
        if self.store.count(QUEUED) and self._queue.is_empty():
            self._queue.wake()

    def expire(self) -> None:
        """Let results go when their time is over; a while later also the memory of them."""
        keep, now = self.config.keep_h * 3600, self._clock()
        for job in self.store.find((DONE, FAILED, CANCELLED, EXPIRED), until=now - keep):
            age = now - (job.finished or job.created)
            if age > 2 * keep:  # until then a client is told that it comes too late
                self.files.remove(job.id)
                self.store.remove(job.id)
            elif changes.expired(job, now - keep) is not None:
                if self.store.change(job.id, lambda row: changes.expired(row, now - keep)) is not None:
                    self.files.remove(job.id)

    def sweep(self) -> None:
        """Remove what killed processes have left: files of no job, uploads that were never finished, results of
        attempts that are over."""
        patience = self.config.upload_max_s + _LEFTOVER_S
        for path in self.config.data_dir.glob(f"{INCOMING}/*"):
            with suppress(FileNotFoundError):  # an upload that has just ended
                if path.stat().st_mtime < self._clock() - patience:
                    shutil.rmtree(path, ignore_errors=True)
        for path in self.config.data_dir.glob(f"{WORK}/*"):
            job_id, _, attempt = path.name.partition("-")
            job = self.store.get(job_id)
            if job is None or (job.state, str(job.attempt)) != (RUNNING, attempt):
                shutil.rmtree(path, ignore_errors=True)
        for job_id in self.files.jobs():
            self._tidy(job_id, patience)

    def _tidy(self, job_id: str, patience: float) -> None:
        job = self.store.get(job_id)
        if job is None and self.files.age(job_id) > patience:
            self.files.remove(job_id)
        elif job is not None and job.state not in ACTIVE:
            kept = {DONE: [job.result, job.subtitles], FAILED: job.inputs}
            self._keep_only(job_id, kept.get(job.state, []))
