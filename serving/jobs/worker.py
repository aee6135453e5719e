"""`--mode worker`: takes jobs from the queue and runs them, on as many machines as wanted."""

from __future__ import annotations

import json
import logging
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huey.consumer import Consumer

from pipeline.options import Options
from serving.jobs.jobs import WORK, JobService
from serving.jobs.runner import PREVIEW
from serving.jobs.setup import Settings, open_service, read_settings, start_logging, worker_parser
from serving.jobs.store import Job
from serving.jobs.webhooks import Webhooks
from utils.helpers import InputError

_LOG = logging.getLogger("lipsync.worker")
_ROOT = Path(__file__).resolve().parent.parent.parent
_POLL_S = 0.25  # between two notes of progress; how soon a worker notices that its job was cancelled
_SETTLE_S = 0.5  # after the first frames, until their number says something about the pace
_PATIENCE_S = 0.6  # that a runner is given to stop by itself
_BEAT_S = 1.0
_EXPIRE_S = 30.0
_SWEEP_S = 1800.0
_CLOSE_S = 5.0
_LOAD_S = 600.0  # loading the networks takes seconds; longer than this is a fault


class RunnerDied(Exception):
    """The process that ran the job is gone."""


class Runner:
    """Starts and holds a process of `serving/jobs/runner.py`.

    Args:
        settings: says with which networks.
    """

    def __init__(self, settings: Settings):
        self._command = [sys.executable, "-m", "serving.jobs.runner", "--config", str(settings.config_path)]
        self._command += ["--device", settings.device, "--weights", str(settings.weights)]
        if settings.engine_weights is not None:
            self._command += ["--engine-weights", str(settings.engine_weights)]
        self._process: subprocess.Popen[str] | None = None
        self._is_loaded = False
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()

    @property
    def is_ready(self) -> bool:
        """There is a process, and its networks are loaded."""
        return self._is_loaded and self._process is not None and self._process.poll() is None

    def start(self, stop: Callable[[], bool]) -> None:
        """Have a process with loaded networks.

        Args:
            stop: asked now and then; True gives up.

        Raises:
            InputError: the networks cannot be loaded.
            RunnerDied: it ended, or `stop` said so.
        """
        if self.is_ready:
            return
        self.kill()
        self._process = subprocess.Popen(
            self._command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        self._events = queue.Queue()
        threading.Thread(target=self._listen, args=(self._process, self._events), daemon=True).start()
        deadline = time.monotonic() + _LOAD_S
        while not stop() and time.monotonic() < deadline:
            event = self.next_event()
            if event is not None and event["event"] == "ready":
                self._is_loaded = True
                return
            if event is not None:
                self.kill()
                raise InputError(event["sentence"])
        self.kill()
        raise RunnerDied

    @staticmethod
    def _listen(process: subprocess.Popen[str], events: queue.Queue[dict[str, Any] | None]) -> None:
        for line in process.stdout:
            events.put(json.loads(line))
        events.put(None)

    def send(self, message: dict[str, Any]) -> None:
        """Write one message.

        Raises:
            RunnerDied: nobody reads it.
        """
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise RunnerDied from error

    def next_event(self) -> dict[str, Any] | None:
        """What the process says next; None if it says nothing for a moment.

        Raises:
            RunnerDied: it is gone.
        """
        try:
            event = self._events.get(timeout=_POLL_S)
        except queue.Empty:
            return None
        if event is None:
            self.kill()
            raise RunnerDied
        return event

    def stop_job(self) -> None:
        """End the job that runs, with the process if need be."""
        deadline = time.monotonic() + _PATIENCE_S
        try:
            self.send({"stop": True})
            while time.monotonic() < deadline:
                event = self.next_event()
                if event is not None and event["event"] != "progress":
                    return
        except RunnerDied:
            return
        self.kill()

    def kill(self) -> None:
        """End the process at once."""
        self._is_loaded = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


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
        self._runner = Runner(self.settings)
        self._busy = threading.Lock()
        self._job: Job | None = None

    @property
    def is_ready(self) -> bool:
        """The networks are loaded."""
        return self._runner.is_ready

    def warm_up(self) -> None:
        """Load the networks before the first job; if that cannot work, end the process."""
        with self._busy:
            self._load()

    def _load(self) -> None:
        try:
            self._runner.start(self.stopping.is_set)
        except RunnerDied:
            _LOG.warning("loading the networks was broken off")
        except InputError as error:
            self.fault = str(error)
            os.kill(os.getpid(), signal.SIGTERM)

    def beat(self) -> None:
        """Show that this worker lives, and keep the job that it runs."""
        self.service.store.beat(self.name, self.is_ready)
        if (job := self._job) is not None:
            self.service.renew(job)

    def work(self) -> None:
        """Run queued jobs until there are none."""
        with self._busy:
            while not self.stopping.is_set() and (job := self.service.take()) is not None:
                self._job = job
                try:
                    self._run(job)
                except BaseException:
                    # The runner may still be at it, and what it says would be taken for the next job's.
                    self._runner.kill()
                    raise
                finally:
                    self._job = None
            self._load()  # again, if the last job had to be stopped with the process

    def _run(self, job: Job) -> None:
        folder = self.settings.service.data_dir / WORK / f"{job.id}-{job.attempt}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._runner.start(self.stopping.is_set)
            self._runner.send({"run": self._task(job, folder)})
            self._follow(job, folder)
        except FileNotFoundError:  # also when it was cancelled before it began
            self.service.fail(job, "The files of the job are gone.", code="files-gone")
        except (RunnerDied, InputError):
            self._give_back(job)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _give_back(self, job: Job) -> None:
        if not self.stopping.is_set():
            _LOG.warning("runner died", extra={"job": job.id, "attempt": job.attempt})
            self.stopping.wait(1.0)  # what kills it at once would otherwise keep a core busy
        self.service.release(job, count=not self.stopping.is_set())

    def _task(self, job: Job, folder: Path) -> dict[str, Any]:
        paths = {name: str(self.service.files.fetch(job.id, name, folder)) for name in job.inputs}
        suffix = Options(**job.request["options"]).suffix
        return {"audio": None, **job.request, **paths, "output": str(folder / f"output{suffix}")}

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
            if (preview := folder / PREVIEW).exists():
                self.service.show_preview(job, preview)
            if not self.service.progress(job, frames, expected, pace.fps(frames, now)):
                _LOG.info("job dropped", extra={"job": job.id, "attempt": job.attempt})
                return self._runner.stop_job()
            if self.stopping.is_set():
                self._runner.kill()
                return self.service.release(job, count=False)
            if (reason := self._too_much(now - began)) is not None:
                self._runner.stop_job()
                return self.service.fail(job, reason[0], code=reason[1])

    def _too_much(self, seconds: float) -> tuple[str, str] | None:
        """Why a job must be ended, as a sentence and for programs."""
        limit = self.service.config.max_run_s
        if seconds > limit:
            return f"The job took longer than {limit:g} s; give a shorter video or fewer steps.", "too-long"
        if shutil.disk_usage(self.settings.service.data_dir).free < self.service.config.min_free_gb * 1e9 / 2:
            return "The disk of the server is full; try again later.", "disk-full"
        return None

    def _conclude(self, job: Job, event: dict[str, Any], folder: Path) -> None:
        if event["event"] == "done":
            result = next(folder.glob("output.*"))
            self.service.complete(job, result, event["summary"])
        elif event["event"] in ("refused", "broken"):
            self.service.fail(job, event["sentence"], event["event"] == "refused", event["code"])

    def close(self) -> None:
        """Wait until the job that runs is given back, and end the runner."""
        self.stopping.set()
        if self._busy.acquire(timeout=_CLOSE_S):
            self._busy.release()
        self._runner.kill()


def _repeat(every: float, stopping: threading.Event, action: Callable[[], None]) -> None:
    """Housekeeping, until the process is to end."""
    while not stopping.wait(every):
        try:
            action()
        except Exception:  # noqa: BLE001 - a busy database must not end the housekeeping
            _LOG.exception("housekeeping failed")


def _end_with_parent(parent: int) -> None:
    """Interrupt this process when the process that started it is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def main(argv: Sequence[str]) -> int:
    """Run a worker until it is interrupted. Returns 0, or 2 if the settings cannot be used."""
    arguments = worker_parser().parse_args(argv)
    parent = os.getppid()
    workers: list[Worker] = []
    try:
        settings = read_settings(arguments)
        service, queue_ = open_service(settings, lambda: workers[0].work())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
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
        (_BEAT_S, worker.beat),
        (_BEAT_S, service.maintain),
        (_BEAT_S, webhooks.deliver),
        (_EXPIRE_S, service.expire),
        (_SWEEP_S, service.sweep),
    ):
        threading.Thread(target=_repeat, args=(every, worker.stopping, action), daemon=True).start()
    threading.Thread(target=worker.warm_up, daemon=True).start()
    if parent is not None:
        threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
