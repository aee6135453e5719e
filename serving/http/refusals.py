"""How the HTTP API refuses: problem documents (RFC 9457), as answers and in the OpenAPI document."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route
from starlette.types import Scope

from serving.problems import Problem, bad_input, disk_full, in_api_terms, problem_response, store_away
from utils.disk import is_disk_full
from utils.helpers import InputError

_LOG = logging.getLogger("lipsync.api")
_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemView"}}}
_RETRY_AFTER = {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}
_REFUSALS = {
    400: "The form is broken, or the client went away.",
    401: "An API key is wanted.",
    403: "A web page of another site asks, or a signed link is not valid.",
    404: "There is no such job.",
    408: "The upload is too slow.",
    409: "The job is not in a state for this; or the idempotency key came with another request.",
    410: "The result is deleted.",
    413: "The upload is too large.",
    415: "This is neither a multipart form nor JSON.",
    416: "The result has no such range.",
    421: "The host name is not the server's.",
    422: "A field or a file cannot be used.",
    429: "The queue is full, or the key has too many jobs, keeps too much, or asks too often.",
    500: "Something went wrong inside.",
    501: "This installation cannot speak texts.",
    503: "The service is too busy, or not ready.",
    507: "The disk is nearly full.",
}


class ProblemView(BaseModel):
    """Why something was refused (RFC 9457)."""

    type: str = Field(examples=["urn:lip-sync:bad-input"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["Give a sound file (audio_file), a text (text_input), or both."])


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Refusals in the terms of OpenAPI."""
    return {status: _refusal(status) for status in sorted((401, 403, 421, 503, *statuses))}


def _refusal(status: int) -> dict[str, Any]:
    described = {"description": _REFUSALS[status], "content": _PROBLEM}
    return described | ({"headers": {"Retry-After": _RETRY_AFTER}} if status in (429, 503, 507) else {})


def described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, in which every refusal is a problem document."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schemas = document["components"]["schemas"]
        schemas["ProblemView"] = ProblemView.model_json_schema()
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for operations in document["paths"].values():
            for operation in operations.values():
                if "422" in operation["responses"]:
                    operation["responses"]["422"] = _refusal(422)
                if app.state.parts.access.keys is None:
                    operation.pop("security", None)
                if "security" not in operation:
                    operation["responses"].pop("401", None)
        if app.state.parts.access.keys is None:
            del document["components"]["securitySchemes"]
    return app.openapi_schema


def add_problems(app: FastAPI, routers: Collection[APIRouter], store_faults: tuple[type[Exception], ...]) -> None:
    """Make every refusal a problem document, also when the job store is away; tell nobody what went wrong inside."""

    async def refused(_: Request, problem: Problem) -> JSONResponse:
        return problem_response(problem)

    async def unusable(_: Request, error: InputError) -> JSONResponse:
        return problem_response(bad_input(in_api_terms(str(error)), error.code))

    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [{"field": str(fault["loc"][-1]), "message": fault["msg"]} for fault in error.errors()]
        first = faults[0]
        detail = f"The value of {first['field']!r} cannot be used: {first['message']}."
        return problem_response(bad_input(detail, errors=faults))

    async def http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 405:
            allowed = ", ".join(_methods(routers, request.scope))
            detail = f"{request.method} does not work here; use {allowed}."
            return problem_response(Problem(405, "method-not-allowed", detail, {"Allow": allowed}))
        if error.status_code == 404:
            return problem_response(Problem(404, "not-found", "There is nothing here; /openapi.json lists all calls."))
        return problem_response(Problem(error.status_code, "refused", f"{error.detail}.", error.headers))

    async def broken(_: Request, __: Exception) -> JSONResponse:
        return problem_response(Problem(500, "internal", "Something went wrong inside; the server's log says what."))

    for kind, handler in (
        (Problem, refused),
        (InputError, unusable),
        (RequestValidationError, invalid),
        (HTTPException, http),
        (OSError, _unwritten),
        (Exception, broken),
        *((fault, _away) for fault in store_faults),
    ):
        app.add_exception_handler(kind, handler)


def _methods(routers: Collection[APIRouter], scope: Scope) -> list[str]:
    """What can be done with the path of a request."""
    known = [route for router in (*routers, scope["app"]) for route in router.routes if isinstance(route, Route)]
    fitting = (route for route in known if route.matches(scope)[0] is not Match.NONE)
    return sorted({method for route in fitting for method in route.methods})


async def _away(_: Request, error: Exception) -> JSONResponse:
    """The rows of the jobs cannot be reached, or not be written."""
    if is_disk_full(error):
        return problem_response(disk_full())
    _LOG.error("the job queue cannot be reached: %s", error)
    return problem_response(store_away())


async def _unwritten(_: Request, error: OSError) -> JSONResponse:
    """The disk is full; every other error of this kind is a fault of ours."""
    if not is_disk_full(error):
        raise error
    return problem_response(disk_full())
