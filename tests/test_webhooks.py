"""Webhooks: sent once when a job is finished, signed, tried again, and only to where the configuration says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from serving.jobs.jobs import JobService
from serving.jobs.webhooks import SECRET, Webhooks, check_webhook, secret_from_environment
from serving.outgoing import ascii_url, open_socket
from serving.problems import Problem
from tests.service import make_service, result_file, service_config, submit
from utils.helpers import InputError

KEY = bytes(range(32))


class Receiver(HTTPServer):
    """Takes webhooks; answers with the statuses that it is told, then with 204."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.statuses: list[int] = []
        self.received: list[tuple[str, dict[str, str], bytes]] = []


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 204)
        self.send_header("Location", f"{self.server.url}/elsewhere")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def service(tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> JobService:
    monkeypatch.setenv(SECRET, "whsec_" + base64.b64encode(KEY).decode())
    return make_service(service_config(tmp_path, webhook_origins=(receiver.url,), webhook_attempts=3))


def finished(service: JobService, receiver: Receiver) -> str:
    """A job that is done and has something to tell."""
    job = submit(service, webhook=f"{receiver.url}/hook?x=1")
    service.complete(service.take(), result_file(service), {"frames": 10, "seconds": 2.0})
    return job.id


def make_due(service: JobService, job_id: str) -> None:
    """Let the time to the next try pass."""
    service.store.change(job_id, lambda job: replace(job, webhook_due=job.webhook_due and 1.0))


def test_a_finished_job_is_told_once_and_signed(service: JobService, receiver: Receiver) -> None:
    job_id = finished(service, receiver)
    webhooks = Webhooks(service)
    for _ in range(3):
        webhooks.deliver()
        make_due(service, job_id)
    ((path, headers, body),) = receiver.received
    assert path == "/hook?x=1"
    assert (json.loads(body)["id"], json.loads(body)["state"]) == (job_id, "done")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}" and headers["webhook-id"] == job_id


def test_a_failed_job_is_told_and_a_waiting_one_is_not(service: JobService, receiver: Receiver) -> None:
    submit(service, webhook=f"{receiver.url}/hook")
    webhooks = Webhooks(service)
    webhooks.deliver()
    assert receiver.received == []
    service.fail(service.take(), "No face.")
    webhooks.deliver()
    assert json.loads(receiver.received[0][2])["error"] == "No face."


def test_what_is_not_delivered_is_tried_again_but_not_for_ever(service: JobService, receiver: Receiver) -> None:
    job_id = finished(service, receiver)
    receiver.statuses = [500, 302, 404, 500]
    webhooks = Webhooks(service)
    webhooks.deliver()
    webhooks.deliver()
    assert len(receiver.received) == 1  # not at once
    for _ in range(5):
        make_due(service, job_id)
        webhooks.deliver()
    assert [path for path, _, _ in receiver.received] == ["/hook?x=1"] * 3  # and no redirect was followed


def test_only_listed_origins_are_called() -> None:
    allowed = ("https://example.org", "http://127.0.0.1:8080", "https://Bücher.example", "https://xn--fiqs8s.example/")
    for url in (
        "https://example.org/a?b=c",
        "https://EXAMPLE.org",
        "http://127.0.0.1:8080/x",
        "https://bücher.example/häken",
        "https://xn--bcher-kva.example/",
        "https://中国.example/",
    ):
        check_webhook(url, allowed)
    for url in (
        "http://example.org/",
        "https://example.org:8443/",
        "https://example.org.evil.example/",
        "https://example.org@evil.example/",
        "https://evil.example/https://example.org",
        "http://127.0.0.1/",
        "http://169.254.169.254/latest",
        "file:///etc/passwd",
        "https://[broken",
        "https://buecher.example/",
        "https://bücher.example:444/",
        "https://-ü-.example/",
        "",
    ):
        with pytest.raises(Problem) as refused:
            check_webhook(url, allowed)
        assert refused.value.status == 422


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://Bücher.example:443/häken?y=%C3%BC#part", "https://xn--bcher-kva.example/h%C3%A4ken?y=%C3%BC"),
        ("http://straße.example", "http://xn--strae-oqa.example"),
        ("http://[::1]:80/a+b;c=d,e?f=/g?", "http://[::1]/a+b;c=d,e?f=/g?"),
        ("https://中国.example/钩子", "https://xn--fiqs8s.example/%E9%92%A9%E5%AD%90"),
    ],
)
def test_addresses_of_all_languages_are_written_as_they_are_sent(url: str, sent: str) -> None:
    assert ascii_url(url) == sent == ascii_url(sent)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00::1", "::ffff:10.0.0.1"])
def test_a_listed_name_that_leads_into_a_private_network_is_not_called(
    address: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (address, receiver.server_port))])
    with pytest.raises(OSError, match="hooks.example leads into a private network"):
        open_socket("hooks.example", receiver.server_port, to_private=False)


def test_the_configuration_may_allow_private_networks(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(host: str, *rest: Any, **more: Any) -> Any:
        return real({"hooks.example": "127.0.0.1"}.get(host, host), *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    open_socket("hooks.example", receiver.server_port, to_private=True).close()
    open_socket("127.0.0.1", receiver.server_port, to_private=False).close()  # as the configuration lists it


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "no base64!"])
def test_webhooks_need_a_proper_secret(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, secret)
    with pytest.raises(InputError, match=SECRET):
        secret_from_environment()
