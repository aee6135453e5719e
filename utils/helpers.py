"""Small things that every room of the project uses."""

from __future__ import annotations

import contextlib
import os
import random
import re
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.abandoned import held, sweep
from utils.stopping import removed_at_the_end

if TYPE_CHECKING:
    import torch


_TEMPORARY_FILE = re.compile(r"\.tmp-[0-9a-f]{32}(\..*)?")
_TEMPORARY_FOLDER = re.compile(r"lipsync-[0-9a-f]{32}")
_NO_TEMPORARY = "Cannot make a temporary folder ({}); set TMPDIR to a folder with some space."


class InputError(ValueError):
    """The user's input cannot be used.

    The message is one clear sentence that says what is wrong and what to do. The command line
    prints it and exits with code 2, the web service answers with a 4xx status.

    Args:
        sentence: the message.
        code: the same for programs, such as "no-face"; it stays as it is when the sentence is worded anew.
    """

    def __init__(self, sentence: str, code: str = "bad-input"):
        super().__init__(sentence)
        self.code = code


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `target` that becomes `target` only if the block succeeds.

    The temporary name starts with a dot and keeps the suffix of the target, because libraries choose
    the file format by it. Missing parent folders are made; what a killed run has left there is removed.

    Args:
        target: the final path of a file.

    Yields:
        An empty file in the same folder, to be overwritten.

    Raises:
        InputError: the folder cannot be made or written, or the target is a folder.
    """
    target = Path(target)
    if target.is_dir():
        raise InputError(f"Cannot write {target}: it is a folder; give the name of a file.")
    with removed_at_the_end(target.with_name(f".tmp-{uuid.uuid4().hex}{target.suffix}")) as temporary:
        _make_empty(temporary)
        sweep(temporary.parent, _TEMPORARY_FILE)
        with held(temporary):
            yield temporary
        # Until it is complete only the owner may read it; results should follow the user's umask.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(target)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder, that only its owner may enter, in the system's place for such; removed when the block ends.

    Raises:
        InputError: there is no such place, or it is full.
    """
    try:
        place = Path(tempfile.gettempdir())
    except OSError as error:
        raise InputError(_NO_TEMPORARY.format(error.strerror)) from error
    with removed_at_the_end(place / f"lipsync-{uuid.uuid4().hex}") as folder:
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise InputError(_NO_TEMPORARY.format(error.strerror)) from error
        sweep(place, _TEMPORARY_FOLDER)
        with held(folder):
            yield folder


def _make_empty(path: Path) -> None:
    """Make a new file that only its owner may read, and missing parent folders."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as error:
        raise InputError(
            f"Cannot write into the folder {path.parent} ({error.strerror}); choose another output folder."
        ) from error


def parse_seconds(text: str) -> float:
    """Read a length of time such as "60", "60s" or "1.5m", in seconds.

    Raises:
        InputError: it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m)?", text.strip())
    if match is None:
        raise InputError(f"The time '{text}' is not known; write for example 60s, 90 or 1.5m.")
    return float(match[1]) * (60.0 if match[2] == "m" else 1.0)


def resolve_device(name: str = "auto") -> torch.device:
    """Turn a device name from the command line or the config into a torch device.

    Args:
        name: "auto" (a CUDA GPU where there is one, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: the name is unknown, or the GPU that it names is not there.
    """
    import torch  # takes seconds, and most users of this module do without it

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"Unknown device '{name}'; use auto, cpu or cuda.") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"Unknown device '{name}'; use auto, cpu or cuda.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"PyTorch finds no GPU for the device '{name}'; use --device cpu.")
    return device


def available_cores() -> int:
    """CPU cores that this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch use so many CPU threads for one operation, in this block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch (all devices) with one number."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
