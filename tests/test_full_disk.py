"""A disk that is full: one sentence, 507, and nothing left, whichever door it shows at."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from serving.cli import command
from serving.http import uploads
from serving.http.api import create_app
from serving.http.context import Access
from serving.http.security import LOOPBACK_NAMES
from serving.http.server import make_intake
from serving.jobs.jobs import JobService
from serving.jobs.setup import Settings
from tests.service import REPO, make_service, service_config, submit
from utils.disk import is_disk_full


def no_room(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def service(tmp_path: Path) -> JobService:
    return make_service(service_config(tmp_path))


@pytest.fixture
def settings(service: JobService) -> Settings:
    return Settings(REPO / "model_config.yaml", service.config, "cpu", REPO / "pretrained", None, None)


def test_the_api_says_507(service: JobService, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(service, make_intake(service, settings), Access(None, LOOPBACK_NAMES))
    client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
    job = submit(service)

    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(service.store, "change", full)
        assert client.post(f"/v1/jobs/{job.id}/cancel").status_code == 507
    monkeypatch.setattr(uploads._Parts, "part_data", no_room)
    answer = client.post("/jobs", content=chunks(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 507 and "disk space" in answer.json()["detail"]
    assert not list((service.config.data_dir / "incoming").iterdir())


def chunks() -> Any:
    yield b'--x\r\nContent-Disposition: form-data; name="video_file"; filename="a"\r\n\r\n'
    yield b"0" * 1000 + b"\r\n--x--\r\n"


def test_the_page_says_507(service: JobService, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed (requirements.txt)")
    from serving.page.web import create_page

    app, files = create_page(service, settings, Access(None, LOOPBACK_NAMES))
    client = TestClient(app, base_url="http://localhost")
    send = {"files": ("a.png", b"0" * 1000)}
    with monkeypatch.context() as patched:
        patched.setattr(uploads._Parts, "part_data", no_room)
        answer = client.post("/gradio_api/upload", files=send, headers={"Accept-Language": "zh"})
    assert answer.status_code == 507 and "磁盘空间不够" in answer.text
    monkeypatch.setattr(JobService, "has_disk", lambda *_: False)  # min_free_gb
    assert client.post("/gradio_api/upload", files=send).status_code == 507
    assert (
        client.post("/gradio_api/upload", content=b"--x\r\n", headers={"Content-Type": "text/plain"}).status_code == 507
    )
    monkeypatch.setattr(JobService, "has_disk", lambda *_: True)
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    cut = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + b"0" * 1000
    assert client.post("/gradio_api/upload", content=cut, headers=broken).status_code == 400
    assert not [path for path in files.uploads.rglob("*") if path.is_file()]


def test_the_command_line_says_a_plain_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_answer", no_room)
    assert command.main([]) == 1
    assert capsys.readouterr().err == "error: The disk is full; make room and try again.\n"
    assert not is_disk_full(OSError(errno.EACCES, "x")) and not is_disk_full(None)
