"""Stopping at any moment: soon, quietly, with the right exit code, and without leaving anything behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from language_processor import SpokenText
from pipeline import LipSyncPipeline
from pipeline.options import Options
from tests import footage, threads
from tests.tiny_weights import tiny_config
from utils.config import load_config
from utils.helpers import atomic_path, temporary_folder
from utils.stages import Stages, in_background, stop_point, when_stopped

REPO = Path(__file__).resolve().parent.parent
SOON_S = 3.0  # the program promises one second; test machines are busy

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short video and a sound so long that no run comes to its end."""
    folder = tmp_path_factory.mktemp("material")
    footage.make_video(folder / "video.mp4", 1.0, size=(160, 160))
    footage.make_sound(folder / "long.wav", 60.0)
    return folder


class Run:
    """The command line in a process of its own, with temporary files and results in folders of its own."""

    def __init__(self, folder: Path, *arguments: object):
        self.results, self.scratch = folder / "results", folder / "scratch"
        for path in (self.results, self.scratch):
            path.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "app.py", *map(str, arguments), "--output", str(self.results / "out.mp4")],
            cwd=REPO,
            env={**os.environ, "TMPDIR": str(self.scratch)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A shell that runs the tests in the background makes them, and us, ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def wait_until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not happened() and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.process.poll() is None, self.process.communicate()

    def loads(self, library: str) -> bool:
        """Whether the process has begun to load a shared library of this name."""
        return library in Path(f"/proc/{self.process.pid}/maps").read_text()

    def stop(self, *signals: int) -> str:
        """Send signals, one right after the other; checks all that must hold, and returns what was said."""
        sent = time.monotonic()
        for number in signals:
            self.process.send_signal(number)
            time.sleep(0.05)
        out, err = self.process.communicate(timeout=60)
        assert time.monotonic() - sent < SOON_S
        assert self.process.returncode == 128 + signals[0]
        assert out == "" and err.count("Stopped") == 1 and err.splitlines()[-1].startswith("Stopped")
        assert "Traceback" not in err and "Exception" not in err
        assert not any(self.results.iterdir()) and not any(self.scratch.iterdir())
        with pytest.raises(ProcessLookupError):  # nor a child
            os.killpg(self.process.pid, 0)
        return err


@posix
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to see how far the program is")
def test_while_the_libraries_are_loaded(material: Path, tmp_path: Path) -> None:
    run = Run(tmp_path, f"--video={material / 'video.mp4'}", f"--audio={material / 'long.wav'}")
    run.wait_until(lambda: run.loads("libtorch_cpu"))
    assert run.stop(signal.SIGINT).startswith("Stopped")  # and not a word more


@posix
def test_while_a_text_is_spoken(material: Path, tmp_path: Path, tiny_weights: Path) -> None:
    config = tiny_config(tmp_path, tiny_weights)
    (tmp_path / "long.txt").write_text("Guten Tag, schön, dass Sie da sind. " * 5000, encoding="utf-8")
    run = Run(
        tmp_path, f"--video={material / 'video.mp4'}", f"--text-file={tmp_path / 'long.txt'}", f"--config={config}"
    )
    run.wait_until(lambda: any(run.scratch.rglob("*.wav")))
    run.stop(signal.SIGTERM)


@posix
def test_while_frames_are_written_and_impatiently(material: Path, tmp_path: Path, tiny_weights: Path) -> None:
    config = tiny_config(tmp_path, tiny_weights)
    run = Run(tmp_path, f"--video={material / 'video.mp4'}", f"--audio={material / 'long.wav'}", f"--config={config}")
    run.wait_until(lambda: any(run.results.iterdir()))
    time.sleep(0.5)
    run.stop(signal.SIGINT, signal.SIGINT, signal.SIGTERM)


STUCK = """
import ctypes, sys, time
from pathlib import Path
from utils.helpers import atomic_path, temporary_folder
from utils.stopping import StopSignals
with StopSignals() as signals, temporary_folder() as folder, atomic_path(Path(sys.argv[1])) as path:
    path.write_text("half")
    (folder / "more").write_text("half")
    print("ready", flush=True)
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):  # the second time it waits for ever, outside Python, whatever signal comes
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""


@posix
def test_what_does_not_listen_is_ended_by_force(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, str(tmp_path / "results" / "out.txt")],
        cwd=REPO,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=SOON_S)
    assert process.returncode == 143 and err == "Stopped; nothing half-made is left behind.\n"
    assert list(tmp_path.rglob("*")) == [tmp_path / "results"]


class Cancelled(Exception):
    pass


@pytest.fixture(scope="module")
def lip_sync(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> LipSyncPipeline:
    path = tiny_config(tmp_path_factory.mktemp("config"), tiny_weights)
    return LipSyncPipeline.load(load_config(path), torch.device("cpu"))


@pytest.mark.parametrize(
    ("frames", "calls", "spoken", "steps"),
    [(0, 1, False, 1), (0, 1, True, 1), (0, 4, True, 1), (0, 4, False, 400), (1, 1, False, 1), (30, 1, False, 1)],
)
def test_what_the_callback_raises_ends_the_run_at_once(
    lip_sync: LipSyncPipeline, material: Path, tmp_path: Path, frames: int, calls: int, spoken: bool, steps: int
) -> None:
    """At the `calls`th call with at least so many frames: while probing, speaking, hearing, drawing, encoding."""
    raised, seen = [], 0

    def progress(done: int, total: int | None) -> None:
        nonlocal seen
        seen += done >= frames
        if seen == calls:
            raised.append(time.monotonic())
            raise Cancelled

    text = SpokenText("Guten Tag, schön, dass Sie da sind. " * 500, "de", None, 1.0) if spoken else None
    audio = None if spoken else material / "long.wav"
    with threads.none_left(), pytest.raises(Cancelled):
        lip_sync.run(material / "video.mp4", audio, tmp_path / "out.mp4", Options(steps=steps), progress, text=text)
    assert time.monotonic() - raised[0] < SOON_S
    assert not any(tmp_path.iterdir())


def test_a_stage_ends_at_its_next_stop_point() -> None:
    ended = []

    def busy(_: Iterator) -> Iterator[int]:
        yield 1
        try:
            while True:
                stop_point()
                time.sleep(0.01)
        finally:
            ended.append(True)

    with Stages({"busy": busy}) as results:
        next(results)
    assert ended == [True]
    stop_point()  # nothing outside a stage


def test_work_in_a_library_is_told_to_give_up() -> None:
    given_up = threading.Event()

    def work() -> None:
        with when_stopped(given_up.set):
            given_up.wait(60)
            raise RuntimeError("the library says that it gave up")

    def cancel() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        in_background(work, cancel)
    assert given_up.is_set()


def test_work_in_the_background_gives_its_result_or_its_error() -> None:
    assert in_background(lambda: 7, lambda: None) == 7
    with pytest.raises(ZeroDivisionError):
        in_background(lambda: 1 // 0, lambda: None)


def test_temporary_things_go_with_their_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(Cancelled), temporary_folder() as folder, atomic_path(folder / "deep" / "file.txt") as path:
        path.write_text("half")
        assert folder.parent == tmp_path
        raise Cancelled
    assert not any(tmp_path.iterdir())
