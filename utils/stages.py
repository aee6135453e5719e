"""Stages of work that run at the same time, joined by bounded queues.

A stage is a generator function: it takes an iterator and yields. Each one runs in a thread of its own and
hands its results on through a queue of fixed length, so memory stays bounded and a fast stage waits for a
slow one. The first exception of any stage comes out of the last iterator; leaving the block stops them all.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

Stage = Callable[[Iterator[Any]], Generator[Any, None, None]]
Result = TypeVar("Result")

_END = object()
_POLL_S = 0.1  # how soon a waiting thread notices that all shall stop
_thread = threading.local()


class _Stopped(BaseException):
    """The block was left while a stage waited; never leaves this module."""


def stop_point() -> None:
    """Call this now and then in a stage's long work: it ends there when all shall stop; elsewhere nothing happens."""
    stages = getattr(_thread, "stages", None)
    if stages is not None and stages.stopped:
        raise _Stopped


@contextlib.contextmanager
def when_stopped(action: Callable[[], None]) -> Iterator[None]:
    """While this block lasts in a stage, `action` is called (by another thread) when all shall stop.

    For work inside a library that can be told to give up, but cannot come by a `stop_point`.
    """
    stages = getattr(_thread, "stages", None)
    if stages is None:
        yield
        return
    with stages.interrupting(action):
        stop_point()  # it may have happened before
        yield


class _Pipe(Iterator[Any]):
    """A bounded queue between two stages, read as an iterator; also measures how long its reader waited."""

    def __init__(self, depth: int, stop: threading.Event):
        self.waited = 0.0
        self.while_waiting: Callable[[], None] | None = None
        self._ended = False
        self._queue: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(depth)
        self._stop = stop

    def put(self, item: Any, error: BaseException | None = None) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put((item, error), timeout=_POLL_S)
            except queue.Full:
                continue
        raise _Stopped

    def __next__(self) -> Any:
        if self._ended:  # an iterator may be asked again after its end
            raise StopIteration
        started = time.perf_counter()
        item, error = self._get()
        self.waited += time.perf_counter() - started
        if error is not None:
            raise error
        if item is _END:
            self._ended = True
            raise StopIteration
        return item

    def _get(self) -> tuple[Any, BaseException | None]:
        while not self._stop.is_set():
            try:
                return self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                if self.while_waiting is not None:
                    self.while_waiting()
        raise _Stopped


class Stages:
    """Run named stages in threads. As a context manager it gives the iterator of the last stage's results.

    Args:
        stages: names and generator functions, first to last; the first one gets an empty iterator.
        depth: results that wait between two stages at most.
        while_waiting: called about ten times a second while the block waits for results; what it raises comes out
            of the iterator.

    Attributes:
        seconds: by name, the time that each stage worked, without waiting for its neighbours.
    """

    def __init__(self, stages: dict[str, Stage], depth: int = 8, while_waiting: Callable[[], None] | None = None):
        self.seconds = dict.fromkeys(stages, 0.0)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._interrupts: list[Callable[[], None]] = []
        source = _Pipe(1, self._stop)
        source.put(_END)
        for name, stage in stages.items():
            results = _Pipe(depth, self._stop)
            work = (name, stage, source, results)
            self._threads.append(threading.Thread(target=self._work, args=work, name=name, daemon=True))
            source = results
        source.while_waiting = while_waiting
        self._results = source

    def __enter__(self) -> Iterator[Any]:
        for thread in self._threads:
            thread.start()
        return self._results

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for interrupt in tuple(self._interrupts):
            interrupt()
        for thread in self._threads:
            thread.join()

    @property
    def stopped(self) -> bool:
        """Whether the stages shall end."""
        return self._stop.is_set()

    @contextlib.contextmanager
    def interrupting(self, action: Callable[[], None]) -> Iterator[None]:
        """See `when_stopped`."""
        self._interrupts.append(action)
        try:
            yield
        finally:
            self._interrupts.remove(action)

    def _work(self, name: str, stage: Stage, source: _Pipe, results: _Pipe) -> None:
        """Body of a thread: run one stage to its end and hand on its results, or its exception."""
        _thread.stages = self
        produced = stage(source)
        try:
            self._hand_on(name, produced, source, results)
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again where the results are read
            self._fail(results, error)
        finally:
            produced.close()

    def _hand_on(self, name: str, produced: Iterator[Any], source: _Pipe, results: _Pipe) -> None:
        item = None
        while item is not _END:
            started, waited = time.perf_counter(), source.waited
            item = next(produced, _END)
            self.seconds[name] += time.perf_counter() - started - (source.waited - waited)
            results.put(item)

    @staticmethod
    def _fail(results: _Pipe, error: BaseException) -> None:
        try:
            results.put(None, error)
        except _Stopped:
            pass


def in_background(work: Callable[[], Result], while_waiting: Callable[[], None]) -> Result:
    """Do one long piece of work in a thread; `while_waiting` is called meanwhile, as in `Stages`."""

    def stage(_: Iterator[Any]) -> Generator[Result, None, None]:
        yield work()

    with Stages({"work": stage}, 1, while_waiting) as results:
        return next(results)
