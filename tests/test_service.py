"""The service as it is started, with networks of the debug size: real processes, real sockets, `kill -9`.

LIPSYNC_LOAD_JOBS, LIPSYNC_LOAD_CLIENTS and LIPSYNC_LOAD_KILLS make the load test larger.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import httpx2 as httpx
import pytest
import yaml

import app
from tests import footage
from tests.service import REPO, check_alive, free_port, redis_server, wait_for
from tests.tiny_weights import tiny_config

JOBS = int(os.environ.get("LIPSYNC_LOAD_JOBS", "5"))
CLIENTS = int(os.environ.get("LIPSYNC_LOAD_CLIENTS", "3"))
KILLS = int(os.environ.get("LIPSYNC_LOAD_KILLS", "2"))


@dataclass
class Server:
    """A running `--mode api`."""

    url: str
    data: Path
    process: subprocess.Popen[bytes]

    def get(self, path: str) -> Any:
        return httpx.get(self.url + path, timeout=60).json()

    def worker_pids(self) -> list[int]:
        """Of the workers that it has started and that live."""
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True)
        return [int(pid) for pid in listed.stdout.split()]

    def uploads(self) -> list[Path]:
        """What lies in the folder for uploads on their way in."""
        return list((self.data / "incoming").iterdir())


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """Inputs, and a configuration for small networks and short waits."""
    folder = tmp_path_factory.mktemp("media")
    footage.make_portrait(folder / "portrait.png")
    footage.make_sound(folder / "speech.wav", 0.4)
    footage.make_sound(folder / "long.wav", 120.0)
    path = tiny_config(folder, tiny_weights)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["service"] |= {"lease_s": 4, "min_free_gb": 0.1, "upload_idle_s": 2, "max_attempts": 20}
    values["service"]["media"]["max_file_gb"] = 0.02
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return folder


@contextmanager
def running(media: Path, data: Path, *options: str) -> Iterator[Server]:
    """Start the API with these options, and wait until it is ready."""
    port = free_port()
    command = [sys.executable, "app.py", "--mode", "api", "--port", str(port), "--data-dir", str(data), *options]
    path = data.parent / f"{data.name}.log"
    with open(path, "ab") as log:
        process = subprocess.Popen([*command, "--config", str(media / "tiny_config.yaml")], cwd=REPO, stderr=log)
    server = Server(f"http://127.0.0.1:{port}", data, process)
    try:
        wait_for(lambda: check_alive(process, path) and is_ready(server), "a server that is ready")
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def is_ready(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/ready", timeout=60).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def server(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(media, tmp_path_factory.mktemp("service") / "data") as server:
        yield server


def submit(server: Server, media: Path, sound: str = "speech.wav", **headers: str) -> str:
    """Submit a job; returns its id."""
    with open(media / "portrait.png", "rb") as video, open(media / sound, "rb") as audio:
        files = {"video_file": video, "audio_file": audio}
        answer = httpx.post(f"{server.url}/jobs", files=files, data={"steps": "1"}, headers=headers, timeout=60)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def ended(server: Server, job_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        job = server.get(f"/jobs/{job_id}")
        return job if job["state"] not in ("queued", "running") else None

    return wait_for(look, f"the end of {job_id}")


def test_curl_makes_a_video_that_says_it_is_synthetic(server: Server, media: Path, tmp_path: Path) -> None:
    forms = [f"video_file=@{media / 'portrait.png'}", f"audio_file=@{media / 'speech.wav'}", "steps=1"]
    fields = [word for form in forms for word in ("-F", form)]
    command = ["curl", "-sS", "--fail-with-body", *fields, "-o", str(tmp_path / "out.mp4"), f"{server.url}/generate"]
    subprocess.run(command, check=True, timeout=240)
    with av.open(str(tmp_path / "out.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 10
        assert "compositeWithTrainedAlgorithmicMedia" in video.metadata["comment"]
    assert server.get("/jobs") == {"jobs": []}


def test_a_running_job_is_cancelled_within_a_second(server: Server, media: Path) -> None:
    job_id = submit(server, media, "long.wav")
    wait_for(lambda: server.get(f"/jobs/{job_id}")["frames"] > 0, "the first frame")
    started = time.monotonic()
    assert httpx.delete(f"{server.url}/jobs/{job_id}", timeout=60).status_code == 204
    assert time.monotonic() - started < 1.0
    assert server.get(f"/jobs/{job_id}")["state"] == "cancelled"
    assert not (server.data / "jobs" / job_id).exists()
    wait_for(lambda: not any((server.data / "work").iterdir()), "an empty work folder", 20)
    assert ended(server, submit(server, media))["state"] == "done"  # the worker goes on


def test_the_first_seconds_can_be_watched_while_the_rest_is_made(server: Server, media: Path, tmp_path: Path) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        job = f"/jobs/{submit(server, media, 'long.wav')}"
        waiting = client.get(f"{job}/preview")
        assert waiting.status_code == 409 and waiting.headers["retry-after"]
        url = wait_for(lambda: server.get(job)["preview_url"], "the preview")
        answer = client.get(url)
        path = tmp_path / "preview.mp4"
        path.write_bytes(answer.content)
        assert answer.headers["content-type"] == "video/mp4" and client.get(url, headers={"Range": "bytes=0-9"}).content
        with av.open(str(path)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 75
            assert "Synthetic" in container.metadata["comment"]
        assert server.get(job)["state"] == "running"
        client.delete(job)
        assert client.get(url).status_code == 410 and not (server.data / job[1:]).exists()


def test_an_upload_that_is_broken_off_leaves_nothing(server: Server) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="video_file"; filename="v"\r\n\r\n'
    with open_upload(server, 1_000_000) as connection:
        connection.sendall(head + bytes(300_000))
        wait_for(server.uploads, "the upload to begin", 30)
    wait_for(lambda: not server.uploads(), "the upload to be removed", 30)


def test_a_client_that_trickles_is_sent_away(server: Server) -> None:
    with open_upload(server, 1_000_000) as connection:
        connection.sendall(b'--x\r\nContent-Disposition: form-data; name="video_file"; filename="v"\r\n\r\n')
        connection.settimeout(60)
        answer = connection.recv(65536)
    assert b" 408 " in answer.splitlines()[0]
    wait_for(lambda: not server.uploads(), "the upload to be removed", 30)


def test_connections_that_ask_for_nothing_are_closed(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as silent, socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\n")
        deadline = time.monotonic() + 60
        slow.settimeout(0.5)
        for number in itertools.count():
            assert time.monotonic() < deadline, "still connected"
            try:
                slow.sendall(f"X-{number}: trickles\r\n".encode())
                if slow.recv(100) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        silent.settimeout(60)
        assert silent.recv(100) == b""
    assert server.get("/health") == {"status": "ok"}


@contextmanager
def open_upload(server: Server, length: int) -> Iterator[socket.socket]:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        lines = [f"POST /jobs HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {length}\r\n"]
        connection.sendall("".join([*lines, "Content-Type: multipart/form-data; boundary=x\r\n\r\n"]).encode())
        yield connection


def memory(pid: int) -> float:
    """Resident memory of a process, MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def test_a_large_upload_is_refused_without_filling_memory(server: Server) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc to see the memory of another process")
    idle, peak = memory(server.process.pid), 0.0

    def form() -> Iterator[bytes]:
        nonlocal peak
        yield b'--x\r\nContent-Disposition: form-data; name="video_file"; filename="v"\r\n\r\n'
        for _ in range(400):
            yield bytes(100_000)
            peak = max(peak, memory(server.process.pid))

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    try:
        answer = httpx.post(f"{server.url}/jobs", content=form(), headers=headers, timeout=60)
        assert answer.status_code == 413
    except httpx.TransportError:
        pass  # the server hangs up on a client that goes on sending
    assert peak - idle < 100
    wait_for(lambda: not server.uploads(), "the upload to be removed", 30)


