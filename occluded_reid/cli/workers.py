"""Which share of the work is this process's, where `torchrun` or `accelerate launch` has started several."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from occluded_reid.errors import GalleryError

__all__ = ["Worker", "this_worker", "wait_for"]

T = TypeVar("T")


@dataclass(frozen=True)
class Worker:
    """One of several processes that share a list of images and talk to each other through the gallery alone.

    Because no worker waits for another, the loss of one worker costs its unfinished images and nothing else.

    Attributes:
        index: number of this process, from 0.
        count: how many there are.
        local: its number on this machine, which is that of its GPU.
    """

    index: int = 0
    count: int = 1
    local: int = 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return every count-th item: neighbours in a folder, which are alike in size, go to different workers."""
        return items[self.index :: self.count]


def this_worker() -> Worker:
    """Read what the launcher has set in the environment; a process that nobody launched is the only worker."""
    return Worker(
        index=int(os.environ.get("RANK", "0")),
        count=int(os.environ.get("WORLD_SIZE", "1")),
        local=int(os.environ.get("LOCAL_RANK", "0")),
    )


def wait_for(ready: Callable[[], bool], what: str, seconds: float) -> None:
    """Return once `ready` says so.

    Raises:
        GalleryError: it has not within that time.
    """
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise GalleryError(f"{what} was not there after {seconds:.0f} s. Did the first worker stop with an error?")
        time.sleep(0.05)
