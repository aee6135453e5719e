"""The service as it is started: real processes, with networks of the debug size."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
import yaml

from tests import footage
from tests.service import REPO, check_alive, free_port, wait_for
from tests.tiny_weights import tiny_config

FULL = os.environ.get("LIPSYNC_FULL") == "1"
"""LIPSYNC_FULL=1: as many jobs, bytes and requests as docs/api.md speaks of, instead of a few."""


@dataclass
class Server:
    """A running `--mode api`.

    Attributes:
        url: where it listens.
        data: its data folder.
        log: what it and its worker write to standard error.
        process: itself.
    """

    url: str
    data: Path
    log: Path
    process: subprocess.Popen[bytes]

    def get(self, path: str) -> Any:
        """The JSON that a path answers with."""
        return httpx.get(self.url + path, timeout=60).json()

    def worker_pids(self) -> list[int]:
        """Of the workers that it has started and that live."""
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [int(pid) for pid in listed.stdout.split()]

    def runner_pids(self) -> list[int]:
        """Of the processes that its workers have draw."""
        parents = ",".join(map(str, self.worker_pids())) or "0"
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", parents], capture_output=True, text=True)
        return [int(pid) for pid in listed.stdout.split()]

    def uploads(self) -> list[Path]:
        """What lies in the folder for uploads on their way in."""
        return list((self.data / "incoming").iterdir())


def make_media(folder: Path, weights: Path) -> Path:
    """Fill a folder with inputs, and with a configuration for small networks and short waits; returns it."""
    footage.make_portrait(folder / "portrait.png")
    footage.make_sound(folder / "speech.wav", 0.4)
    footage.make_sound(folder / "long.wav", 120.0)
    values = yaml.safe_load(tiny_config(folder, weights).read_text(encoding="utf-8"))
    values["service"] |= {"lease_s": 4, "stall_s": 15, "min_free_gb": 0.1, "upload_idle_s": 2, "max_attempts": 20}
    values["service"] |= {"max_jobs_per_key": 500, "max_requests_per_minute": 10**6}
    if not FULL:
        values["service"]["media"]["max_file_gb"] = 0.02
    (folder / "tiny_config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder


@contextmanager
def running(media: Path, data: Path, *options: str, wrapper: Sequence[str] = ()) -> Iterator[Server]:
    """Start the API with these options, and wait until it is ready; see `process`."""
    port = free_port()
    log = data.parent / f"{data.name}.log"
    command = ["--mode", "api", "--port", str(port), "--data-dir", str(data), *options]
    with process(media, log, *command, wrapper=wrapper) as started:
        server = Server(f"http://127.0.0.1:{port}", data, log, started)
        wait_for(lambda: check_alive(started, log) and is_ready(server), "a server that is ready")
        yield server


@contextmanager
def process(
    media: Path, log: Path, *options: str, wrapper: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the program with these options and small networks, by a command that prepares and becomes it (`wrapper`);
    interrupted at the end of the block."""
    command = [*wrapper, sys.executable, "app.py", *options, "--config", str(media / "tiny_config.yaml")]
    with open(log, "ab") as file:
        started = subprocess.Popen(command, cwd=REPO, stderr=file)
    try:
        yield started
    finally:
        started.send_signal(signal.SIGINT)
        started.wait(timeout=60)


def is_ready(server: Server) -> bool:
    """The server answers that a worker has its networks loaded."""
    try:
        return httpx.get(f"{server.url}/ready", timeout=60).status_code == 200
    except httpx.TransportError:
        return False


def submit(server: Server, media: Path, sound: str = "speech.wav", crf: int = 16, **headers: str) -> str:
    """Submit a job; returns its id."""
    answer = post(server, media, sound, crf, **headers)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def post(server: Server, media: Path, sound: str, crf: int, **headers: str) -> httpx.Response:
    """Ask for a job."""
    with open(media / "portrait.png", "rb") as video, open(media / sound, "rb") as audio:
        files = {"video_file": video, "audio_file": audio}
        data = {"steps": "1", "crf": str(crf)}
        return httpx.post(f"{server.url}/jobs", files=files, data=data, headers=headers, timeout=60)


def ended(server: Server, job_id: str) -> dict[str, Any]:
    """Wait until a job has ended; returns it."""

    def look() -> dict[str, Any] | None:
        job = server.get(f"/jobs/{job_id}")
        return job if job["state"] not in ("queued", "running") else None

    return wait_for(look, f"the end of {job_id}")
