"""The process that draws, as its worker sees it: whatever happens to it, the worker notices, says so and goes on.

What draws here is a function without networks; all else of the runner is real.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serving.jobs import runner_process
from serving.jobs.runner_process import Runner, RunnerDied
from tests.service import REPO, wait_for

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and groups of POSIX")

STALL_S = 3.0
FAKE = """
import os, signal, subprocess, sys, threading, time
from serving.jobs import runner

def loaded(arguments):
    if arguments.device == "dies":
        os._exit(3)
    if arguments.device == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    return run

def run(job, line):
    what = job["what"]
    if what == "frames":
        for frame in range(3):
            line.progress(frame + 1, 3)
    elif what == "hangs":
        while not threading.Event().wait(0.1):
            line.progress(0, None)  # as the pipeline does while it waits
    elif what == "computes":
        end = time.monotonic() + job["seconds"]
        line.progress(1, 3)
        while time.monotonic() < end:
            sum(range(300_000))
            time.sleep(0.02)
    elif what == "dies":
        os._exit(3)
    elif what == "breaks":
        raise RuntimeError("the secret recipe")
    elif what == "children":
        children = [subprocess.Popen(["sleep", "600"]).pid, os.fork()]
        if children[1] == 0:
            time.sleep(600)
        read = subprocess.run([sys.executable, "-c", "print(len(input() or '-'))"], capture_output=True, text=True)
        return {"children": children, "read": read.stdout}
    if "output" in job:
        with open(job["output"], "wb") as file:
            file.write(b"film")
    return {"frames": 3, "seconds": 1.0}

runner._loaded = loaded
runner.main(["--config", "-", "--weights", "-", "--device", sys.argv[1]])
"""


@pytest.fixture(autouse=True)
def fresh_for_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is silent stops counting as ready sooner than in use, so that less is waited for."""
    monkeypatch.setattr(runner_process, "_FRESH_S", STALL_S)


@contextmanager
def runner(loading: str = "works", stall_s: float = 60.0) -> Iterator[Runner]:
    """A runner that is watched as a worker watches it."""
    held, ended = Runner([sys.executable, "-c", FAKE, loading], stall_s), threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            held.watch()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield held
    finally:
        ended.set()
        thread.join()
        held.kill()


def start(held: Runner) -> int:
    """Have it loaded; returns its process id."""
    held.start(lambda: False)
    return held._life.pid


def job(held: Runner, what: str, **more: Any) -> dict[str, Any]:
    """Do a job; returns the last event."""
    held.send({"run": {"what": what, **more}})
    return wait_for(lambda: (event := held.next_event()) and event["event"] != "progress" and event, "the end of a job")


def is_gone(pid: int) -> bool:
    """There is no such process, or only its entry."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_one_that_works_serves_job_after_job() -> None:
    with runner() as held:
        pid = start(held)
        assert held.is_ready
        for _ in range(2):
            assert job(held, "frames") == {"event": "done", "summary": {"frames": 3, "seconds": 1.0}}
        assert start(held) == pid


def test_what_breaks_is_logged_as_json_and_not_told(capfd: pytest.CaptureFixture[str]) -> None:
    with runner() as held:
        start(held)
        files = {"video": None, "audio": None, "output": f"/x/{'0' * 32}-1/output.mp4"}
        assert job(held, "breaks", **files)["sentence"] == "unexpected error: RuntimeError"
    (line,) = (line for line in capfd.readouterr().err.splitlines() if "job broke" in line)
    entry = json.loads(line)
    assert entry["job"] == "0" * 32 and "the secret recipe" in entry["trace"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "is stopped"])
def test_an_idle_one_that_is_lost_is_noticed_told_and_replaced(
    how: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "lipsync.runner"), runner(stall_s=STALL_S) as held:
        pid = start(held)
        os.kill(pid, how)
        wait_for(lambda: not held.is_ready, "the loss to show", 60)
        said = "died (signal SIGKILL)" if how == signal.SIGKILL else "said nothing for"
        wait_for(lambda: f"the runner {said}" in caplog.text, "a line in the log", 60)
        assert is_gone(pid) and start(held) != pid and held.is_ready
        assert job(held, "frames")["event"] == "done"


@pytest.mark.parametrize(
    ("what", "said"),
    [("dies", "died [(]exit code 3[)]"), ("hangs", r"neither wrote a frame nor computed anything for \d+ s")],
)
def test_one_that_is_lost_during_a_job_is_noticed(what: str, said: str) -> None:
    with runner(stall_s=STALL_S) as held:
        start(held)
        with pytest.raises(RunnerDied, match=said):
            job(held, what)


def test_one_that_is_stopped_during_a_job_is_noticed() -> None:
    with runner(stall_s=STALL_S) as held:
        pid = start(held)
        threading.Timer(0.5, os.kill, (pid, signal.SIGSTOP)).start()
        with pytest.raises(RunnerDied, match="said nothing for"):
            job(held, "computes", seconds=120)
        assert is_gone(pid)


def test_one_that_computes_for_long_without_a_frame_is_left_alone() -> None:
    with runner(stall_s=STALL_S) as held:
        start(held)
        assert job(held, "computes", seconds=1.5 * STALL_S)["event"] == "done"


@pytest.mark.parametrize(("loading", "said"), [("dies", "exit code 3"), ("stops", "said nothing|neither wrote")])
def test_one_that_is_lost_while_it_loads_is_noticed(loading: str, said: str) -> None:
    with runner(loading, STALL_S) as held:
        with pytest.raises(RunnerDied, match=said):
            start(held)
        assert not held.is_ready


def test_a_long_message_to_one_that_is_stopped_does_not_hold_the_worker() -> None:
    with runner(stall_s=STALL_S) as held:
        os.kill(start(held), signal.SIGSTOP)
        with pytest.raises(RunnerDied, match="said nothing"):
            job(held, "frames", text="x" * 1_000_000)  # more than the pipe holds


def test_children_hold_no_end_of_the_line_and_end_with_it() -> None:
    with runner() as held:
        pid = start(held)
        done = job(held, "children")
        assert done["summary"]["read"] == "", "a child has read what was meant for the runner"
        children = done["summary"]["children"]
        assert not any(map(is_gone, children))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(RunnerDied, match="SIGKILL"):
            wait_for(held.next_event, "its end", 60)
        wait_for(lambda: all(map(is_gone, children)), "the end of its children", 60)


def test_one_that_is_stopped_ends_with_its_worker() -> None:
    code = """
import os, signal, sys
from tests.test_runner import Runner, FAKE
held = Runner([sys.executable, "-c", FAKE, "works"], 60)
held.start(lambda: False)
os.kill(held._life.pid, signal.SIGSTOP)
print(held._life.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    if sys.platform != "linux":
        pytest.skip("only Linux ends a process that is stopped when its parent dies")
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, stdout=subprocess.PIPE, text=True, timeout=240)
    wait_for(lambda: is_gone(int(done.stdout)), "the end of the runner", 60)
