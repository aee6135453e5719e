"""schemathesis makes up requests from the OpenAPI document and looks for answers that the document does not allow.

All of its checks are on. LIPSYNC_FULL=1 tries more than 2000 requests instead of some hundreds.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2 as httpx
import pytest

from serving.http.security import new_key
from tests.server import FULL, Server, running
from tests.service import REPO

pytest.importorskip("schemathesis", reason="schemathesis is not installed (requirements-dev.txt)")
EXAMPLES, LEAST = (220, 2000) if FULL else (8, 500)

HELPED = "positive test case"
TAKING_IN = ("POST /v1/generate", "POST /v1/jobs", "POST /v1/tracks")
OF_A_JOB = "/v1/jobs/{job_id}"
GONE = "the job is known, but what is asked for is deleted"
CONTENT = "what fits the schema may still be no video, nothing to speak, or an address that may not be fetched"
FILES_PUT_IN = "the hook puts real files in; schemathesis counts each body with bytes that a hook changed as broken"
KEY_IS_SENT = "the test's key goes along with every request; the check of ignored keys looks at those without it"
REMAINS = {
    **{(place, "ST202", 422): CONTENT for place in TAKING_IN},
    **{(place, f"ST201 {HELPED}", status): FILES_PUT_IN for place in TAKING_IN for status in (200, 202)},
    **{(place, "ST203", 422): KEY_IS_SENT for place in TAKING_IN},
    **{(f"GET {OF_A_JOB}/{part}", "ST202", 410): GONE for part in ("result", "preview", "subtitles")},
    (f"POST {OF_A_JOB}/link", "ST202", 410): GONE,
    (f"GET {OF_A_JOB}/result", "ST202", 416): "a schema cannot say how long the file is of which a range is asked for",
    ("GET /v1/jobs", "ST202", 422): "a schema cannot say which cursors are ours",
    (f"GET {OF_A_JOB}/result", "ST203", 403): "a signed link stands for a key; a made-up one is told that it is none",
}
"""Operation, code and status of what schemathesis still finds with all of its checks, and why; so does docs/api.md."""
HEADING = re.compile(r"^_{4,} (.+?) _{4,}$", re.MULTILINE)
CASE = re.compile(r"^\d+\. Test Case ID", re.MULTILINE)
CALL = re.compile(r"^ +curl -X (\w+) .*'?http://[^/]+(/[^?'\s]*)\S*$", re.MULTILINE)
FINDING = re.compile(r"^- (ST\d+) (.*?)^\[(\d+)\] ", re.MULTILINE | re.DOTALL)


def findings(report: str) -> set[tuple[str, str, int]]:
    """Operations, codes and statuses of all that a report of schemathesis has found."""
    parts = HEADING.split(report)
    return {
        (_operation(heading, case), f"{code} {HELPED}" if HELPED in text else code, int(status))
        for heading, told in zip(parts[1::2], parts[2::2], strict=True)
        for case in CASE.split(told)
        for code, text, status in FINDING.findall(case)
    }


def _operation(heading: str, case: str) -> str:
    """Of a row of calls, which stand under a heading together, it is the last one."""
    calls = CALL.findall(case)
    if re.match("[A-Z]+ /", heading) or not calls:
        return heading
    return f"{calls[-1][0]} {re.sub('[0-9a-f]{32}', '{job_id}', calls[-1][1])}"


@contextmanager
def shop(folder: Path) -> Iterator[str]:
    """Serves a folder; gives its address."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def server(service_media: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str, str]]:
    """A server that wants keys, a key, and the address of a place from where it fetches inputs."""
    data = tmp_path_factory.mktemp("openapi") / "data"
    key = new_key(data / "api_keys", "tester")
    with shop(service_media) as address, pytest.MonkeyPatch.context() as environment:
        environment.setenv("LIPSYNC_INPUT_ORIGINS", f"[{address}]")
        with running(service_media, data, "--keys") as server:
            yield server, key, address


def test_no_made_up_request_gets_an_answer_that_is_not_described(
    server: tuple[Server, str, str], service_media: Path, tmp_path: Path
) -> None:
    running_server, key, address = server
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{running_server.url}/openapi.json", "--no-color"),
        *("-H", f"Authorization: Bearer {key}", "-n", str(EXAMPLES), "--seed", "1", "--request-timeout", "600"),
        *("--checks", "all", "--continue-on-failure"),
    ]
    environment = {"PYTHONPATH": str(REPO), "SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks"}
    environment |= {"LIPSYNC_TEST_MEDIA": str(service_media), "LIPSYNC_TEST_SHOP": address}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=3600, env={**os.environ, **environment}
    )
    # Not its exit code: it sometimes fails to make up a file by itself ("Unsupported type: 'Binary'").
    found = findings(done.stdout)
    assert found <= REMAINS.keys(), "\n".join(line[:300] for line in (done.stdout + done.stderr).splitlines())
    told = set(re.findall(r"^  ❌ (ST\d+)", done.stdout, flags=re.MULTILINE))
    assert told == {code.split()[0] for _, code, _ in found}  # each was read, also those that have no answer to show
    assert int(re.search(r"(\d+) generated", done.stdout)[1]) >= LEAST
    numbers = httpx.get(f"{running_server.url}/metrics", headers={"Authorization": f"Bearer {key}"}).text
    assert not re.findall(r'status="5\d\d"', numbers.replace('route="/ready",status="503"', ""))  # while it started
    for accepted in ('jobs",status="202"', 'generate",status="200"', 'jobs/{job_id}/result",status="200"'):
        assert f'"/v1/{accepted}' in numbers  # it got as far as real jobs
