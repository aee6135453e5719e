"""Who may use the service, and from where."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Collection
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.problems import Problem, problem_response
from utils.helpers import InputError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


class ApiKeys:
    """Names and hashes of API keys. The keys themselves are random and long, so a plain hash keeps them safe.

    Args:
        hashes: name -> SHA-256 of the key, hexadecimal.
    """

    def __init__(self, hashes: dict[str, str]):
        self._hashes = hashes

    def __len__(self) -> int:
        return len(self._hashes)

    @classmethod
    def load(cls, path: Path) -> ApiKeys:
        """Read the file that `new_key` writes; no file means no keys.

        Raises:
            InputError: a line is none of ours.
        """
        hashes: dict[str, str] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            match = re.fullmatch(r"([\w.-]{1,64}) ([0-9a-f]{64})", line)
            if match is None:
                raise InputError(f"The file {path} has a line that is no API key; make keys with --new-key NAME.")
            hashes[match[1]] = match[2]
        return cls(hashes)

    def owner(self, key: str) -> str | None:
        """Name of a key, None if it is unknown. Takes the same time whatever is sent."""
        given, found = _hash(key), None
        for name, known in self._hashes.items():
            if hmac.compare_digest(given, known):
                found = name
        return found


def new_key(path: Path, name: str) -> str:
    """Make an API key, and add its hash to the file.

    Raises:
        InputError: the name cannot be used or exists.
    """
    if re.fullmatch(r"[\w.-]{1,64}", name) is None:
        raise InputError(f"The name '{name}' cannot be used; take letters, digits, dots and dashes.")
    if name in ApiKeys.load(path)._hashes:
        raise InputError(f"There is a key with the name '{name}'; take another one, or delete its line in {path}.")
    key = secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        path.chmod(0o600)
        file.write(f"{name} {_hash(key)}\n")
    return key


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def is_loopback(host: str) -> bool:
    """Only this machine can reach that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Outermost layer of the web application: checks host and origin, and adds headers.

    A page in somebody's browser can send forms to localhost, also under a name of its own that leads there. So the
    Host header must be one of ours, and whoever changes something must come from no web page or from an allowed one.

    Args:
        app: what is guarded.
        hosts: names that the Host header may have; "*" for any.
        origins: web pages that may use the service.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], origins: Collection[str]):
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._origins = set(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        problem = self._problem(Headers(scope=scope), scope)
        if problem is None:
            await self._app(scope, receive, with_headers)
        else:
            await problem_response(problem)(scope, receive, with_headers)

    def _problem(self, headers: Headers, scope: dict[str, Any]) -> Problem | None:
        host = headers.get("host", "").lower()
        if "*" not in self._hosts and re.sub(r":\d+$", "", host) not in self._hosts:
            return Problem(421, "wrong-host", "This server does not answer to that name; see service.allowed_hosts.")
        origin = headers.get("origin")
        if origin is None or scope["method"] in _SAFE_METHODS or origin in self._origins:
            return None
        if origin == f"{scope['scheme']}://{host}":
            return None
        return Problem(403, "foreign-page", "Web pages of other sites may not use this; see service.allowed_origins.")
