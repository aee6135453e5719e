"""schemathesis makes up requests from the OpenAPI document and looks for answers that the document does not allow.

LIPSYNC_FULL=1 tries more than 2000 requests instead of some hundreds.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from serving.http.security import new_key
from tests.server import FULL, Server, running
from tests.service import REPO

pytest.importorskip("schemathesis", reason="schemathesis is not installed (requirements-dev.txt)")
EXAMPLES, LEAST = (220, 2000) if FULL else (20, 500)

EXCLUDED = (
    "positive_data_acceptance",  # what fits the schema may still be no video, or an unknown language
    "negative_data_rejection",  # what does not fit may be harmless: a header too many, a body beside a known key
    "missing_required_header",  # the key goes along with every request; "ignored_auth" looks at those without
    "use_after_free",  # a job that was cancelled can still be seen
)


@pytest.fixture(scope="module")
def server(service_media: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server that wants keys, and a key."""
    data = tmp_path_factory.mktemp("openapi") / "data"
    key = new_key(data / "api_keys", "tester")
    with running(service_media, data, "--keys") as server:
        yield server, key


def test_no_made_up_request_gets_an_answer_that_is_not_described(
    server: tuple[Server, str], service_media: Path, tmp_path: Path
) -> None:
    running_server, key = server
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{running_server.url}/openapi.json", "--no-color"),
        *("-H", f"Authorization: Bearer {key}", "-n", str(EXAMPLES), "--seed", "1", "--request-timeout", "600"),
        *("--exclude-checks", ",".join(EXCLUDED), "--continue-on-failure"),
    ]
    environment = {"PYTHONPATH": str(REPO), "SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks"}
    environment |= {"LIPSYNC_TEST_MEDIA": str(service_media)}
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=3600, env={**os.environ, **environment}
    )
    # Not its exit code: it sometimes fails to make up a file by itself ("Unsupported type: 'Binary'").
    made, passed = re.search(r"(\d+) generated, (?:(\d+) passed)?", done.stdout).groups()
    assert made == passed, "\n".join(line[:300] for line in (done.stdout + done.stderr).splitlines())
    assert int(made) >= LEAST
    numbers = httpx.get(f"{running_server.url}/metrics", headers={"Authorization": f"Bearer {key}"}).text
    assert not re.findall(r'status="5\d\d"', numbers.replace('route="/ready",status="503"', ""))  # while it started
    for accepted in ('jobs",status="202"', 'generate",status="200"', 'jobs/{job_id}/result",status="200"'):
        assert f'"/v1/{accepted}' in numbers  # it got as far as real jobs
