"""What becomes of a job's row: from each state to the next. Where nothing is to become of it, the answer is None."""

from __future__ import annotations

from dataclasses import replace

from serving.jobs.store import ACTIVE, CANCELLED, DONE, EXPIRED, FAILED, QUEUED, RUNNING, Job
from serving.problems import other_request

_NO_INPUTS = {"inputs": [], "input_size": 0}


def same(job: Job, fingerprint: str | None) -> Job:
    """The job, if it was made by a request with this fingerprint; rows of earlier versions have none.

    Raises:
        Problem: 409, that request was another one.
    """
    if job.fingerprint not in (None, fingerprint):
        raise other_request()
    return job


def taken(job: Job, now: float, lease: float) -> Job | None:
    """A queued job as a worker has it.

    Args:
        job: its row.
        now: seconds since 1970.
        lease: when the worker counts as dead.
    """
    if job.state != QUEUED:
        return None
    fresh = {"frames": 0, "frames_expected": None, "fps": 0.0, "preview": None}
    return replace(job, state=RUNNING, attempt=job.attempt + 1, lease=lease, started=now, **fresh)


def ended(job: Job, state: str, now: float) -> Job:
    """A job at its end."""
    return replace(job, state=state, finished=now, lease=0.0, preview=None)


def failed(job: Job, now: float, sentence: str, code: str, refused: bool = False) -> Job:
    """A job that cannot be done. It keeps its inputs where trying again may help.

    Args:
        job: its row.
        now: seconds since 1970.
        sentence: why, for the client.
        code: why, for programs.
        refused: because of what the client sent.
    """
    kept = _NO_INPUTS if refused or code == "files-gone" else {}
    return replace(ended(job, FAILED, now), error=sentence, error_code=code, refused=refused, **kept)


def cancelled(job: Job, now: float) -> Job | None:
    """A job that nobody wants any more; its idempotency key is free."""
    if job.state not in ACTIVE:
        return None
    return replace(job, state=CANCELLED, finished=now, idempotency_key=None)


def queued_again(job: Job) -> Job | None:
    """A failed job that is tried once more."""
    if not job.is_retryable:
        return None
    fresh = {"started": None, "finished": None, "error": None, "error_code": None}
    return replace(job, state=QUEUED, crashes=0, frames=0, frames_expected=None, fps=0.0, **fresh)


def expired(job: Job, limit: float) -> Job | None:
    """A job whose files go, because it has ended before `limit` (seconds since 1970)."""
    if (job.finished or job.created) > limit or not (job.state == DONE or job.is_retryable):
        return None
    if job.state == FAILED:
        return replace(job, idempotency_key=None, **_NO_INPUTS)
    return replace(job, state=EXPIRED, result=None, subtitles=None, idempotency_key=None)
