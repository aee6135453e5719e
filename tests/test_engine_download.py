"""--get-engine against a local server that speaks the hub's protocol: resumed, wrong hash, licence, disk."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest

from engines import catalogue, download
from engines.catalogue import ENTRIES, Published, Shelf, WeightFile
from engines.download import get_engine
from utils.helpers import InputError

COMMIT = "c42c7e6c8e9c" + "0" * 28
CONTENT = {"latentsync_unet.pt": b"network" * 40_000, "elsewhere/tiny.pt": b"whisper" * 3000}


@dataclass
class Hub:
    """What the server has and was asked for."""

    address: str
    files: dict[str, bytes] = field(default_factory=lambda: dict(CONTENT))
    break_after: int | None = None  # bytes of the first answer
    asked: list[tuple[str, str | None]] = field(default_factory=list)


def handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append((f"{self.command} {path}", self.headers.get("Range")))
            if path.startswith("/api/") and "/commits/" in path:
                return self.send_json([{"id": "f" * 40} | COMMITTED, {"id": COMMIT} | COMMITTED])
            if path.startswith("/api/"):
                names = [{"rfilename": name, "path": name, "type": "file", "oid": "0", "size": len(content)}
                         for name, content in hub.files.items()]  # fmt: skip
                return self.send_json(names if "/tree/" in path else {"id": "a/b", "sha": COMMIT, "siblings": names})
            name = path.partition(f"/resolve/{COMMIT}/")[2]
            if name not in hub.files:
                return self.send_error(404)
            return self.send_file(hub.files[name], body)

        def send_json(self, content: object) -> None:
            encoded = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def send_file(self, content: bytes, body: bool) -> None:
            start = int((self.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if not body:
                return
            if hub.break_after is not None:
                self.wfile.write(content[start : start + hub.break_after])
                self.wfile.flush()
                hub.break_after = None
                self.connection.close()
                self.close_connection = True
                return
            self.wfile.write(content[start:])

    return Handler


COMMITTED = {"title": "t", "message": "", "date": "2026-01-01T00:00:00.000Z", "authors": []}


@pytest.fixture(autouse=True)
def no_waiting_between_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(made))
    made.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", made.address)
    template = made.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> str:
    """An engine whose files are small."""

    def published(path: str) -> Published:
        content = CONTENT.get(path) or CONTENT[f"elsewhere/{path}"]
        return Published("Maker/net", path, len(content), hashlib.sha256(content).hexdigest(), COMMIT[:12])

    files = (
        WeightFile("network", ("latentsync_unet.pt",), published("latentsync_unet.pt")),
        WeightFile("speech encoder", ("whisper/tiny.pt", "tiny.pt"), published("tiny.pt"), shared=True),
    )
    monkeypatch.setitem(ENTRIES, "latentsync-1.6", replace(ENTRIES["latentsync-1.6"], files=files))
    return "latentsync-1.6"


def test_everything_is_said_then_installed(hub: Hub, entry: str, tmp_path: Path) -> None:
    shelf, said = Shelf(tmp_path / "weights"), []
    with pytest.raises(InputError, match="--accept-licence"):
        get_engine(entry, shelf, False, said.append)
    assert not hub.asked and "OpenRAIL++" in said[0]
    with pytest.raises(InputError, match=f"not installed.*--get-engine {entry}"):
        shelf.check(entry)
    get_engine(entry, shelf, True, said.append)
    assert (shelf.folder / entry / "latentsync_unet.pt").read_bytes() == CONTENT["latentsync_unet.pt"]
    assert (shelf.folder / "shared" / "whisper" / "tiny.pt").read_bytes() == CONTENT["elsewhere/tiny.pt"]
    assert any("to download: 0.3 MB; free in" in line for line in said)
    assert all(COMMIT in path for path, _ in hub.asked if "/resolve/" in path)
    assert not list(shelf.folder.rglob(".download"))
    shelf.check(entry)
    hub.asked.clear()
    get_engine(entry, shelf, False, said.append)  # accepted once, there already
    assert not hub.asked


def test_a_broken_download_is_resumed(hub: Hub, entry: str, tmp_path: Path) -> None:
    shelf, hub.break_after = Shelf(tmp_path), 100_000
    try:
        get_engine(entry, shelf, True, lambda _: None)
    except InputError as broken:
        assert "goes on where it stopped" in str(broken)
        get_engine(entry, shelf, True, lambda _: None)
    assert (tmp_path / entry / "latentsync_unet.pt").read_bytes() == CONTENT["latentsync_unet.pt"]
    assert any(asked == "bytes=100000-" for _, asked in hub.asked), hub.asked


def test_another_file_is_refused(hub: Hub, entry: str, tmp_path: Path) -> None:
    hub.files["latentsync_unet.pt"] = b"x" * len(CONTENT["latentsync_unet.pt"])
    with pytest.raises(InputError, match="not the published one.*nothing was installed"):
        get_engine(entry, Shelf(tmp_path), True, lambda _: None)
    assert not list(tmp_path.rglob("latentsync_unet.pt"))
    assert not Shelf(tmp_path).accepted(entry)


def test_no_hub(entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="could not be downloaded"):
        get_engine(entry, Shelf(tmp_path), True, lambda _: None)


def test_a_full_disk_is_said_first(hub: Hub, entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(InputError, match="make room"):
        get_engine(entry, Shelf(tmp_path), True, lambda _: None)
    assert not hub.asked


def test_what_nobody_publishes_can_be_put_there(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    with pytest.raises(InputError, match="Nobody is known to publish wav2lip256.pth"):
        get_engine("wav2lip-256", shelf, True, lambda _: None)
    (tmp_path / "wav2lip-256").mkdir()
    (tmp_path / "wav2lip-256" / "wav2lip256.pth").write_bytes(b"weights")
    with pytest.raises(InputError, match="no commercial use.*--accept-licence"):
        shelf.check("wav2lip-256")
    get_engine("wav2lip-256", shelf, True, lambda _: None)
    shelf.check("wav2lip-256")


def test_files_are_found_in_a_folder_of_one_engine(tmp_path: Path) -> None:
    for name in ("latentsync_unet.pt", "tiny.pt", "diffusion_pytorch_model.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    assert not Shelf(tmp_path).missing("latentsync-1.6")
    assert [file.role for file in Shelf(tmp_path).missing("musetalk-1.5")] == ["network"]


def test_the_catalogue_knows_what_is_published() -> None:
    for entry in catalogue.ENTRIES.values():
        for file in entry.files:
            if file.published:
                assert len(file.published.sha256) == 64 and file.published.size > 10**7
