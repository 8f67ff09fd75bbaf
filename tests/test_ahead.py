"""Work ahead of time: in order, bounded, errors in their turn, nothing left running."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occluded_reid.ahead import ahead, reading_threads


@given(st.lists(st.integers()), st.integers(0, 5))
def test_results_come_in_order(items: list[int], threads: int) -> None:
    assert list(ahead(lambda item: item * 2, items, threads)) == [item * 2 for item in items]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_no_more_is_asked_for_than_may_wait(threads: int) -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            asked.append(item)
            yield item

    for taken, _ in enumerate(ahead(lambda item: item, items(), threads), start=1):
        assert len(asked) <= taken + threads


def test_it_is_worked_on_while_the_result_before_is_used() -> None:
    begun = [threading.Event() for _ in range(2)]

    def work(item: int) -> int:
        begun[item].set()
        return item

    results = ahead(work, range(2), threads=1)
    assert next(results) == 0
    assert begun[1].wait(10)


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_comes_in_its_turn_and_ends_it(threads: int) -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise ValueError("the third")
        return item

    got: list[int] = []
    with pytest.raises(ValueError, match="the third"):
        got.extend(ahead(work, range(100), threads))
    assert got == [] or got == [0, 1, 2]
    assert max(begun) <= 3 + threads + 1
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_whoever_stops_early_leaves_nothing_running() -> None:
    results = ahead(lambda item: time.sleep(0.01), range(100), threads=2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_reading_threads_fit_the_processor() -> None:
    assert 1 <= reading_threads() <= 8
