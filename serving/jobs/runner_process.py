"""The worker's side of the process that draws: starts it, hears it, notices when it dies or hangs, and ends it.

The process (`serving/jobs/runner.py`) says every second that it lives, how much it has computed, and how much it has
moved from and to disks so far. It counts as stuck when it says nothing for `service.stall_s`, or when it has work and
for so long neither writes a frame nor computes nor moves anything: then it is ended, and the worker starts another one.
Where the machine has too much to do, it is given more time.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving.jobs.setup import Settings
from utils.helpers import InputError

_LOG = logging.getLogger("lipsync.runner")
_ROOT = Path(__file__).resolve().parent.parent.parent
_WAIT_S = 0.25  # for the next thing that the process says
_PATIENCE_S = 0.6  # that it is given to stop a job by itself
_LAST_WORDS_S = 1.0  # after its death, for what it had said before to be read
_LOAD_S = 600.0  # loading the networks takes seconds; longer than this is a fault
_FRESH_S = 10.0  # it has said something within this time, or does not count as ready
_ABSENT_S = 5.0  # without a look at it: then it is this process that was stopped or had no time
_DIED = "died"
_LEAST_SHARE = 0.01  # of one core: a runner whose threads only wait for each other takes 0.004
_SPANS = 4  # of `stall_s` in which the share is measured; any that has enough of it counts as work
_MOST_PATIENT = 5.0  # times `stall_s` that a runner is given at most where the machine is overloaded

Event = dict[str, Any]


class RunnerDied(Exception):
    """The process that ran the job is gone; the text says how."""


class _Life:
    """One process, from its start to its end.

    Args:
        command: how to start it.
        stall_s: time without a sign of work after which it is stuck, seconds.
    """

    def __init__(self, command: list[str], stall_s: float):
        self.events: queue.Queue[Event | None] = queue.Queue()
        self.is_loaded = False
        self.end_note = ""  # how it ended, once it has
        self._stall_s = stall_s
        self._is_busy = True  # loading is work
        self._heard = self._moved = self._looked = time.monotonic()
        self._frames, self._blocks = 0, 0
        self._mark = self._heard, 0.0  # time, and seconds computed until then
        self._ending = threading.Lock()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, cwd=_ROOT, text=True, encoding="utf-8", errors="replace", **pipes)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        try:
            for line in self._process.stdout:
                self._take(json.loads(line))
        except ValueError:  # half a line of a process that was killed
            _LOG.warning("the runner's last line was cut off", extra={"pid": self.pid})
        self.events.put(None)

    def _take(self, event: Event) -> None:
        """Note what an event says about the process's health; hand on what is about its work."""
        self._heard = now = time.monotonic()
        if event["event"] == "alive":
            return self._note_work(now, event["computed"], event["moved"])
        if event["event"] != "progress":
            self._is_busy, self.is_loaded = False, self.is_loaded or event["event"] == "ready"
        elif event["frames"] != self._frames:
            self._frames, self._moved = event["frames"], now
        self.events.put(event)

    def _note_work(self, now: float, computed: float, blocks: int) -> None:
        then, before = self._mark
        if now - then >= self._stall_s / _SPANS:
            self._mark = now, computed
            if computed - before >= _LEAST_SHARE * (now - then):
                self._moved = now
        if blocks != self._blocks:
            self._blocks, self._moved = blocks, now

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def is_fresh(self) -> bool:
        """It lives, and has just said so."""
        return self.is_alive() and time.monotonic() - self._heard < _FRESH_S

    def is_alive(self) -> bool:
        """It has not ended. It is left as a zombie if it has, so that its number stays its own."""
        if self._process.returncode is not None or not hasattr(os, "waitid"):
            return self._process.poll() is None
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        except ChildProcessError:
            return False

    def write(self, message: Event) -> None:
        """Send a line.

        Raises:
            RunnerDied: nobody reads it.
        """
        if "run" in message:
            self._is_busy, self._moved, self._frames = True, time.monotonic(), 0
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            self.end()
            raise RunnerDied(self.end_note) from error

    def look(self) -> str | None:
        """What is wrong with it, as a sentence's end; None: nothing. To be asked every second."""
        now = time.monotonic()
        if now - self._looked > _ABSENT_S:
            self._heard = self._moved = now
        self._looked = now
        if not self.is_alive():
            return _DIED
        patience = self._stall_s * _overload()
        if now - self._heard > patience:
            return f"said nothing for {now - self._heard:.0f} s"
        if self._is_busy and now - self._moved > patience:
            return f"neither wrote a frame nor computed anything for {now - self._moved:.0f} s"
        return None

    def _lives_on(self) -> bool:
        """It is alive, and not only in its last moment, when its line has ended already."""
        deadline = time.monotonic() + _LAST_WORDS_S
        while self.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.is_alive()

    def end(self, why: str = _DIED, level: int = logging.ERROR) -> None:
        """End it, and what it has started, at once; what it has said before can still be read.

        Args:
            why: for the log and for `end_note`; of no interest if it has ended before.
            level: of the line in the log.
        """
        with self._ending:
            if self.end_note:
                return
            was_alive = self._lives_on() if why == _DIED else self.is_alive()
            with suppress(OSError, AttributeError):  # it has made no group yet; Windows has none
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()
            code = self._process.wait()
            self.end_note = why if was_alive else f"{why} ({_in_words(code)})"
            _LOG.log(level, "the runner %s", self.end_note, extra={"pid": self.pid})
        self._listener.join(_LAST_WORDS_S)
        self.events.put(None)  # a child that holds the line would keep the listener from saying so


