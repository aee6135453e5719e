"""Calls of the HTTP API that hand out files of jobs."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from serving.http.context import Context, Given, OneJob, owned_job
from serving.http.links import no_link
from serving.http.refusals import problems
from serving.http.results import RESULT, VIDEO, file_response, result_response
from serving.jobs.store import ACTIVE, DONE, FAILED, Job
from serving.jobs.views import MEDIA_TYPES, SUBTITLES_TYPE, VERSION
from serving.problems import Problem

RESULTS = APIRouter(prefix=VERSION)
_LONGEST_S = 7 * 86400
_RANGE: dict[int | str, dict[str, Any]] = {
    206: {
        "description": "The range of the file that the header Range asks for.",
        "content": {kind: {} for kind in (*MEDIA_TYPES.values(), SUBTITLES_TYPE, "application/json")},
        "headers": {"Content-Range": {"schema": {"type": "string"}}},
    },
    304: {"description": "The client has it already, as If-None-Match says."},
}
_SUBTITLES: dict[int | str, dict[str, Any]] = {200: {"description": "Subtitles.", "content": {SUBTITLES_TYPE: {}}}}
_RANGE_HEADERS = [
    {"name": name, "in": "header", "required": False, "description": what, "schema": {"type": "string"}}
    for name, what in (
        ("Range", "the bytes to send, such as bytes=0-999; what is no such range is ignored"),
        ("If-Range", "the ETag of which the range is wanted; the whole is sent if it is another"),
        ("If-None-Match", "ETags that the client has; 304 if the file is one of them"),
    )
]
_SENT = {"response_class": Response, "openapi_extra": {"parameters": _RANGE_HEADERS}}


class LinkView(BaseModel):
    """A link to a result."""

    url: str = Field(description="the whole address; whoever has it needs no key")
    expires: datetime


def _linked_job(
    job_id: str,
    request: Request,
    context: Context,
    given: Given,
    expires: Annotated[int | None, Query(ge=0, le=10**12, description="of a signed link")] = None,
    signature: Annotated[str | None, Query(max_length=200, description="of a signed link")] = None,
) -> Job:
    """The job that the path names, for its owner or with a signed link."""
    if signature is None or expires is None:
        return owned_job(job_id, request, context, given)
    job = context.service.store.get(job_id) if re.fullmatch(r"[0-9a-f]{32}", job_id) else None
    key_hash = None if job is None else context.key_hash(job.owner)
    if key_hash is None:
        raise no_link()
    context.links.check(job, expires, signature, key_hash)
    request.state.is_linked = True
    return job


LinkedJob = Annotated[Job, Depends(_linked_job)]


@RESULTS.head("/jobs/{job_id}/result", include_in_schema=False)
@RESULTS.get("/jobs/{job_id}/result", responses=RESULT | _RANGE | problems(404, 409, 410, 416), **_SENT)
def get_result(request: Request, job: LinkedJob, context: Context) -> Response:
    """The video or track. Ranges work, so players can seek. A signed link (POST .../link) opens it without a key."""
    _check_done(job)
    return result_response(request, context.service.files, job)


def _check_done(job: Job) -> None:
    """Refuse where there is no result."""
    if job.state in ACTIVE:
        raise Problem(409, "not-finished", "The job is not finished yet; ask again later.", {"Retry-After": "2"})
    if job.state == FAILED:
        raise Problem(409, "failed", f"There is no result: {job.error}")
    if job.state != DONE:
        raise Problem(410, "gone", f"The job is {job.state}; its result is deleted.")


@RESULTS.post("/jobs/{job_id}/link", responses=problems(404, 409, 410, 422))
def make_link(
    request: Request,
    job: OneJob,
    context: Context,
    seconds: Annotated[int, Query(ge=1, le=_LONGEST_S, description="how long it is to work")] = 3600,
) -> LinkView:
    """A signed link to the result: for a `<video>` element, or to be passed on. Whoever has it needs no key."""
    _check_done(job)
    expires = int(time.time()) + seconds
    link = context.links.link(job, expires, context.key_hash(job.owner) or "")
    base = context.service.config.public_url or str(request.base_url)
    return LinkView(url=base.rstrip("/") + link, expires=datetime.fromtimestamp(expires, timezone.utc))


@RESULTS.head("/jobs/{job_id}/subtitles", include_in_schema=False)
@RESULTS.get("/jobs/{job_id}/subtitles", responses=_SUBTITLES | _RANGE | problems(404, 409, 410, 416), **_SENT)
def get_subtitles(request: Request, job: OneJob, context: Context) -> Response:
    """The words with their times, UTF-8, of a job that was made with `srt`."""
    _check_done(job)
    if job.subtitles is None:
        raise Problem(409, "no-subtitles", "The job has no subtitles; ask for them (srt) when you make one.")
    return file_response(request, context.service.files, job, job.subtitles)


@RESULTS.head("/jobs/{job_id}/preview", include_in_schema=False)
@RESULTS.get("/jobs/{job_id}/preview", responses=VIDEO | _RANGE | problems(404, 409, 410, 416), **_SENT)
def get_preview(request: Request, job: OneJob, context: Context) -> Response:
    """The first seconds, small, while the rest is being made."""
    if job.state not in ACTIVE:
        raise Problem(410, "gone", f"The job is {job.state}, and a preview is kept only until then.")
    if job.preview is None:
        raise Problem(409, "not-finished", "There is no preview yet; ask again later.", {"Retry-After": "2"})
    return file_response(request, context.service.files, job, job.preview, job.preview_size)
