"""A worker through all that may happen to its runner and to the job queue, with a runner that has no networks."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serving.http.server import Embedded
from serving.jobs import worker as worker_module
from serving.jobs.jobs import INCOMING, JobService, Submission
from serving.jobs.runner_process import Runner
from serving.jobs.setup import Settings
from serving.jobs.store import DONE, QUEUED, RUNNING, Job
from serving.jobs.worker import Worker
from tests.service import REPO, free_port, make_service, redis_server, service_config, stored_files, wait_for
from tests.test_runner import FAKE, fresh_for_less  # noqa: F401 - a fixture

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and groups of POSIX")

STALL_S = 3.0


def submit(service: JobService, what: str, **more: Any) -> str:
    """A job for the runner without networks; returns its id."""
    path = service.config.data_dir / INCOMING / "video"
    path.write_bytes(b"film")
    return service.submit(Submission({"options": {}, "what": what, **more}, {"video": path})).id


@contextmanager
def working(service: JobService) -> Iterator[Worker]:
    """A worker with all that it does beside its jobs; it looks for jobs by itself."""
    settings = Settings(REPO / "model_config.yaml", service.config, "cpu", REPO / "pretrained", None, None)
    worker = Worker(service, settings, threading.Event())
    worker._runner = Runner([sys.executable, "-c", FAKE, "works"], STALL_S)
    faults = service.store.faults
    actions = (worker.watch, worker.tend, worker.beat, service.maintain, worker.work)
    threads = [
        threading.Thread(target=worker_module._repeat, args=(0.2, worker.stopping, action, faults))
        for action in actions
    ]
    for thread in threads:
        thread.start()
    try:
        yield worker
    finally:
        worker.close()
        for thread in threads:
            thread.join()


def ended(service: JobService, job_id: str) -> Job:
    """Wait for the end of a job; returns it."""
    return wait_for(lambda: (job := service.store.get(job_id)).state not in (QUEUED, RUNNING) and job, "the end", 120)


def is_ready(service: JobService) -> bool:
    """What /ready asks."""
    return any(service.store.workers().values())


def runner_of(worker: Worker) -> int | None:
    """Its process; none while it is replaced."""
    return getattr(worker._runner._life, "pid", None)


def test_an_idle_runner_that_is_lost_is_replaced_and_readiness_is_true(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service(service_config(tmp_path))
    with caplog.at_level(logging.INFO), working(service) as worker:
        for how in (signal.SIGKILL, signal.SIGSTOP):
            wait_for(lambda: is_ready(service), "a worker that is ready", 60)
            pid = worker._runner._life.pid
            os.kill(pid, how)
            wait_for(lambda pid=pid: runner_of(worker) not in (None, pid) and is_ready(service), "another runner", 60)
        assert ended(service, submit(service, "frames")).state == DONE
    assert "the runner died (signal SIGKILL)" in caplog.text and "the runner said nothing for" in caplog.text


def test_a_runner_that_cannot_be_loaded_costs_no_job_anything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    service = make_service(service_config(tmp_path))
    job_id = submit(service, "frames")
    with working(service) as worker:
        worker._runner = Runner([sys.executable, "-c", FAKE, "dies"], STALL_S)
        wait_for(lambda: "the networks could not be loaded, the runner died (exit code 3)" in caplog.text, "a word", 60)
        waiting = service.store.get(job_id)
        assert (waiting.state, waiting.attempt) == (QUEUED, 0) and not is_ready(service)
        worker._runner._command[-1] = "works"
        assert ended(service, job_id).state == DONE


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "is stopped"])
def test_a_job_whose_runner_is_lost_is_done_again_once(how: signal.Signals, tmp_path: Path) -> None:
    service = make_service(service_config(tmp_path))
    job_id = submit(service, "computes", seconds=2)
    with working(service) as worker:
        wait_for(lambda: service.store.get(job_id).frames, "a frame", 60)
        os.kill(worker._runner._life.pid, how)
        done = ended(service, job_id)
        assert (done.state, done.attempt, done.crashes) == (DONE, 2, 1)
    assert stored_files(service.config) == [f"jobs/{job_id}/{done.result}"]


def test_a_job_that_always_takes_its_runner_down_fails_with_a_reason(tmp_path: Path) -> None:
    service = make_service(service_config(tmp_path, max_attempts=2))
    bad, good = submit(service, "dies"), submit(service, "frames")
    with working(service):
        assert (ended(service, bad).error_code, ended(service, good).state) == ("worker-lost", DONE)


def test_jobs_wait_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service(service_config(tmp_path, min_free_gb=1.0))
    job_id = submit(service, "frames")
    with monkeypatch.context() as patched, working(service) as worker:
        patched.setattr(worker_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=0.4e9))
        wait_for(lambda: "jobs wait until there is room" in caplog.text, "a line in the log", 60)
        wait_for(lambda: is_ready(service), "the worker", 60)
        assert service.store.get(job_id).state == QUEUED
        patched.undo()
        assert ended(service, job_id).state == DONE and worker.is_ready
    assert caplog.text.count("jobs wait") == 1


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
@pytest.mark.parametrize("seconds", [1, 10], ids=["which ends meanwhile", "which ends later"])
def test_an_outage_of_redis_costs_a_running_job_nothing(seconds: int, tmp_path: Path) -> None:
    pytest.importorskip("redis")
    port = free_port()
    with ExitStack() as first:
        url = first.enter_context(redis_server(tmp_path, port))
        service = make_service(service_config(tmp_path, lease_s=3.0), url)
        job_id = submit(service, "computes", seconds=seconds)
        with working(service) as worker:
            wait_for(lambda: service.store.get(job_id).frames, "a frame", 60)
            first.close()
            time.sleep(service.config.lease_s + 1)
            with redis_server(tmp_path, port):
                done = ended(service, job_id)
                assert (done.state, done.attempt, done.crashes) == (DONE, 1, 0)
                assert worker._runner.is_ready and ended(service, submit(service, "frames")).state == DONE
                worker.close()


def test_a_result_that_was_noted_although_the_answer_got_lost_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(service_config(tmp_path))
    real, fault = service.store.change, service.store.faults[0]
    lost: list[str] = []

    def losing(job_id: str, change: Callable[[Job], Job | None], *tell: Any) -> Job | None:
        changed = real(job_id, change, *tell)
        if changed is not None and changed.state == DONE:
            lost.append(job_id)
            raise fault("the connection broke just then")
        return changed

    monkeypatch.setattr(service.store, "change", losing)
    job_id = submit(service, "frames")
    with working(service):
        wait_for(lambda: lost and any("result" in name for name in stored_files(service.config)), "the result", 60)
        done = ended(service, job_id)
        wait_for(lambda: stored_files(service.config) == [f"jobs/{job_id}/{done.result}"], "order", 60)
    assert lost == [job_id] and b"".join(service.files.read(job_id, done.result, 0, 9)) == b"film"


def test_a_worker_that_starts_during_an_outage_is_started_again_and_one_with_bad_settings_is_not(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "app.py", "--mode", "worker", "--data-dir", str(tmp_path)]
    away = subprocess.run([*command, "--queue", f"redis://127.0.0.1:{free_port()}/0"], cwd=REPO, capture_output=True)
    assert away.returncode == 1 and b"does not answer" in away.stderr
    assert subprocess.run([*command, "--queue", "amqp://x"], cwd=REPO, capture_output=True).returncode == 2
    count = tmp_path / "count"
    with Embedded([sys.executable, "-c", f"open({str(count)!r}, 'a').write('x'); raise SystemExit(1)"]):
        wait_for(lambda: count.exists() and len(count.read_text()) > 1, "another try", 60)
