"""The lock of a gallery's one writer: taken for a call, refused at once to a second, gone with the process."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from occluded_reid.errors import GalleryError, GalleryLockedError

__all__ = ["LOCK_FILE", "WriterLock"]

LOCK_FILE = "writer.lock"


class WriterLock:
    """An exclusive lock on the file ``writer.lock`` of a gallery.

    It is the operating system's (`flock`): it vanishes with the process that holds it, however that ends, so there is
    no stale lock to be removed by hand. While it is held, the file says who holds it; at rest it is empty. Readers
    never look at it.

    Args:
        folder: the gallery.
    """

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock

        self.path = folder / LOCK_FILE
        self._lock = FileLock(self.path)
        self._depth = 0

    @contextmanager
    def hold(self, wait: float = 0.0) -> Iterator[bool]:
        """Hold the lock; gives True to the outermost of nested holders.

        Args:
            wait: seconds to wait for another writer; 0 refuses at once.

        Raises:
            GalleryLockedError: another writer has it; it is named as far as the file tells.
            GalleryError: the file cannot be made.
        """
        from filelock import Timeout

        if not 0 <= wait < float("inf"):
            raise GalleryError(f"wait is {wait!r}; give the seconds to wait for another writer, 0 for not at all.")
        try:
            self._lock.acquire(timeout=wait)
        except Timeout as cause:
            raise GalleryLockedError(
                f"the gallery '{self.path.parent}' is being written by {self._holder()}, who holds '{self.path}'; "
                f"waited {wait:g} s. Try again when it is done, or pass wait=seconds. Reading needs no lock."
            ) from cause
        except (OSError, NotImplementedError) as cause:
            why = getattr(cause, "strerror", None) or cause
            raise GalleryError(
                f"the gallery '{self.path.parent}' could not be written: '{self.path}' cannot be locked: {why}. "
                "Choose a folder that may be written to, on a file system that has locks."
            ) from cause
        self._depth += 1
        outermost = self._depth == 1
        try:
            if outermost:
                self._sign({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()})
            yield outermost
        finally:
            self._depth -= 1
            if outermost:
                self._sign(None)
            self._lock.release()

    def _sign(self, holder: dict[str, object] | None) -> None:
        """Say in the file who holds it; for people only, so a disk that is full does not matter."""
        with suppress(OSError):
            self.path.write_text("" if holder is None else json.dumps(holder) + "\n", encoding="utf-8")

    def _holder(self) -> str:
        try:
            holder = json.loads(self.path.read_text(encoding="utf-8"))
            return f"process {holder['pid']} on '{holder['host']}' (since {holder['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
