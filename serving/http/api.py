"""The HTTP API. It only takes in, tells and hands out; jobs are run by workers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import PlainTextResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.sse import EventSourceResponse, ServerSentEvent
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from serving.http.forms import openapi_body
from serving.http.intake import Intake
from serving.http.metrics import Metrics
from serving.http.refusals import add_problems, described, problems
from serving.http.results import file_response, result_response
from serving.http.security import ApiKeys, Guard
from serving.jobs.jobs import LOCAL_OWNER, JobService
from serving.jobs.store import ACTIVE, DONE, FAILED, STATES, Job
from serving.jobs.views import MEDIA_TYPES, JobView, job_view
from serving.problems import Problem, bad_input, no_such_job

_POLL_S = 0.3  # between two looks at a job that somebody waits for
_DESCRIPTION = (
    "Makes a person in a video, or a portrait, speak new words. **Only with the consent of the person shown.** "
    "Every result says in its metadata that it is synthetic."
)


class JobList(BaseModel):
    """Jobs of this key, newest first."""

    jobs: list[JobView]


class Language(BaseModel):
    """A language in which texts can be spoken."""

    code: str = Field(examples=["zh"])
    name: str = Field(examples=["Chinese (Mandarin)"])
    default_voice: str


class VoiceView(BaseModel):
    """Somebody who speaks texts."""

    name: str
    language: str = Field(examples=["en"])
    gender: str = Field(examples=["female"])
    engine: str
    natural: bool = Field(description="learnt from a person, not robotic")
    licence: str


class EngineInfo(BaseModel):
    """A network that draws mouths."""

    name: str = Field(examples=["lite"])
    installed: bool = Field(description="jobs can name it")
    default: bool
    good_at: str
    licence: str = Field(description="of its weights")
    memory: str
    download_bytes: int = Field(description="of the weights that are missing")
    speed: float | None = Field(description="pictures drawn in a second on the server, where that was measured")


class Health(BaseModel):
    """The service is there."""

    status: Literal["ok"]


@dataclass(frozen=True)
class Access:
    """Who may use the service.

    Attributes:
        keys: API keys, None where everybody is let in.
        hosts: see `Guard`.
        origins: see `Guard`.
    """

    keys: ApiKeys | None
    hosts: tuple[str, ...]
    origins: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Context:
    """What the routes of one application work with."""

    service: JobService
    intake: Intake
    access: Access
    registry: CollectorRegistry


def create_app(service: JobService, intake: Intake, access: Access) -> FastAPI:
    """The web application.

    Args:
        service: the jobs.
        intake: checks what comes in.
        access: who may use it.
    """
    app = FastAPI(
        title="Lip Sync",
        version="1",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    context = _Context(service, intake, access, CollectorRegistry())
    app.state.context = context
    app.include_router(_ROUTER)
    add_problems(app, _ROUTER, service.store.faults)
    app.openapi = lambda: described(app)
    app.add_middleware(Metrics, service=service, registry=context.registry)
    if access.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(access.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Idempotency-Key", "Range"],
            expose_headers=["Content-Range", "Location", "Retry-After"],
        )
    app.add_middleware(
        Guard,
        hosts=access.hosts,
        origins=access.origins,
        known=None if access.keys is None else access.keys.shown,
        per_minute=service.config.max_requests_per_minute,
    )
    return app


def _context(request: Request) -> _Context:
    return request.app.state.context


Context = Annotated[_Context, Depends(_context)]


_BEARER = HTTPBearer(auto_error=False, description="an API key, where keys are in use")


def _owner(context: Context, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> str:
    """Whose jobs the request is about."""
    keys = context.access.keys
    if keys is None:
        return LOCAL_OWNER
    owner = None if given is None else keys.owner(given.credentials)
    if owner is None:
        detail = "This server wants an API key: send the header Authorization: Bearer KEY."
        raise Problem(401, "no-key", detail, {"WWW-Authenticate": "Bearer"})
    return owner


Owner = Annotated[str, Depends(_owner)]


def _job(job_id: str, owner: Owner, context: Context) -> Job:
    """The job that the path names."""
    if re.fullmatch(r"[0-9a-f]{32}", job_id) is None:
        raise no_such_job()
    return context.service.get(job_id, owner)


OneJob = Annotated[Job, Depends(_job)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=r"^[!-~]{1,200}$",
        description="the same request with the same key gives the same job, however often it is sent; another request "
        "with the key is refused; cancelling or deleting the job frees the key",
    ),
]


def _view(context: _Context, job: Job) -> JobView:
    service = context.service
    return job_view(job, service.store.position(job), service.config.keep_h)


_ROUTER = APIRouter()
_UPLOAD = problems(400, 408, 413, 415, 422, 429, 501, 507)
_BODY = {"requestBody": openapi_body()}
_VIDEO: dict[int | str, dict[str, Any]] = {
    200: {"description": "The video.", "content": {kind: {} for kind in MEDIA_TYPES.values()}}
}
_RANGE: dict[int | str, dict[str, Any]] = {
    206: {
        "description": "The range of the video that the header Range asks for.",
        "content": {kind: {} for kind in MEDIA_TYPES.values()},
        "headers": {"Content-Range": {"schema": {"type": "string"}}},
    }
}
_RANGE_HEADERS = [
    {"name": name, "in": "header", "required": False, "description": what, "schema": {"type": "string"}}
    for name, what in (
        ("Range", "the bytes to send, such as bytes=0-999; what is no such range is ignored"),
        ("If-Range", "the ETag of which the range is wanted; the whole is sent if it is another"),
    )
]
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "The job is taken in.",
        "headers": {
            "Location": {"description": "where the job is", "schema": {"type": "string"}},
            "Idempotent-Replayed": {"description": "the job is of an earlier request", "schema": {"type": "string"}},
        },
        "links": {
            name: {"operationId": name, "parameters": {"job_id": "$response.body#/id"}}
            for name in ("show_job", "delete_job", "follow_job", "get_result", "get_preview")
        },
    }
}


@_ROUTER.post("/generate", response_class=Response, responses=_VIDEO | _UPLOAD | problems(500), openapi_extra=_BODY)
async def generate(request: Request, owner: Owner, context: Context) -> Response:
    """Make a video and wait for it. Going away cancels it. For long videos, use /jobs."""
    service = context.service
    job = (await context.intake.take_in(request, owner)).job
    try:
        job = await _finished(request, service, job)
        if job.state == DONE:
            response = result_response(request, service.files, job)
            response.background = BackgroundTask(service.cancel, job.id, owner)
            return response
    except BaseException:
        await to_thread.run_sync(service.cancel, job.id, owner)
        raise
    await to_thread.run_sync(service.cancel, job.id, owner)
    if job.refused:
        raise bad_input(job.error, job.error_code or "bad-input")
    raise Problem(500, "job-failed", job.error or "The job was cancelled.")


async def _finished(request: Request, service: JobService, job: Job) -> Job:
    """Wait until a job has ended; cancel it if the client goes away."""
    while job.state in ACTIVE:
        if await request.is_disconnected():
            raise Problem(400, "broken-off", "The client went away.")
        await asyncio.sleep(_POLL_S)
        job = await to_thread.run_sync(service.get, job.id, job.owner)
    return job


@_ROUTER.post("/jobs", status_code=202, responses=_ACCEPTED | _UPLOAD | problems(409), openapi_extra=_BODY)
async def create_job(
    request: Request, response: Response, owner: Owner, context: Context, idempotency_key: IdempotencyKey = None
) -> JobView:
    """Take in a job and answer at once. The header Location says where to look after it."""
    job, again = await context.intake.take_in(request, owner, idempotency_key)
    response.headers["Location"] = f"/jobs/{job.id}"
    if again:
        response.headers["Idempotent-Replayed"] = "true"
    return await to_thread.run_sync(_view, context, job)


@_ROUTER.get("/jobs", responses=problems(422))
def list_jobs(
    owner: Owner,
    context: Context,
    state: Annotated[Literal["queued", "running", "done", "failed", "cancelled", "expired"] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> JobList:
    """Your jobs, newest first."""
    jobs = context.service.find(owner, STATES if state is None else (state,), limit)
    return JobList(jobs=[_view(context, job) for job in jobs])


@_ROUTER.get("/jobs/{job_id}", responses=problems(404))
def show_job(job: OneJob, context: Context) -> JobView:
    """How far a job is."""
    return _view(context, job)


@_ROUTER.delete("/jobs/{job_id}", status_code=204, responses=problems(404))
def delete_job(job: OneJob, context: Context) -> None:
    """Cancel a job, or forget one that has ended; its files are removed at once."""
    context.service.cancel(job.id, job.owner)


@_ROUTER.get("/jobs/{job_id}/events", response_class=EventSourceResponse, responses=problems(404))
async def follow_job(job: OneJob, context: Context) -> AsyncIterator[ServerSentEvent]:
    """The job again whenever something has changed, until it has ended; the event's name is the job's state."""
    last: JobView | None = None
    now: Job | None = job
    while now is not None:
        view = await to_thread.run_sync(_view, context, now)
        if view != last:
            last = view
            yield ServerSentEvent(data=view, event=view.state)
        if now.state not in ACTIVE:
            return
        await asyncio.sleep(_POLL_S)
        now = await to_thread.run_sync(context.service.store.get, job.id)


@_ROUTER.head("/jobs/{job_id}/result", include_in_schema=False)
@_ROUTER.get(
    "/jobs/{job_id}/result",
    response_class=Response,
    responses=_VIDEO | _RANGE | problems(404, 409, 410, 416),
    openapi_extra={"parameters": _RANGE_HEADERS},
)
def get_result(request: Request, job: OneJob, context: Context) -> Response:
    """The video. Ranges work, so players can seek."""
    if job.state in ACTIVE:
        raise Problem(409, "not-finished", "The job is not finished yet; ask again later.", {"Retry-After": "2"})
    if job.state == FAILED:
        raise Problem(409, "failed", f"There is no result: {job.error}")
    if job.state != DONE:
        raise Problem(410, "gone", f"The job is {job.state}; its result is deleted.")
    return result_response(request, context.service.files, job)


@_ROUTER.get(
    "/jobs/{job_id}/preview",
    response_class=Response,
    responses=_VIDEO | _RANGE | problems(404, 409, 410, 416),
    openapi_extra={"parameters": _RANGE_HEADERS},
)
def get_preview(request: Request, job: OneJob, context: Context) -> Response:
    """The first seconds, small, while the rest is being made."""
    if job.state not in ACTIVE:
        raise Problem(410, "gone", f"The job is {job.state}, and a preview is kept only until then.")
    if job.preview is None:
        raise Problem(409, "not-finished", "There is no preview yet; ask again later.", {"Retry-After": "2"})
    return file_response(request, context.service.files, job, job.preview, job.preview_size)


@_ROUTER.get("/languages", responses=problems(501))
def list_languages(_: Owner, context: Context) -> list[Language]:
    """Languages in which a text can be spoken (`lang`); the first six are looked after."""
    speaker, first = context.intake.speaker, {}
    for voice in speaker.processor.voices:
        first.setdefault(voice.language, voice.name)
    names = speaker.names
    codes = [code for code in names if code in first] + sorted(first.keys() - names.keys())
    return [Language(code=code, name=names.get(code, code), default_voice=first[code]) for code in codes]


@_ROUTER.get("/voices", responses=problems(422, 501))
def list_voices(
    _: Owner, context: Context, lang: Annotated[str | None, Query(max_length=20, description="only these")] = None
) -> list[VoiceView]:
    """Voices that can speak a text (`voice`); the first one of a language is its default."""
    voices = context.intake.speaker.processor.voices
    return [VoiceView(**asdict(voice)) for voice in voices if lang is None or voice.language == lang.lower()]


@_ROUTER.get("/engines", responses=problems())
def list_engines(_: Owner, context: Context) -> list[EngineInfo]:
    """What can draw the mouths (`engine`), and what else there is; a job that names none gets the default one."""
    usual, views = context.intake.defaults.engine, context.intake.engines()
    return [EngineInfo(**asdict(view), default=view.name == usual) for view in views]


@_ROUTER.get("/health", responses=problems())
async def health() -> Health:
    """The server answers."""
    return Health(status="ok")


@_ROUTER.get("/ready", responses=problems(503))
def ready(context: Context) -> Health:
    """Jobs can be taken in and will be run: a worker has its networks loaded, and the disk has room."""
    missing = [] if any(context.service.store.workers().values()) else ["no worker is ready"]
    missing += [] if context.service.has_disk() else ["the disk is nearly full"]
    if missing:
        raise Problem(503, "not-ready", f"Not ready: {', '.join(missing)}.", {"Retry-After": "5"})
    return Health(status="ok")


@_ROUTER.get("/metrics", response_class=PlainTextResponse, responses=problems())
def metrics(_: Owner, context: Context) -> PlainTextResponse:
    """Numbers for Prometheus."""
    return PlainTextResponse(generate_latest(context.registry), media_type=CONTENT_TYPE_LATEST)
