"""Nothing phones home: every mode is run with its connections and forks watched."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests import server
from tests.service import REPO, check_alive, free_port, wait_for

# Loaded by Python itself, before anything else, in every process that a test starts.
WATCH = """
import os, sys

def watch(event, arguments):
    if event in ("os.fork", "os.forkpty"):
        told = "fork"
    elif event in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
        where = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        host = where[0] if isinstance(where, tuple) else where
        host = host.decode() if isinstance(host, bytes) else str(host)
        if host in ("None", "", "localhost", "0.0.0.0", "::1") or host.startswith(("127.", "/")):
            return
        told = f"{event} {where}"
    else:
        return
    with open(os.environ["WATCH_LOG"], "a") as log:
        log.write(f"{told} {sys.argv}" + chr(10))

sys.addaudithook(watch)
open(os.environ["WATCH_LOG"] + ".seen", "a").write(" ".join(sys.orig_argv) + chr(10))
"""


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Watch what processes do from now on; gives the file of what they should not have done."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "watch"))
    monkeypatch.setenv("WATCH_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("GRADIO_ANALYTICS_ENABLED", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "log"


def check_quiet(log: Path, *seen: str) -> None:
    started = log.with_name("log.seen").read_text(encoding="utf-8")
    assert all(word in started for word in seen), started  # the watch was there
    assert not log.exists(), log.read_text(encoding="utf-8")
    assert not list(log.parent.glob("home/intel*"))


def test_the_watch_sees_what_openvino_does_when_it_is_let(watched: Path) -> None:
    subprocess.run([sys.executable, "-c", "import socket, os; os.fork() or os._exit(0); os.wait()"], check=True)
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))"
    subprocess.run([sys.executable, "-c", code], check=False, stderr=subprocess.DEVNULL)
    told = watched.read_text(encoding="utf-8")
    assert "fork" in told and "192.0.2.1" in told


def test_the_command_line_is_quiet(watched: Path, service_media: Path, tmp_path: Path) -> None:
    files = ["--video", service_media / "portrait.png", "--audio", service_media / "speech.wav"]
    command = [*files, "--output", tmp_path / "out.mp4", "--config", service_media / "tiny_config.yaml"]
    subprocess.run([sys.executable, "app.py", *map(str, command)], cwd=REPO, check=True, capture_output=True)
    check_quiet(watched, "app.py")


def test_api_worker_and_runner_are_quiet(watched: Path, service_media: Path, tmp_path: Path) -> None:
    with server.running(service_media, tmp_path / "data") as api:
        assert server.ended(api, server.submit(api, service_media))["state"] == "done"
    check_quiet(watched, "--mode api", "--mode worker", "runner")


def test_the_page_is_quiet(watched: Path, service_media: Path, tmp_path: Path) -> None:
    log, port = tmp_path / "page.log", free_port()
    options = ("--mode", "web", "--port", str(port), "--data-dir", str(tmp_path / "data"))
    with server.process(service_media, log, *options) as page:
        wait_for(lambda: check_alive(page, log) and "Uvicorn running" in log.read_text(encoding="utf-8"), "the page")
        for path in ("", "config", "gradio_api/info", "gradio_api/startup-events"):
            assert server.httpx.get(f"http://127.0.0.1:{port}/{path}").status_code == 200
    check_quiet(watched, "--mode web", "--mode worker")


def test_every_way_into_the_program_is_quiet_before_its_libraries_are(watched: Path) -> None:
    code = """
        import os, sys, {first}
        assert sys.modules["openvino_telemetry"] is None
        import huggingface_hub.constants as hub
        assert hub.HF_HUB_DISABLE_TELEMETRY and os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    """
    libraries = """
        import diffusers.utils, gradio.analytics, openvino, transformers.utils
        assert not gradio.analytics.analytics_enabled()
    """
    for first in ("app", "trainer", "models.openvino_networks"):
        command = [sys.executable, "-c", textwrap.dedent(code.format(first=first) + libraries * (first == "app"))]
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
        assert done.returncode == 0, f"{first}: {done.stderr[-2000:]}"
    check_quiet(watched, "-c")
