"""`--mode worker`: takes jobs from the queue and runs them, on as many machines as wanted."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from huey.consumer import Consumer

from pipeline.options import Options
from pipeline.tracks.formats import suffix_of
from serving.jobs.jobs import WORK, JobService
from serving.jobs.queues import QueueAway
from serving.jobs.runner import PREVIEW, SUBTITLES
from serving.jobs.runner_process import Runner, RunnerDied, runner_command
from serving.jobs.setup import Settings, open_service, read_settings, start_logging, worker_parser
from serving.jobs.store import Job
from serving.jobs.webhooks import Webhooks
from utils.helpers import InputError

_LOG = logging.getLogger("lipsync.worker")
_POLL_S = 0.25  # between two notes of progress; how soon a worker notices that its job was cancelled
_SETTLE_S = 0.5  # after the first frames, until their number says something about the pace
_BEAT_S = 1.0
_EXPIRE_S = 30.0
_SWEEP_S = 1800.0
_CLOSE_S = 5.0
_LONGEST_PAUSE_S = 60.0  # between two tries to load the networks
_UNREADY_S = 900.0  # without networks for so long, a worker does not count as one any more
_LEAST_ROOM = 16e6  # bytes, however little is to be left free
_AGAIN_S = 1.0  # until what the job queue did not hear is said again

Answer = TypeVar("Answer")


class _Pace:
    """How fast frames are written, without the long wait for the first ones and without these, which come at once."""

    def __init__(self) -> None:
        self._first: float | None = None  # seconds
        self._start: tuple[int, float] | None = None  # frames and seconds from which on it counts

    def fps(self, frames: int, now: float) -> float:
        """Frames per second; 0 while nothing can be said.

        Args:
            frames: written so far.
            now: seconds.
        """
        if frames and self._first is None:
            self._first = now
        if self._start is None and self._first is not None and now - self._first >= _SETTLE_S:
            self._start = frames, now
        if self._start is None or frames == self._start[0]:
            return 0.0
        return (frames - self._start[0]) / (now - self._start[1])


@dataclass
class Worker:
    """Runs jobs, one at a time.

    Args:
        service: where the jobs are.
        settings: of this process.
        stopping: set when the process is to end.
    """

    service: JobService
    settings: Settings
    stopping: threading.Event
    name: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}")

    def __post_init__(self) -> None:
        self.fault: str | None = None
        self._runner = Runner(runner_command(self.settings), self.service.config.stall_s)
        self._busy = threading.Lock()
        self._job: Job | None = None
        self._was_ready = time.monotonic()
        self._is_heard = True  # by the job queue
        self._had_room = True

    @property
    def is_ready(self) -> bool:
        """The networks are loaded."""
        return self._runner.is_ready

    def tend(self) -> None:
        """Have the networks loaded also while there are no jobs: before the first one, and when the runner has died."""
        if self._busy.acquire(blocking=False):
            try:
                self._load()
            finally:
                self._busy.release()

    def _load(self) -> bool:
        """Have a runner. Jobs wait until there is one, rather than be charged with its faults. False: the process is
        to end, since there never can be one, or since it was told so."""
        pause = 1.0
        while self.fault is None and not self.stopping.is_set():
            try:
                self._runner.start(self.stopping.is_set)
                return True
            except InputError as error:
                self.fault = str(error)
                os.kill(os.getpid(), signal.SIGTERM)
                return False
            except RunnerDied as error:
                if not self.stopping.is_set():
                    _LOG.error("the networks could not be loaded, the runner %s; trying again in %g s", error, pause)
            self.stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        return False

    def watch(self) -> None:
        """Look after the runner; to be called every second, whatever else goes on."""
        self._runner.watch()

    def beat(self) -> None:
        """Show that this worker lives, and keep the job that it runs."""
        ready, now, job = self.is_ready, time.monotonic(), self._job
        if ready or job is not None:
            self._was_ready = now
        if now - self._was_ready > _UNREADY_S:
            _LOG.error("no networks for %g s: this worker is no use", now - self._was_ready)
            return
        self.service.beat(self.name, ready)
        if job is not None:
            self.service.renew(job)

    def work(self) -> None:
        """Run queued jobs until there are none, or no room for results: then they wait rather than fail."""
        with self._busy:
            while self._load() and self._has_room() and (job := self.service.take()) is not None:
                self._job = job
                try:
                    self._run(job)
                except BaseException:
                    # The runner may still be at it, and what it says would be taken for the next job's.
                    self._runner.kill()
                    raise
                finally:
                    self._job = None

    def _run(self, job: Job) -> None:
        folder = self.settings.service.data_dir / WORK / f"{job.id}-{job.attempt}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._runner.send({"run": self._task(job, folder)})
            self._follow(job, folder)
        except FileNotFoundError:  # also when it was cancelled before it began
            self._report(lambda: self.service.fail(job, "The files of the job are gone.", code="files-gone"))
        except RunnerDied as death:
            self._give_back(job, str(death))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _give_back(self, job: Job, death: str) -> None:
        if not self.stopping.is_set():
            extra = {"job": job.id, "attempt": job.attempt}
            _LOG.warning("the runner %s during a job, which is given back", death, extra=extra)
        self._report(lambda: self.service.release(job, count=not self.stopping.is_set()))

    def _report(self, tell: Callable[[], Answer]) -> Answer:
        """Say how a job has ended, again and again while the job queue does not answer: work that is done is not
        thrown away for that."""
        was_away = False
        while True:
            try:
                return tell()
            except self.service.store.faults as error:
                if not was_away:
                    _LOG.warning("the end of a job must wait, the job queue does not answer: %s", error)
                was_away = True
                if self.stopping.wait(_AGAIN_S):
                    raise

    def _task(self, job: Job, folder: Path) -> dict[str, Any]:
        paths = {name: str(self.service.files.fetch(job.id, name, folder)) for name in job.inputs}
        suffix = track_suffix(job.request) or Options(**job.request["options"]).suffix
        return {"video": None, "audio": None, **job.request, **paths, "output": str(folder / f"output{suffix}")}

    def _follow(self, job: Job, folder: Path) -> None:
        """Watch a job until it ends in one way or the other."""
        began = noted = time.monotonic()
        pace, frames, expected = _Pace(), 0, None
        while True:
            event = self._runner.next_event()
            if event is not None and event["event"] == "progress":
                frames, expected = event["frames"], event["expected"]
            elif event is not None:
                return self._conclude(job, event, folder)
            now = time.monotonic()
            if now - noted < _POLL_S:
                continue
            noted = now
            if not self._note(job, folder, (frames, expected, pace.fps(frames, now))):
                _LOG.info("job dropped", extra={"job": job.id, "attempt": job.attempt})
                return self._runner.stop_job()
            if self.stopping.is_set():
                self._runner.kill()
                return self.service.release(job, count=False)
            if (reason := self._too_much(now - began)) is not None:
                self._runner.stop_job()
                return self._report(partial(self.service.fail, job, reason[0], code=reason[1]))

    def _note(self, job: Job, folder: Path, progress: tuple[int, int | None, float]) -> bool:
        """Tell how far a job is. False: it is no longer this worker's."""
        try:
            if not self.service.progress(job, *progress):
                return False
            if (preview := folder / PREVIEW).exists():
                self.service.show_preview(job, preview)
        except self.service.store.faults as error:  # that can wait: the job goes on
            if self._is_heard:
                _LOG.warning("nothing can be noted about a job: %s", error, extra={"job": job.id})
            self._is_heard = False
        else:
            self._is_heard = True
        return True

    def _too_much(self, seconds: float) -> tuple[str, str] | None:
        """Why a job must be ended, as a sentence and for programs."""
        limit = self.service.config.max_run_s
        if seconds > limit:
            return f"The job took longer than {limit:g} s; give a shorter video or fewer steps.", "too-long"
        if not self._has_room():
            return "The disk of the server is full; try again later.", "disk-full"
        return None

    def _has_room(self) -> bool:
        """There is room for a result. What comes in is refused earlier; see `service.min_free_gb`."""
        least = max(self.service.config.min_free_gb * 1e9 / 2, _LEAST_ROOM)
        has_room = shutil.disk_usage(self.settings.service.data_dir).free >= least
        if self._had_room and not has_room:
            _LOG.error("the disk is full; jobs wait until there is room")
        self._had_room = has_room
        return has_room

    def _conclude(self, job: Job, event: dict[str, Any], folder: Path) -> None:
        if event["event"] == "done":
            result = next(folder.glob("output.*"))
            subtitles = folder / SUBTITLES if job.request.get("srt") else None
            self._report(lambda: self.service.complete(job, result, event["summary"], subtitles))
        elif event["event"] in ("refused", "broken"):
            refused = event["event"] == "refused"
            self._report(lambda: self.service.fail(job, event["sentence"], refused, event["code"]))

    def close(self) -> None:
        """Wait until the job that runs is given back, and end the runner."""
        self.stopping.set()
        if self._busy.acquire(timeout=_CLOSE_S):
            self._busy.release()
        self._runner.kill()


