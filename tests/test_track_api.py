"""POST /v1/tracks: what it takes in, what comes of it, what it refuses."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas
import pytest
from fastapi.testclient import TestClient

from serving.http.api import create_app
from serving.http.context import Access
from serving.http.intake import Intake
from serving.http.speech import Speaker
from serving.jobs.jobs import WORK, JobService
from serving.jobs.track_runs import TrackRuns
from serving.jobs.worker import track_suffix
from tests.service import REPO, make_service, service_config
from utils.config import load_config


@pytest.fixture
def service(tmp_path: Path) -> JobService:
    return make_service(service_config(tmp_path))


@pytest.fixture
def client(service: JobService) -> TestClient:
    speaker = Speaker(REPO / "pretrained", REPO / "pretrained" / "lite" / "phonemes")
    intake = Intake(service, load_config(REPO / "model_config.yaml").inference, speaker)
    return TestClient(create_app(service, intake, Access(keys=None, hosts=("testserver",))))


@pytest.fixture(scope="module")
def runs(lite_weights: Path) -> TrackRuns:
    config = load_config(REPO / "model_config.yaml")
    inference = config.inference.model_copy(update={"weights_dir": lite_weights.parent})
    return TrackRuns(config.model_copy(update={"inference": inference}), "cpu")


def work(service: JobService, runs: TrackRuns) -> None:
    """Do what a worker and its runner do, in this process."""
    job = service.take()
    folder = service.config.data_dir / WORK
    paths = {name: str(service.files.fetch(job.id, name, folder)) for name in job.inputs}
    task = {"video": None, "audio": None, **job.request, **paths}
    task["output"] = str(folder / f"output{track_suffix(job.request)}")
    asked: list[tuple[int, int | None]] = []
    summary = runs.run(task, lambda *progress: asked.append(progress))
    assert service.complete(job, Path(task["output"]), summary)


def test_a_sound_becomes_a_track(
    service: JobService, client: TestClient, runs: TrackRuns, example_speech: Path
) -> None:
    form = {"format": "live-link", "fps": "60", "reference": "line 7"}
    with example_speech.open("rb") as sound:
        answer = client.post("/v1/tracks", data=form, files={"audio_file": ("../x.wav", sound)})
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}" and job["request"]["format"] == "live-link"
    work(service, runs)
    done = client.get(answer.headers["Location"]).json()
    assert done["state"] == "done" and done["reference"] == "line 7" and done["summary"]["frames"] > 300
    result = client.get(done["result_url"])
    assert result.headers["content-type"].startswith("text/csv")
    table = pandas.read_csv(io.BytesIO(result.content))
    assert len(table) == done["summary"]["frames"] and table.JawOpen.max() > 0.2


def test_a_text_becomes_words(service: JobService, client: TestClient, runs: TrackRuns) -> None:
    answer = client.post("/tracks", data={"format": "vtt", "text_input": "Good morning.", "lang": "en"}, files=NO_FILES)
    assert answer.status_code == 202, answer.text
    work(service, runs)
    result = client.get(f"/v1/jobs/{answer.json()['id']}/result")
    assert result.headers["content-type"].startswith("text/vtt") and "Good <" in result.text


NO_FILES = {"audio_file": ("", b"")}
WRONG = [
    ({}, {}, "Give a sound"),
    ({"format": "nothing"}, {"audio_file": "speech"}, "'format'"),
    ({"fps": "0"}, {"audio_file": "speech"}, "'fps'"),
    ({"extended": "Q"}, {"audio_file": "speech"}, "'extended'"),
    ({"format": "srt"}, {"audio_file": "speech"}, "holds words"),
    ({"format": "glb"}, {"audio_file": "speech", "avatar_file": "speech"}, "no binary glTF"),
    ({"format": "moho"}, {"audio_file": "speech", "avatar_file": "speech"}, ".glb, .gltf and .vrm only"),
    ({"text_input": "Hello."}, {"video_file": "speech"}, "leave one of them out"),
    ({}, {"video_file": "speech"}, "no video stream"),
    ({"path": "/etc/passwd"}, {"audio_file": "speech"}, "'path'"),
]


@pytest.mark.parametrize(("fields", "files", "said"), WRONG)
def test_what_cannot_be_made_is_a_problem(
    service: JobService, client: TestClient, example_speech: Path, fields: dict[str, str], files: dict[str, Any],
    said: str,
) -> None:  # fmt: skip
    sent = {name: (name, example_speech.read_bytes()) for name in files} or NO_FILES
    answer = client.post("/v1/tracks", data=fields, files=sent)
    assert answer.status_code in (400, 415, 422), answer.text
    assert said in answer.json()["detail"] and str(service.config.data_dir) not in answer.text
    assert service.take() is None and not any((service.config.data_dir / "jobs").iterdir())


def test_the_document_describes_tracks(client: TestClient) -> None:
    call = client.app.openapi()["paths"]["/v1/tracks"]["post"]
    fields = call["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert {"audio_file", "video_file", "avatar_file", "format", "fps", "text_input"} <= set(fields)
    assert "live-link" in fields["format"]["enum"]


@pytest.mark.parametrize(
    ("field", "value", "takes"),
    [
        *(("face", False, "a text"), ("text_input", 5, "a text")),
        *(("seed", "7", "a whole number"), ("seed", 1.5, "a whole number")),
        *(("fps", "fast", "a number"), ("speed", True, "a number")),
    ],
)
def test_json_has_the_types_of_the_document(client: TestClient, field: str, value: Any, takes: str) -> None:
    refused = client.post("/v1/tracks", json={"text_input": "Hello.", "lang": "en", field: value})
    assert refused.status_code == 422 and f"The field '{field}' takes {takes}" in refused.json()["detail"]


def test_null_in_json_is_left_out_and_an_unknown_field_is_refused(client: TestClient) -> None:
    wish = {"text_input": "Hello.", "lang": "en", "fps": 60, "smooth": 0, "seed": 7, "reference": None, "voice": None}
    taken = client.post("/v1/tracks", json=wish)
    assert taken.status_code == 202 and taken.json()["request"]["fps"] == 60 and taken.json()["reference"] is None
    for nothing in (None, ""):
        refused = client.post("/v1/tracks", json=wish | {"frames": nothing})
        assert refused.status_code == 422 and "'frames'" in refused.json()["detail"]
    document = client.get("/openapi.json").json()["paths"]
    bodies = {call: document[f"/v1/{call}"]["post"]["requestBody"]["content"] for call in ("tracks", "jobs")}
    fields = {call: content["application/json"]["schema"]["properties"] for call, content in bodies.items()}
    not_null = {(call, name) for call in fields for name, one in fields[call].items() if {"type": "null"} not in
                one.get("anyOf", ())}
    assert not_null == {("jobs", "video_url")}
    assert "number" in {one.get("type") for one in fields["jobs"]["adapt"]["anyOf"]}
    assert not any({"type": "null"} in one.get("anyOf", ()) for content in bodies.values()
                   for one in content["multipart/form-data"]["schema"]["properties"].values())
