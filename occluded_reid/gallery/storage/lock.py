"""The lock of a gallery's one writer: taken for a call, refused at once to a second, gone with the process."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from occluded_reid.errors import GalleryError, GalleryLockedError
from occluded_reid.gallery.values import require_seconds

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["LOCK_FILE", "WriterLock"]

LOCK_FILE = "writer.lock"

_AGAIN = 0.05  # seconds between two looks while waiting
_SIGNED = b'{"pid"'  # how a file begins that this lock has written
_LONGEST = 4096  # bytes of it that are read
_LOCKED_BYTE = 1 << 30  # on Windows a locked byte cannot be read: this one is not there


@dataclass
class _Held:
    """A lock that is held: open files, and how often it was taken.

    Attributes:
        file: ``writer.lock``.
        folder: the gallery's folder, locked as well where the file system can; else None.
        signed: whether the file's content is this lock's own, to be written and emptied.
        depth: nested holders.
    """

    file: int
    folder: int | None
    signed: bool = False
    depth: int = 1


class WriterLock:
    """An exclusive lock on the file ``writer.lock`` of a gallery, and on the gallery's folder.

    It is the operating system's (`flock`): it vanishes with the process that holds it, however that ends, so there is
    no stale lock to be removed by hand. While it is held, the file says who holds it; at rest it is empty. Readers
    never look at it. The folder is locked as well, so that nobody else gets in where somebody deletes the file; where
    the file system locks no folders, `require_sole` notices that before anything is acknowledged.

    A link in the place of the file is refused: what it leads to is never opened. It belongs to the thread that took it.

    Args:
        folder: the gallery.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_FILE
        self._holders: dict[tuple[int, int], _Held] = {}

    @contextmanager
    def hold(self, wait: float = 0.0) -> Iterator[bool]:
        """Hold the lock; gives True to the outermost of nested holders.

        Args:
            wait: seconds to wait for another writer; 0 refuses at once.

        Raises:
            GalleryLockedError: another writer has it; it is named as far as the file tells.
            GalleryError: the file cannot be made, or is a link.
        """
        wait = require_seconds(wait)
        me = os.getpid(), threading.get_ident()
        held = self._holders.get(me)
        if held is not None:
            held.depth += 1
            try:
                yield False
            finally:
                held.depth -= 1
            return
        held = self._acquire(wait)
        self._holders[me] = held
        try:
            held.signed = _ours(held.file)
            _sign(held, {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()})
            yield True
        finally:
            del self._holders[me]
            if os.getpid() == me[0]:  # a child that was forked meanwhile leaves its parent's lock alone
                _sign(held, None)
                _release(held)

    def require_sole(self) -> None:
        """Make sure that nobody else can hold this lock; call it before and after what must count once.

        Raises:
            GalleryLockedError: the file was deleted or replaced, or the folder was, since the lock was taken: another
                writer may have begun meanwhile.
        """
        held = self._holders.get((os.getpid(), threading.get_ident()))
        if held is None or not self._holds(held):
            raise GalleryLockedError(
                f"'{self.path}' was deleted or replaced while it was held, so that another writer may have begun. What "
                "this call was writing last is not acknowledged. Leave that file alone, it is empty when nobody "
                "writes; call again: what is there already is skipped."
            )

    def _acquire(self, wait: float) -> _Held:
        until = time.monotonic() + wait
        while True:
            try:
                held = self._try()
            except OSError as cause:
                raise GalleryError(
                    f"the gallery '{self.path.parent}' could not be written: '{self.path}' cannot be locked: "
                    f"{cause.strerror or cause}. Choose a folder that may be written to, on a file system that has "
                    "locks."
                ) from cause
            if held is not None:
                if self._holds(held):
                    return held
                _release(held)  # the file was deleted between opening and locking
                continue
            if time.monotonic() >= until:
                raise GalleryLockedError(
                    f"the gallery '{self.path.parent}' is being written by {self._holder()}, who holds '{self.path}'; "
                    f"waited {wait:g} s. Try again when it is done, or pass wait=seconds. Reading needs no lock."
                )
            time.sleep(min(_AGAIN, max(0.0, until - time.monotonic())))

    def _holds(self, held: _Held) -> bool:
        """Whether what was locked is still what the paths lead to."""
        try:
            folder = held.folder is None or _same(held.folder, self.path.parent)
            return folder and _same(held.file, self.path)
        except OSError:
            return False

    def _try(self) -> _Held | None:
        """Lock file and folder, or return None where another has one of them."""
        file = self._open(os.O_RDWR | os.O_CREAT)
        try:
            if not _lock(file):
                return None
            held = _Held(file, _lock_folder(self.path.parent))
        except BlockingIOError:
            return None
        else:
            file = -1
            return held
        finally:
            if file >= 0:
                os.close(file)

    def _open(self, flags: int) -> int:
        """Open the file, and nothing that it might lead to."""
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(self.path.lstat().st_mode):
                self._refuse()
        try:
            # O_NONBLOCK: a pipe that was put there meanwhile is not waited for.
            extra = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
            file = os.open(self.path, flags | extra, 0o666)
        except OSError:
            if self.path.is_symlink():
                self._refuse()
            raise
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            self._refuse()
        return file

    def _refuse(self) -> None:
        raise GalleryError(
            f"'{self.path}' is a link, or no file at all; nothing was written through it. A gallery's own files are "
            "plain files: remove the link and try again, and ask where this gallery comes from."
        )

    def _holder(self) -> str:
        try:
            file = self._open(os.O_RDONLY)
            try:
                holder = json.loads(os.read(file, _LONGEST))
            finally:
                os.close(file)
            return f"process {holder['pid']} on '{holder['host']}' (since {holder['since']})"
        except (OSError, ValueError, KeyError, TypeError, GalleryError):
            return "another process"


def _same(handle: int, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    there, mine = path.stat(follow_symlinks=stat.S_ISDIR(os.fstat(handle).st_mode)), os.fstat(handle)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _lock(file: int) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter is what Windows says
        return False
    return True


def _lock_folder(path: Path) -> int | None:
    """Lock a folder; None where the file system, or the operating system, cannot.

    Raises:
        BlockingIOError: another has it.
    """
    if sys.platform == "win32":  # there a file that is open cannot be deleted: its own lock is enough
        return None
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # a folder may be written to and not read
        return None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise
    except OSError:
        os.close(folder)
        return None
    return folder


def _release(held: _Held) -> None:
    # Unlocked by name: a child that was forked meanwhile has the same files open, and would keep the locks.
    with suppress(OSError):
        if sys.platform == "win32":
            os.lseek(held.file, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(held.file, msvcrt.LK_UNLCK, 1)
        else:
            if held.folder is not None:
                fcntl.flock(held.folder, fcntl.LOCK_UN)
            fcntl.flock(held.file, fcntl.LOCK_UN)
    for handle in (held.folder, held.file):
        if handle is not None:
            os.close(handle)


def _ours(file: int) -> bool:
    """Whether a file is empty or holds what a lock has written; it may be another name of one that matters."""
    try:
        os.lseek(file, 0, os.SEEK_SET)
        there = os.read(file, len(_SIGNED))
    except OSError:
        return False
    return _SIGNED.startswith(there)


def _sign(held: _Held, holder: dict[str, object] | None) -> None:
    """Say in the file who holds it; for people only, so a disk that is full does not matter."""
    if not held.signed:
        return
    with suppress(OSError):
        os.ftruncate(held.file, 0)
        if holder is not None:
            os.lseek(held.file, 0, os.SEEK_SET)
            os.write(held.file, json.dumps(holder).encode() + b"\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
