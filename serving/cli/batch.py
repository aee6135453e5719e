"""A list of videos to make, from a CSV file: `--batch jobs.csv`.

A column is named like an option of the command line, without its dashes; what the command line itself says holds for
all rows that say nothing else. What is finished is remembered in a small file beside the list, so the same command
goes on where it was stopped and makes only what is new or changed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.options import COLOUR_PATTERN
from pipeline.text_file import read_text
from serving.cli.making import TrackJob, VideoJob
from serving.cli.results import Results
from utils.disk import FULL, is_disk_full
from utils.helpers import InputError, atomic_path
from utils.stopping import Stopped, say_when_stopped, stop_requested

Job = VideoJob | TrackJob

PATH_COLUMNS = ("video", "audio", "text_file", "output", "track", "onto", "sprites")
"""Columns with names of files; relative ones count from the folder of the list."""

_BEGUN = "begun"
_SEPARATORS = ",;\t"
_YES, _NO = ("1", "yes", "true", "x"), ("0", "no", "false")


@dataclass(frozen=True)
class Row:
    """A row of the list: the line where it begins, counted from 1, and its cells that are not empty."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Columns:
    """The columns that a list may have.

    Attributes:
        values: names of options that take a value.
        switches: names of options that are on or off.
    """

    values: frozenset[str]
    switches: frozenset[str]

    def arguments(self, row: Row, folder: Path) -> list[str]:
        """The row as arguments of the command line.

        Raises:
            InputError: a switch is neither on nor off.
        """
        found = []
        for name, cell in row.cells.items():
            option = "--" + name.replace("_", "-")
            if name in self.values:
                named = name in PATH_COLUMNS or (name == "background" and not re.match(COLOUR_PATTERN, cell))
                found.append(f"{option}={folder / cell if named else cell}")
            elif cell.lower() in _YES:
                found.append(option)
            elif cell.lower() not in _NO:
                raise InputError(f"Line {row.line}, column {name}: write yes or no instead of '{cell}'.")
        return found


