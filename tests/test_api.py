"""The HTTP API, in the process and without networks: what it answers, what it refuses, what it leaves behind."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import shutil
import sqlite3
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.http.api import create_app
from serving.http.context import Access
from serving.http.intake import Intake
from serving.http.security import ApiKeys, is_loopback, new_key
from serving.http.speech import Speaker
from serving.jobs.jobs import JobService
from serving.logs import JsonFormatter
from tests import footage
from tests.service import REPO, make_service, redis_server, result_file, service_config, stored_files, wait_for
from utils.config import load_config
from utils.helpers import InputError

FILM = bytes(range(256)) * 40
SUMMARY = {"frames": 10, "seconds": 2.0}
NO_JOBS = {"jobs": [], "total": 0, "next_cursor": None}
LOCAL = Access(keys=None, hosts=("testserver",))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    footage.make_portrait(folder / "portrait.png", size=(96, 96))
    footage.make_video(folder / "video.mp4", 0.4, size=(64, 64))
    footage.make_sound(folder / "speech.wav", 0.4)
    for kind in ("text", "no sound", "no index", "zero length"):
        footage.bad_file(kind, folder)
    return folder


@pytest.fixture
def service(tmp_path: Path) -> JobService:
    return make_service(service_config(tmp_path))


def client_of(service: JobService, access: Access = LOCAL, **options: Any) -> TestClient:
    speaker = Speaker(REPO / "pretrained", REPO / "pretrained" / "lite" / "phonemes")
    intake = Intake(service, load_config(REPO / "model_config.yaml").inference, speaker)
    return TestClient(create_app(service, intake, access), **options)


@pytest.fixture
def client(service: JobService) -> TestClient:
    return client_of(service)


@pytest.fixture
def form(media: Path) -> Iterator[dict[str, Any]]:
    """Files of a good request, under names that would be dangerous as paths."""
    with open(media / "portrait.png", "rb") as video, open(media / "speech.wav", "rb") as audio:
        yield {"video_file": ("../../etc/x.png", video), "audio_file": ("/tmp/evil.wav", audio)}


def finish(service: JobService, content: bytes = FILM) -> None:
    """Do what a worker does."""
    assert service.complete(service.take(), result_file(service, content), SUMMARY)


def is_problem(response: Any, status: int, sentence: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status and problem["type"].startswith("urn:lip-sync:") and problem["title"]
    assert re.search(sentence, problem["detail"]), problem["detail"]
    assert "Traceback" not in response.text and "/tmp/" not in response.text


def test_a_job_from_upload_to_download(client: TestClient, service: JobService, form: dict[str, Any]) -> None:
    data = {"steps": "3", "face": "left", "reference": "order 4711"}
    answer = client.post("/jobs", files=form, data=data)
    assert answer.status_code == 202
    job = answer.json()
    assert job["reference"] == "order 4711"
    assert (job["request"]["steps"], job["request"]["face"], job["request"]["fit"]) == (3, "left", "bounce")
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["state"], job["progress"], job["queue_position"]) == ("queued", 0, 0)
    assert stored_files(service.config) == [f"jobs/{job['id']}/audio", f"jobs/{job['id']}/video"]

    taken = service.take()
    assert taken.request["options"]["steps"] == 3 and taken.request["options"]["face"] == "left"
    assert taken.request["options"]["crf"] == load_config(REPO / "model_config.yaml").inference.crf
    service.progress(taken, 5, 10, 2.5)
    running = client.get(f"/jobs/{job['id']}").json()
    assert (running["state"], running["progress"], running["fps"], running["seconds_left"]) == ("running", 0.5, 2.5, 2)
    is_problem(client.get(f"/jobs/{job['id']}/result"), 409, "not finished")

    assert service.complete(taken, result_file(service, FILM), SUMMARY)
    done = client.get(f"/jobs/{job['id']}").json()
    assert (done["state"], done["progress"], done["result_bytes"]) == ("done", 1, len(FILM))
    video = client.get(done["result_url"])
    assert (video.status_code, video.content) == (200, FILM)
    assert video.headers["content-type"] == "video/mp4" and video.headers["accept-ranges"] == "bytes"
    assert [listed["id"] for listed in client.get("/jobs").json()["jobs"]] == [job["id"]]
    assert client.get("/jobs", params={"state": "queued"}).json() == NO_JOBS

    assert client.delete(f"/jobs/{job['id']}").status_code == 204
    is_problem(client.get(f"/jobs/{job['id']}"), 404, "no such job")
    assert stored_files(service.config) == []


RANGES = {
    "bytes=0-99": (206, FILM[:100], "bytes 0-99/10240"),
    "bytes=10000-": (206, FILM[10000:], "bytes 10000-10239/10240"),
    "bytes=-5": (206, FILM[-5:], "bytes 10235-10239/10240"),
    "bytes=-99999": (206, FILM, "bytes 0-10239/10240"),
    "bytes=5-99999": (206, FILM[5:], "bytes 5-10239/10240"),
    "bytes=9-5": (200, FILM, None),
    "bytes=0-1,5-6": (200, FILM, None),
    "bytes=-": (200, FILM, None),
    "apples=0-1": (200, FILM, None),
}


@pytest.fixture
def finished(client: TestClient, service: JobService, form: dict[str, Any]) -> str:
    """Address of a result."""
    job = client.post("/jobs", files=form).json()
    finish(service)
    return f"/v1/jobs/{job['id']}/result"


def test_ranges_of_a_result(client: TestClient, finished: str) -> None:
    for asked, (status, content, told) in RANGES.items():
        answer = client.get(finished, headers={"Range": asked})
        assert (answer.status_code, answer.content, answer.headers.get("content-range")) == (status, content, told)
    for asked in ("bytes=10240-", "bytes=-0"):
        answer = client.get(finished, headers={"Range": asked})
        is_problem(answer, 416, "10240 bytes")
        assert answer.headers["content-range"] == "bytes */10240"
    head = client.head(finished)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "10240")
    stale = client.get(finished, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (stale.status_code, stale.content) == (200, FILM)
    fresh = client.get(finished, headers={"Range": "bytes=0-9", "If-Range": head.headers["etag"]})
    assert fresh.status_code == 206


def test_events_tell_every_change_until_the_end(client: TestClient, service: JobService, form: dict[str, Any]) -> None:
    job_id = client.post("/jobs", files=form).json()["id"]
    taken = service.take()
    worker = threading.Timer(0.7, lambda: service.complete(taken, result_file(service), SUMMARY))
    worker.start()
    with client.stream("GET", f"/jobs/{job_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = list(stream.iter_lines())
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    views = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert names == ["running", "done"] and [view["state"] for view in views] == names
    assert views[-1]["progress"] == 1


def test_generate_waits_for_the_video_and_leaves_nothing(
    client: TestClient, service: JobService, form: dict[str, Any]
) -> None:
    worker = threading.Thread(target=lambda: wait_for(service._queue.huey.dequeue, "a job") and finish(service))
    worker.start()
    answer = client.post("/generate", files=form)
    worker.join()
    assert (answer.status_code, answer.content) == (200, FILM)
    assert stored_files(service.config) == []
    assert client.get("/jobs").json() == NO_JOBS


@pytest.mark.parametrize(("refused", "status"), [(True, 422), (False, 500)])
def test_generate_tells_why_it_failed(
    client: TestClient, service: JobService, form: dict[str, Any], refused: bool, status: int
) -> None:
    def work() -> None:
        wait_for(service._queue.huey.dequeue, "a job")
        service.fail(service.take(), "No face can be used anywhere.", refused)

    worker = threading.Thread(target=work)
    worker.start()
    answer = client.post("/generate", files=form)
    worker.join()
    is_problem(answer, status, "No face")
    assert stored_files(service.config) == []


BAD_FIELDS = {
    "steps": "0",
    "guidance": "x",
    "crf": "99",
    "seed": "-1",
    "fit": "stretch",
    "rest": "x",
    "face": "nose",
    "codec": "gif",
    "webhook_url": "http://169.254.169.254/",
    "adapt": "soon",
    "nonsense": "1",
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_field_that_cannot_be_used_is_named(
    client: TestClient, service: JobService, form: dict[str, Any], name: str
) -> None:
    answer = client.post("/jobs", files=form, data={name: BAD_FIELDS[name]})
    is_problem(answer, 422, {"webhook_url": "webhook", "adapt": "60s"}.get(name, name))
    assert stored_files(service.config) == []


BAD_FILES = {
    "nothing at all": ({}, "video_file"),
    "only a sound": ({"audio_file": "speech.wav"}, "video_file"),
    "only a video": ({"video_file": "video.mp4"}, "text_input"),
    "text as video": ({"video_file": "text.mp4", "audio_file": "speech.wav"}, "video_file.*no video or sound"),
    "sound as video": ({"video_file": "speech.wav", "audio_file": "speech.wav"}, "no video stream"),
    "cut off video": ({"video_file": "no_index.mp4", "audio_file": "speech.wav"}, "cut off"),
    "silent video as sound": ({"video_file": "video.mp4", "audio_file": "mute.mp4"}, "audio_file.*no sound stream"),
    "unknown file": ({"video_file": "video.mp4", "film": "video.mp4"}, "'film' takes no file"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_files_are_judged_by_their_content(client: TestClient, service: JobService, media: Path, case: str) -> None:
    names, sentence = BAD_FILES[case]
    files = {field: (f"{field}.mp4", (media / name).read_bytes(), "video/mp4") for field, name in names.items()}
    is_problem(client.post("/jobs", files=files or {"x": (None, "1")}), 422, sentence if files else "video_file|x")
    assert stored_files(service.config) == []


def test_a_name_without_file_counts_as_left_out(client: TestClient, media: Path) -> None:
    video = ("v.mp4", (media / "video.mp4").read_bytes())
    is_problem(client.post("/jobs", files={"video_file": video, "audio_file": ("", b"")}), 422, "text_input")


@pytest.mark.parametrize(
    ("body", "kind", "status", "sentence"),
    [
        (b"{}", "text/plain", 415, "multipart"),
        (b"{", "application/json", 400, "JSON"),
        (b"[]", "application/json", 400, "JSON object"),
        (b"[" * 60000, "application/json", 400, "JSON"),
        (b'{"reference": "\\ud83d"}', "application/json", 400, "JSON"),
        (b'{"\\ud83d": 1}', "application/json", 400, "JSON"),
        (b"{}", "application/json; charset=utf-8", 422, "video_url"),
        (b'{"steps": [1]}', "application/json", 422, "steps.*takes a whole number"),
        (b'{"steps": 1e999}', "application/json", 422, "steps"),
        (b'{"nonsense": 1}', "application/json", 422, "nonsense"),
        (b'{"video_file": "x"}', "application/json", 422, "video_file"),
        (b'{"reference": "' + b"x" * 200_000 + b'"}', "application/json", 413, "larger than"),
        (b"", "multipart/form-data", 415, "multipart"),
        (b"no form", "multipart/form-data; boundary=x", 400, "cannot be read"),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n2', "multipart/form-data; boundary=x", 400, "ends"),
        (b"--x\r\nContent-Type: text/plain\r\n\r\n2\r\n--x--\r\n", "multipart/form-data; boundary=x", 400, "no name"),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            422,
            "UTF-8",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 2 + b"--x--\r\n",
            "multipart/form-data; boundary=x",
            422,
            "twice",
        ),
    ],
)
def test_a_broken_form_is_a_problem(
    client: TestClient, service: JobService, body: bytes, kind: str, status: int, sentence: str
) -> None:
    is_problem(client.post("/jobs", content=body, headers={"Content-Type": kind}), status, sentence)
    assert stored_files(service.config) == []


def with_upload_limit(tmp_path: Path, size: int) -> JobService:
    media = service_config(tmp_path).media.model_copy(update={"max_file_gb": size / 1e9})
    return make_service(service_config(tmp_path, media=media, max_text=10))


def pieces(size: int, sent: list[int]) -> Iterator[bytes]:
    """A form with a large file, piece by piece."""
    yield b'--x\r\nContent-Disposition: form-data; name="video_file"; filename="v"\r\n\r\n'
    for _ in range(size // 65536):
        sent.append(65536)
        yield bytes(65536)
    yield b"\r\n--x--\r\n"


def test_a_large_upload_is_cut_off_on_the_way(tmp_path: Path) -> None:
    service, sent = with_upload_limit(tmp_path, 1_000_000), []
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client_of(service).post("/jobs", content=pieces(4_000_000, sent), headers=headers)
    is_problem(answer, 413, "larger than 0.001 GB")
    assert stored_files(service.config) == []


def test_a_large_upload_that_says_so_is_not_even_read(tmp_path: Path) -> None:
    service = with_upload_limit(tmp_path, 1_000_000)
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": "2000000000"}
    is_problem(client_of(service).post("/jobs", content=b"", headers=headers), 413, "larger than")


def test_long_texts_and_many_parts_are_refused(client: TestClient, form: dict[str, Any]) -> None:
    is_problem(client.post("/jobs", files=form, data={"text_input": "x" * 30_000}), 422, "too long")
    many = {f"f{i}": (None, "1") for i in range(100)}
    is_problem(client.post("/jobs", files=many), 422, "more than 64 parts")


def test_the_same_idempotency_key_gives_the_same_job(
    client: TestClient, service: JobService, media: Path
) -> None:
    files = {"video_file": (media / "video.mp4").read_bytes(), "audio_file": (media / "speech.wav").read_bytes()}
    answers = [client.post("/jobs", files=files, headers={"Idempotency-Key": "abc"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true"]
    assert len(client.get("/jobs").json()["jobs"]) == 1 and len(stored_files(service.config)) == 2
    cut = {**files, "audio_file": files["audio_file"][:-2]}
    for other, data in ((cut, {}), (files, {"steps": "3"}), ({"video_file": files["video_file"]}, {})):
        is_problem(client.post("/jobs", files=other, data=data, headers={"Idempotency-Key": "abc"}), 409, "another key")
    assert len(stored_files(service.config)) == 2
    client.delete(f"/jobs/{answers[0].json()['id']}")
    new = client.post("/jobs", files=cut, headers={"Idempotency-Key": "abc"})
    assert new.status_code == 202 and "idempotent-replayed" not in new.headers
    is_problem(client.post("/jobs", files=files, headers={"Idempotency-Key": "a b"}), 422, "(?i)idempotency")


def test_a_full_queue_and_a_full_disk_send_clients_away(tmp_path: Path, form: dict[str, Any]) -> None:
    service = make_service(service_config(tmp_path, max_queue=1))
    client = client_of(service)
    assert client.post("/jobs", files=form).status_code == 202
    answer = client.post("/jobs", files=form)
    is_problem(answer, 429, "waiting")
    assert int(answer.headers["retry-after"]) > 0
    full = client_of(make_service(service_config(tmp_path / "full", min_free_gb=1e6)))
    is_problem(full.post("/jobs", files=form), 507, "disk")
    is_problem(full.get("/ready"), 503, "no worker is ready, the disk")


def test_results_that_are_no_more(client: TestClient, service: JobService, form: dict[str, Any]) -> None:
    job_id = client.post("/jobs", files=form).json()["id"]
    assert client.post(f"/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    is_problem(client.get(f"/jobs/{job_id}/result"), 410, "cancelled")
    assert client.get(f"/jobs/{job_id}").json()["state"] == "cancelled"
    form["video_file"][1].seek(0), form["audio_file"][1].seek(0)
    job_id = client.post("/jobs", files=form).json()["id"]
    service.fail(service.take(), "No face can be used anywhere.", refused=True)
    is_problem(client.get(f"/jobs/{job_id}/result"), 409, "No face")
    assert client.get(f"/jobs/{job_id}").json()["error"] == "No face can be used anywhere."


def test_subtitles_of_a_job(client: TestClient, service: JobService, form: dict[str, Any]) -> None:
    is_problem(client.post("/v1/jobs", files=form, data={"srt": "true"}), 422, r"srt.*text_input")
    form["video_file"][1].seek(0), form["audio_file"][1].seek(0)
    job = f"/v1/jobs/{client.post('/v1/jobs', files=form).json()['id']}"
    is_problem(client.get(f"{job}/subtitles"), 409, "not finished")
    words = service.config.data_dir / "words.srt"
    words.write_text("1\n00:00:00,000 --> 00:00:01,000\nHé!\n", encoding="utf-8")
    assert service.complete(service.take(), result_file(service, FILM), SUMMARY, words)
    assert client.get(job).json()["subtitles_url"] == f"{job}/subtitles"
    service.sweep()
    assert client.get(f"{job}/subtitles").content.decode() == "1\n00:00:00,000 --> 00:00:01,000\nHé!\n"
    service.files.remove(job.rpartition("/")[2], "subtitles-1.srt")
    is_problem(client.get(f"{job}/subtitles"), 410, "deleted")
    form["video_file"][1].seek(0), form["audio_file"][1].seek(0)
    job = f"/v1/jobs/{client.post('/v1/jobs', files=form).json()['id']}"
    finish(service)
    assert client.get(job).json()["subtitles_url"] is None
    is_problem(client.get(f"{job}/subtitles"), 409, "no subtitles")


def test_a_job_is_cancelled_tried_again_and_deleted(
    client: TestClient, service: JobService, form: dict[str, Any]
) -> None:
    job = f"/v1/jobs/{client.post('/v1/jobs', files=form).json()['id']}"
    is_problem(client.post(f"{job}/retry"), 409, "it has not failed")
    service.fail(service.take(), "The disk of the server is full; try again later.", code="disk-full")
    assert client.get(job).json()["retryable"]
    is_problem(client.post(f"{job}/cancel"), 409, "failed already")
    again = client.post(f"{job}/retry")
    assert (again.status_code, again.json()["state"], again.json()["error"]) == (202, "queued", None)
    for _ in range(2):
        assert client.post(f"{job}/cancel").json()["state"] == "cancelled"
    is_problem(client.post(f"{job}/retry"), 409, "it has not failed")
    assert client.delete(job).status_code == 204
    for answer in (client.get(job), client.post(f"{job}/cancel"), client.post(f"{job}/retry"), client.delete(job)):
        is_problem(answer, 404, "no such job")


@pytest.mark.parametrize("job_id", ["0" * 32, "x", "..%2f..%2fetc", "%00", "0" * 5000])
@pytest.mark.parametrize("what", ["", "/result", "/events"])
def test_a_job_that_is_not_there(client: TestClient, job_id: str, what: str) -> None:
    answer = client.get(f"/jobs/{job_id}{what}")
    is_problem(answer, 404, "no such job|nothing here")


def test_wrong_paths_methods_and_values_are_problems(client: TestClient) -> None:
    is_problem(client.get("/nothing"), 404, "nothing here")
    for path, allowed in (("/jobs", "GET, POST"), ("/health", "GET"), (f"/jobs/{'0' * 32}/result", "GET, HEAD")):
        answer = client.put(path)
        is_problem(answer, 405, f"PUT does not work here; use {allowed}")
        assert answer.headers["allow"] == allowed
    assert "GET" in client.post("/openapi.json").headers["allow"]
    is_problem(client.get("/jobs", params={"limit": "many"}), 422, "limit")
    is_problem(client.get("/jobs", params={"state": "asleep"}), 422, "state")


def test_what_breaks_inside_is_not_told(service: JobService, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the secret recipe")

    service.page = broken
    answer = client_of(service, raise_server_exceptions=False).get("/jobs")
    is_problem(answer, 500, "went wrong inside")
    assert "recipe" not in answer.text


def test_a_queue_that_does_not_answer_is_a_problem(service: JobService) -> None:
    def away(*_: object) -> None:
        raise sqlite3.OperationalError("database is locked")

    service.page = away
    answer = client_of(service).get("/jobs")
    is_problem(answer, 503, "queue does not answer")
    assert int(answer.headers["retry-after"]) > 0 and "locked" not in answer.text


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_a_redis_that_is_gone_is_a_problem(tmp_path: Path, form: dict[str, Any]) -> None:
    pytest.importorskip("redis")
    with redis_server(tmp_path) as url:
        client = client_of(make_service(service_config(tmp_path), url))
        assert client.get("/jobs").json() == NO_JOBS
    for answer in (client.get("/jobs"), client.post("/jobs", files=form), client.get("/ready")):
        is_problem(answer, 503, "queue does not answer")
    assert stored_files(service_config(tmp_path)) == []


def test_keys_are_wanted_and_separate_jobs(tmp_path: Path, form: dict[str, Any]) -> None:
    service = make_service(service_config(tmp_path, max_jobs_per_key=1))
    path = tmp_path / "keys"
    keys = {name: {"Authorization": f"Bearer {new_key(path, name)}"} for name in ("anna", "bob")}
    client = client_of(service, replace(LOCAL, keys=ApiKeys(path)))
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eA=="}):
        for answer in (client.post("/jobs", files=form, headers=headers), client.get("/jobs", headers=headers)):
            is_problem(answer, 401, "API key")
            assert answer.headers["www-authenticate"] == "Bearer"
    is_problem(client.get("/metrics"), 401, "API key")
    assert client.get("/health").status_code == 200
    job_id = client.post("/jobs", files=form, headers=keys["anna"]).json()["id"]
    is_problem(client.get(f"/jobs/{job_id}", headers=keys["bob"]), 404, "no such job")
    is_problem(client.delete(f"/jobs/{job_id}", headers=keys["bob"]), 404, "no such job")
    assert client.get(f"/jobs/{job_id}", headers=keys["anna"]).status_code == 200
    form["video_file"][1].seek(0), form["audio_file"][1].seek(0)
    is_problem(client.post("/jobs", files=form, headers=keys["anna"]), 429, "This key has 1 jobs")


def test_keys_are_stored_as_hashes_only(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "keys"
    key = new_key(path, "anna")
    assert len(key) >= 40 and key not in path.read_text() and path.stat().st_mode & 0o077 == 0
    assert hashlib.sha256(key.encode()).hexdigest() in path.read_text()
    assert ApiKeys(path).owner(key) == "anna" and ApiKeys(path).owner(key + "x") is None
    for name in ("anna", "a b", "", "a\nb"):
        with pytest.raises(InputError):
            new_key(path, name)
    path.write_text("broken\n")
    with pytest.raises(InputError, match="no API key"):
        ApiKeys(path)


def test_keys_are_made_and_deleted_while_the_service_runs(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keys = ApiKeys(path)
    anna, bob = new_key(path, "anna"), new_key(path, "bob")
    assert (keys.owner(anna), keys.owner(bob)) == ("anna", "bob")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("broken\n")
    assert keys.owner(anna) == "anna"  # a slip of the editor locks nobody out
    path.write_text(lines[1])
    assert (keys.owner(anna), keys.owner(bob)) == (None, "bob")
    path.unlink()
    assert keys.owner(bob) is None


def test_addresses_of_this_machine_only() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org")))


def test_other_names_and_other_pages_are_turned_away(service: JobService, form: dict[str, Any]) -> None:
    client = client_of(service, replace(LOCAL, origins=("https://good.example",)))
    is_problem(client.get("/health", headers={"Host": "evil.example"}), 421, "allowed_hosts")
    is_problem(client.post("/jobs", files=form, headers={"Origin": "https://evil.example"}), 403, "other sites")
    is_problem(client.delete(f"/jobs/{'0' * 32}", headers={"Origin": "null"}), 403, "other sites")
    good = client.post("/jobs", files=form, headers={"Origin": "https://good.example"})
    assert good.status_code == 202 and good.headers["access-control-allow-origin"] == "https://good.example"
    assert "access-control-allow-origin" not in client.get("/health", headers={"Origin": "https://e.example"}).headers
    assert client.post("/jobs", headers={"Origin": "http://testserver"}).status_code == 415  # our own page may


def test_every_answer_has_the_security_headers(client: TestClient) -> None:
    for path in ("/health", "/nothing", "/jobs", "/openapi.json"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and "default-src 'none'" in headers[
            "content-security-policy"
        ]
        assert "server" not in headers


def test_readiness_and_numbers(client: TestClient, service: JobService, form: dict[str, Any]) -> None:
    is_problem(client.get("/ready"), 503, "no worker is ready")
    service.store.beat("w", ready=False)
    assert client.get("/ready").status_code == 503
    service.store.beat("w", ready=True)
    assert client.get("/ready").json() == {"status": "ok"}
    job_id = client.post("/jobs", files=form).json()["id"]
    client.get(f"/jobs/{job_id}")
    numbers = client.get("/metrics").text
    assert 'lipsync_jobs{state="queued"} 1.0' in numbers and 'lipsync_workers{ready="true"} 1.0' in numbers
    assert 'lipsync_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="200"} 1.0' in numbers
    assert job_id not in numbers


def test_openapi_describes_every_call(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    calls = ("/generate", "/jobs", "/jobs/{job_id}", "/jobs/{job_id}/events", "/jobs/{job_id}/result")
    assert {f"/v1{call}" for call in calls} | {"/health"} < set(document["paths"])
    bodies = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    fields = bodies["multipart/form-data"]["schema"]["properties"]
    assert {"video_file", "audio_file", "text_input", "lang", "steps", "guidance", "seed", "face", "fit"} <= set(fields)
    assert "429" in document["paths"]["/v1/generate"]["post"]["responses"]
    assert "ProblemView" in document["components"]["schemas"]


def test_the_paths_of_before_there_were_versions_go_on_working(client: TestClient, finished: str) -> None:
    old = finished.removeprefix("/v1")
    assert finished == f"/v1{old}" and client.get(old).content == client.get(finished).content == FILM
    assert client.get("/jobs").json() == client.get("/v1/jobs").json()
    assert client.get("/engines").json() == client.get("/v1/engines").json()
    is_problem(client.get("/jobsx"), 404, "nothing here")
    is_problem(client.get("/v1/health"), 404, "nothing here")


def test_log_lines_are_json_without_what_was_sent(client: TestClient, form: dict[str, Any]) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("lipsync")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        client.post("/jobs", files=form, data={"text_input": "my secret words"})
        client.post("/jobs", files=form)
    finally:
        logger.removeHandler(handler)
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    requests = [entry for entry in entries if entry["event"] == "request"]
    assert len(requests) == 2 and all({"method", "path", "status", "seconds"} <= set(entry) for entry in requests)
    assert "secret" not in stream.getvalue() and "evil.wav" not in stream.getvalue()


@pytest.fixture
def voices(client: TestClient) -> list[dict[str, Any]]:
    answer = client.get("/voices")
    if answer.status_code == 501:
        pytest.skip(answer.json()["detail"])
    return answer.json()


def test_languages_and_voices_fit_together(client: TestClient, voices: list[dict[str, Any]]) -> None:
    languages = client.get("/languages").json()
    assert languages[0]["code"] == "en"
    assert {language["code"] for language in languages} == {voice["language"] for voice in voices}
    english = client.get("/voices", params={"lang": "EN"}).json()
    assert english[0]["name"] == languages[0]["default_voice"] and {voice["language"] for voice in english} == {"en"}


@pytest.mark.usefixtures("voices")
def test_a_sound_and_what_it_says(client: TestClient, service: JobService, form: dict[str, Any]) -> None:
    assert client.post("/jobs", files=form, data={"text_input": "Hello.", "lang": "en"}).status_code == 202
    job = service.take()
    assert (job.request["text"], job.request["lang"]) == ("Hello.", "en") and set(job.inputs) == {"video", "audio"}


@pytest.mark.usefixtures("voices")
def test_a_text_instead_of_a_sound(client: TestClient, service: JobService, media: Path) -> None:
    video = (media / "portrait.png").read_bytes()
    data = {"text_input": "你好，世界。", "lang": "zh", "speed": "1.2"}
    answer = client.post("/jobs", files={"video_file": video}, data=data)
    assert answer.status_code == 202
    request = service.take().request
    assert (request["text"], request["lang"], request["speed"]) == ("你好，世界。", "zh", 1.2)
    for change, sentence in (
        ({"lang": "klingon"}, "klingon"),
        ({"voice": "nobody"}, "nobody"),
        ({"speed": "9"}, "speed"),
        ({"text_input": "..."}, "spoken"),
        ({"text_input": "a" * 6000}, "5000 characters"),
    ):
        is_problem(client.post("/jobs", files={"video_file": video}, data=data | change), 422, sentence)


@pytest.mark.usefixtures("voices")
def test_the_language_of_a_text_is_found_or_expected_and_said(
    client: TestClient, service: JobService, media: Path
) -> None:
    video = (media / "portrait.png").read_bytes()
    for text, accepted, language, said in (
        ("Grazie mille a tutti voi", "de-DE,de;q=0.9", "it", "Italian, by its words"),
        ("Ciao", "de-DE,de;q=0.9", "de", "German, the expected language"),
        ("வணக்கம்", "de-DE,de;q=0.9", "ta", "Tamil, by its script"),
    ):
        headers = {"Accept-Language": accepted}
        job = client.post("/jobs", files={"video_file": video}, data={"text_input": text}, headers=headers).json()
        assert job["language"] == language and said in job["notes"][0]
    taken = service.take()
    assert taken.request["expected"] == "de-DE"
    form = {"text_input": "Ciao", "lang": "it"}
    job = client.post("/jobs", files={"video_file": video}, data=form).json()
    assert (job["language"], job["notes"]) == ("it", [])


@pytest.mark.usefixtures("voices")
def test_subtitles_are_taken_as_a_text(client: TestClient, media: Path) -> None:
    video = (media / "portrait.png").read_bytes()
    script = "1\n00:00:01,000 --> 00:00:02,500\nGrazie mille a tutti voi!\n"
    job = client.post("/jobs", files={"video_file": video}, data={"text_input": script}).json()
    assert job["language"] == "it"
    music = script.replace("Grazie mille a tutti voi!", "♪")
    broken = client.post("/jobs", files={"video_file": video}, data={"text_input": music})
    is_problem(broken, 422, "hold nothing that can be spoken")


def test_an_installation_without_voices_says_so(
    client: TestClient, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "language_processor", None)
    video = (media / "portrait.png").read_bytes()
    is_problem(client.post("/jobs", files={"video_file": video}, data={"text_input": "Hello"}), 501, "audio_file")
    is_problem(client.get("/languages"), 501, "audio_file")
    is_problem(client.get("/voices"), 501, "audio_file")


def test_engines_are_listed_and_named_by_jobs(service: JobService, form: dict[str, Any], tmp_path: Path) -> None:
    """An engine that is not there: 422 with the sentence that says how to get it, and no path of ours."""
    inference = load_config(REPO / "model_config.yaml", [f"inference.engine_weights={tmp_path}"]).inference
    intake = Intake(service, inference, Speaker(REPO / "pretrained", REPO / "pretrained" / "lite" / "phonemes"))
    client = TestClient(create_app(service, intake, LOCAL))
    listed = {engine["name"]: engine for engine in client.get("/engines").json()}
    assert listed["lite"]["installed"] and listed["lite"]["default"]
    assert not listed["wav2lip"]["installed"] and listed["wav2lip"]["download_bytes"] == 435_807_851
    assert "no commercial use" in listed["wav2lip"]["licence"] and str(tmp_path) not in str(listed)
    for name, said in {
        "wav2lip": r"not installed.*; whoever runs this server can add it \(docs/engines.md\)\.$",
        "wav9lip": "There is no engine 'wav9lip'; use one of lite",
        "os:system": "There is no engine 'os:system'",
    }.items():
        answer = client.post("/jobs", files=form, data={"engine": name})
        is_problem(answer, 422, said)
        assert answer.json()["type"] == "urn:lip-sync:no-engine" and str(tmp_path) not in answer.text
    assert client.post("/jobs", files=form, data={"engine": "lite"}).status_code == 202
    assert service.take().request["options"]["engine"] == "lite"
