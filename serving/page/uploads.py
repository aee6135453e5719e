"""What browsers send to the page, before it becomes a job: the same limits as for the HTTP API's uploads."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from serving.http.uploads import receive_form
from serving.jobs.jobs import JobService
from serving.page.files import PageFiles
from serving.page.said import told
from serving.page.texts import language_for
from serving.problems import Problem, disk_full, store_away
from utils.disk import is_disk_full

_FIELD = "files"  # as Gradio's page calls it
_TELL_S = 0.25  # between two looks at an upload's progress
_PATIENCE_S = 3.0  # until an upload that somebody asks about must have begun
_MOST_TOLD = 1000  # uploads whose progress is told at once


@dataclass
class _Progress:
    """Of one upload.

    Attributes:
        name: as the client calls the file.
        received: bytes of the request so far.
        ended: nothing more comes.
    """

    name: str = ""
    received: int = 0
    ended: bool = False


class PageUploads:
    """Takes in one file a request.

    Args:
        service: knows the limits.
        files: where they go.
    """

    def __init__(self, service: JobService, files: PageFiles):
        self._service = service
        self._files = files
        self._under_way: dict[str, _Progress] = {}

    async def take_in(self, request: Request, owner: str) -> Response:
        """Answers with a list of the one path under which Gradio finds the file. Whatever goes wrong, nothing of it
        stays on the disk, and one sentence in the browser's language says why."""
        progress = _Progress()
        upload_id = request.query_params.get("upload_id", "")
        if upload_id and len(self._under_way) < _MOST_TOLD:
            self._under_way[upload_id] = progress
        try:
            return JSONResponse([str(await self._receive(request, owner, progress))])
        except (Problem, OSError, *self._service.store.faults) as error:
            problem = self._problem(error)
            language = language_for(request.headers.get("accept-language"))
            return PlainTextResponse(told(problem.detail, language), problem.status, problem.headers)
        finally:
            progress.ended = True
            self._under_way.pop(upload_id, None)

    def _problem(self, error: Exception) -> Problem:
        """What is said of what went wrong; what is a fault of ours is raised again."""
        if isinstance(error, Problem):
            return error
        if is_disk_full(error):
            return disk_full()
        if isinstance(error, self._service.store.faults):
            return store_away()
        raise error

    async def _receive(self, request: Request, owner: str, progress: _Progress) -> Path:
        length = request.headers.get("content-length", "")
        check_space = partial(self._service.check_space, owner)
        await to_thread.run_sync(check_space, int(length) if length.isdecimal() else 0)
        folder = await to_thread.run_sync(self._files.new_folder, owner)

        def watch(names: dict[str, str], received: int) -> None:
            progress.name, progress.received = names.get(_FIELD, ""), received

        try:
            form = await receive_form(request, folder, {_FIELD: "upload"}, self._service.config, check_space, watch)
            if _FIELD not in form.files:
                raise Problem(422, "bad-input", "The file is empty; give another one.")
            ending = re.search(r"\.[A-Za-z0-9]{1,8}$", progress.name)
            upload = form.files[_FIELD].rename(folder / f"upload{ending[0].lower() if ending else ''}")
            self._files.note_name(upload, progress.name)
            return upload
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def progress(self, request: Request) -> Response:
        """How far an upload is, as events; its id is in the query."""
        events = self._told(request.query_params.get("upload_id", ""))
        return StreamingResponse(events, media_type="text/event-stream")

    async def _told(self, upload_id: str) -> AsyncIterator[str]:
        waited, told = 0.0, 0
        while (progress := self._under_way.get(upload_id)) is None and waited < _PATIENCE_S:
            waited += _TELL_S
            await asyncio.sleep(_TELL_S)
        while progress is not None and not progress.ended:
            if progress.name:
                message = {"msg": "update", "orig_name": progress.name, "chunk_size": progress.received - told}
                told = progress.received
                yield f"data: {json.dumps(message)}\n\n"
            await asyncio.sleep(_TELL_S)
        yield f"data: {json.dumps({'msg': 'done'})}\n\n"
