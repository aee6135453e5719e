"""What the routes of the HTTP API have in common: what they work with, and whose request it is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry

from serving.http.intake import Intake
from serving.http.links import Links
from serving.http.security import ApiKeys
from serving.jobs.jobs import LOCAL_OWNER, JobService
from serving.jobs.store import QUEUED, Job
from serving.jobs.views import JobView, job_view
from serving.jobs.webhooks import secret_name
from serving.problems import Problem, no_such_job


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
class Parts:
    """What the routes of one application work with.

    Attributes:
        service: the jobs.
        intake: checks what comes in.
        access: who may use it.
        registry: numbers for Prometheus.
        links: to results, without keys.
    """

    service: JobService
    intake: Intake
    access: Access
    registry: CollectorRegistry
    links: Links

    def key_hash(self, owner: str) -> str | None:
        """Hash of somebody's API key; "" where there are no keys, None where there is no such key any more."""
        return "" if self.access.keys is None else self.access.keys.hash_of(owner)

    def view(self, job: Job) -> JobView:
        """A job as clients see it."""
        position = self.service.store.position(job) if job.state == QUEUED else None
        return job_view(job, position, self.service.config.keep_h)


def _parts(request: Request) -> Parts:
    return request.app.state.parts


Context = Annotated[Parts, Depends(_parts)]

_BEARER = HTTPBearer(auto_error=False, description="an API key, where keys are in use")


Given = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


def _owner(request: Request, context: Context, given: Given) -> str:
    """Whose jobs the request is about; the request's state notes whose secret signs what is told about them."""
    keys, request.state.secret_of = context.access.keys, None
    if keys is None:
        return LOCAL_OWNER
    owner = None if given is None else keys.owner(given.credentials)
    if owner is None:
        detail = "This server wants an API key: send the header Authorization: Bearer KEY."
        raise Problem(401, "no-key", detail, {"WWW-Authenticate": "Bearer"})
    request.state.secret_of = secret_name(owner, keys.hash_of(owner) or "")
    return owner


Owner = Annotated[str, Depends(_owner)]


def _job(job_id: str, owner: Owner, context: Context) -> Job:
    """The job that the path names."""
    if re.fullmatch(r"[0-9a-f]{32}", job_id) is None:
        raise no_such_job()
    return context.service.get(job_id, owner)


def owned_job(job_id: str, request: Request, context: Context, given: Given) -> Job:
    """The same, where it is not yet known whose request it is."""
    return _job(job_id, _owner(request, context, given), context)


OneJob = Annotated[Job, Depends(_job)]
