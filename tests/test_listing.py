"""Lists of jobs, a page at a time: nothing is left out or shown twice, and they stay fast with 100,000 rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.http.api import create_app
from serving.http.context import Access
from serving.http.intake import Intake
from serving.http.speech import Speaker
from serving.jobs.queues import open_store
from serving.jobs.store import DONE, FAILED, QUEUED, RUNNING, Job, JobStore, SqliteJobStore
from tests.service import REPO, make_service, service_config
from utils.config import load_config

MANY = 100_000
PATIENCE_S = 0.25  # for one look at a list, on a computer that does other things as well


@pytest.fixture
def store(queue_url: str | None, tmp_path: Path) -> JobStore:
    return open_store(service_config(tmp_path), queue_url)


def job(number: int, created: float, state: str = QUEUED, owner: str = "local") -> Job:
    return Job(f"{number:032x}", owner, state, created, summary={"frames": 1, "seconds": 1.0})


def walk(client: TestClient, **asked: Any) -> list[list[str]]:
    """Ids on every page."""
    pages, cursor = [], None
    while True:
        answer = client.get("/v1/jobs", params=asked | ({"cursor": cursor} if cursor else {})).json()
        pages.append([shown["id"] for shown in answer["jobs"]])
        cursor = answer["next_cursor"]
        if cursor is None:
            assert answer["total"] >= sum(map(len, pages))
            return pages


@pytest.fixture
def client(queue_url: str | None, tmp_path: Path) -> TestClient:
    service = make_service(service_config(tmp_path), queue_url)
    intake = Intake(service, load_config(REPO / "model_config.yaml").inference, Speaker(REPO, REPO))
    return TestClient(create_app(service, intake, Access(None, ("testserver",))))


def test_pages_show_every_job_once_newest_first(client: TestClient, store: JobStore) -> None:
    """Also jobs of the same moment, and while jobs are made and deleted."""
    for number in range(25):
        store.add(job(number, 1000.5 + number // 10, DONE if number % 3 else QUEUED))
    store.add(job(99, 1001.5, owner="anna"))
    newest = [f"{number:032x}" for number in range(24, -1, -1)]
    for limit in (1, 4, 24, 25, 26):
        pages = walk(client, limit=limit)
        assert sum(pages, []) == newest and {len(page) for page in pages[:-1]} <= {limit}
    done = [job_id for job_id in newest if int(job_id, 16) % 3]
    assert sum(walk(client, limit=5, state="done"), []) == done
    first = client.get("/v1/jobs", params={"limit": 10}).json()
    assert first["total"] == 25 and client.get("/v1/jobs", params={"state": "done"}).json()["total"] == len(done)
    store.add(job(77, 2000.5))
    store.remove(first["jobs"][-1]["id"])
    second = client.get("/v1/jobs", params={"limit": 10, "cursor": first["next_cursor"]}).json()
    assert [shown["id"] for shown in second["jobs"]] == newest[10:20]


@pytest.mark.parametrize("cursor", ["x", "é", "bmFuIDA", "a" * 200, "MTAwMC41IHg", "%00"])
def test_a_cursor_that_is_none_is_refused(tmp_path: Path, cursor: str) -> None:
    service = make_service(service_config(tmp_path))
    intake = Intake(service, load_config(REPO / "model_config.yaml").inference, Speaker(REPO, REPO))
    client = TestClient(create_app(service, intake, Access(None, ("testserver",))))
    answer = client.get("/v1/jobs", params={"cursor": cursor})
    assert answer.status_code == 422 and "cursor" in answer.json()["detail"]


def fill(store: JobStore) -> None:
    """Store many rows of Anna's in one go; `add` waits for the disk after each. Every tenth has failed."""
    states = ["failed", *[DONE] * 9] * (MANY // 10)
    made = [(f"{number:032x}", states[number], 1000.0 + number) for number in range(MANY)]
    text = {state: job(0, 0.25, state, "anna").to_json() for state in (DONE, "failed")}
    texts = [text[state].replace("0" * 32, name).replace("0.25", repr(created)) for name, state, created in made]
    if isinstance(store, SqliteJobStore):
        rows = [(name, "anna", state, at, None, row, 7) for (name, state, at), row in zip(made, texts, strict=True)]
        with store._transaction() as connection:
            connection.executemany("insert into jobs values (?, ?, ?, ?, ?, ?, ?)", rows)
        return
    pipe = store._redis.pipeline(transaction=False)
    pipe.mset({store._row(name): row for (name, _, _), row in zip(made, texts, strict=True)})
    pipe.zadd(store._of("anna"), {name: created for name, _, created in made})
    for state in (DONE, "failed"):
        names = {name: created for name, its, created in made if its == state}
        pipe.zadd(store._set(state), names)
        pipe.zadd(store._of_in("anna", state), names)
    pipe.hset("lip-sync:kept", "anna", 7 * MANY)
    pipe.execute()


def test_the_bytes_of_a_key_are_those_of_its_rows(store: JobStore, queue_url: str | None, tmp_path: Path) -> None:
    """Whatever happens to a job, and also for rows of earlier versions, which were not counted."""

    def kept() -> int:
        summed = sum(one.kept for one in store.find(owner="anna"))
        assert store.kept("anna") == summed and store.kept("bob") == 0
        return summed

    one, other = (replace(job(n, 1.5 + n, owner="anna"), inputs=["video"], input_size=600) for n in (1, 2))
    assert kept() == 0 and store.add(one) == one and store.add(other) == other and kept() == 1200
    store.change(one.id, lambda row: replace(row, state=RUNNING, preview_size=50))
    assert kept() == 1250
    store.change(one.id, lambda row: replace(row, state=DONE, inputs=[], input_size=0, result_size=30))
    assert kept() == 630
    store.change(other.id, lambda row: replace(row, state=FAILED))
    assert kept() == 630 and store.change(other.id, lambda row: None) is None
    store.change(other.id, lambda row: replace(row, refused=True))  # it cannot be tried again
    assert kept() == 30
    assert store.owned("anna", [one.id, "0" * 32]) == {one.id} and store.owned("bob", [one.id]) == set()
    if isinstance(store, SqliteJobStore):  # as earlier versions left it
        with store._transaction() as connection:
            connection.execute("drop index jobs_kept")
            connection.execute("alter table jobs drop column kept")
    else:
        store._redis.delete("lip-sync:kept", "lip-sync:bytes-counted")
    store = open_store(service_config(tmp_path), queue_url)
    assert kept() == 30
    store.remove(one.id)
    store.remove(one.id)
    assert kept() == 0


def test_rows_of_earlier_versions_are_found_in_redis(redis_url: str | None, tmp_path: Path) -> None:
    if redis_url is None:
        pytest.skip("redis-server is not installed")
    config = service_config(tmp_path)
    store = open_store(config, redis_url)
    store._redis.flushall()
    store.add(job(1, 1.5, DONE, "anna"))
    store._redis.delete(store._of_in("anna", DONE), "lip-sync:sorted-by-owner-and-state")  # as they left it
    assert store.count(DONE, "anna") == 0
    again = open_store(config, redis_url)
    assert again.count(DONE, "anna") == 1 and again.page("anna", DONE, None, 9)[0].id == f"{1:032x}"


def fastest(action: Callable[[], Any]) -> float:
    """Seconds."""
    found = []
    for _ in range(5):
        started = time.perf_counter()
        action()
        found.append(time.perf_counter() - started)
    return min(found)


def test_counting_and_paging_stay_fast_with_100000_rows(store: JobStore) -> None:
    fill(store)
    assert (store.count(None, "anna"), store.count(DONE, "anna")) == (MANY, MANY * 9 // 10)
    assert (store.count(None, "bob"), store.count("failed")) == (0, MANY // 10)
    assert store.kept("anna") == 7 * MANY
    middle = (1000.0 + MANY // 2, f"{MANY // 2:032x}")
    shown = store.page("anna", "failed", middle, 3)
    assert [one.created for one in shown] == [1000.0 + MANY // 2 - 10 * step for step in (1, 2, 3)]
    looks = {
        "count": lambda: store.count(None, "anna"),
        "count of a state": lambda: store.count(DONE, "anna"),
        "first page": lambda: store.page("anna", None, None, 100),
        "middle page of a state": lambda: store.page("anna", DONE, middle, 100),
        "old ones": lambda: store.find(until=1000.5),
        "bytes": lambda: store.kept("anna"),
    }
    took = {name: fastest(look) for name, look in looks.items()}
    print({name: f"{1000 * seconds:.1f} ms" for name, seconds in took.items()})
    assert max(took.values()) < PATIENCE_S, took
