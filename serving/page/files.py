"""Files that the browser may fetch: what a job was made from, its first seconds, and its result.

They lie under the job's id, which nobody can guess, and are links to the job's own files wherever the disk can do
that. They go when the job's own files go.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from serving.jobs.jobs import JobService
from serving.jobs.store import ACTIVE, DONE, Job

_SWEEP_S = 60.0
_INPUT = "before"


class PageFiles:
    """See above.

    Args:
        folder: where they lie; made if it is missing.
        service: the jobs.
    """

    def __init__(self, folder: Path, service: JobService):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._service = service

    def keep_input(self, job_id: str, path: Path) -> None:
        """Keep the video or picture that a job was made from, to be shown beside the result."""
        target = self.folder / job_id / f"{_INPUT}{path.suffix.lower()}"
        target.parent.mkdir(exist_ok=True)
        link_or_copy(path, target)

    def input_of(self, job_id: str) -> Path | None:
        """What was kept by `keep_input`; None if there is nothing."""
        return next((self.folder / job_id).glob(f"{_INPUT}*"), None)

    def fetch(self, job: Job, name: str) -> Path | None:
        """A file of the job's folder for the browser; None if it is gone."""
        target = self.folder / job.id / name
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            try:
                with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # complete, or not there
                    link_or_copy(self._service.files.fetch(job.id, name, Path(folder)), target)
            except FileNotFoundError:
                return None
        return target

    def remove(self, job_id: str) -> None:
        """Delete all that is shown of a job."""
        shutil.rmtree(self.folder / job_id, ignore_errors=True)

    def sweep(self) -> None:
        """Delete what is shown of jobs whose own files are gone."""
        for path in self.folder.iterdir():
            job = self._service.store.get(path.name)
            if job is None or job.state not in (*ACTIVE, DONE):
                self.remove(path.name)

    def sweep_until(self, stopping: threading.Event) -> None:
        """Sweep now and then, until the event is set."""
        while not stopping.wait(_SWEEP_S):
            with suppress(OSError, *self._service.store.faults):  # the next one comes in a minute
                self.sweep()


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that nobody writes to any more a second name; a copy on disks, or between disks, that cannot do it.

    Raises:
        FileNotFoundError: there is no such file.
    """
    temporary = target.with_name(f".{target.name}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)
