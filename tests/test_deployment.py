"""Dockerfile, compose.yaml and docs/api.md: what they tell people to run is what the program understands."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from starlette.routing import Match

from serving.http.api import ROUTERS
from serving.http.server import build_parser
from serving.jobs.setup import worker_parser

REPO = Path(__file__).resolve().parent.parent
DOCUMENT = (REPO / "docs" / "api.md").read_text(encoding="utf-8")
COMMANDS = "".join(re.findall(r"```bash\n(.*?)```", DOCUMENT, flags=re.DOTALL)).replace("\\\n", " ").splitlines()


def understood(words: list[str]) -> None:
    """Fails unless the program takes these options."""
    mode = " ".join(words).replace("--mode ", "--mode=").split("--mode=")[1].split()[0]
    parsers = {"api": build_parser("api", "", 8000), "worker": worker_parser(), "web": build_parser("web", "", 7860)}
    parsers[mode].parse_args(words)


@pytest.mark.parametrize("name", ["api", "page", "worker"])
def test_compose_starts_what_there_is(name: str) -> None:
    service = yaml.safe_load((REPO / "compose.yaml").read_text(encoding="utf-8"))["services"][name]
    understood(service["command"])


def test_both_services_of_compose_share_queue_and_files() -> None:
    document = yaml.safe_load((REPO / "compose.yaml").read_text(encoding="utf-8"))
    shared = [
        {word for word in document["services"][name]["command"] if word.startswith(("--queue", "--storage", "--data"))}
        for name in ("api", "page", "worker")
    ]
    assert shared[0] == shared[1] == shared[2] and len(shared[0]) == 3
    named = {volume.split(":")[0] for service in document["services"].values() for volume in service["volumes"]}
    assert named == set(document["volumes"])


def test_the_dockerfile_copies_and_starts_what_there_is() -> None:
    text = (REPO / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    for names in re.findall(r"^COPY (.+) \S+$", text, flags=re.MULTILINE):
        assert all((REPO / name).exists() for name in names.split())
    assert json.loads(re.search(r"^ENTRYPOINT (.+)$", text, flags=re.MULTILINE)[1]) == ["python", "app.py"]
    understood(json.loads(re.search(r"^CMD (.+)$", text, flags=re.MULTILINE)[1]))
    assert re.search(r"^USER 10001$", text, flags=re.MULTILINE) and "--uid 10001" in text


def test_the_dockerfile_passes_its_linter() -> None:
    linter = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if linter is None:
        pytest.skip("hadolint is not installed (requirements-dev.txt)")
    done = subprocess.run([linter, "--no-color", REPO / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "", done.stdout


def test_compose_follows_its_specification() -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="compose-spec is not installed (requirements-dev.txt)")
    text = (REPO / "compose.yaml").read_text(encoding="utf-8")
    compose = compose_spec.PyCompose.from_yaml(text)
    compose.validate()
    assert set(compose.service_names()) == {"redis", "api", "page", "worker"}
    for old, new in (("restart:", "restrat:"), ("interval: 5s", "interval: soon"), ("- data:/data", "- nothing:/data")):
        with pytest.raises(ValueError):
            compose_spec.PyCompose.from_yaml(text.replace(old, new)).validate()


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("python app.py")])
def test_documented_commands_are_understood(line: str) -> None:
    understood(shlex.split(line, comments=True)[2:])


@pytest.mark.parametrize("line", [line for line in COMMANDS if "curl" in line])
def test_documented_calls_exist(line: str) -> None:
    said = re.search(r"-X (\w+)", line)
    method = said[1] if said else "POST" if " -F " in line else "GET"
    path = re.search(r"http://(?:127.0.0.1|localhost):8000(/[^\s\"?|)]*)", line)[1].replace("$job", "0" * 32)
    scope = {"type": "http", "method": method, "path": path, "headers": [], "root_path": ""}
    assert any(route.matches(scope)[0] is Match.FULL for router in ROUTERS for route in router.routes)
    assert all((REPO / name).is_file() for name in re.findall(r"_file=@(\S+)", line))


def test_the_document_names_every_field() -> None:
    from serving.http.forms import FILES, JobForm

    table = DOCUMENT[DOCUMENT.index("## Fields") : DOCUMENT.index("## Refusals")]
    assert {*FILES, *JobForm.model_fields} <= set(re.findall(r"`(\w+)`", table))


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from serving.jobs.setup import read_settings
    from utils.helpers import InputError

    given = {"MAX_QUEUE": "7", "MEDIA_MAX_FILE_GB": "2.5", "ALLOWED_HOSTS": "[lip.example]", "QUEUE": "redis://x"}
    for name, value in given.items():
        monkeypatch.setenv(f"LIPSYNC_{name}", value)
    settings = read_settings(worker_parser().parse_args(["--data-dir", str(tmp_path)]))
    service = settings.service
    assert (service.max_queue, service.media.max_file_gb, service.allowed_hosts) == (7, 2.5, ("lip.example",))
    assert settings.queue == "redis://x"
    monkeypatch.setenv("LIPSYNC_MAX_QUEUE", "many")
    with pytest.raises(InputError, match="max_queue"):
        read_settings(worker_parser().parse_args([]))


def test_a_workers_health_is_told(tmp_path: Path) -> None:
    import socket

    from serving.jobs.store import SqliteJobStore
    from serving.jobs.worker import main

    assert main(["--check", "--data-dir", str(tmp_path)]) == 1
    SqliteJobStore(tmp_path / "jobs.db").beat(f"{socket.gethostname()}-1-a", False)
    assert main(["--check", "--data-dir", str(tmp_path)]) == 0


def test_secrets_stay_out_of_the_image() -> None:
    ignored = (REPO / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {".env", "**/*.pem", "**/*.key", "**/api_keys", "outputs", ".git"} <= set(ignored)
