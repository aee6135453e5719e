"""Who may use the service, and from where."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import os
import re
import secrets
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.crowd import Crowd, name_of_address
from serving.jobs.rates import Rates
from serving.problems import Problem, busy, problem_response
from utils.helpers import InputError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_LOG = logging.getLogger("lipsync.security")
_ALWAYS = ("/health", "/ready", "/metrics", "/login")  # short, and needed most when there is too much to do
_UNCOUNTED = ("/assets/", "/static/", "/svelte/")  # a page asks for hundreds of these, and they cost nothing
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

    The file is read again whenever it has changed: keys can be made and deleted while the service runs.

    Args:
        path: the file that `new_key` writes; no file means no keys.

    Raises:
        InputError: a line is none of ours.
    """

    def __init__(self, path: Path):
        self._path = path
        self._stamp = stamp_of(path)
        self._hashes = _read_hashes(path)

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, name: str) -> bool:
        return name in self._hashes

    def owner(self, key: str) -> str | None:
        """Name of a key, None if it is unknown. Takes the same time whatever is sent."""
        self._refresh()
        given, found = _hash(key), None
        for name, known in self._hashes.items():
            if hmac.compare_digest(given, known):
                found = name
        return found

    def shown(self, scope: Scope) -> str | None:
        """Name of the valid key that a request shows in its header Authorization; None: it shows none."""
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        return self.owner(key.strip()) if scheme.lower() == "bearer" else None

    def hash_of(self, name: str) -> str | None:
        """SHA-256 of the key with that name, hexadecimal; None: there is none any more."""
        self._refresh()
        return self._hashes.get(name)

    def _refresh(self) -> None:
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return
        try:
            self._stamp, self._hashes = stamp, _read_hashes(self._path)
        except InputError as error:
            _LOG.error("%s The keys stay as they were.", error)


def stamp_of(path: Path) -> tuple[int, int] | None:
    """Changes when the file does; None: there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


def _read_hashes(path: Path) -> dict[str, str]:
    """Name -> SHA-256 of the key, hexadecimal."""
    hashes: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        match = re.fullmatch(r"([\w.-]{1,64}) ([0-9a-f]{64})", line)
        if match is None:
            raise InputError(f"The file {path} has a line that is no API key; make keys with --new-key NAME.")
        hashes[match[1]] = match[2]
    return hashes


def new_key(path: Path, name: str) -> str:
    """Make an API key, and add its hash to the file.

    Raises:
        InputError: the name cannot be used or exists.
    """
    if re.fullmatch(r"[\w.-]{1,64}", name) is None:
        raise InputError(f"The name '{name}' cannot be used; take letters, digits, dots and dashes.")
    if name in ApiKeys(path):
        raise InputError(f"There is a key with the name '{name}'; take another one, or delete its line in {path}.")
    key = secrets.token_urlsafe(32)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(path, "a", encoding="utf-8", opener=partial(os.open, mode=0o600)) as file:
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
    """Outermost layer of the web application: checks host, origin and the number of requests, and adds headers.

    A page in somebody's browser can send forms to localhost, also under a name of its own that leads there. So the
    Host header must be one of ours, and whoever changes something must come from no web page or from an allowed one.

    Args:
        app: what is guarded.
        hosts: names that the Host header may have; "*" for any.
        origins: web pages that may use the service.
        headers: added to every answer that does not have them.
        known: name of the valid key that a request shows, None if it shows none; None where there are no keys. What
            is not valid is counted by address: made-up keys and cookies are nobody.
        per_minute: most requests of one in any 60 s; None: as many as somebody likes.
        rates: counts them; None: in this process alone.
        in_words: a refusal as the client shall read it.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Collection[str],
        origins: Collection[str],
        headers: Mapping[str, str] = _HEADERS,
        known: Callable[[Scope], str | None] | None = None,
        per_minute: int | None = None,
        rates: Rates | None = None,
        in_words: Callable[[Scope, Problem], Problem] = lambda _, problem: problem,
    ):
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._origins = set(origins)
        self._headers = headers
        self._known = known
        self._in_words = in_words
        self._crowd = Crowd()
        self._per_minute, self._rates = per_minute, rates or Rates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        who = self._who(scope)
        problem = self._problem(headers, scope, who)
        if problem is not None:
            return await problem_response(self._in_words(scope, problem))(scope, receive, with_headers)
        if scope["path"] in _ALWAYS:
            return await self._app(scope, receive, with_headers)
        self._crowd.enter(who)
        try:
            problem = await self._too_fast(scope, who)
            answer = self._app if problem is None else problem_response(self._in_words(scope, problem))
            await answer(scope, receive, with_headers)
        finally:
            self._crowd.leave(who)

    def _who(self, scope: Scope) -> str:
        """Whose requests are counted together: those of a valid key or login; without one, of an address."""
        name = None if self._known is None else self._known(scope)
        return f"key {name}" if name is not None else name_of_address(str((scope.get("client") or ("",))[0]))

    async def _too_fast(self, scope: Scope, who: str) -> Problem | None:
        """Count a request among those of this minute -> why it is one too many; None: it is not."""
        if self._per_minute is None or scope["path"].startswith(_UNCOUNTED):
            return None
        wait = await to_thread.run_sync(self._rates.wait, who, self._per_minute)
        if wait is None:
            return None
        detail = f"More than {self._per_minute} requests have come from you in a minute; wait {wait} s."
        return busy("too-fast", detail, wait)

    def _problem(self, headers: Headers, scope: Scope, who: str) -> Problem | None:
        host = headers.get("host", "").lower()
        if "*" not in self._hosts and re.sub(r":\d+$", "", host) not in self._hosts:
            return Problem(421, "wrong-host", "This server does not answer to that name; see service.allowed_hosts.")
        if scope["path"] not in _ALWAYS:
            problem = self._crowd.problem(who)
            if problem is not None:
                return problem
        origin = headers.get("origin")
        if origin is None or scope["method"] in _SAFE_METHODS or origin in self._origins:
            return None
        if urlsplit(origin).netloc.lower() == host:  # not the scheme: a proxy may speak TLS to the browser
            return None
        return Problem(403, "foreign-page", "Web pages of other sites may not use this; see service.allowed_origins.")
