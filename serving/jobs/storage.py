"""The files of jobs: one folder for each, in a local folder or anywhere that fsspec reaches (s3://, gs://, ...)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from utils.helpers import InputError

_PIECE = 1 << 20


class JobFiles:
    """Files of jobs by job id and file name. Both are our own names, never a client's.

    Args:
        url: a folder, or an fsspec URL of one.

    Raises:
        InputError: fsspec does not know that kind of URL, or a package for it is missing.
    """

    def __init__(self, url: str):
        try:
            self._system, self._root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise InputError(f"The storage {url} cannot be used: {error}.") from error
        self._is_local = isinstance(self._system, LocalFileSystem)
        self._system.makedirs(self._root, exist_ok=True)

    def _folder(self, job_id: str) -> str:
        return f"{self._root}/{job_id}"

    def _file(self, job_id: str, name: str) -> str:
        return f"{self._root}/{job_id}/{name}"

    def put(self, job_id: str, name: str, source: Path) -> None:
        """Move a local file into a job's folder."""
        self._system.makedirs(self._folder(job_id), exist_ok=True)
        if self._is_local:
            shutil.move(source, self._file(job_id, name))
        else:
            self._system.put_file(str(source), self._file(job_id, name))
            source.unlink()

    def fetch(self, job_id: str, name: str, folder: Path) -> Path:
        """A local path of a file: the file itself where it is local, else a copy in `folder`.

        Raises:
            FileNotFoundError: there is no such file.
        """
        if self._is_local:
            if not self._system.exists(self._file(job_id, name)):
                raise FileNotFoundError(name)
            return Path(self._file(job_id, name))
        self._system.get_file(self._file(job_id, name), str(folder / name))
        return folder / name

    def size(self, job_id: str, name: str) -> int:
        """Bytes of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return int(self._system.size(self._file(job_id, name)))

    def open(self, job_id: str, name: str) -> BinaryIO:
        """A file for reading, which can seek.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return self._system.open(self._file(job_id, name), "rb")

    def read(self, job_id: str, name: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes start <= i < end of a file, in pieces.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with self.open(job_id, name) as file:
            file.seek(start)
            while start < end:
                piece = file.read(min(_PIECE, end - start))
                if not piece:
                    return
                start += len(piece)
                yield piece

    def remove(self, job_id: str, name: str | None = None) -> None:
        """Delete one file of a job, or all of them; what is not there is fine."""
        path = self._folder(job_id) if name is None else self._file(job_id, name)
        try:
            self._system.rm(path, recursive=name is None)
        except FileNotFoundError:
            pass

    def names(self, job_id: str) -> list[str]:
        """Names of a job's files."""
        try:
            found = self._system.ls(self._folder(job_id), detail=False)
        except FileNotFoundError:
            return []
        return [path.rstrip("/").rpartition("/")[2] for path in found]

    def age(self, job_id: str) -> float:
        """Seconds since a file came into a job's folder or left it; 0 where the storage does not tell."""
        try:
            return time.time() - Path(self._folder(job_id)).stat().st_mtime if self._is_local else 0.0
        except FileNotFoundError:
            return 0.0

    def jobs(self) -> list[str]:
        """Ids of all jobs that have a folder."""
        return [path.rstrip("/").rpartition("/")[2] for path in self._system.ls(self._root, detail=False)]
