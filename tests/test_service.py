"""The service as it is started, with networks of the debug size: real processes, real sockets, clients that misbehave.

LIPSYNC_FULL=1 sends uploads of 2 GB instead of 40 MB.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import httpx2 as httpx
import pytest

import app
from tests.server import FULL, Server, ended, running, submit
from tests.service import REPO, wait_for

UPLOAD_BYTES = 2_000_000_000 if FULL else 40_000_000
FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="video_file"; filename="v"\r\n\r\n'


@pytest.fixture(scope="module")
def media(service_media: Path) -> Path:
    return service_media


@pytest.fixture(scope="module")
def server(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(media, tmp_path_factory.mktemp("service") / "data") as server:
        yield server


def test_curl_makes_a_video_that_says_it_is_synthetic(server: Server, media: Path, tmp_path: Path) -> None:
    forms = [f"video_file=@{media / 'portrait.png'}", f"audio_file=@{media / 'speech.wav'}", "steps=1"]
    fields = [word for form in forms for word in ("-F", form)]
    command = ["curl", "-sS", "--fail-with-body", *fields, "-o", str(tmp_path / "out.mp4"), f"{server.url}/generate"]
    subprocess.run(command, check=True, timeout=240)
    with av.open(str(tmp_path / "out.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 10
        assert "compositeWithTrainedAlgorithmicMedia" in video.metadata["comment"]
    assert server.get("/jobs")["total"] == 0


def test_a_running_job_is_cancelled_within_a_second(server: Server, media: Path) -> None:
    job_id = submit(server, media, "long.wav")
    wait_for(lambda: server.get(f"/jobs/{job_id}")["frames"] > 0, "the first frame")
    started = time.monotonic()
    assert httpx.post(f"{server.url}/v1/jobs/{job_id}/cancel", timeout=60).json()["state"] == "cancelled"
    assert time.monotonic() - started < 1.0
    assert server.get(f"/jobs/{job_id}")["state"] == "cancelled"
    assert not (server.data / "jobs" / job_id).exists()
    wait_for(lambda: not any((server.data / "work").iterdir()), "an empty work folder", 20)
    print(f"the runner had stopped after {time.monotonic() - started:.2f} s")
    assert ended(server, submit(server, media))["state"] == "done"  # the worker goes on


def test_a_text_comes_with_its_subtitles(server: Server, media: Path) -> None:
    data = {"text_input": "Good morning!", "lang": "en", "steps": "1", "srt": "true", "reference": "my-4711"}
    with httpx.Client(base_url=server.url, timeout=60) as client, open(media / "portrait.png", "rb") as video:
        made = client.post("/v1/jobs", files={"video_file": video}, data=data)
        if made.status_code == 501:
            pytest.skip(made.json()["detail"])
        job = ended(server, made.json()["id"])
        assert job["state"] == "done" and job["request"]["srt"] and job["reference"] == "my-4711", job
        assert job["summary"]["new_mouths"] == job["summary"]["frames"] > 10
        answer = client.get(job["subtitles_url"])
        assert answer.headers["content-type"] == "application/x-subrip"
        assert re.fullmatch(r"1\n00:00:00,\d{3} --> 00:00:0\d,\d{3}\nGood morning!\n*", answer.text)
        assert client.get(job["subtitles_url"], headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
        names = sorted(path.name for path in (server.data / "jobs" / job["id"]).iterdir())
        assert names == ["result-1.mp4", "subtitles-1.srt"]
        client.delete(f"/v1/jobs/{job['id']}")


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
        assert client.get(url).status_code == 404 and not (server.data / job[1:]).exists()


def test_a_client_of_generate_that_goes_away_cancels_its_job(server: Server, media: Path) -> None:
    forms = [f"video_file=@{media / 'portrait.png'}", f"audio_file=@{media / 'long.wav'}"]
    fields = [word for form in forms for word in ("-F", form)]
    with subprocess.Popen(["curl", "-sS", *fields, "-o", os.devnull, f"{server.url}/generate"]) as client:
        wait_for(lambda: server.get("/jobs?state=running")["jobs"], "the job to begin")
        client.kill()
    wait_for(lambda: not server.get("/jobs?state=running")["jobs"], "the job to be cancelled", 30)
    wait_for(lambda: not any((server.data / "work").iterdir()), "an empty work folder", 20)


def test_an_upload_that_is_broken_off_leaves_nothing(server: Server) -> None:
    with open_upload(server, "Content-Length: 1000000") as connection:
        connection.sendall(FORM_HEAD + bytes(300_000))
        wait_for(server.uploads, "the upload to begin", 30)
    wait_for(lambda: not server.uploads(), "the upload to be removed", 30)


@pytest.mark.parametrize("pause", [0.1, 3600.0], ids=["trickles", "falls silent"])
def test_an_upload_that_is_too_slow_is_cut_off_and_leaves_nothing(server: Server, pause: float) -> None:
    with open_upload(server, "Content-Length: 1000000") as connection:
        connection.sendall(FORM_HEAD)
        connection.settimeout(min(pause, 60))
        answer, deadline = b"", time.monotonic() + 60
        while not answer and time.monotonic() < deadline:
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                connection.sendall(b"x")
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
def open_upload(server: Server, length: str) -> Iterator[socket.socket]:
    """A connection on which a form is to come; `length` is the header that says how long it is."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        lines = [f"POST /jobs HTTP/1.1\r\nHost: {host}:{port}\r\n{length}\r\n"]
        connection.sendall("".join([*lines, "Content-Type: multipart/form-data; boundary=x\r\n\r\n"]).encode())
        yield connection