@dataclass
class Outcome:
    """What became of the rows: how many were done and skipped, and a sentence for each that failed."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """For a person to read."""
        total, counts = self.counts.total(), self.counts
        first = f"{total} rows: {counts['done']} done, {counts['skipped']} finished before, {counts['failed']} failed"
        return "\n".join([first, *(f"  {failure}" for failure in self.failures)])


def read_rows(path: Path, columns: Columns) -> list[Row]:
    """The rows of a list: comma, semicolon or tab between the cells; empty lines and lines with # count as nothing.

    Raises:
        InputError: it cannot be read, a column is not known or there twice, or there are no rows; names the line.
    """
    lines = _lines(path)
    header_line, header = next(lines, (0, []))
    names = [name.strip().lower().replace("-", "_") for name in header]
    for name, count in Counter(names).items():
        if name not in columns.values | columns.switches:
            known = ", ".join(sorted(columns.values | columns.switches))
            raise InputError(f"{path}, line {header_line}: the column '{name}' is not known; there are {known}.")
        if count > 1:
            raise InputError(f"{path}, line {header_line}: the column '{name}' is there twice; remove one.")
    rows = []
    for line, cells in lines:
        if len(cells) > len(names):
            raise InputError(
                f"{path}, line {line}: there are {len(cells)} cells but only {len(names)} columns; put cells that "
                "contain the separator in double quotes."
            )
        rows.append(Row(line, {name: cell for name, cell in zip(names, cells, strict=False) if cell}))
    if not rows:
        raise InputError(f"There is nothing to do in {path}: it has no rows below the names of the columns.")
    return rows


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Cells, without the space around them, of each line that says something, and where it begins."""
    text = read_text(path)
    first = next((line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    separator = max(_SEPARATORS, key=first.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True)
    begins = 1
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells) and not cells[0].startswith("#"):
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, line {begins}: this is no table of cells ({error}); save it as CSV.") from error


def check_files(jobs: Sequence[tuple[Row, Job]]) -> None:
    """Refuse rows that would write over each other, or over what another one reads.

    Raises:
        InputError: names both lines.
    """
    writers: dict[Path, int] = {}
    for row, job in jobs:
        for written in (job.output, *([job.subtitles] if job.subtitles else [])):
            first = writers.setdefault(written.resolve(), row.line)
            if first != row.line:
                raise InputError(f"Lines {first} and {row.line} both write {written}; give one of them another output.")
    for row, job in jobs:
        for read in job.inputs:
            if (writer := writers.get(read.resolve())) is not None:
                raise InputError(f"Line {writer} would write {read}, which line {row.line} reads; rename the output.")


class Finished:
    """Which rows are finished, kept in a file beside the list.

    A row counts as finished while what it says, its input files and its result are the same (files: size and time).

    Args:
        table: the list.
        forget: nothing counts as finished yet.
    """

    def __init__(self, table: Path, forget: bool = False):
        self._path = table.with_name(f".{table.name}.done.json")
        self._known: dict[str, list[str]] = {}
        self._before: list[str] | None = None
        self._replaces = forget
        if forget:
            return
        try:
            self._known = dict(json.loads(self._path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            pass  # not there yet, or not ours: everything is made, and then remembered

    def __contains__(self, job: Job) -> bool:
        return job.output.is_file() and self._known.get(str(job.output.resolve())) == _fingerprints(job)

    def check(self, jobs: Sequence[tuple[Row, Job]]) -> None:
        """Refuse rows whose output is a file that was not made from this list, or was changed since.

        Raises:
            InputError: names the line.
        """
        for row, job in () if self._replaces else jobs:
            known = self._known.get(str(job.output.resolve()))
            ours = known is not None and known[-1] in (_BEGUN, repr(_state(job.output)))
            there = next((path for path in (job.output, job.subtitles) if path is not None and path.exists()), None)
            if there is not None and not ours and (job.output.exists() or known is None):
                raise InputError(
                    f"Line {row.line}: the file {there} exists and was not made from this list as it is; give another "
                    "output, or --overwrite to replace such files."
                )

    def begin(self, job: Job) -> None:
        """Remember that the output of a job will be ours, also if we are killed before it is noted as finished."""
        self._before = self._known.get(str(job.output.resolve()))
        self._save(job, [_BEGUN])

    def failed(self, job: Job) -> None:
        """Take back `begin`: what is there now was there before."""
        self._save(job, self._before)

    def add(self, job: Job) -> None:
        """Remember a job that has just been finished."""
        self._save(job, _fingerprints(job))

    def _save(self, job: Job, said: list[str] | None) -> None:
        self._known.pop(str(job.output.resolve()), None)
        if said is not None:
            self._known[str(job.output.resolve())] = said
        with atomic_path(self._path) as temporary:
            temporary.write_text(json.dumps(self._known, indent=1), encoding="utf-8")


def _fingerprints(job: Job) -> list[str]:
    """Of what goes into a job, and of its result."""
    asked = repr((job.options, job.spoken, job.subtitles, [(str(path), *_state(path)) for path in job.inputs]))
    return [hashlib.sha256(asked.encode()).hexdigest(), repr(_state(job.output))]


def _state(path: Path) -> tuple[int, int]:
    """Size and time of the last change of a file; zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def run_batch(
    jobs: Sequence[tuple[Row, Job]],
    finished: Finished,
    make: Callable[[Job], Mapping[str, object]],
    results: Results,
    debug: bool = False,
) -> Outcome:
    """Make all that is not finished; a row that fails does not keep the next ones from being made.

    Args:
        jobs: rows and what they ask for.
        finished: what need not be made again.
        make: makes one video or track, and tells what is to stand in the results.
        results: takes note of each row.
        debug: show the trace of unexpected errors.
    """
    say_when_stopped("Stopped; what is finished stays finished, and the same command goes on.")
    outcome = Outcome()
    for number, (row, job) in enumerate(jobs, start=1):
        label = f"[{number}/{len(jobs)}] {job.output}"
        if job in finished:
            outcome.counts["skipped"] += 1
            results.add(row.line, job.output, "skipped", 0.0, {})
            print(f"{label}: finished before", file=sys.stderr, flush=True)
            continue
        print(label, file=sys.stderr, flush=True)
        started = time.monotonic()
        told, problem = _attempt(job, finished, make, debug)
        status = "done" if problem is None else "failed"
        outcome.counts[status] += 1
        told = told if problem is None else {"error": problem}
        results.add(row.line, job.output, status, time.monotonic() - started, told)
        if problem is not None:
            outcome.failures.append(f"line {row.line}, {job.output}: {problem}")
            print(f"error: {problem}", file=sys.stderr, flush=True)
    return outcome


def _attempt(
    job: Job, finished: Finished, make: Callable[[Job], Mapping[str, object]], debug: bool
) -> tuple[Mapping[str, object], str | None]:
    """Make one video or track; what it tells, and a sentence about what went wrong, or None."""
    try:
        finished.begin(job)
        told = make(job)
        finished.add(job)
    except InputError as error:
        finished.failed(job)
        return {}, str(error)
    except Exception as error:  # noqa: BLE001 - the other rows can still be made
        if stop_requested():  # libraries turn it into errors of their own
            raise Stopped from error
        if debug:
            traceback.print_exc()
        with suppress(OSError):  # the disk may be full
            finished.failed(job)
        return {}, FULL if is_disk_full(error) else f"unexpected error: {type(error).__name__}: {error}"
    return told, None
