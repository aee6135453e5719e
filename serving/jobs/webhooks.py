"""Tells other programs that a job is finished, signed as https://www.standardwebhooks.com describes.

Only origins that the configuration lists are ever called, no redirect is followed, and a listed name that leads into a
private network is not called either: so nobody can make the server call something inside its own network. Deliveries
are part of the job's row: they survive a restart and are tried again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import logging
import os
import ssl
import time
from collections.abc import Collection
from contextlib import closing
from dataclasses import replace
from urllib.parse import urlsplit

from serving.jobs.jobs import JobService
from serving.jobs.store import DONE, FAILED, Job
from serving.jobs.views import job_view
from serving.outgoing import TIMEOUT_S, ascii_url, is_listed, open_socket
from serving.problems import Problem
from utils.helpers import InputError

SECRET = "LIPSYNC_WEBHOOK_SECRET"
"""Environment variable with the secret: "whsec_" and base64, at least 24 bytes."""

_LOG = logging.getLogger("lipsync.webhooks")
_FIRST_RETRY_S = 10.0
_LEAST_SECRET = 24


def secret_from_environment() -> bytes:
    """The secret that signs.

    Raises:
        InputError: there is none, or it is too short.
    """
    text = os.environ.get(SECRET, "")
    try:
        secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        secret = b""
    if len(secret) < _LEAST_SECRET:
        raise InputError(
            f"Webhooks need a secret: set {SECRET} to 'whsec_' and the base64 of at least {_LEAST_SECRET} random bytes."
        )
    return secret


def check_webhook(url: str, origins: Collection[str]) -> None:
    """Refuse an address that is not on the list.

    Raises:
        Problem: 422.
    """
    if not is_listed(url, origins):
        raise Problem(422, "webhook-not-allowed", "This server sends no webhooks to that address.")


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Value of the header webhook-signature."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


class Webhooks:
    """Delivers what is due.

    Args:
        service: the jobs.
    """

    def __init__(self, service: JobService):
        self._service = service
        self._is_used = bool(service.config.webhook_origins)
        self._tls = ssl.create_default_context()

    def deliver(self) -> None:
        """Send all that is due; what fails is due again later."""
        if not self._is_used:
            return
        for job in self._service.store.find((DONE, FAILED)):
            if job.webhook_due is not None and job.webhook_due <= time.time():
                mine = self._service.store.change(job.id, lambda now, seen=job: self._claimed(now, seen))
                if mine is not None:
                    self._send(mine)

    def _claimed(self, now: Job, seen: Job) -> Job | None:
        if now.webhook_due != seen.webhook_due:
            return None
        tries = now.webhook_tries + 1
        last = tries >= self._service.config.webhook_attempts
        later = time.time() + _FIRST_RETRY_S * 2**now.webhook_tries
        return replace(now, webhook_tries=tries, webhook_due=None if last else later)

    def _send(self, job: Job) -> None:
        body = job_view(job, None, self._service.config.keep_h).model_dump_json().encode()
        now = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": job.id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(secret_from_environment(), job.id, now, body),
        }
        try:
            status = self._post(job.webhook, body, headers)
        except (OSError, http.client.HTTPException) as error:
            _LOG.warning("webhook not delivered: %s", error, extra={"job": job.id, "attempt": job.webhook_tries})
            return
        if 200 <= status < 300:
            self._service.store.change(job.id, lambda row: replace(row, webhook_due=None))
        else:
            extra = {"job": job.id, "attempt": job.webhook_tries, "status": status}
            _LOG.warning("webhook not accepted", extra=extra)

    def _post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """Send; returns the status. Neither redirects nor proxies are followed."""
        parts = urlsplit(ascii_url(url))
        is_safe = parts.scheme == "https"
        port = parts.port or (443 if is_safe else 80)
        sock = open_socket(parts.hostname, port, self._service.config.webhook_to_private)
        with closing(http.client.HTTPConnection(parts.hostname, port, timeout=TIMEOUT_S)) as connection:
            connection.sock = self._tls.wrap_socket(sock, server_hostname=parts.hostname) if is_safe else sock
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", target, body, {"Host": parts.netloc, **headers})
            return connection.getresponse().status
