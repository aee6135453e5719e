"""Who may see files, end sessions, wait for whom, and hold how many connections."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.http.api import create_app
from serving.http.context import Access
from serving.http.security import LOOPBACK_NAMES, ApiKeys, Guard, new_key
from serving.http.server import make_intake
from serving.jobs.jobs import JobService
from serving.jobs.limits import uploads_of
from serving.jobs.setup import Settings, open_service
from serving.problems import Problem
from tests.service import REPO, make_service, redis_server, result_file, service_config, submit


@pytest.fixture
def _same_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_same_umask")
def test_no_other_user_of_the_machine_can_read_what_the_service_writes(tmp_path: Path) -> None:
    config = service_config(tmp_path / "data")
    settings = Settings(REPO / "model_config.yaml", config, "cpu", REPO / "pretrained", None, None)
    make_service(config)  # as earlier versions did: readable by all
    assert (config.data_dir / "jobs.db").stat().st_mode & 0o077
    service, _ = open_service(settings)
    submit(service)
    service.complete(service.take(), result_file(service), {"frames": 1, "seconds": 1.0})
    kept = [path for path in config.data_dir.rglob("*")]
    assert len(kept) > 5 and {oct(path.stat().st_mode & 0o077) for path in kept} == {"0o0"}


@pytest.mark.parametrize("queue", ["sqlite", "redis"])
def test_one_keys_jobs_do_not_all_stand_before_anothers_first(tmp_path: Path, queue: str) -> None:
    def order(service: JobService) -> list[str]:
        for owner in ("anna", "anna", "anna", "bert", "carl", "bert"):
            submit(service, owner=owner)
        return [service.take().owner for _ in range(6)]

    expected = ["anna", "bert", "carl", "anna", "bert", "anna"]
    if queue == "sqlite":
        assert order(make_service(service_config(tmp_path))) == expected
        return
    pytest.importorskip("redis", reason="redis is not installed (requirements-service.txt)")
    if shutil.which("redis-server") is None:
        pytest.skip("no Redis: apt-get install redis-server")
    with redis_server(tmp_path) as url:
        assert order(make_service(service_config(tmp_path), url)) == expected


def known(scope: Any) -> str | None:
    """Anna's key is her name, and there is no other."""
    return "anna" if dict(scope["headers"]).get(b"authorization") == b"anna" else None