def track_suffix(request: Mapping[str, Any]) -> str:
    """The ending of a track's file, such as ".csv"; "" where a job asks for a video."""
    return suffix_of(request["track"]) if "track" in request else ""


def _repeat(
    every: float, stopping: threading.Event, action: Callable[[], None], faults: tuple[type[Exception], ...]
) -> None:
    """Housekeeping, until the process is to end. That the job queue is away (`faults`) is said once."""
    is_away = False
    while not stopping.wait(every):
        try:
            action()
            is_away = False
        except faults as error:
            if not is_away:
                _LOG.warning("the job queue does not answer: %s", error, extra={"what": action.__name__})
            is_away = True
        except Exception:  # noqa: BLE001 - must not end the housekeeping
            _LOG.exception("housekeeping failed")


def _end_with_parent(parent: int) -> None:
    """Interrupt this process when the process that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def main(argv: Sequence[str]) -> int:
    """Run a worker until it is interrupted. Returns 0, 2 if the settings cannot be used, 1 if the job queue does not
    answer, which may pass."""
    arguments = worker_parser().parse_args(argv)
    parent = os.getppid()
    workers: list[Worker] = []
    try:
        settings = read_settings(arguments)
        service, queue_ = open_service(settings, lambda: workers[0].work())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if isinstance(error, QueueAway) else 2
    if arguments.check:
        return 0 if any(name.startswith(f"{socket.gethostname()}-") for name in service.store.workers()) else 1
    start_logging()
    worker = Worker(service, settings, threading.Event())
    workers.append(worker)
    service.sweep()
    _start_threads(worker, parent if arguments.end_with_parent else None)
    # Not "graceful": a job may take hours, so it is given back instead of waited for.
    Consumer(queue_.huey, workers=1, periodic=False, max_delay=0.5, shutdown_timeout=0).run()
    worker.close()
    if worker.fault is not None:
        print(f"error: {worker.fault}", file=sys.stderr)
        return 2
    return 0


def _start_threads(worker: Worker, parent: int | None) -> None:
    service, webhooks = worker.service, Webhooks(worker.service)
    for every, action in (
        (_BEAT_S, worker.watch),
        (_POLL_S, worker.tend),
        (_BEAT_S, worker.beat),
        (_BEAT_S, service.maintain),
        (_BEAT_S, webhooks.deliver),
        (_EXPIRE_S, service.expire),
        (_SWEEP_S, service.sweep),
    ):
        whole = (every, worker.stopping, action, service.store.faults)
        threading.Thread(target=_repeat, args=whole, daemon=True).start()
    if parent is not None:
        threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
