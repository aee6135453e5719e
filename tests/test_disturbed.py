"""The process that draws is killed, stopped and starved of disk: every job is done once, or fails with a reason.

LIPSYNC_FULL=1 takes 200 jobs and disturbs ten times in each way, instead of 8 jobs and once.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.server import FULL, Server, ended, is_ready, post, running, submit
from tests.service import wait_for
from tests.test_load import KINDS, PATIENCE_S, count, digest, finished_jobs, one_of_each_kind

JOBS, CLIENTS, TIMES = (200, 20, 10) if FULL else (8, 4, 1)
DISK_MB = 96
STARVED_S = 4.0 if FULL else 2.0
LATER = (429, 503, 507)  # who is told this comes again
REASONS = ("disk-full", "worker-lost")


@contextmanager
def on_a_small_disk(media: Path, folder: Path) -> Iterator[tuple[Server, Path]]:
    """A server whose data folder is a small disk that nobody else sees; gives it, and the folder as it sees it."""
    data = folder / "data"
    data.mkdir()
    script = f'mount -t tmpfs -o size={DISK_MB}m small "{data}" && exec "$@"'
    wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    tried = subprocess.run([*wrapper, "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"a disk of one's own cannot be made here: {tried.stderr.decode().strip()}")
    with running(media, data, wrapper=wrapper) as server:
        yield server, Path(f"/proc/{server.process.pid}/root{data}")


def runner(server: Server) -> int:
    """The runner, while it has a job."""
    return wait_for(lambda: count(server, "running") and server.runner_pids(), "a runner with a job", PATIENCE_S)[0]


def kill(server: Server, _: Path) -> None:
    os.kill(runner(server), signal.SIGKILL)


def stop(server: Server, _: Path) -> None:
    pid = runner(server)
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: pid not in server.runner_pids(), "the end of the runner that hangs", PATIENCE_S)


def starve(server: Server, disk: Path) -> None:
    """Fill the disk to the last byte while a job is at work, and keep it full for a while."""
    runner(server)
    until = time.monotonic() + STARVED_S
    keep_full(disk, lambda: time.monotonic() > until)


def keep_full(disk: Path, enough: Callable[[], bool]) -> None:
    """Fill the disk to the last byte, again and again until it is enough; then give the room back."""
    ballast, deadline = disk / "ballast", time.monotonic() + PATIENCE_S
    try:
        with ballast.open("ab", buffering=0) as file:
            while not enough():
                assert time.monotonic() < deadline, "nothing has come of it"
                try:
                    file.write(bytes(65536))
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    time.sleep(0.01)
    finally:
        ballast.unlink()


def starve_in_the_middle(server: Server, disk: Path, media: Path) -> dict[str, Any]:
    """The disk is full while a long job writes, until that is given up, which cannot even be noted. Returns the job as
    it ended."""
    job_id = submit(server, media, "long.wav")
    wait_for(lambda: server.get(f"/v1/jobs/{job_id}")["frames"] > 0, "the first frame", PATIENCE_S)
    keep_full(disk, lambda: "the end of a job must wait" in server.log.read_text(encoding="utf-8"))
    return ended(server, job_id)


def submitted(server: Server, media: Path, number: int) -> tuple[str, int]:
    """Submit a job as docs/api.md says: again and again while there is no room, always with the same key. Returns its
    id and kind."""
    kind = KINDS[number % len(KINDS)]

    def attempt() -> str | None:
        answer = post(server, media, "speech.wav", kind, **{"Idempotency-Key": f"disturbed-{number}"})
        assert answer.status_code in (202, *LATER), answer.text
        return answer.json()["id"] if answer.status_code == 202 else None

    return wait_for(attempt, "room for a job", PATIENCE_S), kind


def disturbed(server: Server, disk: Path, media: Path) -> dict[str, int]:
    """Clients submit jobs at once while the runner is disturbed; returns the id of each job -> its kind."""
    ways = [kill, stop, starve] * TIMES
    with ThreadPoolExecutor(CLIENTS) as clients:
        sent = clients.map(lambda number: submitted(server, media, number), range(JOBS))
        for turn, way in enumerate(ways):
            enough = len(KINDS) + turn * (JOBS - CLIENTS // 2) // len(ways)
            wait_for(
                lambda enough=enough: count(server, "done") + count(server, "failed") >= enough, "jobs", PATIENCE_S
            )
            way(server, disk)
        return dict(sent)


def test_every_job_ends_once_when_its_runner_is_killed_stopped_and_starved(
    service_media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPSYNC_MIN_FREE_GB", "0")  # else nothing would come in long before the disk is full
    monkeypatch.setenv("LIPSYNC_STALL_S", "6" if FULL else "4")
    with on_a_small_disk(service_media, tmp_path) as (server, disk):
        began = time.monotonic()
        undisturbed = one_of_each_kind(server, service_media)
        starved = starve_in_the_middle(server, disk, service_media)
        assert (starved["state"], starved["error_code"]) == ("failed", "disk-full")
        jobs = disturbed(server, disk, service_media)
        found = {job_id: ended(server, job_id) for job_id in jobs}
        states = Counter((job["state"], job["error_code"]) for job in found.values())
        print(f"{JOBS} jobs, {3 * TIMES} times disturbed: {dict(states)}, {time.monotonic() - began:.0f} s")
        assert len(jobs) == JOBS and {job["state"] for job in found.values()} <= {"done", "failed"}
        assert all(job["error"] and job["error_code"] in REASONS for job in found.values() if job["state"] == "failed")
        assert states["failed", "disk-full"] <= TIMES  # whoever wrote when the disk ran full; all others waited
        done = [job_id for job_id, job in found.items() if job["state"] == "done"]
        expected = dict(zip(KINDS, (digest(server, job_id) for job_id in undisturbed), strict=True))
        assert [digest(server, job_id) for job_id in done] == [expected[jobs[job_id]] for job_id in done]
        logged = finished_jobs([server.log])
        assert sorted(logged) == sorted([*done, *undisturbed])  # each once
        failed = [job_id for job_id, job in found.items() if job["state"] == "failed"]
        check_order(server, disk, [*done, *undisturbed], [*failed, starved["id"]])


def check_order(server: Server, disk: Path, done: list[str], failed: list[str]) -> None:
    """Nothing is left but one result of each job that is done, and what is needed to try the others again; the service
    is as good as new."""
    wait_for(lambda: is_ready(server), "a service that is ready", PATIENCE_S)
    assert len(server.runner_pids()) == 1
    wait_for(lambda: not any((disk / "work").iterdir()), "an empty work folder", 60)
    left = [path.relative_to(disk / "jobs").parts for path in (disk / "jobs").rglob("*") if path.is_file()]
    assert sorted(folder for folder, name in left if name.startswith("result-")) == sorted(done)
    again = [(folder, name) for folder, name in left if not name.startswith("result-")]
    assert sorted(again) == sorted((job_id, name) for job_id in failed for name in ("audio", "video"))
    assert httpx.get(f"{server.url}/v1/jobs", params={"state": "running"}, timeout=60).json()["jobs"] == []
    assert list((disk / "incoming").iterdir()) == []
