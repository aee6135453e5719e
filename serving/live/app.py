"""The web application of live hosts: the page, what it asks for, and the two doors of sessions."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

from anyio import to_thread
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from serving.http.context import Access
from serving.jobs.jobs import LOCAL_OWNER
from serving.live.chat import Chat
from serving.live.commands import Commands
from serving.live.guard import HEADERS, LiveGuard
from serving.live.sessions import ON_AIR, LiveSession, Sessions, poster
from serving.live.socket import VIDEO, Connection
from serving.live.webrtc import Peer
from serving.problems import Problem, bad_input, problem_response

_PAGE = Path(__file__).resolve().parent / "page"
_LARGEST_OFFER = 2**17  # bytes
_VOICES = 200


class _Offer(BaseModel):
    """A browser wants to join a session, or to begin one."""

    model_config = ConfigDict(extra="forbid")

    sdp: str = Field(min_length=10)
    type: Literal["offer"] = "offer"
    host: str | None = None
    session: str | None = None


class LiveApp:
    """What the routes work with.

    Args:
        sessions: of this server.
        access: who is let in.
        chat: what answers questions; None: nothing does.
        longest: characters of a text.
        on_air: host of the session that is pushed; None: there is none.
    """

    def __init__(
        self, sessions: Sessions, access: Access, chat: Chat | None, longest: int, on_air: str | None = None
    ) -> None:
        self._sessions, self._access, self._chat, self._longest = sessions, access, chat, longest
        self._on_air = on_air
        self._peers: set[Peer] = set()
        self.started: list[Callable[[LiveSession], Callable[[], None]]] = []
        """Called with the session that is on air, when it has begun; what they return is called at the end."""

    def build(self) -> Any:
        """The ASGI application."""
        routes = [
            Route("/", self._page),
            Route("/health", _health),
            Route("/live/hosts", self._hosts),
            Route("/live/hosts/{name}/poster", self._poster),
            Route("/live/voices", self._voices),
            Route("/live/offer", self._offer, methods=["POST"]),
            Route("/live/sessions/{session}", self._end, methods=["DELETE"]),
            WebSocketRoute("/live/socket", self._socket),
        ]
        app = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers={Problem: _refuse})
        app.mount("/static", StaticFiles(directory=_PAGE))
        access = self._access
        return LiveGuard(app, hosts=access.hosts, origins=access.origins, headers=HEADERS, known=self._known)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(self._sessions.sweep())
        endings: list[Callable[[], None]] = []
        if self._on_air is not None:
            live = await self._sessions.begin(self._on_air, LOCAL_OWNER, ON_AIR)
            endings = [call(live) for call in self.started]
        try:
            yield
        finally:
            sweeping.cancel()
            for end in endings:
                await to_thread.run_sync(end)
            for peer in list(self._peers):
                await peer.close()
            await self._sessions.shut()

    def _known(self, scope: Any) -> str | None:
        if self._access.keys is None:
            return None
        header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        kind, _, key = header.partition(" ")
        return self._access.keys.owner(key.strip()) if kind.lower() == "bearer" else None

    def _owner(self, request: Request | WebSocket) -> str:
        if self._access.keys is None:
            return LOCAL_OWNER
        owner = self._known(request.scope)
        if owner is None:
            detail = "This server wants an API key: send the header Authorization: Bearer KEY."
            raise Problem(401, "no-key", detail, {"WWW-Authenticate": "Bearer"})
        return owner

    async def _page(self, request: Request) -> Response:
        return FileResponse(_PAGE / "live.html", headers={"Cache-Control": "no-cache"})

    async def _hosts(self, request: Request) -> Response:
        self._owner(request)
        cards = [host.card for host in self._sessions.hosts.values()]
        listed = [{"name": c.name, "width": c.width, "height": c.height, "portrait": c.portrait} for c in cards]
        more = {"chat": self._chat is not None, "ice_servers": list(self._sessions.config.ice_servers)}
        return JSONResponse({"hosts": listed, **more, "on_air": self._on_air})

    async def _poster(self, request: Request) -> Response:
        self._owner(request)
        host = self._sessions.hosts.get(request.path_params["name"])
        if host is None:
            raise Problem(404, "no-such-host", "There is no host of that name; see /live/hosts.")
        return FileResponse(poster(host), media_type="image/jpeg")

    async def _voices(self, request: Request) -> Response:
        self._owner(request)
        voices = [{"name": v.name, "language": v.language, "natural": v.natural} for v in self._sessions.studio.voices]
        return JSONResponse({"voices": voices[:_VOICES]})

    async def _offer(self, request: Request) -> Response:
        owner = self._owner(request)
        wish = await _read_offer(request)
        live, is_new = await self._join(wish.host, wish.session, owner)
        peer = Peer(live, self._commands_of(live), self._sessions.config.ice_servers, self._peers.discard)
        self._peers.add(peer)
        try:
            sdp = await peer.answer(wish.sdp)
        except Problem:
            if is_new:
                await self._sessions.end(live)
            raise
        card = live.session.host.card
        size = {"width": card.width, "height": card.height}
        return JSONResponse({"session": live.id, "type": "answer", "sdp": sdp, "host": card.name, **size}, 201)

    async def _end(self, request: Request) -> Response:
        live = self._sessions.find(request.path_params["session"], self._owner(request))
        await self._sessions.end(live)
        return Response(status_code=204)

    async def _socket(self, socket: WebSocket) -> None:
        try:
            asked = socket.query_params
            video = asked.get("video", "mp4")
            if video not in VIDEO:
                raise bad_input(f"The pictures can be {', '.join(VIDEO)}, not '{video}'.")
            live, _ = await self._join(asked.get("host"), asked.get("session"), self._owner(socket))
        except Problem as problem:
            return await problem_response(problem)(socket.scope, socket.receive, socket.send)
        await socket.accept()
        card = live.session.host.card
        size = {"width": card.width, "height": card.height, "fps": float(live.session.host.fps)}
        await socket.send_json({"event": "session", "session": live.id, "host": card.name, **size})
        await Connection(socket, live, video, self._commands_of(live)).serve()

    async def _join(self, host: str | None, session: str | None, owner: str) -> tuple[LiveSession, bool]:
        """The session that is named, or a new one with a host; the second value says which."""
        if session is not None:
            return self._sessions.find(session, owner), False
        return await self._sessions.begin(host or next(iter(self._sessions.hosts)), owner), True

    def _commands_of(self, live: LiveSession) -> Callable[[Callable[[dict[str, Any]], None]], Commands]:
        return lambda answer: Commands(self._sessions, live, answer, self._chat, self._longest)


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _refuse(request: Request, problem: Problem) -> Response:
    return problem_response(problem)


async def _read_offer(request: Request) -> _Offer:
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > _LARGEST_OFFER:
                raise Problem(413, "too-large", "That is no offer of a browser.")
        return _Offer.model_validate(json.loads(body))
    except ClientDisconnect as error:
        raise Problem(400, "broken-off", "The request was broken off.") from error
    except (ValueError, ValidationError, RecursionError) as error:
        raise bad_input("The request is no offer of a browser: JSON with sdp, and host or session.") from error
