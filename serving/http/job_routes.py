"""Calls of the HTTP API about jobs."""

from __future__ import annotations

import asyncio
import base64
import re
from contextlib import suppress
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from serving.http.context import Context, OneJob, Owner
from serving.http.events import events_response
from serving.http.forms import openapi_body
from serving.http.refusals import problems
from serving.http.results import VIDEO, result_response
from serving.jobs.jobs import JobService
from serving.jobs.store import ACTIVE, DONE, Job, Mark
from serving.jobs.views import VERSION, JobView
from serving.problems import Problem, bad_input

JOBS = APIRouter(prefix=VERSION)
_POLL_S = 0.3  # between two looks at a job that somebody waits for


class JobList(BaseModel):
    """Jobs of this key, newest first."""

    jobs: list[JobView]
    total: int = Field(ge=0, description="so many there are, on all pages together", examples=[1])
    next_cursor: str | None = Field(description="gives the next page, as `cursor`; null: this is the last one")


IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[!-~]{1,200}$",
        description="the same request with the same key gives the same job, however often it is sent; another request "
        "with the key is refused; cancelling or deleting the job frees the key",
    ),
]
LastEventId = Annotated[str | None, Header(description="id of the last event that was seen; only newer ones are sent")]
UPLOAD = problems(400, 408, 413, 415, 422, 429, 501, 507)
_BODY = {"requestBody": openapi_body()}
_WORD = {"type": "string"}
_EVENT = {"itemSchema": {"type": "object", "properties": {"data": _WORD, "event": _WORD, "id": _WORD}}}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events; the data of most is the job.", "content": {"text/event-stream": _EVENT}},
    204: {"description": "The job has ended, and the client has seen that."},
}
_ABOUT_ONE_JOB = (
    *("show_job", "cancel_job", "retry_job", "delete_job", "follow_job"),
    *("get_result", "make_link", "get_subtitles", "get_preview"),
)
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "The job is taken in.",
        "headers": {
            "Location": {"description": "where the job is", "schema": {"type": "string"}},
            "Idempotent-Replayed": {"description": "the job is of an earlier request", "schema": {"type": "string"}},
        },
        "links": {
            name: {"operationId": name, "parameters": {"job_id": "$response.body#/id"}}
            for name in _ABOUT_ONE_JOB
        },
    }
}


@JOBS.post("/generate", response_class=Response, responses=VIDEO | UPLOAD | problems(500), openapi_extra=_BODY)
async def generate(request: Request, owner: Owner, context: Context) -> Response:
    """Make a video and wait for it. Going away cancels it. For long videos, use /v1/jobs."""
    service = context.service
    job = (await context.intake.take_in(request, owner)).job
    try:
        job = await _finished(request, service, job)
        if job.state == DONE:
            response = result_response(request, service.files, job)
            response.background = BackgroundTask(service.delete, job.id, owner)
            return response
    except BaseException:
        await to_thread.run_sync(service.delete, job.id, owner)
        raise
    await to_thread.run_sync(service.delete, job.id, owner)
    if job.refused:
        raise bad_input(job.error, job.error_code or "bad-input")
    raise Problem(500, "job-failed", job.error or "The job was cancelled.")


async def _finished(request: Request, service: JobService, job: Job) -> Job:
    """Wait until a job has ended, also while the job queue is away; cancel it if the client goes away."""
    while job.state in ACTIVE:
        if await request.is_disconnected():
            raise Problem(400, "broken-off", "The client went away.")
        await asyncio.sleep(_POLL_S)
        with suppress(*service.store.faults):
            job = await to_thread.run_sync(service.get, job.id, job.owner)
    return job


@JOBS.post("/jobs", status_code=202, responses=ACCEPTED | UPLOAD | problems(409), openapi_extra=_BODY)
async def create_job(
    request: Request, response: Response, owner: Owner, context: Context, idempotency_key: IdempotencyKey = None
) -> JobView:
    """Take in a job and answer at once. The header Location says where to look after it."""
    job, again = await context.intake.take_in(request, owner, idempotency_key)
    response.headers["Location"] = f"{VERSION}/jobs/{job.id}"
    if again:
        response.headers["Idempotent-Replayed"] = "true"
    return await to_thread.run_sync(context.view, job)


@JOBS.get("/jobs", responses=problems(422))
def list_jobs(
    owner: Owner,
    context: Context,
    state: Annotated[Literal["queued", "running", "done", "failed", "cancelled", "expired"] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[str | None, Query(max_length=200, description="next_cursor of the page before")] = None,
) -> JobList:
    """Your jobs, newest first, a page at a time."""
    service = context.service
    jobs = service.page(owner, state, None if cursor is None else _mark(cursor), limit + 1)
    return JobList(
        jobs=[context.view(job) for job in jobs[:limit]],
        total=service.store.count(state, owner),
        next_cursor=_cursor(jobs[limit - 1]) if len(jobs) > limit else None,
    )


def _cursor(job: Job) -> str:
    """Where a page ends, as a word."""
    return base64.urlsafe_b64encode(f"{job.created!r} {job.id}".encode()).decode().rstrip("=")


def _mark(cursor: str) -> Mark:
    """Undo `_cursor`.

    Raises:
        Problem: 422, it is none.
    """
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:
        text = ""
    match = re.fullmatch(r"(\d{1,12}\.\d{1,12}) ([0-9a-f]{32})", text, re.ASCII)
    if match is None:
        raise bad_input("The cursor cannot be used; take next_cursor of the page before as it is.")
    return float(match[1]), match[2]


@JOBS.get("/jobs/{job_id}", responses=problems(404))
def show_job(job: OneJob, context: Context) -> JobView:
    """How far a job is."""
    return context.view(job)


@JOBS.delete("/jobs/{job_id}", status_code=204, responses=problems(404))
def delete_job(job: OneJob, context: Context) -> None:
    """Forget a job, in whatever state it is; its files are removed at once. One that runs is stopped."""
    context.service.delete(job.id, job.owner)


@JOBS.post("/jobs/{job_id}/cancel", responses=problems(404, 409))
def cancel_job(job: OneJob, context: Context) -> JobView:
    """Stop a job that waits or runs. Its files are removed at once, but it can still be seen."""
    return context.view(context.service.cancel(job.id, job.owner))


@JOBS.post("/jobs/{job_id}/retry", status_code=202, responses=problems(404, 409, 429, 507))
def retry_job(job: OneJob, context: Context) -> JobView:
    """Queue a job again that has failed through no fault of its inputs (`retryable`)."""
    return context.view(context.service.retry(job.id, job.owner))


@JOBS.get("/jobs/{job_id}/events", response_class=Response, responses=_EVENTS | problems(404))
def follow_job(job: OneJob, context: Context, last_event_id: LastEventId = None) -> Response:
    """The job again whenever something has changed, until it has ended; the event's name is the job's state, `deleted`
    when it is no more, or `outage` when the server itself cannot see it: then the connection breaks off, come again."""
    store = context.service.store

    def look() -> JobView | None:
        now = store.get(job.id)
        return None if now is None else context.view(now)

    return events_response(context.view(job), look, store.faults, last_event_id)
