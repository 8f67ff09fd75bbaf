"""Work done ahead of time by threads, in order and within bounds: reading images while a network computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead", "reading_threads"]

T = TypeVar("T")
R = TypeVar("R")

_MOST = 8


def reading_threads() -> int:
    """Return how many threads read images: half of the processor's cores, at least one and at most eight."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST, cores // 2))


def ahead(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yield ``work(item)`` for each item in order, while threads work on the next ones.

    At most ``threads + 1`` results wait or are worked on. An error of an item is raised when its turn comes, and what
    was not begun by then is not done.

    Args:
        work: of what releases Python's lock, such as decoding an image, several run at once.
        items: asked for one after another, by the thread that asks for results.
        threads: 0 works in line.

    Example:
        >>> list(ahead(str.upper, "abc", threads=2))
        ['A', 'B', 'C']
    """
    if threads < 1:
        yield from map(work, items)
        return
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
