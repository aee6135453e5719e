"""Following a job: events with ids that can be taken up again, and outages that nobody can take for the end."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import uvicorn

from serving.http.api import create_app
from serving.http.context import Access
from serving.http.intake import Intake
from serving.http.security import LOOPBACK_NAMES
from serving.http.speech import Speaker
from serving.jobs.jobs import JobService
from serving.jobs.store import Job
from tests import footage
from tests.service import REPO, free_port, make_service, result_file, service_config, submit, wait_for
from utils.config import load_config

SUMMARY = {"frames": 10, "seconds": 2.0}


@pytest.fixture
def service(tmp_path: Path) -> JobService:
    return make_service(service_config(tmp_path))


@pytest.fixture
def client(service: JobService) -> Iterator[httpx.Client]:
    """Speaks to a server over a real connection: how that ends is what counts."""
    speaker = Speaker(REPO / "pretrained", REPO / "pretrained" / "lite" / "phonemes")
    intake = Intake(service, load_config(REPO / "model_config.yaml").inference, speaker)
    port = free_port()
    app = create_app(service, intake, Access(None, LOOPBACK_NAMES))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started, "the server", 60)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield client
    server.should_exit = True
    thread.join()


class Follower:
    """Somebody who follows a job, in a thread.

    Attributes:
        events: what came so far; a dictionary of an event's fields each.
        ending: how the connection ended: "cleanly", "broken", or "" while it lasts.
    """

    def __init__(self, client: httpx.Client, job_id: str, last_id: str | None = None):
        self.events: list[dict[str, str]] = []
        self.ending = ""
        self.status = 0
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        self._asked = ("GET", f"/v1/jobs/{job_id}/events"), headers
        self._client = client
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        try:
            with self._client.stream(*self._asked[0], headers=self._asked[1]) as answer:
                self.status, event = answer.status_code, {}
                for line in answer.iter_lines():
                    name, _, value = line.partition(": ")
                    event |= {name: value} if name else {}
                    if not line:
                        self.events.append(event)
                        event = {}
            self.ending = "cleanly"
        except httpx.RemoteProtocolError:
            self.ending = "broken"

    def seen(self, count: int) -> list[dict[str, str]]:
        """The events, once there are so many."""
        return wait_for(lambda: len(self.events) >= count and self.events, "events", 60)

    def ended(self) -> str:
        """How the connection ended."""
        self._thread.join(60)
        return self.ending


@contextmanager
def outage(service: JobService, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The rows cannot be reached."""

    def away(*_: Any) -> Job:
        raise sqlite3.OperationalError("database is locked")

    with monkeypatch.context() as patched:
        patched.setattr(service.store, "get", away)
        yield


def test_events_have_ids_with_which_they_are_taken_up_again(client: httpx.Client, service: JobService) -> None:
    job_id = submit(service).id
    whole = Follower(client, job_id)
    first = whole.seen(1)[0]
    taken = service.take()
    second = whole.seen(2)[1]
    again, new = Follower(client, job_id, second["id"]), Follower(client, job_id, first["id"])
    assert new.seen(1)[0] == second
    service.progress(taken, 5, 10, 2.5)
    third = whole.seen(3)[2]
    again.seen(1), new.seen(2)
    service.complete(taken, result_file(service), SUMMARY)
    assert whole.ended() == again.ended() == new.ended() == "cleanly"
    assert [event["event"] for event in whole.events] == ["queued", "running", "running", "done"]
    assert json.loads(third["data"])["progress"] == 0.5 and len({event["id"] for event in whole.events}) == 4
    assert again.events == whole.events[2:] and new.events == whole.events[1:]


def test_who_has_seen_the_end_is_told_to_stay_away(client: httpx.Client, service: JobService) -> None:
    job_id = submit(service).id
    service.complete(service.take(), result_file(service), SUMMARY)
    (done,) = Follower(client, job_id, "an id of long ago").seen(1)
    after = client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": done["id"]})
    assert (after.status_code, after.content) == (204, b"")


def test_an_outage_is_an_event_and_no_end(
    client: httpx.Client, service: JobService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = submit(service).id
    follower = Follower(client, job_id)
    (waiting,) = follower.seen(1)
    with outage(service, monkeypatch):
        assert follower.ended() == "broken"
        told = follower.events[1]
        assert told["event"] == "outage" and json.loads(told["data"])["type"] == "urn:lip-sync:no-queue"
        assert int(told["retry"]) > 0 and "id" not in told
        assert client.get(f"/v1/jobs/{job_id}/events").status_code == 503
    later = Follower(client, job_id, waiting["id"])
    service.complete(service.take(), result_file(service), SUMMARY)
    assert later.ended() == "cleanly" and later.events[-1]["event"] == "done" and waiting not in later.events
    assert not [record for record in caplog.records if record.exc_info and record.levelno >= logging.ERROR]


def test_a_job_that_is_deleted_is_told_so(client: httpx.Client, service: JobService) -> None:
    job_id = submit(service).id
    follower = Follower(client, job_id)
    follower.seen(1)
    service.store.remove(job_id)
    assert follower.ended() == "cleanly"
    assert follower.events[-1]["event"] == "deleted" and "no-such-job" in follower.events[-1]["data"]


def test_who_waits_for_a_video_waits_through_an_outage(
    client: httpx.Client, service: JobService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    footage.make_portrait(tmp_path / "portrait.png", size=(96, 96))
    footage.make_sound(tmp_path / "speech.wav", 0.4)
    files = {"video_file": tmp_path / "portrait.png", "audio_file": tmp_path / "speech.wav"}
    answers: list[httpx.Response] = []

    def generate() -> None:
        forms = {name: path.read_bytes() for name, path in files.items()}
        answers.append(client.post("/v1/generate", files=forms))

    waiting = threading.Thread(target=generate)
    waiting.start()
    taken = wait_for(service.take, "the job", 60)
    looked: list[str] = []

    def away(*_: Any) -> Job:
        looked.append("in vain")
        raise sqlite3.OperationalError("database is locked")

    with monkeypatch.context() as patched:
        patched.setattr(service, "get", away)
        wait_for(lambda: len(looked) > 1, "two looks", 60)
    service.complete(taken, result_file(service, b"film"), SUMMARY)
    waiting.join(60)
    assert (answers[0].status_code, answers[0].content) == (200, b"film")