def load(server: Server, media: Path) -> list[str]:
    """Many clients submit jobs at once, each with a key that makes repeating harmless; returns the jobs' ids."""
    ids: list[str] = []
    numbers = iter(range(JOBS))

    def client() -> None:
        for number in numbers:
            ids.append(submit(server, media, **{"Idempotency-Key": f"load-{number}"}))

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ids


def check_all_done_once(server: Server, ids: list[str]) -> None:
    """Every job is done, has a result of its own that is the same as all others, and nothing else is left."""
    assert len(set(ids)) == JOBS
    assert {ended(server, job_id)["state"] for job_id in ids} == {"done"}
    results = [httpx.get(f"{server.url}/jobs/{job_id}/result", timeout=60).content for job_id in ids]
    assert len({hashlib.sha256(result).hexdigest() for result in results}) == 1
    assert sum(job["id"] in ids for job in server.get("/jobs?limit=500")["jobs"]) == JOBS
    assert [len(list((server.data / "jobs" / job_id).iterdir())) for job_id in ids] == [1] * JOBS


def test_no_job_is_lost_or_doubled_when_workers_are_killed(server: Server, media: Path) -> None:
    ids = load(server, media)
    for _ in range(KILLS):
        wait_for(lambda: any(server.get(f"/jobs/{job_id}")["state"] == "running" for job_id in ids), "a running job")
        for pid in wait_for(server.worker_pids, "a worker"):
            os.kill(pid, signal.SIGKILL)
    check_all_done_once(server, ids)