async def answering(_: Any, __: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


def ask(guard: Guard, path: str, address: str = "10.0.0.1", method: str = "GET", **headers: str) -> Any:
    """A coroutine that gives the status of the answer."""
    raw = [(name.encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "client": (address, 1), "scheme": "http"}

    async def run() -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        await guard(scope, receive, send)
        return sent[0]["status"]

    return run()


def test_one_client_cannot_take_all_connections() -> None:
    ends = asyncio.Event()

    async def app(scope: Any, _: Any, send: Any) -> None:
        if scope["path"] == "/events":
            await ends.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def walk() -> None:
        guard = Guard(app, ["localhost"], [], known=known)
        held = [asyncio.create_task(ask(guard, "/events")) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        refused = [task.result() for task in held if task.done()]
        assert refused == [503] * 40
        assert await ask(guard, "/jobs") == 503 and await ask(guard, "/health") == 200
        assert await ask(guard, "/jobs", "10.0.0.2") == 200  # others are let in
        assert await ask(guard, "/jobs", authorization="anna") == 200  # one with a key behind the same address
        made_up = [await ask(guard, "/jobs", cookie=f"lip-sync-session=x{i}", authorization=f"x{i}") for i in range(9)]
        assert made_up == [503] * 9  # what is no valid key makes nobody somebody else
        others = [asyncio.create_task(ask(guard, "/events", f"10.1.{i}.1")) for i in range(600)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await ask(guard, "/jobs", "10.0.0.2") == 503  # too much altogether
        assert [await ask(guard, path) for path in ("/health", "/ready", "/metrics", "/login")] == [200] * 4
        ends.set()
        await asyncio.gather(*held, *others)
        assert await ask(guard, "/jobs") == 200

    asyncio.run(walk())


def test_one_client_cannot_ask_all_the_time() -> None:
    async def walk() -> None:
        guard = Guard(answering, ["localhost"], [], known=known, per_minute=20)
        assert [await ask(guard, "/jobs") for _ in range(25)] == [200] * 20 + [429] * 5
        assert await ask(guard, "/jobs", cookie="lip-sync-session=anna|1|2") == 429  # made up
        assert await ask(guard, "/jobs", authorization="anna") == 200
        assert await ask(guard, "/jobs", "10.0.0.2") == 200
        assert [await ask(guard, path) for path in ("/health", "/login", "/assets/x.js")] == [200] * 3
        household = [await ask(guard, "/jobs", f"2001:db8::{i}") for i in range(1, 26)]
        assert household == [200] * 20 + [429] * 5 and await ask(guard, "/jobs", "2001:db8:0:1::1") == 200

    asyncio.run(walk())


def test_who_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    service = make_service(service_config(tmp_path, max_requests_per_minute=3))
    keys = {name: new_key(tmp_path / "api_keys", name) for name in ("anna", "bert")}
    settings = Settings(REPO / "model_config.yaml", service.config, "cpu", REPO / "pretrained", None, None)
    app = create_app(service, make_intake(service, settings), Access(ApiKeys(tmp_path / "api_keys"), LOOPBACK_NAMES))
    client = TestClient(app, base_url="http://localhost")

    def jobs(name: str) -> Any:
        return client.get("/jobs", headers={"Authorization": f"Bearer {keys[name]}"})

    assert [jobs("anna").status_code for _ in range(3)] == [200] * 3
    refused = jobs("anna")
    assert refused.status_code == 429 and 1 <= int(refused.headers["Retry-After"]) <= 61
    assert refused.json()["type"] == "urn:lip-sync:too-fast" and "3 requests" in refused.json()["detail"]
    assert jobs("bert").status_code == 200


@contextmanager
def shared_by_two(folder: Path, queue: str) -> Iterator[list[JobService]]:
    """Two job services as two processes have them: of what they share, nothing is in memory."""
    config = service_config(folder / "data", max_requests_per_minute=10)
    if queue == "sqlite":
        yield [make_service(config) for _ in range(2)]
        return
    pytest.importorskip("redis", reason="redis is not installed (requirements-service.txt)")
    if shutil.which("redis-server") is None:
        pytest.skip("no Redis: apt-get install redis-server")
    with redis_server(folder) as url:
        yield [make_service(config, url) for _ in range(2)]


@pytest.mark.parametrize("queue", ["sqlite", "redis"])
def test_several_processes_count_the_requests_of_one_together(tmp_path: Path, queue: str) -> None:
    keys = {name: new_key(tmp_path / "api_keys", name) for name in ("anna", "bert")}
    access = Access(ApiKeys(tmp_path / "api_keys"), LOOPBACK_NAMES)
    with shared_by_two(tmp_path, queue) as services:
        intakes = [make_intake(one, Settings(REPO / "model_config.yaml", one.config, "cpu", REPO, None, None))
                   for one in services]  # fmt: skip
        apps = [create_app(*both, access) for both in zip(services, intakes, strict=True)]
        first, second = (TestClient(app, base_url="http://localhost") for app in apps)
        anna, bert = ({"Authorization": f"Bearer {keys[name]}"} for name in ("anna", "bert"))
        answers = [client.get("/jobs", headers=anna) for _ in range(6) for client in (first, second)]
        assert [answer.status_code for answer in answers] == [200] * 10 + [429] * 2
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 61
        assert [client.get("/jobs", headers=bert).status_code for client in (first, second)] == [200] * 2


@pytest.mark.parametrize("queue", ["sqlite", "redis"])
def test_requests_at_the_same_time_are_all_counted(tmp_path: Path, queue: str) -> None:
    with shared_by_two(tmp_path, queue) as services, ThreadPoolExecutor(8) as threads:
        waits = list(threads.map(lambda i: services[i % 2].store.rates.wait("anna", 50), range(200)))
    assert waits.count(None) == 50


def test_a_store_that_is_away_lets_nobody_ask_all_the_time(tmp_path: Path) -> None:
    with shared_by_two(tmp_path, "redis") as services:
        assert services[0].store.rates.wait("anna", 3) is None
    began = time.monotonic()
    waits = [services[0].store.rates.wait("anna", 3) for _ in range(5)]
    assert waits[:3] == [None] * 3 and None not in waits[3:] and time.monotonic() - began < 3


def test_one_key_keeps_no_more_than_its_share(tmp_path: Path) -> None:
    service = make_service(service_config(tmp_path, max_gb_per_key=1e-6))  # 1000 bytes
    first = submit(service, b"0" * 600, owner="anna")
    with pytest.raises(Problem, match="keeps 0.0 GB of its 1e-06 GB") as refused:
        submit(service, b"0" * 600, owner="anna")
    assert refused.value.status == 429 and refused.value.name == "quota-full"
    submit(service, b"0" * 600, owner="bert")
    service.complete(service.take(), result_file(service, b"0" * 300), {"frames": 1, "seconds": 1.0})
    submit(service, b"0" * 600, owner="anna")  # the inputs of the first are gone, its result stays
    uploads = uploads_of(tmp_path, "anna") / "x"
    uploads.mkdir(parents=True)
    (uploads / "upload.png").write_bytes(b"0" * 80)  # what lies on the page counts as well
    with pytest.raises(Problem, match="give smaller files"):
        service.check_room("anna", 50)
    service.delete(first.id, "anna")
    service.check_room("anna", 50)
    for _ in range(3):
        submit(service, b"0" * 600)  # without keys nobody is known


def test_a_client_asks_for_no_more_work_than_the_owner_allows(tmp_path: Path, example_speech: Path) -> None:
    service = make_service(service_config(tmp_path / "data", max_steps=8, max_adapt_s=30.0))
    settings = Settings(REPO / "model_config.yaml", service.config, "cpu", REPO / "pretrained", None, None)
    client = TestClient(
        create_app(service, make_intake(service, settings), Access(None, LOOPBACK_NAMES)), base_url="http://localhost"
    )
    portrait = (REPO / "examples" / "smile.png").read_bytes()
    files = {"video_file": portrait, "audio_file": example_speech.read_bytes()}
    for field, allowed, most, said in (("steps", "8", "9", "at most 8 steps"), ("adapt", "30s", "31s", "at most 30 s")):
        refused = client.post("/jobs", files=files, data={field: most})
        assert refused.status_code == 422 and said in refused.json()["detail"]
        assert client.post("/jobs", files=files, data={field: allowed}).status_code == 202


def test_a_page_behind_a_tls_proxy_is_no_foreign_page() -> None:
    guard = Guard(answering, ["*"], [])
    for origin, status in (("https://lip.example", 200), ("http://lip.example", 200), ("https://evil.example", 403)):
        told = asyncio.run(ask(guard, "/login", method="POST", origin=origin, host="lip.example"))
        assert told == status, origin
    assert asyncio.run(ask(guard, "/login", method="POST", origin="null", host="lip.example")) == 403
