"""Who is let into the page: a name and an API key, once; then a cookie that lasts as long as the key does."""

from __future__ import annotations

import hashlib
import hmac
import html
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from serving.http.security import ApiKeys, stamp_of
from serving.page.texts import TEXTS, language_for
from serving.problems import Problem, disk_full
from utils.disk import is_disk_full
from utils.helpers import atomic_path

_COOKIE = "lip-sync-session"
_LASTS_S = 7 * 86400
_MOST_BYTES = 4096  # of a filled in form
_STYLE = """\
body{font:16px/1.5 system-ui,sans-serif;margin:0;min-height:100vh;display:grid;place-items:center}
body{background:#f4f4f8;color:#222}
form{background:#fff;border:1px solid #ddd;border-radius:14px;padding:28px;width:min(320px,80vw)}
h1{font-size:1.4rem;margin:0 0 1rem}label{display:block;margin:.8rem 0 .2rem}
input{width:100%;box-sizing:border-box;font:inherit;padding:10px;border:1px solid #bbb;border-radius:8px}
button{width:100%;margin-top:1.2rem;font:inherit;font-weight:600;padding:12px;border:0;border-radius:8px}
button{background:#4f46e5;color:#fff}
p{color:#b91c1c;margin:.8rem 0 0}p:empty{display:none}
@media(prefers-color-scheme:dark){body{background:#18181b;color:#eee}form{background:#27272a;border-color:#444}
input{background:#18181b;color:#eee;border-color:#555}p{color:#fca5a5}}"""


# The form stays as it is filled in when the server says no; without scripts the name does.
_SCRIPT = """\
document.querySelector('form').addEventListener('submit', async (event) => {
  event.preventDefault()
  const form = event.target, alert = form.querySelector('[role=alert]')
  alert.textContent = ''
  try {
    const sent = {method: 'POST', body: new URLSearchParams(new FormData(form)), headers: {Accept: 'application/json'}}
    const answer = await fetch('login', sent)
    if (answer.ok) return location.replace('./')
    alert.textContent = (await answer.json()).detail
  } catch {
    form.submit()
  }
})"""


class _Session(NamedTuple):
    """A login: whose, until when (seconds since 1970), and a random name, 32 hexadecimal digits."""

    owner: str
    expires: float
    name: str


class EndedSessions:
    """Sessions that were logged out of before their time: a copy of their cookie opens nothing any more.

    They stand in a file, so that they stay ended over a restart, and for every process with the same data folder.

    Args:
        path: of the file; made at the first logout.
    """

    def __init__(self, path: Path):
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._ended: dict[str, float] = {}

    def __contains__(self, session: str) -> bool:
        self._refresh()
        return session in self._ended

    def add(self, session: str, expires: float) -> None:
        """End a session.

        Args:
            session: its random name.
            expires: when it would have ended by itself, seconds since 1970.
        """
        if session not in self:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{session} {expires:.0f}\n")

    def forget_old(self) -> None:
        """Leave out what has ended by itself meanwhile."""
        if self._path.is_file():
            self._refresh()
            with atomic_path(self._path) as path:
                path.write_text("".join(f"{name} {at:.0f}\n" for name, at in self._ended.items()), encoding="utf-8")

    def _refresh(self) -> None:
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return
        lines = self._path.read_text(encoding="utf-8").splitlines() if stamp is not None else []
        found = (line.split(" ") for line in lines if re.fullmatch(r"[0-9a-f]{32} \d+", line))
        now = time.time()
        self._ended = {name: float(expires) for name, expires in found if float(expires) > now}
        self._stamp = stamp


class Sessions:
    """Cookies that say who somebody is. They are signed with the hash of that person's key, which nobody else has:
    they hold over a restart, and end at once when the key is deleted or made anew, or when somebody logs out.

    Args:
        keys: the API keys.
        ended: sessions that were logged out of.
    """

    def __init__(self, keys: ApiKeys, ended: EndedSessions):
        self._keys = keys
        self._ended = ended

    def owner(self, request: Request) -> str | None:
        """Name of the key that a request was let in with; None: it was not, or the key is gone."""
        session = self._session(request)
        return None if session is None or session.name in self._ended else session.owner

    def _session(self, request: Request) -> _Session | None:
        """What a request's cookie says, if it was made here and is not too old."""
        parts = request.cookies.get(_COOKIE, "").split("|")
        if len(parts) != 4:
            return None
        owner, expires, name, signature = parts
        expected = self._signature(owner, expires, name)
        if expected is None or not hmac.compare_digest(signature.encode(), expected.encode()):
            return None
        return _Session(owner, float(expires), name) if float(expires) > time.time() else None

    def _signature(self, owner: str, expires: str, session: str) -> str | None:
        known = self._keys.hash_of(owner)
        if known is None:
            return None
        return hmac.new(bytes.fromhex(known), f"page|{owner}|{expires}|{session}".encode(), hashlib.sha256).hexdigest()

    def log_out(self, request: Request) -> Response:
        """End the session of a request, also for whoever has copied its cookie.

        Raises:
            Problem: 507 the disk is full.
        """
        session = self._session(request)
        try:
            if session is not None:
                self._ended.add(session.name, session.expires)
        except OSError as error:
            if is_disk_full(error):
                raise disk_full() from error
            raise
        response = RedirectResponse("login", 303)
        response.delete_cookie(_COOKIE)
        return response

    async def log_in(self, request: Request) -> Response:
        """Answer a form with name and key. A browser is sent to the page; a program gets JSON and the cookie.

        Raises:
            Problem: 413 the form is far too long.
        """
        form = await _form(request)
        name, key = form.get("username", "").strip(), form.get("password", "").strip()
        by_browser = "text/html" in request.headers.get("accept", "")
        if self._keys.owner(key) != name:
            if by_browser:
                return login_page(request, name, refused=True)
            raise Problem(401, "no-key", "There is no such name with this key.")
        response = RedirectResponse("./", 303) if by_browser else JSONResponse({"success": True})
        expires, session = str(int(time.time()) + _LASTS_S), secrets.token_hex(16)
        value = f"{name}|{expires}|{session}|{self._signature(name, expires, session)}"
        secure = request.url.scheme == "https"
        response.set_cookie(_COOKIE, value, max_age=_LASTS_S, httponly=True, samesite="lax", secure=secure)
        return response


def login_page(request: Request, name: str = "", refused: bool = False) -> Response:
    """The page that asks for name and key, in the browser's language."""
    language = language_for(request.headers.get("accept-language"))
    words = {word: html.escape(text) for word, text in TEXTS[language].items()}
    wrong = words["login_refused"] if refused else ""
    focus = ("", "autofocus") if name else ("autofocus", "")
    body = (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8"><title>Lip Sync</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f'<form method="post" action="login"><h1>{words["login"]}</h1>'
        f'<label for="name">{words["login_name"]}</label><input id="name" name="username" required {focus[0]} '
        f'autocomplete="username" value="{html.escape(name)}">'
        f'<label for="key">{words["login_key"]}</label><input id="key" name="password" type="password" required '
        f'{focus[1]} autocomplete="current-password"><p role="alert">{wrong}</p>'
        f'<button>{words["login_enter"]}</button></form><script>{_SCRIPT}</script></body></html>'
    )
    return HTMLResponse(body, 401 if refused else 200)


async def _form(request: Request) -> Mapping[str, str]:
    body = b""
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > _MOST_BYTES:
                raise Problem(413, "too-large", "That is no name and key.")
    except ClientDisconnect as error:
        raise Problem(400, "broken-off", "The request was broken off.") from error
    return {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
