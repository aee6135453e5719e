"""Inputs by address (`video_url`, `audio_url`): fetched by the server, under the rules that webhooks have.

Only from origins that the configuration lists, without redirects, and never from a private network unless that is
allowed; where it says "*", from any public address, on the usual ports.
"""

from __future__ import annotations

import http.client
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from anyio import CapacityLimiter, to_thread

from serving.http.uploads import Form
from serving.outgoing import HEADERS, ascii_url, connected, is_listed
from serving.problems import Problem, bad_input, busy, too_large
from utils.config import ServiceConfig

FIELDS = {f"{name}_url": (f"{name}_file", name) for name in ("video", "audio", "sprites")}
"""Field with an address -> the field that takes the file itself, and the name of the file on disk."""
ANY = "*"

_LOG = logging.getLogger("lipsync.fetching")
_PIECE = 2**20
_SPACE_EVERY = 64 * 2**20  # bytes between two looks at what room there is
_AT_ONCE, _OF_ONE = 32, 8  # requests whose inputs are fetched: altogether, and for one key


class Fetching:
    """Fetches inputs.

    Args:
        config: the service's configuration.
        check_space: raises a problem when somebody (an owner) has no more room.
    """

    def __init__(self, config: ServiceConfig, check_space: Callable[[str], None]):
        self._config = config
        self._check_space = check_space
        self._lines = CapacityLimiter(_AT_ONCE)
        self._active: Counter[str] = Counter()

    async def completed(self, form: Form, folder: Path, owner: str) -> Form:
        """The form with the files whose addresses it holds.

        Args:
            form: fields and files.
            folder: where the files go.
            owner: for whom.

        Raises:
            Problem: 413 too large, 422 an address may not or cannot be fetched, 429 too many at once, 507 full disk.
        """
        wanted = {name: form.fields[name] for name in FIELDS if form.fields.get(name)}
        if not wanted:
            return form
        for name, url in wanted.items():
            if FIELDS[name][0] in form.files:
                raise bad_input(f"Give {FIELDS[name][0]} or {name}, not both.")
            _check(url, name, self._config)
        with self._counted(owner):
            return await to_thread.run_sync(self._fetch, form, wanted, folder, owner, limiter=self._lines)

    @contextmanager
    def _counted(self, owner: str) -> Iterator[None]:
        if self._active[owner] >= _OF_ONE:
            detail = f"Inputs of {_OF_ONE} of your requests are being fetched already; try again later."
            raise busy("too-many-fetches", detail)
        self._active[owner] += 1
        try:
            yield
        finally:
            self._active[owner] -= 1

    def _fetch(self, form: Form, wanted: dict[str, str], folder: Path, owner: str) -> Form:
        left = int(self._config.media.max_file_gb * 1e9) - sum(path.stat().st_size for path in form.files.values())
        until, files = time.monotonic() + self._config.input_max_s, dict(form.files)
        for name, url in wanted.items():
            field, stem = FIELDS[name]
            files[field] = folder / stem
            try:
                self._save(ascii_url(url), name, files[field], left, until, owner)
            except (OSError, http.client.HTTPException) as error:
                if getattr(error, "filename", None) is not None:  # of ours, such as a full disk
                    raise
                _LOG.info("input not fetched: %s", error)
                late = time.monotonic() > until
                why = f"takes longer than {self._config.input_max_s:g} s" if late else "cannot be reached, or broke off"
                raise _not_fetched(name, why) from error
            left -= files[field].stat().st_size
        return Form(form.fields, files)

    def _save(self, url: str, name: str, target: Path, limit: int, until: float, owner: str) -> None:
        listed = is_listed(url, set(self._config.input_origins) - {ANY})
        longest = max(until - time.monotonic(), 0.001)
        with connected(url, self._config.input_to_private, longest, listed) as (connection, path):
            headers = HEADERS | {"Host": urlsplit(url).netloc, "Accept-Encoding": "identity"}
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            if 300 <= answer.status < 400:
                raise _not_fetched(name, "leads on to another one; give that")
            if answer.status != 200:
                raise _not_fetched(name, f"answers with {answer.status} and not with a file")
            if (answer.length or 0) > limit:
                raise too_large(self._config.media.max_file_gb)
            expected = answer.length
            received = self._copy(answer, target, limit, owner)
        if time.monotonic() > until:
            raise _not_fetched(name, f"takes longer than {self._config.input_max_s:g} s")
        if expected not in (None, received):
            raise _not_fetched(name, "broke off")
        if not received:
            raise _not_fetched(name, "gives an empty file")

    def _copy(self, answer: http.client.HTTPResponse, target: Path, limit: int, owner: str) -> int:
        """Save the body of an answer; returns how many bytes it had."""
        received = checked = 0
        with target.open("wb") as file:
            while piece := answer.read(_PIECE):
                received += len(piece)
                if received > limit:
                    raise too_large(self._config.media.max_file_gb)
                if received - checked >= _SPACE_EVERY:
                    checked = received
                    self._check_space(owner)
                file.write(piece)
        return received


def _check(url: str, name: str, config: ServiceConfig) -> None:
    """Refuse an address that is not on the list."""
    if is_listed(url, set(config.input_origins) - {ANY}):
        return
    if ANY in config.input_origins:
        with suppress(ValueError):
            if urlsplit(ascii_url(url)).port is None:  # the usual one
                return
    raise Problem(422, "address-not-allowed", f"This server fetches nothing from that address ({name}).")


def _not_fetched(name: str, why: str) -> Problem:
    return Problem(422, "not-fetched", f"The address in {name} {why}.")
