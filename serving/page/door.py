"""Stands before Gradio: who may come in, what may be asked for, and which files may be named.

Gradio takes a browser's word for the path of a file, and has many more addresses than this page needs. So nothing of
it can be reached but what is listed here, and every file that a request names must be one that the same person has
sent or may see. This looks at requests alone, and holds with any version of Gradio.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.jobs.jobs import LOCAL_OWNER
from serving.page.files import PageFiles
from serving.page.login import Sessions, login_page
from serving.page.said import told
from serving.page.texts import language_for
from serving.page.uploads import PageUploads
from serving.problems import Problem, problem_response

OWNER = "lip-sync.owner"
"""Name of whoever asks, in the scope of a request."""

_API = "/gradio_api/"
_FILE = f"{_API}file="
_SHOWN = ("/", "/config", "/theme.css", "/manifest.json", "/favicon.ico", "/robots.txt")
_SHOWN_API = ("info", "startup-events", "theme.css", "queue/data", "queue/status", "app_id", "login_check")
_BELOW = ("/assets/", "/static/", "/svelte/", f"{_API}heartbeat/")
_TOLD_API = ("queue/join", "cancel", "reset")
_TOLD_BELOW = f"{_API}run/"
_NO_QUERY = ("/", "/config")  # it would only load what other people have saved
_MOST_BYTES = 2**20  # of a request that is no upload
_FILE_HEADERS = {"Content-Security-Policy": "default-src 'none'; media-src 'self'; img-src 'self'; sandbox"}


def in_words_of(scope: Scope, problem: Problem) -> Problem:
    """The same refusal in the language of the browser that sent a request."""
    language = language_for(Headers(scope=scope).get("accept-language"))
    name, detail = problem.name, told(problem.detail, language)
    return Problem(problem.status, name, detail, problem.headers, **problem.more)


class Door:
    """See above.

    Args:
        app: Gradio's application.
        files: of the page.
        uploads: takes in what browsers send.
        sessions: who is who; None where everybody is let in.
    """

    def __init__(self, app: ASGIApp, files: PageFiles, uploads: PageUploads, sessions: Sessions | None):
        self._app = app
        self._files = files
        self._uploads = uploads
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":  # Gradio speaks HTTP only
            return await send({"type": "websocket.close", "code": 1008})
        try:
            await self._let_in(Request(scope, receive), send)
        except Problem as problem:
            await problem_response(in_words_of(scope, problem))(scope, receive, send)

    async def _let_in(self, request: Request, send: Send) -> None:
        scope, receive = request.scope, request.receive
        path = scope["path"]
        if path == "/health":
            return await JSONResponse({"status": "ok"})(scope, receive, send)
        owner = LOCAL_OWNER if self._sessions is None else self._sessions.owner(request)
        answer = await self._before_login(request, path, owner)
        if answer is None:
            scope[OWNER] = owner
            answer = await self._answer(request, path, owner)
        if answer is not None:
            return await answer(scope, receive, send)
        if path in _NO_QUERY:
            scope["query_string"] = b""
        if scope["method"] == "POST":
            receive = await self._checked(request, owner)
        if path.startswith(_FILE):
            send = _with_headers(send, _FILE_HEADERS)
        await self._app(
            scope, receive, send if self._sessions is None else _while_let_in(send, request, self._sessions)
        )

    async def _before_login(self, request: Request, path: str, owner: str | None) -> Response | None:
        """What is answered without a login; None: go on."""
        if self._sessions is None:
            return None
        if path.rstrip("/") == "/login":
            return await self._sessions.log_in(request) if request.method == "POST" else login_page(request)
        if path.rstrip("/") == "/logout" and request.method == "POST":  # by GET, any picture could log somebody out
            return await to_thread.run_sync(self._sessions.log_out, request)
        if owner is not None:
            return None
        if path == "/" and request.method == "GET":
            return RedirectResponse("login", 303)
        raise Problem(401, "no-key", "Log in first: this page wants a name and an API key.")

    async def _answer(self, request: Request, path: str, owner: str) -> Response | None:
        """What is answered here and not by Gradio; None: Gradio's turn.

        Raises:
            Problem: 404 what is not needed, or a file that is not this person's.
        """
        if request.method == "POST" and path == f"{_API}upload":
            return await self._uploads.take_in(request, owner)
        if request.method == "GET" and path == f"{_API}upload_progress":
            return self._uploads.progress(request)
        if not _is_known(request.method, path):
            raise Problem(404, "not-found", "There is nothing here.")
        if path.startswith(_FILE):
            if await to_thread.run_sync(self._files.readable, path.removeprefix(_FILE), owner) is None:
                raise Problem(404, "not-found", "There is no such file.")
        return None

    async def _checked(self, request: Request, owner: str) -> Receive:
        """Read a request that tells Gradio something; what Gradio gets holds this person's files only.

        Raises:
            Problem: 413, 422.
        """
        body = await _read(request)
        try:
            asked = json.loads(body) if body else {}
            asked = await to_thread.run_sync(self._own_files, asked, owner)
        except (ValueError, RecursionError) as error:
            raise Problem(422, "bad-input", "The request is no JSON.") from error
        body = json.dumps(asked).encode()
        headers = MutableHeaders(scope=request.scope)
        headers["content-type"], headers["content-length"] = "application/json", str(len(body))
        return _replayed(body, request.receive)

    def _own_files(self, asked: Any, owner: str) -> Any:
        """The same without any file that `PageFiles.usable` does not know, and with nothing about files but where
        they are and what they are called."""
        if isinstance(asked, list):
            return [self._own_files(one, owner) for one in asked]
        if not isinstance(asked, Mapping):
            return asked
        if not asked.keys() & {"path", "url"}:
            return {name: self._own_files(one, owner) for name, one in asked.items()}
        path = self._files.usable(asked.get("path"), owner)
        if path is None:
            raise Problem(422, "bad-input", "A file is wanted that was not uploaded here; upload it first.")
        name = asked.get("orig_name")
        named = {"orig_name": name} if isinstance(name, str) else {}
        return {"path": str(path), "meta": {"_type": "gradio.FileData"}, **named}


def _is_known(method: str, path: str) -> bool:
    """The page needs this of Gradio."""
    if path.startswith(_FILE):
        return method in ("GET", "HEAD")
    if ".." in unquote(path).replace("\\", "/").split("/"):
        return False
    short = path.removeprefix(_API) if path.startswith(_API) else None
    if method in ("GET", "HEAD"):
        return path in _SHOWN or short in _SHOWN_API or path.startswith(_BELOW)
    return method == "POST" and (short in _TOLD_API or path.startswith(_TOLD_BELOW))


async def _read(request: Request) -> bytes:
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > _MOST_BYTES:
                raise Problem(413, "too-large", "The request is too large; send files as uploads.")
    except ClientDisconnect as error:
        raise Problem(400, "broken-off", "The request was broken off.") from error
    return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read already; then whatever else the client sends, which is only that it is gone."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(headers)
        await send(message)

    return with_headers


def _while_let_in(send: Send, request: Request, sessions: Sessions) -> Send:
    """End what is being answered, also what never ends by itself, when the key is deleted."""
    is_over = False

    async def while_let_in(message: Message) -> None:
        nonlocal is_over
        if is_over:
            return
        if message["type"] == "http.response.body" and message.get("more_body") and sessions.owner(request) is None:
            is_over = True
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(message)

    return while_let_in
