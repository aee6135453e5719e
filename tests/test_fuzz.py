"""Damaged files by the thousand: each one is read or refused in one sentence; nothing else happens.

More than the default: LIPSYNC_FUZZ_CASES=20000 python -m pytest tests/test_fuzz.py; other ones: LIPSYNC_FUZZ_FIRST=...
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzzing import make_seeds

REPO = Path(__file__).resolve().parent.parent
CASES = int(os.environ.get("LIPSYNC_FUZZ_CASES", "3000"))
FIRST = int(os.environ.get("LIPSYNC_FUZZ_FIRST", "0"))
PROCESSES = 2
_MEMORY_MB = 450
"""Peak of one process, with all that its libraries need (about 150)."""


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    (tmp_path / "seeds").mkdir()
    make_seeds(tmp_path / "seeds")
    return tmp_path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is measured as Linux tells it")
def test_every_damaged_file_is_read_or_refused(seeds: Path):
    each = -(-CASES // PROCESSES)
    running = [_start(seeds, FIRST + index * each, each) for index in range(PROCESSES)]
    read = [0, 0, 0]
    # The limit on processor time per case ends a loop; this one a process that sleeps for ever.
    for process in running:
        output, errors = process.communicate(timeout=300 + each)
        last = output.strip().splitlines()[-1] if output.strip() else "the start"
        repeat = f"python -m tests.fuzzing FOLDER --first {last}"
        assert process.returncode == 0, f"ended with {process.returncode} in case {last} ({repeat}):\n{errors[-3000:]}"
        *good, memory = map(int, last.split()[1:])
        assert memory < _MEMORY_MB
        read = [total + one for total, one in zip(read, good, strict=True)]
    # Not everything is refused at once: many cases get as far as pictures, sound and a new file.
    assert read[0] > CASES / 5 and read[1] > CASES / 5 and read[2] > CASES / 30, read


def test_a_case_that_is_not_handled_is_noticed(seeds: Path):
    """The test above can fail: a reader that lets one exception out ends the process with its case's number."""
    broken = (
        "import tests.fuzzing as f, sys\n"
        "def bad(path, folder): raise KeyError('not handled')\n"
        "f._read_sound = bad\n"
        "f.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", broken, str(seeds), "--count", "2"]
    run = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120)

    assert run.returncode == 1 and "KeyError" in run.stderr and run.stdout.split() == ["0"]


def _start(folder: Path, first: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.fuzzing", str(folder), "--first", str(first), "--count", str(count)]
    return subprocess.Popen(
        command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "SVT_LOG": "0"}
    )