def memory(pid: int, what: str) -> float:
    """Memory of a process, MB: VmRSS now, VmHWM at its peak."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+)", status)[1]) / 1024


def as_chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@pytest.mark.parametrize(
    ("length", "framed"),
    [(f"Content-Length: {UPLOAD_BYTES}", bytes), ("Transfer-Encoding: chunked", as_chunk)],
    ids=["with its length", "in chunks"],
)
def test_a_large_upload_is_refused_without_filling_memory(
    server: Server, length: str, framed: Callable[[bytes], bytes]
) -> None:
    """A client that sends all of it, whatever the server says."""
    pid = server.process.pid
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs /proc to see the peak of another process's memory")
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts again
    idle, piece = memory(pid, "VmRSS"), framed(bytes(1_000_000))
    with open_upload(server, length) as connection:
        try:
            connection.sendall(framed(FORM_HEAD))
            for _ in range(UPLOAD_BYTES // 1_000_000):
                connection.sendall(piece)
        except OSError:
            pass  # it hangs up on a client that goes on sending
        answer = b""
        try:
            answer = connection.recv(65536)
        except OSError:
            pass
    assert answer == b"" or b" 413 " in answer.splitlines()[0]
    assert memory(pid, "VmHWM") - idle < 300
    wait_for(lambda: not server.uploads(), "the upload to be removed", 30)
    assert server.get("/jobs?state=queued")["total"] == 0


def test_a_client_with_a_large_upload_is_told_why_it_is_refused(server: Server, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(UPLOAD_BYTES)  # takes no room on most file systems
    with large.open("rb") as file:
        answer = httpx.post(f"{server.url}/jobs", files={"video_file": file}, timeout=120)
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
    command = ["curl", "-sS", "-w", "%{http_code}", "-F", f"video_file=@{large}", f"{server.url}/jobs"]
    for more in ([], ["-H", "Expect:"], ["-H", "Transfer-Encoding: chunked"]):
        told = subprocess.run([*command, *more], capture_output=True, text=True, timeout=120).stdout
        assert told.endswith("413") and "larger than" in told


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


def test_what_listens_loads_no_networks() -> None:
    code = "import sys, serving.page.web, serving.http.server, language_processor; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=240)
    assert "'serving.page.web'" in done.stdout, done.stderr
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
