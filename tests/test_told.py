"""What happened is told: a job's summary, why it failed, what was asked for; in words that clients of the API know."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipeline.adaptation import AdaptationReport
from pipeline.job import Summary
from serving.http.forms import FILES, JobForm
from serving.jobs.jobs import JobService
from serving.jobs.runner import _told
from serving.jobs.store import Job
from serving.jobs.views import ERROR_CODES, job_view
from serving.problems import Problem, in_api_terms
from tests.service import REPO, make_service, result_file, service_config, submit

NOTE = "The mouth seems covered; if it is right, --min-confidence 0.6 leaves them as they are."
MADE = Summary(
    output=Path("/secret/folder/output.mp4"),
    frames=40,
    generated=28,
    passed_through={"turned_away": 10, "no_face": 2},
    seconds=8.0,
    adaptation=AdaptationReport(seconds=3.0, skipped="the video has no sound of its own"),
    notes=(NOTE,),
)
SPEAKS_TO_CLIENTS = ("pipeline", "faces", "engines", "voices", "language_processor.py", "video", "audio_processor.py")
"""Rooms whose sentences reach clients of the API."""


@pytest.fixture
def service(tmp_path: Path) -> JobService:
    return make_service(service_config(tmp_path))


def view(service: JobService, job: Job) -> dict[str, Any]:
    return job_view(service.store.get(job.id), None, 24).model_dump(mode="json")


def test_a_finished_job_says_what_was_done_to_its_frames(service: JobService) -> None:
    job = submit(service)
    assert view(service, job)["summary"] is None
    assert service.complete(service.take(), result_file(service), _told(MADE))
    done = view(service, job)
    assert done["summary"] == {
        "frames": 40,
        "new_mouths": 28,
        "left_as_they_were": {"turned_away": 10, "no_face": 2},
        "sentence": MADE.left_as_they_were(),
        "adaptation": {
            "sentence": "Adaptation skipped: the video has no sound of its own.",
            "skipped": "the video has no sound of its own",
            "seconds": 3.0,
        },
        "seconds": 8.0,
    }
    assert done["notes"] == [NOTE.replace("--min-confidence", "min_confidence")]
    assert "secret" not in str(done)


def test_rows_of_earlier_versions_can_still_be_shown(service: JobService) -> None:
    job = submit(service)
    row = asdict(MADE) | {"left_as_they_were": ""}  # as it was kept before: no sentence about adapting
    del row["output"]
    assert service.complete(service.take(), result_file(service), row)
    assert view(service, job)["summary"]["adaptation"] is None
    job = submit(service)
    assert service.complete(service.take(), result_file(service), {"frames": 1, "seconds": 1.0})
    assert view(service, job)["summary"]["new_mouths"] is None


def test_why_a_job_failed_is_told_to_programs_too(service: JobService) -> None:
    given_up = submit(service)
    for _ in range(service.config.max_attempts):
        service.release(service.take(), count=True)
    assert view(service, given_up)["error_code"] == "worker-lost"
    refused = submit(service)
    service.fail(service.take(), "No face can be used anywhere.", refused=True, code="no-face")
    assert (view(service, refused)["error_code"], view(service, refused)["state"]) == ("no-face", "failed")
    assert view(service, refused)["error_code"] in ERROR_CODES


def sentences() -> Iterator[tuple[str, str]]:
    """Path and text of every sentence in the rooms that names an option of the command line; {} for what is put in."""
    for room in SPEAKS_TO_CLIENTS:
        paths = (REPO / room).rglob("*.py") if (REPO / room).is_dir() else [REPO / room]
        for path in paths:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            documents = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if hasattr(node, "body")
                         and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)}
            within = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
            for node in ast.walk(tree):
                text = "" if node in within else "".join(parts(node))
                if re.search(r"--[a-z]", text) and text not in documents:
                    yield path.relative_to(REPO).as_posix(), text


def parts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        yield from (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


NOT_FOR_CLIENTS = (
    *("pipeline/tracks/", "pipeline/face_list.py", "pipeline/host.py"),
    *("engines/download.py", "engines/published.py"),
)
"""What only the command line does, and what loading an engine for the operator says."""


def test_no_sentence_names_an_option_of_the_command_line() -> None:
    fields = {*JobForm.model_fields, *FILES}
    found = [(path, text) for path, text in sentences() if not path.startswith(NOT_FOR_CLIENTS)]
    assert len(found) >= 5
    for path, text in found:
        said = in_api_terms(text if ";" in text else f"The engine is not there; {text}")  # parts of sentences too
        assert "--" not in said and "app.py" not in said, (path, said)
        for option in re.findall(r"--([a-z][a-z-]*)", text):
            name = option.replace("-", "_")
            gone = re.search(rf"\b{name}\b", said) is None
            call = f"GET /v1/{name.removeprefix('list_')}"
            assert gone or {name, f"{name}_file"} & fields or call in said, (path, option)
    assert in_api_terms("Give --video, --audio or --text; see --list-voices.") == (
        "Give video_file, audio_file or text_input; see GET /v1/voices."
    )


def test_titles_are_those_of_the_standard_on_every_python() -> None:
    titles = {413: "Content Too Large", 416: "Range Not Satisfiable", 422: "Unprocessable Content", 409: "Conflict"}
    for status, title in titles.items():
        assert Problem(status, "x", "x").document()["title"] == title
