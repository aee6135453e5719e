"""Many clients at once, and workers that are killed on the way: every job is done once, and as if nothing had happened.

LIPSYNC_FULL=1 takes 200 jobs from 20 clients and kills five times, instead of a few.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.server import FULL, Server, ended, process, running, submit
from tests.service import redis_server, wait_for

JOBS, CLIENTS, KILLS = (200, 20, 5) if FULL else (8, 4, 1)
KINDS = (16, 20, 24, 28)  # jobs of the same quality (crf) give the same bytes
PATIENCE_S = 3600.0


class Workers:
    """Two worker processes on a queue in Redis, as if on two machines; one that dies is started again.

    Args:
        media: see `process`.
        folder: for their data and logs.
        options: that all share.
    """

    def __init__(self, media: Path, folder: Path, options: tuple[str, ...]):
        self._media, self._folder, self._options = media, folder, options
        self._stack = ExitStack()
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Workers:
        self._running = [self._start(number) for number in range(2)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        own = ("--mode", "worker", "--data-dir", str(self._folder / f"worker{number}"))
        return self._stack.enter_context(process(self._media, self.log(number), *own, *self._options))

    def log(self, number: int) -> Path:
        """What a worker has written to standard error."""
        return self._folder / f"worker{number}.log"

    def kill_one(self, turn: int) -> None:
        """Kill one of the two, by turns, and start it again."""
        number = turn % 2
        self._running[number].kill()
        self._running[number].wait()
        self._running[number] = self._start(number)


def kill_embedded(server: Server) -> None:
    """Kill the worker that the server has started; it starts another one."""
    for pid in wait_for(server.worker_pids, "a worker"):
        os.kill(pid, signal.SIGKILL)


def load(server: Server, media: Path, kill: Callable[[int], None]) -> dict[str, int]:
    """Clients submit jobs at once, each job with a key that makes repeating harmless, while workers are killed.

    Returns:
        Id of each job -> its kind.
    """
    numbers = [number for number in range(JOBS) for _ in range(2 if number % 5 == 0 else 1)]  # every fifth sent twice

    def client(number: int) -> tuple[str, int]:
        kind = KINDS[number % len(KINDS)]
        return submit(server, media, crf=kind, **{"Idempotency-Key": f"load-{number}"}), kind

    with ThreadPoolExecutor(CLIENTS) as clients:
        sent = clients.map(client, numbers)
        for turn in range(KILLS):
            enough = len(KINDS) + (turn + 0.5) * JOBS / (KILLS + 1)
            wait_for(lambda enough=enough: count(server, "done") >= enough, "jobs that are done", PATIENCE_S)
            wait_for(lambda: count(server, "running"), "a running job", PATIENCE_S)
            kill(turn)
        return dict(sent)


def count(server: Server, state: str) -> int:
    """Jobs in a state, as the server tells Prometheus."""
    text = httpx.get(f"{server.url}/metrics", timeout=60).text
    return int(float(re.search(rf'lipsync_jobs{{state="{state}"}} (\S+)', text)[1]))


def check(server: Server, files: Path, jobs: dict[str, int], undisturbed: list[str], logs: list[Path]) -> None:
    """Every job is done, once, with the bytes of an undisturbed one of its kind, and nothing else is left."""
    assert len(jobs) == JOBS
    assert {ended(server, job_id)["state"] for job_id in jobs} == {"done"}
    expected = dict(zip(KINDS, (digest(server, job_id) for job_id in undisturbed), strict=True))
    assert len(set(expected.values())) == len(KINDS)
    assert [digest(server, job_id) for job_id in jobs] == [expected[kind] for kind in jobs.values()]
    known = [job["id"] for job in server.get("/jobs?limit=500")["jobs"]]
    assert sorted(known) == sorted([*jobs, *undisturbed])
    left = sorted(str(path.relative_to(files).parent) for path in files.rglob("*") if path.is_file())
    assert left == sorted(known)  # one file for each: its result
    finished = finished_jobs(logs)
    assert len(finished) == len(set(finished))


def finished_jobs(logs: list[Path]) -> list[str]:
    """Ids of the jobs that workers have noted as done, as often as they have."""
    lines = [line for log in logs for line in log.read_text(encoding="utf-8").splitlines() if '"job done"' in line]
    return [re.search(r'"job": "(\w+)"', line)[1] for line in lines]


def digest(server: Server, job_id: str) -> str:
    return hashlib.sha256(httpx.get(f"{server.url}/jobs/{job_id}/result", timeout=60).content).hexdigest()


@contextmanager
def timed() -> Iterator[None]:
    """Say how long the block took (pytest -s)."""
    started = time.monotonic()
    yield
    print(f"{JOBS} jobs from {CLIENTS} clients with {KILLS} kills: {time.monotonic() - started:.0f} s")


def one_of_each_kind(server: Server, media: Path) -> list[str]:
    """Jobs that nothing disturbs."""
    ids = [submit(server, media, crf=kind) for kind in KINDS]
    assert {ended(server, job_id)["state"] for job_id in ids} == {"done"}
    return ids


def test_no_job_is_lost_or_doubled_when_the_worker_is_killed(service_media: Path, tmp_path: Path) -> None:
    with running(service_media, tmp_path / "data") as server:
        undisturbed = one_of_each_kind(server, service_media)
        with timed():
            jobs = load(server, service_media, lambda _: kill_embedded(server))
            wait_for(lambda: count(server, "done") == JOBS + len(KINDS), "the last job", PATIENCE_S)
        check(server, server.data / "jobs", jobs, undisturbed, [server.log])


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_no_job_is_lost_or_doubled_by_two_workers_on_redis(service_media: Path, tmp_path: Path) -> None:
    pytest.importorskip("redis")
    with redis_server(tmp_path) as url, ExitStack() as stack:
        options = ("--queue", url, "--storage", str(tmp_path / "shared"))
        workers = stack.enter_context(Workers(service_media, tmp_path, options))
        server = stack.enter_context(running(service_media, tmp_path / "data", "--no-worker", *options))
        both = 'lipsync_workers{ready="true"} 2.0'
        wait_for(lambda: both in httpx.get(f"{server.url}/metrics", timeout=60).text, "two workers")
        undisturbed = one_of_each_kind(server, service_media)
        with timed():
            jobs = load(server, service_media, workers.kill_one)
            wait_for(lambda: count(server, "done") == JOBS + len(KINDS), "the last job", PATIENCE_S)
        logs = [workers.log(0), workers.log(1)]
        assert all('"job done"' in log.read_text(encoding="utf-8") for log in logs)  # both have had a share
        check(server, tmp_path / "shared", jobs, undisturbed, logs)
