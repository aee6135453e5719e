"""Tells other programs that a job has ended, signed as https://www.standardwebhooks.com describes.

Only origins that the configuration lists are ever called, no redirect is followed, and a listed name that leads into a
private network is not called either: so nobody can make the server call something inside its own network. Messages wait
in an outbox (`serving/jobs/outbox.py`) until they have arrived: they survive a restart and are tried again, over hours.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from serving.jobs.jobs import JobService
from serving.jobs.outbox import Delivery
from serving.outgoing import HEADERS, connected, is_listed, origin_of
from serving.problems import Problem
from utils.helpers import InputError

SECRET = "LIPSYNC_WEBHOOK_SECRET"
"""Environment variable with the secret: "whsec_" and base64, at least 24 bytes; several with blanks between them while
the first one replaces the others."""

_LOG = logging.getLogger("lipsync.webhooks")
_LEAST_SECRET = 24
_LINES = 2  # messages that are sent to one receiver at once
_LONGEST_S = 30.0  # that one try may take, however slowly the receiver answers
_CLAIM_S = 90.0  # after which a message is sent again whose worker has died
_FIRST_PAUSE_S, _PAUSE_GROWS, _LONGEST_PAUSE_S = 10.0, 3.0, 7200.0  # between tries
_JITTER = 0.25  # part of a pause by which it is longer or shorter, so that receivers are not hit by all at once
_GONE = 410  # the receiver wants no more of it


def secrets_from_environment() -> list[bytes]:
    """The secrets that sign, the current one first.

    Raises:
        InputError: there is none, or one is too short.
    """
    secrets = []
    for text in os.environ.get(SECRET, "").split() or [""]:
        try:
            secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
        except ValueError:
            secret = b""
        if len(secret) < _LEAST_SECRET:
            need = f"set {SECRET} to 'whsec_' and the base64 of at least {_LEAST_SECRET} random bytes."
            raise InputError(f"Webhooks need a secret: {need}")
        secrets.append(secret)
    return secrets


def secrets_of(name: str | None) -> list[bytes]:
    """The secrets that sign what is sent for one API key. They are made from those of the environment, so that every
    worker knows them, and whoever knows one learns nothing about the others.

    Args:
        name: see `secret_name`; None: where there are no keys.

    Raises:
        InputError: see `secrets_from_environment`.
    """
    secrets = secrets_from_environment()
    if name is None:
        return secrets
    return [hmac.digest(secret, f"lip-sync webhooks of {name}".encode(), hashlib.sha256) for secret in secrets]


def secret_name(owner: str, key_hash: str) -> str:
    """What tells the secret of an API key from those of others, and from that of an earlier key of the same name.

    Args:
        owner: name of the key.
        key_hash: hash of the key, hexadecimal.
    """
    return f"{owner} {key_hash[:16]}"


def check_receivers(origins: Collection[str]) -> None:
    """Refuse a configuration with which no webhook could be sent.

    Raises:
        InputError: one of the origins is none, or there is no secret.
    """
    for origin in origins:
        try:
            origin_of(origin)
        except ValueError as error:
            raise InputError(
                f"service.webhook_origins: '{origin}' cannot be used; write it as https://example.org."
            ) from error
    if origins:
        secrets_from_environment()


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


def signatures(secrets: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The same with each of several secrets; the receiver takes any one that fits."""
    return " ".join(signature(secret, message_id, timestamp, body) for secret in secrets)


def pause(tries: int) -> float:
    """Seconds until a message is sent again that was tried so often: 10 s, 30 s, 90 s and so on to 2 h, a quarter more
    or less."""
    whole = min(_FIRST_PAUSE_S * _PAUSE_GROWS ** (tries - 1), _LONGEST_PAUSE_S)
    return whole * random.uniform(1 - _JITTER, 1 + _JITTER)


class Webhooks:
    """Sends what is due. Every receiver has lines of its own, so a slow one holds up nobody else.

    Args:
        service: the jobs.
    """

    def __init__(self, service: JobService):
        self._service = service
        self._outbox = service.store.outbox
        self._origins = service.config.webhook_origins
        self._lines: Counter[str] = Counter()  # receiver -> lines in use
        self._counting = threading.Lock()

    def deliver(self) -> None:
        """Begin to send all that is due; does not wait for it. What fails is due again later."""
        if not self._origins:
            return
        for receiver in self._outbox.receivers(time.time()):
            with self._counting:
                if self._lines[receiver] >= _LINES:
                    continue
                self._lines[receiver] += 1
            threading.Thread(target=self._serve, args=(receiver,), daemon=True).start()

    def _serve(self, receiver: str) -> None:
        """Send what is due for a receiver, one message after the other."""
        try:
            while True:
                now = time.time()
                delivery = self._outbox.claim(receiver, now, now + _CLAIM_S)
                if delivery is None:
                    return
                self._send(delivery)
        except self._service.store.faults as error:
            _LOG.warning("the job queue does not answer: %s", error)
        except Exception:  # noqa: BLE001 - a fault with one message must not end the thread unheard
            _LOG.exception("sending webhooks failed")
        finally:
            with self._counting:
                self._lines[receiver] -= 1

    def _send(self, delivery: Delivery) -> None:
        extra = {"job": delivery.job, "attempt": delivery.tries}
        if not is_listed(delivery.url, self._origins):
            _LOG.error("webhook given up: its receiver is not listed any more", extra=extra)
            return self._outbox.remove(delivery)
        asked = 0.0
        try:
            status, asked = self._post(delivery)
            if 200 <= status < 300:
                return self._outbox.remove(delivery)
            _LOG.warning("webhook not accepted", extra=extra | {"status": status})
        except (OSError, http.client.HTTPException) as error:
            status = None
            _LOG.warning("webhook not delivered: %s", error, extra=extra)
        if status == _GONE or delivery.tries >= self._service.config.webhook_attempts:
            _LOG.error("webhook given up", extra=extra)
            return self._outbox.remove(delivery)
        wait = max(pause(delivery.tries), min(asked, _LONGEST_PAUSE_S))
        return self._outbox.put_off(delivery, time.time() + wait)

    def _post(self, delivery: Delivery) -> tuple[int, float]:
        """Send; returns the status, and after how many seconds the receiver wants it again. Neither redirects nor
        proxies are followed."""
        body, now = delivery.body.encode(), int(time.time())
        headers = HEADERS | {
            "Host": urlsplit(delivery.url).netloc,
            "Content-Type": "application/json",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(now),
            "webhook-signature": signatures(secrets_of(delivery.secret_of), delivery.id, now, body),
        }
        with connected(delivery.url, self._service.config.webhook_to_private, _LONGEST_S) as (connection, target):
            connection.request("POST", target, body, headers)
            answer = connection.getresponse()
            asked = answer.headers.get("Retry-After", "")
            return answer.status, float(asked) if asked.isdecimal() else 0.0
