"""docs/api.md: its calls, copied and pasted into a shell and into Python, against the service as it is started."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from serving.jobs.webhooks import signature
from tests.server import running
from tests.service import REPO

DOCUMENT = (REPO / "docs" / "api.md").read_text(encoding="utf-8")
ADDRESS = re.compile(r"http://(127\.0\.0\.1|localhost):8000")


def blocks(*languages: str) -> list[tuple[str, str]]:
    """The code blocks in these languages that call the service, in the order of the document: language and text."""
    found = re.findall(rf"```({'|'.join(languages)})\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    return [(language, block) for language, block in found if ADDRESS.search(block) and "app.py" not in block]


STARTS = {".mp4": (4, b"ftyp"), ".srt": (0, b"1\n00:00:0"), ".bin": (4, b"ftyp")}
"""Ending of a file -> where something stands in it, and what."""


def test_what_the_document_says_works_one_after_the_other(service_media: Path, tmp_path: Path) -> None:
    """As a reader would: from the top to the bottom, in one folder. Every file that comes out is what its name says."""
    pytest.importorskip("httpx")
    examples = tmp_path / "examples"
    examples.mkdir()
    for name, small in (("portrait.jpg", "portrait.png"), ("speech.wav", "speech.wav")):
        (examples / name).symlink_to(service_media / small)
    said, written = "", set()
    with running(service_media, tmp_path / "data") as server:
        for language, block in blocks("bash", "python"):
            text = in_this_server(block, server.url)
            shell = ["bash", "-c", "set -euo pipefail\n" + text]
            said += copied(shell if language == "bash" else [sys.executable, "-c", text], tmp_path)
            for path in tmp_path.glob("*.*"):
                if path.suffix in STARTS:
                    start, mark = STARTS[path.suffix]
                    assert path.read_bytes()[start:].startswith(mark), (path.name, block, path.read_bytes()[:200])
                    written.add(path.name)
        assert server.get("/v1/jobs")["total"] == 0  # the document has cleared up after itself
    assert {"result.mp4", "result.srt", "start.bin"} <= written and (tmp_path / "start.bin").stat().st_size == 100
    for told in ('event: done', '"state":"done"', "lipsync_jobs", "signature=", "done 1.0", "206 bytes 0-99/", "304 ="):
        assert told in said, told
    for told in ("cannot be tried again", '"state":"cancelled"', "fetches nothing from that address", "/ready 200"):
        assert told in said, told


def in_this_server(text: str, url: str) -> str:
    return ADDRESS.sub(url, text)


def copied(command: list[str], folder: Path) -> str:
    """Run in a folder; returns what it says."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "KEY": "none", "PATH": path}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_every_call_is_shown_in_both_languages() -> None:
    from serving.http.api import ROUTERS

    shell, program = ("\n".join(text for _, text in blocks(language)) for language in ("bash", "python"))
    for path in {route.path for router in ROUTERS for route in router.routes}:
        last = path.rpartition("/")[2].replace("{job_id}", "")
        assert last in shell and (last in program or last == "preview"), path


def test_the_receiver_of_a_webhook_can_check_it_as_shown() -> None:
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL) if "is_genuine" in b)
    names: dict[str, object] = {}
    exec(compile(block, "docs/api.md", "exec"), names)
    body = json.dumps({"state": "done"}).encode()
    secret = "whsec_" + "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    headers = {"webhook-id": "a", "webhook-timestamp": "1"}
    headers["webhook-signature"] = signature(bytes(range(32)), "a", 1, body)
    assert names["is_genuine"](headers, body, secret) and not names["is_genuine"](headers, body + b" ", secret)
