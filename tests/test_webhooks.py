"""Webhooks: sent once when a job has ended, signed, tried again, and only to where the configuration says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import app
import serving.jobs.webhooks as webhooks_module
from serving.http.api import create_app
from serving.http.context import Access
from serving.http.intake import Intake
from serving.http.security import ApiKeys
from serving.http.speech import Speaker
from serving.jobs.jobs import JobService
from serving.jobs.store import Job
from serving.jobs.webhooks import SECRET, Webhooks, check_receivers, check_webhook, pause, signature
from serving.outgoing import ascii_url, open_socket
from serving.problems import Problem
from tests import footage
from tests.service import REPO, make_service, result_file, service_config, submit, wait_for
from utils.config import load_config
from utils.helpers import InputError

KEY = bytes(range(32))
SECRET_TEXT = "whsec_" + base64.b64encode(KEY).decode()


class Receiver(ThreadingHTTPServer):
    """Takes webhooks; answers with the statuses that it is told, then with 204.

    Attributes:
        received: path, headers and body of each.
        retry_after: what it says with a status that is not 2xx.
        held: while it is not set, requests wait.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.statuses: list[int] = []
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.retry_after = ""
        self.held = threading.Event()
        self.held.set()

    def bodies(self) -> list[dict[str, Any]]:
        """What has come, oldest first."""
        return [json.loads(body) for _, _, body in self.received]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.server.held.wait(60)
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 204)
        self.send_header("Location", f"{self.server.url}/elsewhere")
        self.send_header("Retry-After", self.server.retry_after)
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def listening() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.held.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as server:
        yield server


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, SECRET_TEXT)


@pytest.fixture
def service(queue_url: str | None, tmp_path: Path, receiver: Receiver) -> JobService:
    return make_service(service_config(tmp_path, webhook_origins=(receiver.url,), webhook_attempts=3), queue_url)


def finished(service: JobService, receiver: Receiver, **more: Any) -> str:
    """A job that is done and has something to tell."""
    job = submit(service, webhook=f"{receiver.url}/hook?x=1", **more)
    service.complete(service.take(), result_file(service), {"frames": 10, "seconds": 2.0})
    return job.id


