"""Everything that the service refuses, as a problem with a status and one clear sentence (RFC 9457)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"
RETRY_S = 30
"""Seconds after which a client that was sent away for want of space may try again."""

_TITLES = {413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
"""As RFC 9110 names them; Python calls these so since 3.13 only."""
_API_WORDS = (
    (r"; --list-faces shows (?:all|which faces there are)", "; give another one"),
    (
        r"; (?:get it with|put the file there|accept it once with)\b.*",
        "; whoever runs this server can add it (docs/engines.md).",
    ),
    (r"--list-(voices|engines)", r"GET /v1/\1"),
    (r"--(video|audio|sprites)\b", r"\1_file"),
    (r"--sprites\b", "engine sprites"),
    (r"--text(?: or --text-file)?\b", "text_input"),
    (r"--text-file\b", "text_input"),
)
"""Pattern -> what a client of the API is told instead of what the command line says."""


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
            "title": _TITLES.get(self.status, self.status.phrase),
            "status": self.status.value,
            "detail": self.detail,
            **self.more,
        }


def problem_response(problem: Problem) -> JSONResponse:
    """The answer to a request that is refused."""
    return JSONResponse(problem.document(), problem.status.value, problem.headers, MEDIA_TYPE)


def in_api_terms(sentence: str) -> str:
    """A sentence of the pipeline, which speaks of the command line's options, with the API's fields in their place."""
    for pattern, words in _API_WORDS:
        sentence = re.sub(pattern, words, sentence)
    return re.sub(r"--([a-z][a-z-]*)", lambda option: option[1].replace("-", "_"), sentence)


def bad_input(detail: str, name: str = "bad-input", **more: Any) -> Problem:
    """The request can be read but not used."""
    return Problem(422, name, detail, **more)


def no_such_job() -> Problem:
    """Also for jobs of others: whether they exist is nobody's business."""
    return Problem(404, "no-such-job", "There is no such job; it may have been deleted after its time.")


def other_request() -> Problem:
    """An idempotency key is known, from something else."""
    detail = (
        "This Idempotency-Key came with another request before; send the same fields and files, or take another key."
    )
    return Problem(409, "idempotency-conflict", detail)


def has_ended(state: str) -> Problem:
    """There is nothing left to cancel."""
    return Problem(409, "has-ended", f"The job is {state} already; it can be deleted, not cancelled.")


def not_retryable(has_failed: bool) -> Problem:
    """The job cannot be done once more."""
    why = "it failed because of what was sent, or its files are deleted" if has_failed else "it has not failed"
    return Problem(409, "not-retryable", f"The job cannot be tried again: {why}; make a new job.")


def too_large(limit_gb: float) -> Problem:
    """The upload is over the limit."""
    return Problem(413, "too-large", f"The upload is larger than {limit_gb:g} GB; give smaller files.")


def busy(name: str, detail: str, wait_s: int = RETRY_S) -> Problem:
    """Too much to do; the client may come again after so many seconds."""
    return Problem(429, name, detail, {"Retry-After": str(wait_s)})


def store_away() -> Problem:
    """The rows of the jobs cannot be reached."""
    detail = "The job queue does not answer; try again later."
    return Problem(503, "no-queue", detail, {"Retry-After": str(RETRY_S)})


def disk_full() -> Problem:
    """Refused before the disk is full, so that running jobs can end."""
    detail = "There is not enough disk space for another job; try again later."
    return Problem(507, "disk-full", detail, {"Retry-After": str(RETRY_S)})
