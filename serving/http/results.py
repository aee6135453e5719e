"""Sends a result, whole or a range of it, so that browsers can seek."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from serving.jobs.storage import JobFiles
from serving.jobs.store import Job
from serving.jobs.views import MEDIA_TYPES
from serving.problems import Problem

_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
_DIGITS = 18


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


def file_response(request: Request, files: JobFiles, job: Job, name: str, size: int) -> Response:
    """Answer with a video of a job.

    Args:
        request: its method and headers decide what of the result is sent.
        files: where it lies.
        job: whose it is.
        name: of the file in the job's folder.
        size: bytes.

    Raises:
        Problem: 410 the file is gone, 416 it has no such range.
    """
    stem, _, kind = name.rpartition(".")
    tag, media_type = f'"{job.id}-{stem}"', MEDIA_TYPES[f".{kind}"]
    header = request.headers.get("range")
    if request.headers.get("if-range", tag) != tag:
        header = None
    part = byte_range(header, size)
    start, end = part or (0, size)
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Content-Length": str(end - start),
        "Content-Disposition": f'inline; filename="{stem.partition("-")[0]}.{kind}"',
    }
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(None, status, headers, media_type)
    try:
        files.open(job.id, name).close()
    except FileNotFoundError as error:
        raise Problem(410, "gone", "The file has been deleted.") from error
    return StreamingResponse(files.read(job.id, name, start, end), status, headers, media_type)
