"""Ctrl-C and polite kills: the program ends within a second, quietly, and leaves nothing half-made.

The first signal raises `Stopped` in the main thread, so that everything is closed in good order; later ones change
nothing. What cannot be asked to end (a long computation, a library that is being loaded) is ended by force a moment
later. Files and folders that must not be left are known here, so they are removed either way.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

_GRACE_S = 0.6
"""Seconds for ending in good order."""

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
_FIRST_CODE = 128  # the shell's exit code of a program that a signal ended is this plus the signal's number

_leftovers: set[Path] = set()
_active: list[StopSignals] = []  # at most one


class Stopped(KeyboardInterrupt):
    """The user, or the system, wants the program to end."""


@contextlib.contextmanager
def removed_at_the_end(path: Path) -> Iterator[Path]:
    """Remove a file or folder when the block ends, or the program is stopped; it need not be there.

    Enter the block before it is made: a signal may come at any moment.
    """
    known = path.absolute()
    _leftovers.add(known)
    try:
        yield path
    finally:
        _remove(known)
        _leftovers.discard(known)


def stop_requested() -> bool:
    """Whether a signal has come already: what fails now fails because of it."""
    return any(signals.exit_code is not None for signals in _active)


def say_when_stopped(farewell: str) -> None:
    """What the user is told if a signal comes from now on."""
    for signals in _active:
        signals.farewell = farewell


class StopSignals:
    """While this block lasts, Ctrl-C, SIGTERM and SIGHUP stop the program. For the main thread.

    A signal that the program was started to ignore (nohup, background jobs of a shell) stays ignored. `Stopped`
    does not leave the block: look at `exit_code` after it.

    Attributes:
        farewell: the line that is printed on standard error.
        exit_code: None, or after a signal 128 plus its number: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, farewell: str = "Stopped; nothing half-made is left behind."):
        self.farewell = farewell
        self.exit_code: int | None = None
        self._closing = False
        self._ended = threading.Event()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        # The system writes each signal into this line at once, also while the main thread is busy outside Python.
        self._line, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        self._bell_before = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        self._watch = threading.Thread(target=self._watch_line, name="stop-signals", daemon=True)
        self._watch.start()
        _active.append(self)
        for number in _SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._previous[number] = signal.signal(number, self._received)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        self._closing = True
        _active.remove(self)
        stopped = self.exit_code is not None
        if stopped:
            _remove_leftovers()
        self._ended.set()
        signal.set_wakeup_fd(self._bell_before)
        self._bell.close()
        self._watch.join()
        self._line.close()
        sys.unraisablehook = self._hook
        if stopped:  # the process is about to end, and stays deaf until then
            print(self.farewell, file=sys.stderr, flush=True)
            return True
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        return False

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self.exit_code is None and not self._closing:
            self.exit_code = _FIRST_CODE + number
            raise Stopped

    def _unraisable(self, unraisable: Any) -> None:
        """Python reports here what it cannot raise, such as `Stopped` in a callback of a C library."""
        if self.exit_code is None:
            self._hook(unraisable)

    def _watch_line(self) -> None:
        """Body of a thread: a moment after the first signal that is ours, end what has not ended."""
        number = 0
        while number not in self._previous:
            received = self._line.recv(1)
            if not received:
                return
            number = received[0]
        if not self._ended.wait(_GRACE_S):
            _remove_leftovers()
            with contextlib.suppress(OSError):
                os.write(2, f"{self.farewell}\n".encode())
            os._exit(_FIRST_CODE + number)


def end_process(code: int) -> NoReturn:
    """End the program with this exit code, without waiting for threads that a stop has left at work."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if code > _FIRST_CODE:
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def _remove_leftovers() -> None:
    for path in tuple(_leftovers):
        with contextlib.suppress(OSError):
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; what is missing is fine."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        pass
