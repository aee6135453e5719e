"""Who may see files, end sessions, wait for whom, and hold how many connections."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.http.security import Guard
from serving.jobs.jobs import JobService
from serving.jobs.setup import Settings, open_service
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
    import shutil

    if shutil.which("redis-server") is None:
        pytest.skip("no Redis: apt-get install redis-server")
    with redis_server(tmp_path) as url:
        assert order(make_service(service_config(tmp_path), url)) == expected


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
        guard = Guard(app, ["localhost"], [])
        held = [asyncio.create_task(ask(guard, "/events")) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        refused = [task.result() for task in held if task.done()]
        assert refused == [503] * 40
        assert await ask(guard, "/jobs") == 503 and await ask(guard, "/health") == 200
        assert await ask(guard, "/jobs", "10.0.0.2") == 200  # others are let in
        assert await ask(guard, "/jobs", authorization="Bearer x") == 200  # one with a key behind the same address
        others = [asyncio.create_task(ask(guard, "/events", f"10.1.{i}.1")) for i in range(600)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await ask(guard, "/jobs", "10.0.0.2") == 503  # too much altogether
        assert [await ask(guard, path) for path in ("/health", "/ready", "/metrics", "/login")] == [200] * 4
        ends.set()
        await asyncio.gather(*held, *others)
        assert await ask(guard, "/jobs") == 200

    asyncio.run(walk())


def test_a_page_behind_a_tls_proxy_is_no_foreign_page() -> None:
    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    guard = Guard(app, ["*"], [])
    for origin, status in (("https://lip.example", 200), ("http://lip.example", 200), ("https://evil.example", 403)):
        told = asyncio.run(ask(guard, "/login", method="POST", origin=origin, host="lip.example"))
        assert told == status, origin
    assert asyncio.run(ask(guard, "/login", method="POST", origin="null", host="lip.example")) == 403
