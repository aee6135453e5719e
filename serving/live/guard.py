"""The guard of the HTTP API, which also stands before WebSockets."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from serving.http.security import Guard
from serving.problems import problem_response

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
        "connect-src 'self'; frame-ancestors 'self'"
    ),
    "Cache-Control": "no-store",
}


class LiveGuard(Guard):
    """A WebSocket is asked the same questions as a request that changes something."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            return await super().__call__(scope, receive, send)
        who = self._who(scope)
        problem = self._problem(Headers(scope=scope), {**scope, "method": "POST"}, who)
        if problem is not None:
            return await problem_response(problem)(scope, receive, send)
        self._crowd.enter(who)
        try:
            await self._app(scope, receive, send)
        finally:
            self._crowd.leave(who)
