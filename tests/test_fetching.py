"""Inputs by address, and jobs as JSON: what is fetched, from where it is not, and what is left on the disk."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.http.api import create_app
from serving.http.context import Access
from serving.http.intake import Intake
from serving.http.speech import Speaker
from serving.jobs.jobs import JobService
from tests import footage
from tests.service import REPO, make_service, service_config, stored_files
from utils.config import load_config


class Shop(ThreadingHTTPServer):
    """Hands out files, well and badly.

    Attributes:
        files: path -> content.
        asked: paths that were asked for.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {"/empty": b""}
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path)
        behave = getattr(self, self.path[1:].replace("-", "_"), None)
        if behave is not None:
            return behave()
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def redirect(self) -> None:
        self.send_response(302)
        self.send_header("Location", f"{self.server.url}/portrait.png")
        self.end_headers()

    def cut_off(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x")

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(65536))
        except OSError:
            pass

    def trickle(self) -> None:
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                self.wfile.write(b"x")
                time.sleep(0.1)
        except OSError:
            pass

    def garbage(self) -> None:
        self.wfile.write(b"\0\0\0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("media")
    footage.make_portrait(folder / "portrait.png", size=(96, 96))
    footage.make_sound(folder / "speech.wav", 0.4)
    server = Shop()
    server.files |= {f"/{path.name}": path.read_bytes() for path in folder.iterdir()}
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def client_of(service: JobService) -> TestClient:
    intake = Intake(service, load_config(REPO / "model_config.yaml").inference, Speaker(REPO, REPO))
    return TestClient(create_app(service, intake, Access(None, ("testserver",))))


@pytest.fixture
def service(tmp_path: Path, shop: Shop) -> JobService:
    media = service_config(tmp_path).media.model_copy(update={"max_file_gb": 0.001})
    shop.asked.clear()
    return make_service(service_config(tmp_path, input_origins=(shop.url,), input_max_s=2.0, media=media))


@pytest.fixture
def client(service: JobService) -> TestClient:
    return client_of(service)


def refused(answer: Any, status: int, sentence: str) -> None:
    assert answer.status_code == status and sentence in answer.json()["detail"], answer.text


def test_a_job_as_json_with_its_inputs_by_address(client: TestClient, service: JobService, shop: Shop) -> None:
    wish = {"video_url": f"{shop.url}/portrait.png", "audio_url": f"{shop.url}/speech.wav", "steps": 3, "fast": True}
    answer = client.post("/v1/jobs", json=wish | {"voice": None})
    assert answer.status_code == 202, answer.text
    told = answer.json()["request"]
    assert (told["steps"], told["fast"], told["video_url"]) == (3, True, wish["video_url"])
    job = service.take()
    for name, path in (("video", "/portrait.png"), ("audio", "/speech.wav")):
        assert b"".join(service.files.read(job.id, name, 0, 10**6)) == shop.files[path]
    assert sorted(stored_files(service.config)) == [f"jobs/{job.id}/audio", f"jobs/{job.id}/video"]


def test_a_form_may_mix_files_and_addresses(client: TestClient, service: JobService, shop: Shop) -> None:
    files = {"audio_file": shop.files["/speech.wav"]}
    answer = client.post("/v1/jobs", files=files, data={"video_url": f"{shop.url}/portrait.png"})
    assert answer.status_code == 202 and set(service.take().inputs) == {"video", "audio"}
    both = {"audio_url": f"{shop.url}/speech.wav", "video_url": f"{shop.url}/portrait.png"}
    refused(client.post("/v1/jobs", files=files, data=both), 422, "audio_file or audio_url, not both")


def test_the_same_addresses_with_the_same_key_are_not_fetched_again(client: TestClient, shop: Shop) -> None:
    wish = {"video_url": f"{shop.url}/portrait.png", "audio_url": f"{shop.url}/speech.wav"}
    ids = {client.post("/v1/jobs", json=wish, headers={"Idempotency-Key": "k"}).json()["id"] for _ in range(2)}
    assert len(ids) == 1 and len(shop.asked) == 2
    other = wish | {"audio_url": f"{shop.url}/other.wav"}
    refused(client.post("/v1/jobs", json=other, headers={"Idempotency-Key": "k"}), 409, "another key")


BAD = {
    "/missing": (422, "audio_url answers with 404"),
    "/redirect": (422, "audio_url leads on to another one"),
    "/empty": (422, "audio_url gives an empty file"),
    "/cut-off": (422, "audio_url broke off"),
    "/garbage": (422, "audio_url cannot be reached, or broke off"),
    "/trickle": (422, "audio_url takes longer than 2 s"),
    "/endless": (413, "larger than 0.001 GB"),
    "/portrait.png": (422, "audio_url is no video or sound"),
}


@pytest.mark.parametrize("path", BAD)
def test_what_cannot_be_fetched_is_said_and_leaves_nothing(
    client: TestClient, service: JobService, shop: Shop, path: str
) -> None:
    status, sentence = BAD[path]
    wish = {"video_url": f"{shop.url}/portrait.png", "audio_url": shop.url + path}
    refused(client.post("/v1/jobs", json=wish), status, sentence)
    assert stored_files(service.config) == []


def foreign(shop: Shop) -> list[str]:
    port = shop.server_port
    return [
        *(f"http://{host}:{port}/portrait.png" for host in ("localhost", "[::1]", "2130706433", "0x7f.1", "0")),
        f"http://user@127.0.0.1:{port}/portrait.png",
        f"http://127.0.0.1:{port}@example.org/",
        f"https://127.0.0.1:{port}/portrait.png",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "ftp://example.org/x",
        "gopher://127.0.0.1/",
        "//example.org/x",
        "/etc/passwd",
        "http://example.org/ x",
    ]


def test_other_places_are_not_asked(client: TestClient, service: JobService, shop: Shop) -> None:
    for url in foreign(shop):
        wish = {"video_url": url, "audio_url": f"{shop.url}/speech.wav"}
        refused(client.post("/v1/jobs", json=wish), 422, "fetches nothing from that address (video_url)")
    assert shop.asked == [] and stored_files(service.config) == []


def test_nothing_is_fetched_unless_the_owner_has_said_so(tmp_path: Path, shop: Shop) -> None:
    client = client_of(make_service(service_config(tmp_path)))
    wish = {"video_url": f"{shop.url}/portrait.png", "audio_url": f"{shop.url}/speech.wav"}
    refused(client.post("/v1/jobs", json=wish), 422, "fetches nothing")
    assert load_config(REPO / "model_config.yaml").service.input_origins == ()


def test_any_public_address_means_public(tmp_path: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a name that leads into the machine, by whatever way it is written, and whatever the list allows."""
    service = make_service(service_config(tmp_path, input_origins=("*",), input_to_private=True, input_max_s=5.0))
    client, found = client_of(service), socket.getaddrinfo
    tried: list[str] = []

    def lead(host: str, port: int, *more: Any, **named: Any) -> Any:
        tried.append(host)
        return found("127.0.0.1", shop.server_port, *more, **named) if host == "films.example" else found(
            host, port, *more, **named
        )

    monkeypatch.setattr("serving.outgoing.socket.getaddrinfo", lead)
    for host in ("films.example", "localhost", "127.0.0.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1"):
        wish = {"video_url": f"http://{host}/portrait.png", "text_input": "Hello"}
        refused(client.post("/v1/jobs", json=wish), 422, "cannot be reached")
    assert "films.example" in tried and shop.asked == []
    for url in foreign(shop):
        answer = client.post("/v1/jobs", json={"video_url": url, "text_input": "Hello"})
        assert answer.status_code == 422, (url, answer.text)
    assert shop.asked == [] and stored_files(service.config) == []


def test_too_many_fetches_of_one_client_at_once_are_refused(service: JobService, shop: Shop) -> None:
    client = client_of(service)
    answers: list[int] = []
    wish = json.dumps({"video_url": f"{shop.url}/trickle", "text_input": "Hello"})

    def ask() -> None:
        headers = {"Content-Type": "application/json"}
        answers.append(client.post("/v1/jobs", content=wish, headers=headers).status_code)

    with client:  # one event loop for all of them, as in a server
        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answers) == [422] * 8 + [429] * 4