def test_jobs_survive_the_death_of_everything(media: Path, tmp_path: Path) -> None:
    with running(media, tmp_path / "data") as server:
        job_id = submit(server, media, "long.wav")
        short = submit(server, media)
        wait_for(lambda: server.get(f"/jobs/{job_id}")["frames"] > 0, "the first frame")
        workers = server.worker_pids()
        server.process.kill()
        server.process.wait()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the end of its worker", 60)
    with running(media, tmp_path / "data") as server:
        assert {job["id"] for job in server.get("/jobs")["jobs"]} == {job_id, short}
        wait_for(lambda: server.get(f"/jobs/{job_id}")["state"] == "running", "the job to be taken up again")
        httpx.delete(f"{server.url}/jobs/{job_id}", timeout=60)
        assert ended(server, short)["state"] == "done"


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_two_workers_share_a_redis(media: Path, tmp_path: Path) -> None:
    pytest.importorskip("redis")
    with redis_server(tmp_path) as url:
        options = ("--queue", url, "--storage", str(tmp_path / "shared"), "--data-dir", str(tmp_path / "other"))
        command = [sys.executable, "app.py", "--mode", "worker", "--config", str(media / "tiny_config.yaml"), *options]
        second = subprocess.Popen(command, cwd=REPO)
        try:
            with running(media, tmp_path / "data", *options[:4]) as server:
                ids = [submit(server, media) for _ in range(3)]
                assert {ended(server, job_id)["state"] for job_id in ids} == {"done"}
                assert 'lipsync_workers{ready="true"} 2.0' in wait_for(
                    lambda: (text := httpx.get(f"{server.url}/metrics", timeout=60).text) and "2.0" in text and text,
                    "the second worker",
                )
        finally:
            second.terminate()
            assert second.wait(timeout=60) == 0


def test_what_listens_loads_no_networks() -> None:
    code = "import sys, serving.web, serving.server, language_processor; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=240)
    assert "'serving.web'" in done.stdout, done.stderr
    assert not re.findall(r"'(?:torch|diffusers|transformers)'", done.stdout)


REFUSED = {
    "open to others without keys": (("--host", "0.0.0.0"), "--new-key"),
    "unknown queue": (("--queue", "amqp://x"), "redis://"),
    "unknown storage": (("--storage", "nonsense://x"), "nonsense://"),
    "keep": (("--keep", "soon"), "24h"),
    "config": (("--config", "nothing.yaml"), "nothing.yaml"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_cannot_be_used(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, sentence = REFUSED[case]
    assert app.main(["--mode", "api", "--data-dir", str(tmp_path), *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and sentence in error and error.count("\n") == 1


def test_a_worker_without_weights_says_so(tmp_path: Path) -> None:
    options = ["--weights", str(tmp_path / "nowhere"), "--data-dir", str(tmp_path / "data")]
    command = [sys.executable, "app.py", "--mode", "worker", *options]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert "nowhere" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_without_its_packages_the_mode_says_which(tmp_path: Path) -> None:
    (tmp_path / "fastapi").mkdir()
    (tmp_path / "fastapi" / "__init__.py").write_text("raise ModuleNotFoundError('gone', name='fastapi')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "app.py", "--mode", "api"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: --mode api needs the package fastapi: see requirements.txt."
