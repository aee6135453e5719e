"""Links to results that need no API key: for `<video>` elements of web pages, and to be passed on. They are signed
(HMAC-SHA256), lead to one result only, and run out; they also end with the job and with the key that made it."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from serving.jobs.store import Job
from serving.jobs.views import VERSION
from serving.problems import Problem

SECRET = "LIPSYNC_LINK_SECRET"
"""Environment variable with the secret, where several machines serve the same jobs; else each makes its own."""
FILE = "link_secret"
"""Where a secret of one's own is kept, in the data folder."""


class Links:
    """Signs links and checks them.

    Args:
        data_dir: the data folder.
    """

    def __init__(self, data_dir: Path):
        self._path = data_dir / FILE

    @cached_property
    def _secret(self) -> bytes:
        if given := os.environ.get(SECRET):
            return given.encode()
        if not self._path.exists():
            _make(self._path)
        return self._path.read_bytes()

    def link(self, job: Job, expires: int, key_hash: str) -> str:
        """Path and query under which the result can be had without a key.

        Args:
            job: which is done.
            expires: until when, seconds since 1970.
            key_hash: of the owner's API key; "" where there are no keys.
        """
        return f"{VERSION}/jobs/{job.id}/result?expires={expires}&signature={self._signature(job, expires, key_hash)}"

    def check(self, job: Job, expires: int, signature: str, key_hash: str) -> None:
        """Refuse a link that was changed or has run out.

        Raises:
            Problem: 403.
        """
        expected = self._signature(job, expires, key_hash)
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), expected.encode()) or expires < time.time():
            raise no_link()

    def _signature(self, job: Job, expires: int, key_hash: str) -> str:
        signed = "\n".join((job.id, job.result or "", str(expires), key_hash))
        return hmac.digest(self._secret, signed.encode(), hashlib.sha256).hex()


def no_link() -> Problem:
    """Also where there is no such job: who has no valid link is told nothing."""
    return Problem(403, "link-not-valid", "This link was changed or has run out; ask for a new one.")


def _make(path: Path) -> None:
    """Write a new secret, complete and for our own eyes; of several processes the first one's stays."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_hex(32).encode())
    with suppress(FileExistsError):
        os.link(temporary, path)
    os.unlink(temporary)
