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


def blocks(language: str) -> list[str]:
    """The code blocks of a language that call the service."""
    found = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    return [block for block in found if ADDRESS.search(block) and "app.py" not in block]


def test_what_the_document_says_works_as_it_stands(service_media: Path, tmp_path: Path) -> None:
    pytest.importorskip("httpx")
    examples = tmp_path / "examples"
    examples.mkdir()
    for name in ("portrait.png", "speech.wav"):  # small ones, under the names of the document
        (examples / name).symlink_to(service_media / name)
    with running(service_media, tmp_path / "data") as server:
        shell = "set -euo pipefail\n" + "\n".join(blocks("bash"))
        said = copied(["bash", "-c", in_this_server(shell, server.url)], tmp_path)
        assert said.count("event: ") >= 1 and '"state":"done"' in said and "lipsync_jobs" in said
        assert len((tmp_path / "start.bin").read_bytes()) == 100
        for block in blocks("python"):
            said += copied([sys.executable, "-c", in_this_server(block, server.url)], tmp_path)
        assert "done 1.0" in said and "206 bytes 0-99/" in said and "/ready 200" in said
        assert (tmp_path / "result.mp4").read_bytes()[4:8] == b"ftyp"
        assert server.get("/jobs")["total"] == 0  # the document has cleared up after itself


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

    shell, program = "\n".join(blocks("bash")), "\n".join(blocks("python"))
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
