"""The HTTP API. It only takes in, tells and hands out; jobs are run by workers."""

from __future__ import annotations

import re
from collections.abc import Collection

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.http.about_routes import ABOUT, STATE
from serving.http.context import Access, Parts
from serving.http.file_routes import RESULTS
from serving.http.intake import Intake
from serving.http.job_routes import JOBS
from serving.http.links import Links
from serving.http.metrics import Metrics
from serving.http.refusals import add_problems, described
from serving.http.security import Guard
from serving.http.track_routes import TRACKS
from serving.jobs.jobs import JobService
from serving.jobs.views import VERSION

ROUTERS = (JOBS, TRACKS, RESULTS, ABOUT, STATE)
_DESCRIPTION = (
    "Makes a person in a video, or a portrait, speak new words. **Only with the consent of the person shown.** "
    "Every result says in its metadata that it is synthetic."
)
_UNVERSIONED = re.compile(r"/(?:jobs|tracks|generate|languages|voices|engines)(?:/|$)")


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
    parts = Parts(service, intake, access, CollectorRegistry(), Links(service.config.data_dir))
    app.state.parts = parts
    for router in ROUTERS:
        app.include_router(router)
    add_problems(app, ROUTERS, service.store.faults)
    app.openapi = lambda: described(app)
    app.add_middleware(Metrics, service=service, registry=parts.registry)
    app.add_middleware(Unversioned)
    if access.origins:
        _let_in(app, access.origins)
    app.add_middleware(
        Guard,
        hosts=access.hosts,
        origins=access.origins,
        known=None if access.keys is None else access.keys.shown,
        per_minute=service.config.max_requests_per_minute,
        rates=service.store.rates,
    )
    return app


def _let_in(app: FastAPI, origins: Collection[str]) -> None:
    """Web pages of other origins may use the API from a browser."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["Authorization", "Idempotency-Key", "If-None-Match", "If-Range", "Last-Event-ID", "Range"],
        expose_headers=["Content-Range", "ETag", "Idempotent-Replayed", "Location", "Retry-After"],
    )


class Unversioned:
    """Answers under the paths from before there were versions as under /v1.

    Args:
        app: what knows the paths of /v1 only.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _UNVERSIONED.match(scope["path"]):
            scope = {**scope, "path": VERSION + scope["path"], "raw_path": VERSION.encode() + scope["raw_path"]}
        await self._app(scope, receive, send)
