"""What a killed run has left is removed by the next one, and nothing of a living one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPO
from utils import abandoned
from utils.helpers import atomic_path, temporary_folder

_RUN = """
import sys, time
from pathlib import Path
from utils.helpers import atomic_path, temporary_folder
with temporary_folder() as folder, atomic_path(Path(sys.argv[1])) as path:
    (folder / "speech.wav").write_text("half")
    path.write_text("half")
    print("working", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for results and temporary folders; nothing was swept yet."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(abandoned, "_swept", set())
    return tmp_path


def start(place: Path) -> subprocess.Popen[str]:
    """A run at work in another process, an hour old by its files."""
    command = [sys.executable, "-c", _RUN, str(place / "out.mp4")]
    run = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline().strip() == "working"
    for path in place.iterdir():
        os.utime(path, (time.time() - 3600,) * 2)
    return run


def work(place: Path) -> None:
    with temporary_folder(), atomic_path(place / "other.mp4") as path:
        path.write_text("whole")


def test_what_a_killed_run_left_is_removed_by_the_next(place: Path):
    run = start(place)
    (place / ".tmp-of-somebody-else.mp4").write_text("theirs")
    os.utime(place / ".tmp-of-somebody-else.mp4", (0, 0))
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert len(list(place.iterdir())) == 3

    work(place)

    assert sorted(path.name for path in place.iterdir()) == [".tmp-of-somebody-else.mp4", "other.mp4"]


def test_what_a_living_run_needs_stays(place: Path):
    run = start(place)
    try:
        before = set(place.iterdir())
        work(place)
        assert set(place.iterdir()) == before | {place / "other.mp4"}
    finally:
        run.kill()
        run.wait()
