"""sha256 of files: on disk for good before they count, and checked again bit by bit."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from occluded_reid.errors import GalleryError
from occluded_reid.files import atomic_write, look

__all__ = [
    "FOLDER_FILE",
    "MISSING",
    "OTHER",
    "Moved",
    "Sums",
    "compare",
    "digest",
    "files_of",
    "make_durable",
    "odd_files",
    "open_plain",
    "seal",
    "sync",
    "unseal",
    "verify",
    "write",
]

FOLDER_FILE = "checksums.json"
"""Name of the file that `write` puts into a folder."""

MISSING = "is missing"
OTHER = "has other content than was written"

Sums = dict[str, tuple[int, str]]
"""Path relative to the folder, with slashes -> (bytes, sha256)."""

Moved = Callable[[int], None]
"""Told how many more bytes were read."""

_SEALED = re.compile(rb'(\{.*), "sha256": "([0-9a-f]{64})"\}\n', re.DOTALL)
_CHUNK = 1 << 22


def open_plain(file: Path) -> BinaryIO:
    """Open a file for reading; a link is never followed: what it leads to is no part of the folder.

    Raises:
        OSError: it is missing, a link, or no file.
    """

    # O_NONBLOCK: a pipe in its place is not waited for.
    extra = [getattr(os, name, 0) for name in ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK")]
    stream = os.fdopen(os.open(file, os.O_RDONLY | sum(extra)), "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "no plain file", str(file))
    return stream


def digest(file: Path, moved: Moved | None = None) -> tuple[int, str]:
    """Return size and sha256 of a file, read in pieces of 4 MiB; `moved` is told the bytes of each."""
    total, found = 0, hashlib.sha256()
    with open_plain(file) as stream:
        while piece := stream.read(_CHUNK):
            found.update(piece)
            total += len(piece)
            if moved is not None:
                moved(len(piece))
    return total, found.hexdigest()


def sync(path: Path) -> None:
    """Have the operating system bring a file, or a folder's names, to the disk for good."""
    if path.is_dir() and os.name == "nt":  # a folder cannot be opened there, and its names need no sync
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_durable(folder: Path, names: Iterable[str]) -> Sums:
    """Hash files and bring them, and the names in their folders, to the disk.

    Args:
        folder: what the names are relative to.
        names: files, with slashes.
    """
    sums: Sums = {}
    folders = {folder}
    for name in sorted(names):
        file = folder / name
        sums[name] = digest(file)
        sync(file)
        folders.update(parent for parent in file.parents if parent.is_relative_to(folder))
    for parent in sorted(folders):
        sync(parent)
    return sums


def files_of(folder: Path, inside: str = "", closed: dict[str, str] | None = None) -> set[str]:
    """Return the files below folder/inside, relative to `folder`, with slashes; none where it does not exist.

    Args:
        folder: what the names are relative to.
        inside: where to look.
        closed: receives the folders that may not be looked into: name -> why; None raises OSError for them.
    """
    return {name for name, _ in _below(folder, inside, closed)}


def odd_files(folder: Path, inside: str) -> list[str]:
    """Return what below folder/inside is neither a plain file nor a folder: links, pipes, devices, sockets.

    Of most file systems this costs no more than reading the names.
    """
    return sorted(name for name, entry in _below(folder, inside, None) if not entry.is_file(follow_symlinks=False))


def _below(folder: Path, inside: str, closed: dict[str, str] | None) -> Iterator[tuple[str, os.DirEntry[str]]]:
    waiting = [inside]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(folder / below) as entries:
                for entry in entries:
                    name = f"{below}/{entry.name}" if below else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(name)
                    else:
                        yield name, entry
        except FileNotFoundError:  # another process has removed it meanwhile
            continue
        except PermissionError as cause:
            if closed is None:
                raise
            closed[below or "."] = f"cannot be looked into: {cause.strerror}"


def seal(path: Path, content: Mapping[str, Any], *, at_once: bool = True) -> None:
    """Write JSON whose last member is the sha256 of all that precedes it, for good, whole or not at all.

    Args:
        path: the file.
        content: what it is to hold.
        at_once: whether the file is there for good on return; else a loss of power may bring back the one before.

    Raises:
        GalleryError: the folder cannot be written, or the disk is full.
    """
    body = json.dumps(content, ensure_ascii=False).encode()
    if len(content) == 0:
        raise GalleryError(f"'{path}' would be sealed with nothing in it; give it something to say.")
    mark = hashlib.sha256(body).hexdigest()
    with atomic_write(path, GalleryError) as temporary:
        temporary.write_bytes(body[:-1] + f', "sha256": "{mark}"}}\n'.encode())
    if at_once:
        sync(path.parent)


def unseal(path: Path) -> dict[str, Any]:
    """Read what `seal` has written.

    Raises:
        GalleryError: the file cannot be read, or any bit of it is not as it was written.
    """
    try:
        with open_plain(path) as stream:
            text = stream.read()
    except OSError as cause:
        raise GalleryError(f"'{path}' could not be read: {cause.strerror or cause}.") from cause
    parts = _SEALED.fullmatch(text)
    if parts is None or hashlib.sha256(parts[1] + b"}").hexdigest().encode() != parts[2]:
        raise GalleryError(f"'{path}' is damaged: it is not what was written. Restore it from a copy.")
    content: dict[str, Any] = json.loads(parts[1] + b"}")
    return content


def write(folder: Path) -> None:
    """Hash every file below a folder, bring them to the disk, and write the sums into ``checksums.json`` in it.

    For folders that are written once and then only read, such as an index: write it last, and the folder is whole
    where it exists.

    Raises:
        GalleryError: the folder cannot be written.
    """
    try:
        sums = make_durable(folder, files_of(folder) - {FOLDER_FILE})
    except OSError as cause:
        raise GalleryError(f"'{folder}' could not be written: {cause.strerror or cause}.") from cause
    seal(folder / FOLDER_FILE, {"files": sums})


def verify(folder: Path, moved: Moved | None = None) -> dict[str, str]:
    """Return what is wrong below a folder that `write` has sealed: file -> what; nothing where all is well.

    A file that is not on the list is wrong, too. Memory: the list of the files.
    """
    try:
        listed = unseal(folder / FOLDER_FILE)["files"]
    except GalleryError:
        missing = look(folder / FOLDER_FILE, GalleryError) is None
        return {FOLDER_FILE: MISSING if missing else OTHER}
    sums = {name: (int(size), str(mark)) for name, (size, mark) in listed.items()}
    wrong = compare(folder, sums, moved)
    strange = files_of(folder) - set(sums) - {FOLDER_FILE}
    return wrong | dict.fromkeys(sorted(strange), "is not on the list")


def compare(folder: Path, sums: Sums, moved: Moved | None = None) -> dict[str, str]:
    """Return which files differ from their sums, and how."""
    wrong: dict[str, str] = {}
    for name, (size, mark) in sorted(sums.items()):
        try:
            found = digest(folder / name, moved)
        except FileNotFoundError:
            wrong[name] = MISSING
        except OSError as cause:
            wrong[name] = f"cannot be read: {cause.strerror or cause}"
        else:
            if found != (size, mark):
                wrong[name] = f"has {found[0]} bytes instead of {size}" if found[0] != size else OTHER
    return wrong
