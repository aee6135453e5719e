"""Sends a result, whole or a range of it, so that browsers can seek."""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from serving.jobs.storage import JobFiles
from serving.jobs.store import Job
from serving.jobs.views import MEDIA_TYPES, TRACK_TYPES
from serving.problems import Problem

VIDEO: dict[int | str, dict[str, Any]] = {
    200: {"description": "The video.", "content": {kind: {} for kind in MEDIA_TYPES.values()}}
}
RESULT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The video or the track.",
        "content": {kind: {} for kind in dict.fromkeys((*MEDIA_TYPES.values(), *TRACK_TYPES.values()))},
    }
}
_TYPES = MEDIA_TYPES | TRACK_TYPES
_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
_DIGITS = 18
_HEADERS = {
    "Accept-Ranges": "bytes",
    "Cache-Control": "private, no-cache",  # kept by the client only, and asked for with If-None-Match each time
    # A browser that opens the address itself puts a player of its own around the video.
    "Content-Security-Policy": "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'",
}


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The range start <= i < end that a Range header asks for; None: the whole (also for several ranges at once).

    Raises:
        Problem: 416.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match[1] == match[2] == "" or max(len(match[1]), len(match[2])) > _DIGITS:
        return None
    if match[1] == "":
        start, end = max(size - int(match[2]), 0), size
    else:
        start, end = int(match[1]), size if match[2] == "" else min(int(match[2]) + 1, size)
        if match[2] != "" and int(match[2]) < start:
            return None  # not valid, to be ignored
    if start >= end:
        detail = f"The file has {size} bytes; ask for a range within them."
        raise Problem(416, "no-such-range", detail, {"Content-Range": f"bytes */{size}"})
    return start, end


def result_response(request: Request, files: JobFiles, job: Job) -> Response:
    """Answer with a finished job's result; arguments and exceptions as for `file_response`."""
    return file_response(request, files, job, job.result, job.result_size)


def file_response(request: Request, files: JobFiles, job: Job, name: str, size: int | None = None) -> Response:
    """Answer with a video or the subtitles of a job.

    Args:
        request: its method and headers decide what of the result is sent.
        files: where it lies.
        job: whose it is.
        name: of the file in the job's folder.
        size: bytes; None: as many as the file has.

    Raises:
        Problem: 410 the file is gone, 416 it has no such range.
    """
    stem, _, kind = name.rpartition(".")
    tag, media_type = f'"{job.id}-{stem}"', _TYPES[f".{kind}"]
    headers = _HEADERS | {"ETag": tag, "Content-Disposition": f'inline; filename="{stem.partition("-")[0]}.{kind}"'}
    if getattr(request.state, "is_linked", False):
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"  # so that pages of other sites can show it
    try:
        files.open(job.id, name).close()
        size = files.size(job.id, name) if size is None else size
    except FileNotFoundError as error:
        raise Problem(410, "gone", "The file has been deleted.") from error
    if _is_known(request.headers.get("if-none-match"), tag):
        return Response(None, 304, headers)
    wanted = request.headers.get("range") if request.headers.get("if-range", tag) == tag else None
    part = byte_range(wanted, size)
    start, end = part or (0, size)
    headers["Content-Length"] = str(end - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(None, status, headers, media_type)
    return StreamingResponse(files.read(job.id, name, start, end), status, headers, media_type)


def _is_known(header: str | None, tag: str) -> bool:
    """Whether If-None-Match names the tag; as RFC 9110 has it, W/ makes no difference."""
    tags = [one.strip().removeprefix("W/") for one in (header or "").split(",")]
    return tag in tags or tags == ["*"]
