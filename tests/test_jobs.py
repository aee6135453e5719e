"""The job service: no job is lost or done twice, whatever dies; limits hold; nothing stays that should go."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from serving.jobs.jobs import JobService
from serving.jobs.setup import hours
from serving.jobs.storage import JobFiles
from serving.jobs.store import CANCELLED, DONE, EXPIRED, FAILED, QUEUED, RUNNING
from serving.problems import Problem
from tests.service import make_service, result_file, service_config, stored_files, submit
from utils.helpers import InputError

SUMMARY = {"frames": 10, "seconds": 2.0}


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(queue_url: str | None, tmp_path: Path, clock: Clock) -> JobService:
    return make_service(service_config(tmp_path), queue_url, clock)


def state(service: JobService, job_id: str) -> str:
    return service.get(job_id, "local").state


def test_a_job_goes_from_queued_to_done(service: JobService, clock: Clock) -> None:
    job = submit(service)
    assert (job.state, job.attempt) == (QUEUED, 0)
    taken = service.take()
    assert (taken.id, taken.state, taken.attempt) == (job.id, RUNNING, 1)
    assert service.take() is None
    assert service.progress(taken, 5, 10, 2.5)
    seen = service.get(job.id, "local")
    assert (seen.frames, seen.frames_expected, seen.fps) == (5, 10, 2.5)
    assert service.complete(taken, result_file(service, b"film with words"), SUMMARY)
    done = service.get(job.id, "local")
    assert (done.state, done.fps, done.result_size) == (DONE, 5.0, 15)
    assert b"".join(service.files.read(job.id, done.result, 0, 15)) == b"film with words"
    assert stored_files(service.config) == [f"jobs/{job.id}/{done.result}"]  # the inputs are gone


def test_the_oldest_job_comes_first_and_positions_tell(service: JobService, clock: Clock) -> None:
    ids = []
    for _ in range(3):
        clock.now += 1
        ids.append(submit(service).id)
    assert [service.store.position(service.get(job_id, "local")) for job_id in ids] == [0, 1, 2]
    assert [service.take().id for _ in ids] == ids
    assert [job.id for job in service.page("local")] == ids[::-1]
    assert [job.id for job in service.page("local", limit=2)] == ids[:0:-1]


def test_a_job_of_a_killed_worker_runs_again_once(service: JobService, clock: Clock) -> None:
    job = submit(service)
    first = service.take()
    service.maintain()
    assert state(service, job.id) == RUNNING
    clock.now += service.config.lease_s + 1
    service.maintain()
    service.maintain()
    assert state(service, job.id) == QUEUED and service.store.count(QUEUED) == 1
    second = service.take()
    assert second.attempt == 2 and service.take() is None
    # The first worker was not dead after all: it learns that the job is no longer its own.
    assert not service.progress(first, 9, 10, 1.0)
    assert not service.complete(first, result_file(service, b"late"), SUMMARY)
    service.fail(first, "too late")
    assert state(service, job.id) == RUNNING
    assert service.complete(second, result_file(service, b"in time"), SUMMARY)
    done = service.get(job.id, "local")
    assert b"".join(service.files.read(job.id, done.result, 0, 99)) == b"in time"
    assert len(stored_files(service.config)) == 1


def test_a_renewed_lease_keeps_the_job(service: JobService, clock: Clock) -> None:
    job = submit(service)
    taken = service.take()
    for _ in range(5):
        clock.now += service.config.lease_s * 0.9
        service.renew(taken)
        service.maintain()
    assert state(service, job.id) == RUNNING


def test_leases_that_ran_out_during_an_outage_may_be_renewed_after_it(
    service: JobService, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(service)
    taken = service.take()
    fault = service.store.faults[0]

    def away(*_: object, **__: object) -> None:
        raise fault("no connection, or no room on the disk")

    with monkeypatch.context() as patched:
        patched.setattr(service.store, "beat", away)
        with pytest.raises(fault):
            service.beat("a", True)
        clock.now += 10 * service.config.lease_s
        service.maintain()  # reading may still work
        assert state(service, job.id) == RUNNING
    service.beat("a", True)
    clock.now += service.config.lease_s - 1
    service.maintain()
    assert state(service, job.id) == RUNNING
    service.renew(taken)
    clock.now += service.config.lease_s - 1
    service.maintain()
    assert state(service, job.id) == RUNNING
    clock.now += 2
    service.maintain()
    assert state(service, job.id) == QUEUED


def test_a_job_that_takes_every_worker_down_is_given_up(service: JobService, clock: Clock) -> None:
    job = submit(service)
    for _ in range(service.config.max_attempts):
        assert state(service, job.id) == QUEUED
        service.take()
        clock.now += service.config.lease_s + 1
        service.maintain()
    assert state(service, job.id) == FAILED
    assert "given up" in service.get(job.id, "local").error
    assert stored_files(service.config) == [f"jobs/{job.id}/video"]  # it may be tried again


def test_a_worker_that_is_told_to_stop_gives_its_job_back_at_no_cost(service: JobService) -> None:
    job = submit(service)
    for _ in range(service.config.max_attempts + 2):
        service.release(service.take(), count=False)
    assert state(service, job.id) == QUEUED and service.get(job.id, "local").crashes == 0


def test_lost_messages_lose_no_job_and_doubled_ones_double_none(service: JobService) -> None:
    ids = {submit(service).id for _ in range(3)}
    service._queue.huey.storage.flush_queue()
    service.maintain()
    assert not service._queue.is_empty()
    for _ in range(5):
        service._queue.wake()
    assert {service.take().id for _ in ids} == ids and service.take() is None


def test_many_workers_at_once_never_take_the_same_job(service: JobService) -> None:
    ids = sorted(submit(service).id for _ in range(12))
    taken: list[str] = []

    def work() -> None:
        while (job := service.take()) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == ids


def test_cancelling_takes_the_job_from_its_worker_and_removes_its_files(service: JobService) -> None:
    waiting, running = submit(service), None
    running = service.take()
    waiting = submit(service)
    for job in (waiting, running):
        assert service.cancel(job.id, "local") == service.cancel(job.id, "local")
        assert state(service, job.id) == CANCELLED
    assert stored_files(service.config) == []
    assert service.take() is None
    assert not service.progress(running, 1, 2, 1.0)
    assert not service.complete(running, result_file(service), SUMMARY)
    assert stored_files(service.config) == []
    assert state(service, running.id) == CANCELLED


def test_deleting_a_finished_job_forgets_it(service: JobService) -> None:
    job = submit(service)
    service.complete(service.take(), result_file(service), SUMMARY)
    with pytest.raises(Problem, match="done already"):
        service.cancel(job.id, "local")
    service.delete(job.id, "local")
    assert stored_files(service.config) == []
    with pytest.raises(Problem, match="no such job"):
        service.get(job.id, "local")


def test_deleting_a_running_job_takes_it_from_its_worker(service: JobService) -> None:
    submit(service)
    running = service.take()
    service.delete(running.id, "local")
    assert stored_files(service.config) == [] and service.page("local") == []
    assert not service.progress(running, 1, 2, 1.0)
    assert not service.complete(running, result_file(service), SUMMARY)
    service.fail(running, "too late")
    assert stored_files(service.config) == [] and service.page("local") == []


def test_a_failed_job_is_tried_again_with_the_same_inputs(service: JobService, clock: Clock) -> None:
    job = submit(service, b"film")
    with pytest.raises(Problem, match="it has not failed"):
        service.retry(job.id, "local")
    service.files.put(job.id, "preview-1.mp4", result_file(service))
    service.fail(service.take(), "The disk of the server is full.", code="disk-full")
    assert stored_files(service.config) == [f"jobs/{job.id}/video"]
    service.sweep()
    again = service.retry(job.id, "local")
    assert (again.state, again.error, again.error_code, again.finished) == (QUEUED, None, None, None)
    taken = service.take()
    assert (taken.id, taken.attempt) == (job.id, 2)
    assert service.complete(taken, result_file(service, b"film"), SUMMARY)
    assert state(service, job.id) == DONE and stored_files(service.config) == [f"jobs/{job.id}/result-2.mp4"]
    with pytest.raises(Problem, match="it has not failed"):
        service.retry(job.id, "local")


def test_what_would_fail_again_is_not_tried_again(service: JobService, clock: Clock) -> None:
    refused, late = submit(service), None
    service.fail(service.take(), "No face.", refused=True, code="no-face")
    assert stored_files(service.config) == []
    late = submit(service)
    service.fail(service.take(), "unexpected error")
    clock.now += 25 * 3600
    service.expire()
    assert stored_files(service.config) == []
    for job in (refused, late):
        with pytest.raises(Problem, match="because of what was sent, or its files are deleted") as problem:
            service.retry(job.id, "local")
        assert problem.value.status == 409 and state(service, job.id) == FAILED


def test_jobs_of_others_are_not_there(service: JobService) -> None:
    job = submit(service, owner="anna")
    for action in (service.get, service.cancel, service.delete, service.retry):
        with pytest.raises(Problem) as refused:
            action(job.id, "bob")
        assert refused.value.status == 404
    assert service.page("bob") == [] and [found.id for found in service.page("anna")] == [job.id]


def test_the_same_idempotency_key_gives_the_same_job(service: JobService) -> None:
    first = submit(service, idempotency_key="once", fingerprint="first")
    again = submit(service, idempotency_key="once", fingerprint="first")
    other = submit(service, idempotency_key="once", fingerprint="first", owner="anna")
    assert again.id == first.id != other.id
    assert service.store.find_key("local", "once").id == first.id
    assert len(stored_files(service.config)) == 2
    with pytest.raises(Problem, match="another request") as refused:
        submit(service, idempotency_key="once", fingerprint="of something else")
    assert refused.value.status == 409 and len(stored_files(service.config)) == 2


def test_a_cancelled_deleted_or_expired_job_frees_its_key(service: JobService, clock: Clock) -> None:
    first = submit(service, idempotency_key="once", fingerprint="first")
    service.cancel(first.id, "local")
    assert state(service, first.id) == CANCELLED
    second = submit(service, idempotency_key="once", fingerprint="of something else")
    assert second.id != first.id
    service.complete(service.take(), result_file(service), SUMMARY)
    assert service.known("local", "once", "of something else").id == second.id
    service.delete(second.id, "local")
    third = submit(service, idempotency_key="once", fingerprint="first")
    service.complete(service.take(), result_file(service), SUMMARY)
    clock.now += 25 * 3600
    service.expire()
    assert state(service, third.id) == EXPIRED and service.store.find_key("local", "once") is None
    assert submit(service, idempotency_key="once", fingerprint="first").id != third.id


def test_the_queue_has_a_limit_and_so_has_each_key(tmp_path: Path) -> None:
    service = make_service(service_config(tmp_path, max_queue=3, max_jobs_per_key=2))
    for _ in range(2):
        submit(service, owner="anna")
    with pytest.raises(Problem, match="This key has 2 jobs") as refused:
        submit(service, owner="anna")
    assert refused.value.status == 429 and int(refused.value.headers["Retry-After"]) > 0
    submit(service, owner="bob")
    with pytest.raises(Problem, match="3 jobs are waiting") as refused:
        submit(service, owner="carl")
    assert refused.value.name == "queue-full"
    assert len([path for path in stored_files(service.config) if path.startswith("jobs")]) == 3


def test_a_nearly_full_disk_takes_nothing_in(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    service = make_service(service_config(tmp_path, min_free_gb=(free - 10e9) / 1e9))
    service.check_room("local", int(1e9))
    with pytest.raises(Problem, match="disk space") as refused:
        service.check_room("local", int(20e9))
    assert refused.value.status == 507


def test_results_expire_and_are_forgotten_later(service: JobService, clock: Clock) -> None:
    job = submit(service)
    service.complete(service.take(), result_file(service), SUMMARY)
    clock.now += 23 * 3600
    service.expire()
    assert state(service, job.id) == DONE
    clock.now += 2 * 3600
    service.expire()
    assert state(service, job.id) == EXPIRED and stored_files(service.config) == []
    clock.now += 24 * 3600
    service.expire()
    assert service.page("local") == []


def test_waiting_jobs_never_expire(service: JobService, clock: Clock) -> None:
    job = submit(service)
    clock.now += 1e6
    service.expire()
    assert state(service, job.id) == QUEUED


def test_leftovers_of_killed_processes_are_swept_away(tmp_path: Path) -> None:
    service = make_service(service_config(tmp_path))
    submit(service)
    job = service.take()
    leftovers = ["incoming/x/video", "work/y/output.mp4", f"work/{job.id}-0/output.mp4", f"jobs/{'0' * 32}/video"]
    for name in [*leftovers, f"work/{job.id}-1/output.mp4"]:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"left")
    in_use = [f"jobs/{job.id}/video", f"work/{job.id}-1/output.mp4"]
    service.sweep()  # an upload or a job may still be on its way in
    assert stored_files(service.config) == sorted([*in_use, leftovers[0], leftovers[3]])
    later = make_service(service_config(tmp_path), clock=lambda: 2e12)
    later.files.age = lambda job_id: 1e9
    later.sweep()
    assert stored_files(service.config) == in_use


def test_a_result_handed_in_by_a_killed_attempt_goes_when_the_job_is_done(service: JobService, clock: Clock) -> None:
    job = submit(service)
    killed = service.take()
    service.files.put(job.id, "result-1.mp4", result_file(service, b"handed in, but the row was never changed"))
    service.release(killed, count=True)
    service.complete(service.take(), result_file(service, b"film"), SUMMARY)
    assert stored_files(service.config) == [f"jobs/{job.id}/result-2.mp4"]
    (service.config.data_dir / "jobs" / job.id / "video").write_bytes(b"killed before the inputs were removed")
    service.sweep()
    assert stored_files(service.config) == [f"jobs/{job.id}/result-2.mp4"]


def test_workers_are_known_while_they_live(service: JobService) -> None:
    assert service.store.workers() == {}
    service.store.beat("a", ready=False)
    service.store.beat("b", ready=True)
    assert service.store.workers() == {"a": False, "b": True}


def test_rows_survive_a_new_process(tmp_path: Path) -> None:
    job = submit(make_service(service_config(tmp_path)), webhook="https://example.org/x")
    assert make_service(service_config(tmp_path)).get(job.id, "local") == job


def test_files_can_lie_in_any_fsspec_storage(tmp_path: Path) -> None:
    files = JobFiles("memory://lip-sync-test")
    (tmp_path / "in").write_bytes(b"0123456789")
    files.put("a" * 32, "video", tmp_path / "in")
    assert not (tmp_path / "in").exists()
    assert files.fetch("a" * 32, "video", tmp_path).read_bytes() == b"0123456789"
    assert b"".join(files.read("a" * 32, "video", 2, 5)) == b"234"
    assert files.jobs() == ["a" * 32]
    files.remove("a" * 32)
    files.remove("a" * 32)
    with pytest.raises(FileNotFoundError):
        files.open("a" * 32, "video")


def test_settings_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nonsense://"):
        JobFiles("nonsense://bucket")
    with pytest.raises(InputError, match="redis://host"):
        make_service(service_config(tmp_path), "amqp://host")
    with pytest.raises(InputError, match="does not answer"):
        make_service(service_config(tmp_path), "redis://127.0.0.1:1/0")
    with pytest.raises(InputError, match="30m, 24h or 7d"):
        hours("soon")
    assert (hours("30m"), hours("24h"), hours("7d")) == (0.5, 24, 168)


def test_a_row_is_the_same_after_being_stored(service: JobService) -> None:
    job = submit(service)
    changed = replace(job, error="Ünïcode 中文", summary={"a": [1, {"b": None}]}, base_url="http://x")
    service.store.change(job.id, lambda _: changed)
    assert service.store.get(job.id) == changed
    assert service.store.change(job.id, lambda _: None) is None
    assert service.store.get(job.id) == changed
    assert service.store.change("0" * 32, lambda row: row) is None
