"""A job service for tests: real rows, queue and files in a temporary folder; and a real Redis where there is one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from serving.jobs.jobs import INCOMING, JOBS, WORK, JobService, Submission
from serving.jobs.queues import open_queue, open_store
from serving.jobs.storage import JobFiles
from serving.jobs.store import Job
from utils.config import ServiceConfig, load_config

REPO = Path(__file__).resolve().parent.parent
PATIENCE_S = 600.0  # for what takes seconds on a computer that has nothing else to do


def service_config(folder: Path, **changes: Any) -> ServiceConfig:
    """The shipped configuration with another data folder, no demands on the disk, and no limit a minute."""
    config = load_config(REPO / "model_config.yaml").service
    standard = {"data_dir": folder, "min_free_gb": 0.0, "max_requests_per_minute": 10**6}
    return config.model_copy(update={**standard, **changes})


def make_service(config: ServiceConfig, queue: str | None = None, clock: Callable[[], float] = time.time) -> JobService:
    """A job service in the configured folder."""
    for name in (INCOMING, JOBS, WORK):
        (config.data_dir / name).mkdir(parents=True, exist_ok=True)
    files = JobFiles(str(config.data_dir / JOBS))
    return JobService(config, open_store(config, queue), open_queue(config, queue), files, clock)


def submit(service: JobService, content: bytes = b"film", **more: Any) -> Job:
    """Submit a job with one small file."""
    folder = service.config.data_dir / INCOMING
    path = folder / f"{time.monotonic_ns()}"
    path.write_bytes(content)
    return service.submit(Submission({"options": {}}, {"video": path}, **more))


def result_file(service: JobService, content: bytes = b"result") -> Path:
    """What a worker would hand in."""
    path = service.config.data_dir / WORK / "output.mp4"
    path.write_bytes(content)
    return path


def stored_files(config: ServiceConfig) -> list[str]:
    """Every file in the data folder but the databases."""
    found = [path.relative_to(config.data_dir) for path in config.data_dir.rglob("*") if path.is_file()]
    return sorted(str(path) for path in found if not path.name.startswith(("jobs.db", "queue.db", "rates.db", "keys")))


def free_port() -> int:
    """A port that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    """Wait until `condition()` gives something, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds:g} s in vain for {what}")


@contextmanager
def redis_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """Start a Redis of our own; gives its URL. With a port it keeps what it holds in the folder, for the next one."""
    keep, port = "no" if port is None else "yes", port or free_port()
    command = [shutil.which("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    process = subprocess.Popen([*command, "--save", "", "--appendonly", keep], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: _answers(port), "Redis", 30)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def check_alive(process: subprocess.Popen[Any], log: Path) -> bool:
    """True; fails with the end of its log if the process has ended."""
    assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")[-2000:]
    return True


def _answers(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