def _overload() -> float:
    """How many times too much the machine has to do, 1 to `_MOST_PATIENT`."""
    if not hasattr(os, "getloadavg"):
        return 1.0
    return min(max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), _MOST_PATIENT)


def _in_words(code: int) -> str:
    """A process's exit code for people."""
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def runner_command(settings: Settings) -> list[str]:
    """How to start a runner with the networks that the settings name."""
    command = [sys.executable, "-m", "serving.jobs.runner", "--config", str(settings.config_path)]
    command += ["--device", settings.device, "--weights", str(settings.weights)]
    more = [] if settings.engine_weights is None else ["--engine-weights", str(settings.engine_weights)]
    return [*command, *more]


class Runner:
    """Has a process that draws, and another one when it is gone.

    Args:
        command: how to start it, see `runner_command`.
        stall_s: time without a sign of work after which it is stuck, seconds.
    """

    def __init__(self, command: list[str], stall_s: float):
        self._command = command
        self._stall_s = stall_s
        self._life: _Life | None = None

    @property
    def is_ready(self) -> bool:
        """There is a process, its networks are loaded, and it has just said that it lives."""
        return self._life is not None and self._life.is_loaded and self._life.is_fresh

    def start(self, stop: Callable[[], bool]) -> None:
        """Have a process with loaded networks. It ends with the thread that calls this.

        Args:
            stop: asked now and then; True gives up.

        Raises:
            InputError: the networks cannot be loaded.
            RunnerDied: it ended, or `stop` said so.
        """
        if self._life is not None and self._life.is_loaded:
            self._wait_for_a_sign(self._life, stop)
        if self.is_ready:
            return
        self.kill()
        began = time.monotonic()
        self._life = _Life(self._command, self._stall_s)
        _LOG.info("runner started", extra={"pid": self._life.pid})
        while not stop() and time.monotonic() - began < _LOAD_S:
            event = self.next_event()
            if event is not None and event["event"] == "ready":
                _LOG.info("runner ready", extra={"pid": self._life.pid, "seconds": round(time.monotonic() - began, 1)})
                return
            if event is not None:
                self.kill()
                raise InputError(event["sentence"])
        self.kill()
        raise RunnerDied("the worker is to end" if stop() else f"had not loaded its networks after {_LOAD_S:g} s")

    @staticmethod
    def _wait_for_a_sign(life: _Life, stop: Callable[[], bool]) -> None:
        """If it has been silent for some seconds, wait until it is heard of or ended by `watch`."""
        while life.is_alive() and not life.is_fresh and not stop():
            time.sleep(_WAIT_S)

    def watch(self) -> None:
        """End the process if it is dead or stuck. To be called every second, by a thread that does nothing else that
        could wait for it."""
        life = self._life
        if life is not None and not life.end_note and (fault := life.look()) is not None:
            life.end(fault)

    def send(self, message: Event) -> None:
        """Write one message.

        Raises:
            RunnerDied: nobody reads it.
        """
        if self._life is None:
            raise RunnerDied("was ended")
        self._life.write(message)

    def next_event(self) -> Event | None:
        """What the process says next; None if it says nothing for a moment.

        Raises:
            RunnerDied: it is gone.
        """
        life = self._life
        if life is None:
            raise RunnerDied("was ended")
        try:
            event = life.events.get(timeout=_WAIT_S)
        except queue.Empty:
            if not life.is_alive():
                life.end()
            return None
        if event is None:
            life.end()
            raise RunnerDied(life.end_note)
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
        if self._life is not None:
            if self._life.is_alive():
                self._life.end("was ended", logging.INFO)
            self._life.end()  # of itself, and nobody has noticed
            self._life = None
