"""Files that the browser may name: what somebody has uploaded; and what may be fetched besides: what a job was made
from, its first seconds, and its result.

Uploads lie in a folder of whoever sent them, and go after a day. What is shown of a job lies under the job's id, and is
a link to the job's own files wherever the disk can do that; it goes when these go.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving.jobs.jobs import JobService
from serving.jobs.limits import PAGE_SHOWN, PAGE_UPLOADS, uploads_of
from serving.jobs.store import ACTIVE, DONE, Job
from serving.page.wish import Wish

UPLOADS_KEPT_S = 86400.0

_SWEEP_S = 60.0
_INPUT, _SPEECH, _WISH = "before", "speech", "wish.json"  # in the folder of what is shown of a job
_NAME, _LONGEST_NAME = "name.txt", 100  # beside an upload


class PageFiles:
    """See above.

    Args:
        service: the jobs; the files lie in its data folder.
        examples: files that everybody may name.
    """

    def __init__(self, service: JobService, examples: Collection[Path] = ()):
        data = service.config.data_dir.resolve()
        self.uploads, self.folder = data / PAGE_UPLOADS, data / PAGE_SHOWN
        for path in (self.uploads, self.folder):
            path.mkdir(parents=True, exist_ok=True)
        self._service = service
        self._examples = {path.resolve() for path in examples}

    # ---- what a client names ----

    def new_folder(self, owner: str) -> Path:
        """An empty folder for one upload of somebody."""
        folder = self._of(owner) / uuid.uuid4().hex
        folder.mkdir(parents=True)
        return folder

    def note_name(self, upload: Path, name: str) -> None:
        """Remember what the browser calls an upload: to be shown, never a path."""
        plain = "".join(one for one in name.replace("\\", "/").rpartition("/")[2] if one.isprintable())
        (upload.parent / _NAME).write_text(plain[:_LONGEST_NAME], encoding="utf-8")

    def name_of(self, upload: Path) -> str:
        """What the browser calls an upload; "" for what has come from its camera or microphone."""
        if upload in self._examples:
            return upload.name
        try:
            return (upload.parent / _NAME).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def _of(self, owner: str) -> Path:
        return uploads_of(self._service.config.data_dir.resolve(), owner)

    def usable(self, path: Any, owner: str) -> Path | None:
        """The file that a client names as its own upload or an example; None: it may not be used, or is not there.

        Args:
            path: what the client says, of any type.
            owner: whose request it is.
        """
        found = _plain_file(path)
        if found is None:
            return None
        return found if found in self._examples or self._of(owner) in found.parents else None

    def readable(self, path: str, owner: str) -> Path | None:
        """The file that a client wants to see: as `usable`, or shown of one of its own jobs; else None."""
        found = self.usable(path, owner)
        if found is None and (shown := _plain_file(path)) is not None and self.folder in shown.parents:
            job = self._service.store.get(shown.relative_to(self.folder).parts[0])
            found = shown if job is not None and job.owner == owner else None
        return found

    # ---- what a job shows ----

    def keep(self, job_id: str, wish: Wish) -> None:
        """Keep what a job was made from, to be shown beside the result and to be used again."""
        folder = self.folder / job_id
        folder.mkdir(exist_ok=True)
        names = {}
        for kind, path in ((_INPUT, wish.source), (_SPEECH, wish.speech)):
            if path is not None:
                link_or_copy(Path(path), folder / f"{kind}{Path(path).suffix.lower()}")
                names[kind] = self.name_of(Path(path))
        told = {"wish": wish.without_files(), "names": names}
        (folder / _WISH).write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")

    def input_of(self, job_id: str) -> Path | None:
        """The video or picture that a job was made from; None if it is not kept."""
        return next((self.folder / job_id).glob(f"{_INPUT}.*"), None)

    def names_of(self, job_id: str) -> dict[str, str]:
        """What the browser calls the files that a job was made from: "before" and "speech"; what is unknown is left
        out."""
        return self._told(job_id).get("names", {})

    def again(self, job_id: str, owner: str) -> Wish | None:
        """What a job was made from, as if it had just been uploaded; None if it is not kept.

        Args:
            job_id: a job of this owner.
            owner: whose uploads they become.
        """
        told = self._told(job_id)
        source, speech = self.input_of(job_id), next((self.folder / job_id).glob(f"{_SPEECH}.*"), None)
        if not told or source is None:
            return None
        names = told["names"]
        files = [
            None if path is None else str(self._uploaded(path, owner, names.get(kind, "")))
            for kind, path in ((_INPUT, source), (_SPEECH, speech))
        ]
        return Wish.with_files(told["wish"], *files)

    def _told(self, job_id: str) -> dict[str, Any]:
        try:
            return json.loads((self.folder / job_id / _WISH).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}

    def _uploaded(self, path: Path, owner: str, name: str) -> Path:
        target = self.new_folder(owner) / f"upload{path.suffix}"
        link_or_copy(path, target)
        self.note_name(target, name)
        return target

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
        """Delete what is shown of jobs whose own files are gone, and old uploads."""
        for path in self.uploads.glob("*/*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - UPLOADS_KEPT_S:
                    shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.iterdir():
            job = self._service.store.get(path.name)
            if job is None or not (job.state in (*ACTIVE, DONE) or job.is_retryable):
                self.remove(path.name)

    def sweep_until(self, stopping: threading.Event) -> None:
        """Sweep now and then, until the event is set."""
        while not stopping.wait(_SWEEP_S):
            with suppress(OSError, *self._service.store.faults):  # the next one comes in a minute
                self.sweep()


def _plain_file(path: Any) -> Path | None:
    """The absolute path of a file that is named without detours; None for everything else."""
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        return None
    try:
        found = Path(path).resolve(strict=True)
    except (OSError, RuntimeError):  # is not there, too long, links in a circle
        return None
    return found if str(found) == path and found.is_file() else None


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
