"""Everything that the service refuses, as a problem with a status and one clear sentence (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"
RETRY_S = 30
"""Seconds after which a client that was sent away for want of space may try again."""


class Problem(Exception):
    """A refusal.

    Args:
        status: HTTP status, 400 to 599.
        name: short name that stays the same, for programs; the last part of `type`.
        detail: one sentence for people: what is wrong and what to do.
        headers: further HTTP headers.
        more: further members of the problem document.
    """

    def __init__(
        self,
        status: int,
        name: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ):
        super().__init__(detail)
        self.status = HTTPStatus(status)
        self.name = name
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def document(self) -> dict[str, Any]:
        """The problem document of RFC 9457."""
        return {
            "type": f"urn:lip-sync:{self.name}",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            **self.more,
        }


def problem_response(problem: Problem) -> JSONResponse:
    """The answer to a request that is refused."""
    return JSONResponse(problem.document(), problem.status.value, problem.headers, MEDIA_TYPE)


def bad_input(detail: str, **more: Any) -> Problem:
    """The request can be read but not used."""
    return Problem(422, "bad-input", detail, **more)


def no_such_job() -> Problem:
    """Also for jobs of others: whether they exist is nobody's business."""
    return Problem(404, "no-such-job", "There is no such job; it may have been deleted after its time.")


def too_large(limit_gb: float) -> Problem:
    """The upload is over the limit."""
    return Problem(413, "too-large", f"The upload is larger than {limit_gb:g} GB; give smaller files.")


def busy(name: str, detail: str) -> Problem:
    """Too much to do; the client may come again."""
    return Problem(429, name, detail, {"Retry-After": str(RETRY_S)})


def store_away() -> Problem:
    """The rows of the jobs cannot be reached."""
    detail = "The job queue does not answer; try again later."
    return Problem(503, "no-queue", detail, {"Retry-After": str(RETRY_S)})


def disk_full() -> Problem:
    """Refused before the disk is full, so that running jobs can end."""
    detail = "There is not enough disk space for another job; try again later."
    return Problem(507, "disk-full", detail, {"Retry-After": str(RETRY_S)})
