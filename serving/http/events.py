"""A job's changes as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Every event has an id that stands for what it tells. A client that comes again with the last one (`Last-Event-ID`, as
browsers do by themselves) is told only what is new; after the end that is nothing, and 204 tells browsers to stop. When
the rows cannot be reached, an event says so and the connection is broken off, without the last chunk that ends an
answer: no client can take that for the end of the job.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable

from anyio import to_thread
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from serving.jobs.store import ACTIVE
from serving.jobs.views import JobView
from serving.problems import Problem, no_such_job, store_away

_LOG = logging.getLogger("lipsync.events")
_POLL_S = 0.3  # between two looks at the job
_QUIET_S = 15.0  # without an event: then a comment keeps proxies from hanging up
_RETRY_MS = 5000  # after which a client comes again
_ID_LENGTH = 16

Look = Callable[[], "JobView | None"]


class _BrokenOff(Exception):
    """The answer must not look as if it had ended."""


class EventStream(StreamingResponse):
    """A stream of events that may be broken off."""

    media_type = "text/event-stream"

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except _BrokenOff:
            pass  # without the last message the server drops the connection


def events_response(first: JobView, look: Look, faults: tuple[type[Exception], ...], last_id: str | None) -> Response:
    """Answer with all changes of a job until it has ended.

    Args:
        first: the job as it is.
        look: how it is now; None: it is deleted. It may take its time.
        faults: what `look` raises when the rows cannot be reached.
        last_id: id of the last event that the client has; None: it has none.
    """
    if last_id == _id(first) and first.state not in ACTIVE:
        return Response(status_code=204)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # neither store it nor hold it back
    return EventStream(_changes(first, look, faults, last_id), headers=headers)


async def _changes(
    first: JobView, look: Look, faults: tuple[type[Exception], ...], last_id: str | None
) -> AsyncIterator[bytes]:
    now: JobView | None = first
    spoke = time.monotonic()
    while now is not None:
        if (new := _id(now)) != last_id:
            last_id, spoke = new, time.monotonic()
            yield format_sse_event(event=now.state, data_str=now.model_dump_json(), id=new)
        if now.state not in ACTIVE:
            return
        if time.monotonic() - spoke > _QUIET_S:
            spoke = time.monotonic()
            yield KEEPALIVE_COMMENT
        await asyncio.sleep(_POLL_S)
        try:
            now = await to_thread.run_sync(look)
        except faults as error:
            _LOG.warning("the job queue does not answer somebody who follows a job: %s", error)
            yield _problem_event("outage", store_away(), retry=_RETRY_MS)
            raise _BrokenOff from error
    yield _problem_event("deleted", no_such_job())


def _id(view: JobView) -> str:
    """The same for the same content, also of another server."""
    return hashlib.sha256(view.model_dump_json().encode()).hexdigest()[:_ID_LENGTH]


def _problem_event(name: str, problem: Problem, retry: int | None = None) -> bytes:
    return format_sse_event(event=name, data_str=json.dumps(problem.document()), retry=retry)