def deliver(webhooks: Webhooks) -> None:
    """Send what is due, and wait until nothing is on its way."""
    webhooks.deliver()
    wait_for(lambda: not any(webhooks._lines.values()), "all to be sent", 60)


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let time pass for what decides when something is due."""
    now = time.time()
    monkeypatch.setattr(webhooks_module.time, "time", lambda: now + seconds)


def test_a_finished_job_is_told_once_and_signed(
    service: JobService, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = finished(service, receiver, base_url="https://api.example")
    assert service.store.outbox.count() == 1
    webhooks = Webhooks(service)
    for number in range(3):
        deliver(webhooks)
        later(monkeypatch, 1e6 * number)
    ((path, headers, body),) = receiver.received
    assert path == "/hook?x=1" and service.store.outbox.count() == 0
    told = json.loads(body)
    assert told["type"] == "job.done" and datetime.fromisoformat(told["timestamp"]).tzinfo is not None
    assert (told["data"]["id"], told["data"]["state"]) == (job_id, "done")
    assert told["data"]["result_url"] == f"https://api.example/v1/jobs/{job_id}/result"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{expected}" and headers["webhook-id"].startswith("msg_")


def test_every_end_of_a_job_is_told_and_nothing_else(service: JobService, receiver: Receiver) -> None:
    hook = {"webhook": f"{receiver.url}/hook"}
    webhooks = Webhooks(service)
    waiting = submit(service, **hook)
    running = service.take()
    service.progress(running, 1, 10, 1.0)
    service.release(running, count=True)
    deliver(webhooks)
    assert receiver.received == []
    service.fail(service.take(), "No face.", code="no-face")
    cancelled = [submit(service, **hook)]
    service.take()
    cancelled.append(submit(service, **hook))
    for job in cancelled:
        service.cancel(job.id, "local")
    lost = submit(service, **hook)
    for _ in range(service.config.max_attempts):
        service.release(service.take(), count=True)
    submit(service)
    service.cancel(service.take().id, "local")
    deliver(webhooks)
    told = {(body["type"], body["data"]["id"], body["data"]["error_code"]) for body in receiver.bodies()}
    assert len(receiver.received) == 4 and told == {
        ("job.failed", waiting.id, "no-face"),
        *(("job.cancelled", job.id, None) for job in cancelled),
        ("job.failed", lost.id, "worker-lost"),
    }


def test_a_job_that_is_deleted_before_it_was_told_is_told_all_the_same(service: JobService, receiver: Receiver) -> None:
    job_id = finished(service, receiver)
    service.delete(job_id, "local")
    assert service.store.get(job_id) is None
    deliver(Webhooks(service))
    assert [body["data"]["id"] for body in receiver.bodies()] == [job_id]


def test_what_is_not_delivered_is_tried_again_over_hours_but_not_for_ever(
    service: JobService, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    finished(service, receiver)
    receiver.statuses = [500, 302, 404, 500]
    deliver(Webhooks(service))
    deliver(Webhooks(service))
    assert len(receiver.received) == 1  # not at once
    for number in range(5):  # each by another process: what is known is stored
        later(monkeypatch, 7200.0 * 1.25 * (number + 1))
        deliver(Webhooks(service))
    assert [path for path, _, _ in receiver.received] == ["/hook?x=1"] * 3  # and no redirect was followed
    assert len({headers["webhook-id"] for _, headers, _ in receiver.received}) == 1
    assert service.store.outbox.count() == 0


def test_a_receiver_may_ask_for_time_or_for_no_more(
    service: JobService, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished(service, receiver)
    receiver.statuses, receiver.retry_after = [503, 410], "600"
    deliver(Webhooks(service))
    later(monkeypatch, 590)
    deliver(Webhooks(service))
    assert len(receiver.received) == 1
    later(monkeypatch, 610)
    deliver(Webhooks(service))
    assert len(receiver.received) == 2 and service.store.outbox.count() == 0


def test_pauses_grow_to_hours_and_are_never_the_same() -> None:
    pauses = [[pause(tries) for _ in range(50)] for tries in range(1, 12)]
    assert all(10 * 0.75 <= one <= 10 * 1.25 for one in pauses[0]) and len(set(pauses[0])) == 50
    assert max(pauses[-1]) <= 7200 * 1.25
    assert 8 < sum(sum(some) / 50 for some in pauses) / 3600 < 15


def test_a_slow_receiver_holds_up_no_other(tmp_path: Path, receiver: Receiver) -> None:
    with listening() as slow:
        slow.held.clear()
        service = make_service(service_config(tmp_path, webhook_origins=(receiver.url, slow.url)))
        for _ in range(6):
            finished(service, slow)
        finished(service, receiver)
        webhooks = Webhooks(service)
        webhooks.deliver()
        wait_for(lambda: receiver.received, "the quick one's", 60)
        webhooks.deliver()
        wait_for(lambda: len(slow.received) == 2, "the slow one's", 60)
        webhooks.deliver()
        assert len(slow.received) == 2  # no more lines than two are kept busy by it
        slow.held.set()
        wait_for(lambda: not any(webhooks._lines.values()), "all to be sent", 60)
        assert len(slow.received) == 6 and service.store.outbox.count() == 0


def test_a_receiver_that_never_comes_to_an_end_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(webhooks_module, "_LONGEST_S", 1.0)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def trickle() -> None:
            connection, _ = server.accept()
            with closing(connection), suppress(OSError):
                for byte in itertools.cycle(b"x"):
                    connection.sendall(bytes([byte]))
                    time.sleep(0.05)

        threading.Thread(target=trickle, daemon=True).start()
        service = make_service(service_config(tmp_path, webhook_origins=(url,)))
        submit(service, webhook=url)
        service.fail(service.take(), "No face.")
        deliver(Webhooks(service))
    assert "webhook not delivered" in caplog.text and service.store.outbox.count() == 1


def test_each_key_has_a_secret_of_its_own(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*options: str) -> str:
        assert app.main(["--mode", "api", "--data-dir", str(tmp_path), *options]) == 0
        return capsys.readouterr().out.strip()

    api_key = printed("--new-key", "anna")
    printed("--new-key", "bob")
    secrets = {name: printed("--webhook-secret", name) for name in ("anna", "bob")}
    assert len({*secrets.values(), SECRET_TEXT}) == 3
    assert app.main(["--mode", "api", "--data-dir", str(tmp_path), "--webhook-secret", "carl"]) == 2

    config = service_config(tmp_path, webhook_origins=(receiver.url,), public_url="https://lip.example/")
    service = make_service(config)
    intake = Intake(service, load_config(REPO / "model_config.yaml").inference, Speaker(tmp_path, tmp_path))
    client = TestClient(create_app(service, intake, Access(ApiKeys(tmp_path / "api_keys"), ("testserver",))))
    footage.make_portrait(tmp_path / "a.png", size=(96, 96))
    footage.make_sound(tmp_path / "a.wav", 0.4)
    files = {"video_file": (tmp_path / "a.png").read_bytes(), "audio_file": (tmp_path / "a.wav").read_bytes()}
    form = {"webhook_url": f"{receiver.url}/h\u00e4ken"}
    answer = client.post("/v1/jobs", files=files, data=form, headers={"Authorization": f"Bearer {api_key}"})
    assert answer.status_code == 202, answer.text
    service.complete(service.take(), result_file(service), {"frames": 10, "seconds": 2.0})
    monkeypatch.setenv(SECRET, f"whsec_{base64.b64encode(bytes(32)).decode()} {SECRET_TEXT}")  # a new one comes first
    deliver(Webhooks(service))
    ((path, headers, body),) = receiver.received
    assert path == "/h%C3%A4ken"
    assert json.loads(body)["data"]["result_url"].startswith("https://lip.example/v1/jobs/")
    new, old = headers["webhook-signature"].split()
    signed = (headers["webhook-id"], int(headers["webhook-timestamp"]), body)
    mine, others = (base64.b64decode(secrets[name].removeprefix("whsec_")) for name in ("anna", "bob"))
    assert old == signature(mine, *signed) and new != old
    assert signature(others, *signed) not in (new, old) and signature(KEY, *signed) not in (new, old)


def test_rows_of_earlier_versions_can_be_read(tmp_path: Path) -> None:
    service = make_service(service_config(tmp_path))
    job = submit(service)
    old = {**json.loads(job.to_json()), "webhook_due": 1.5, "webhook_tries": 2}
    assert Job.from_json(json.dumps(old)) == job


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
        check_receivers(["https://example.org"])
    check_receivers([])


def test_origins_that_cannot_be_used_are_named() -> None:
    check_receivers(["https://bücher.example", "http://[::1]:8080/"])
    with pytest.raises(InputError, match="'example.org'"):
        check_receivers(["https://example.org", "example.org"])
