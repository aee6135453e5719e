"""Stages in threads: order, bounded queues, exceptions, and that no thread is left."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests import threads
from utils.stages import Stages


def count_to(number: int, made: list[int] | None = None):
    def stage(_: Iterator) -> Iterator[int]:
        for i in range(number):
            if made is not None:
                made.append(i)
            yield i

    return stage


def double(numbers: Iterator[int]) -> Iterator[int]:
    for number in numbers:
        yield number * 2


def slowly(numbers: Iterator[int]) -> Iterator[int]:
    for number in numbers:
        time.sleep(0.02)
        yield number


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    with threads.none_left():
        yield


def test_results_come_in_order() -> None:
    with Stages({"count": count_to(100), "double": double}, depth=3) as results:
        assert list(results) == list(range(0, 200, 2))


def test_a_stage_may_ask_again_after_the_end() -> None:
    def twice(numbers: Iterator[int]) -> Iterator[int]:
        yield from numbers
        yield from numbers

    with Stages({"count": count_to(3), "twice": twice}, depth=3) as results:
        assert list(results) == [0, 1, 2]
        assert list(results) == []


def test_a_fast_stage_waits_for_a_slow_one() -> None:
    made: list[int] = []
    with Stages({"count": count_to(1000, made), "double": double}, depth=4) as results:
        assert [next(results) for _ in range(3)] == [0, 2, 4]
        time.sleep(0.3)
        assert len(made) <= 3 + 2 * 4 + 3  # read, waiting in two queues, in the hands of the stages


def test_only_work_is_counted_as_work() -> None:
    stages = Stages({"count": count_to(10), "slow": slowly, "double": double}, depth=2)
    with stages as results:
        list(results)
    assert 0.2 <= stages.seconds["slow"] < 0.6
    assert stages.seconds["double"] < 0.1


@pytest.mark.parametrize("where", ["first", "second", "last"])
def test_an_exception_comes_out_once_and_stops_everything(where: str) -> None:
    def fails(numbers: Iterator[int]) -> Iterator[int]:
        for number in numbers:
            if number == 5:
                raise ValueError("five")
            yield number

    def fails_at_once(_: Iterator) -> Iterator[int]:
        yield from count_to(5)(_)
        raise ValueError("five")

    order = {
        "first": {"a": fails_at_once, "b": double},
        "second": {"a": count_to(1000), "b": fails, "c": slowly},
        "last": {"a": count_to(1000), "b": slowly, "c": fails},
    }[where]
    seen = []
    with pytest.raises(ValueError, match="five"), Stages(order, depth=2) as results:
        seen.extend(results)
    assert len(seen) == 5


def test_leaving_early_stops_the_stages_and_closes_them() -> None:
    closed = []

    def careful(_: Iterator) -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.append(True)

    with pytest.raises(KeyboardInterrupt), Stages({"a": careful, "b": double}, depth=2) as results:
        next(results)
        raise KeyboardInterrupt
    assert closed == [True]
