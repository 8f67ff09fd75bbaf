"""The folder ``checksums/`` of a gallery: which versions count, and the sha256 of all that belongs to them."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.storage.checksums import (
    OTHER,
    Sums,
    files_of,
    make_durable,
    odd_files,
    open_plain,
    seal,
    sync,
    unseal,
)
from occluded_reid.gallery.storage.lance_manifest import read_lance_manifest
from occluded_reid.gallery.storage.manifest import FILE, TABLE

__all__ = [
    "CHECKSUMS",
    "HIDDEN",
    "HINT",
    "NEWEST",
    "TABLE_FOLDER",
    "Entry",
    "Ledger",
    "manifest_number",
    "manifest_versions",
    "require_plain",
]

CHECKSUMS = "checksums"
TABLE_FOLDER = f"{TABLE}.lance"
HINT = f"{TABLE_FOLDER}/_versions/latest_version_hint.json"
"""Where LanceDB looks for the newest version first; written anew with every commit, and no loss if it is wrong."""

NEWEST = "newest.json"
"""A note beside the table of which version was acknowledged last: without it, nobody could tell that it was lost."""

HIDDEN = "_deletions"
"""Where LanceDB lists hidden rows, below the table's folder."""

_log = logging.getLogger("occluded_reid")

_OWN = (
    FILE,
    CHECKSUMS,
    NEWEST,
    TABLE_FOLDER,
    *(f"{TABLE_FOLDER}/{name}" for name in ("_versions", "_transactions", "_deletions", "data")),
)

_NEWEST_FIRST = (1 << 64) - 1  # manifests are named after this less their version


T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """A version that was acknowledged.

    Attributes:
        version: its number.
        previous: the version acknowledged before it, or None where this entry lists the files of all before it, too.
        time: when, ISO 8601.
        rows: images in it.
        action: what made it, such as "add 1024".
        files: what it brought: file -> (bytes, sha256). A file that is listed again has been written anew.
    """

    version: int
    previous: int | None
    time: str
    rows: int
    action: str
    files: Sums


class Ledger:
    """One file ``checksums/<version>.json`` for each acknowledged version, and one for each file beside the table.

    A version counts from the moment in which its file is there, and no sooner: then all that it needs has been hashed
    and is on the disk for good.

    Args:
        folder: the gallery.
        sure: called when only the acknowledgement itself is left to be written; it raises where somebody else may have
            written meanwhile.
    """

    def __init__(self, folder: Path, sure: Callable[[], None] | None = None) -> None:
        self.folder, self._sure = folder, sure
        self.path = folder / CHECKSUMS

    def versions(self) -> list[int]:
        """Return the acknowledged versions, ascending."""
        return sorted(int(name[:-5]) for name in self._names() if name[:-5].isdecimal())

    def read(self, version: int) -> Entry:
        """Return an entry.

        Raises:
            GalleryError: its file is damaged.
        """
        return _entry(unseal(self.path / f"{version}.json"))

    def entries(self) -> list[Entry]:
        """Return the entries of the acknowledged versions, ascending, as they were at one moment.

        Raises:
            GalleryError: an entry is damaged.
        """
        return self._undisturbed(lambda versions: [self.read(version) for version in versions])

    def _undisturbed(self, look: Callable[[list[int]], T]) -> T:
        """Look at entries; once more where a writer has dropped versions meanwhile, which the oldest takes over."""
        while True:
            versions = self.versions()
            try:
                return look(versions)
            except GalleryError:
                if self.versions() == versions:
                    raise

    def sides(self) -> Sums:
        """Return the sums of the files beside the table.

        Raises:
            GalleryError: one of the lists is damaged.
        """
        names = [name for name in self._names() if not name[:-5].isdecimal()]
        return {file: sums for name in names for file, sums in _sums(unseal(self.path / name)["files"]).items()}

    def expected(self) -> Sums:
        """Return the sums of all files of all acknowledged versions.

        Raises:
            GalleryError: an entry is damaged, or missing in the chain.
        """
        sums, before = self.sides(), None
        for version in self.versions():
            entry = self.read(version)
            if entry.previous not in (None, before):
                raise GalleryError(
                    f"'{self.path / f'{entry.previous}.json'}' is missing: version {version} builds on it. "
                    "Restore it from a copy."
                )
            sums.update(entry.files)
            before = version
        return sums

    def table_files(self) -> set[str]:
        """Return the files of the table as they are on the disk, acknowledged or not, but for LanceDB's hint."""
        return files_of(self.folder, TABLE_FOLDER) - {HINT}

    def acknowledge(self, version: int, rows: int, action: str, files: Iterable[str]) -> Entry:
        """Hash files, bring them to the disk for good, and acknowledge a version made of them and those before.

        Raises:
            GalleryError: the folder cannot be written, or the disk is full; the version is not acknowledged then.
        """
        before = self.versions()
        with self._writing():
            sums = make_durable(self.folder, files)
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        entry = Entry(version, before[-1] if before else None, time, rows, action, sums)
        if self._sure is not None:
            self._sure()
        self._write(entry)
        # It counts from here on. The note is for whoever loses that file: an older note does no harm.
        with suppress(GalleryError):
            seal(self.folder / NEWEST, {"version": version, "rows": rows}, at_once=False)
        return entry

    def noted(self) -> int | None:
        """Return the newest version that was ever acknowledged, as it is noted beside the table, if it is.

        Ask for it before `versions`: what it names is there then, or was lost.
        """
        if not os.path.lexists(self.folder / NEWEST):
            return None
        try:
            return int(unseal(self.folder / NEWEST)["version"])
        except (GalleryError, KeyError, TypeError, ValueError) as cause:
            _log.warning("The note of the newest version is not used: %s The next write makes it again.", cause)
            return None

    def require_whole(self, version: int) -> None:
        """Compare the small files of a version with their sums, before LanceDB reads them: it trusts what it reads.

        They are its manifest and its lists of hidden rows, some kilobytes each; the embeddings themselves are compared
        by `verify` alone, because that means reading all of them.

        Raises:
            GalleryError: one of them is damaged or missing, or another version's manifest is in the place of this one.
        """
        entry = self.read(version)
        name = next((name for name in entry.files if manifest_number(name) == version), None)
        content = b"" if name is None else self._small(version, name, entry.files[name])
        if not (self.folder / TABLE_FOLDER / HIDDEN).exists():
            return
        told = read_lance_manifest(content)
        if told is None:  # not written as we know it: then all of them
            wanted = files_of(self.folder, f"{TABLE_FOLDER}/{HIDDEN}")
        else:
            wanted = {f"{TABLE_FOLDER}/{piece.hidden}" for piece in told.pieces if piece.hidden is not None}
        sums = self.sums_of(wanted, version) if wanted else {}
        for file in sorted(wanted & set(sums) if told is None else wanted):
            if file not in sums:
                raise self._damaged(version, file, "is in no list of checksums")
            self._small(version, file, sums[file])

    def sums_of(self, names: AbstractSet[str], version: int) -> Sums:
        """Return the sums of files that a version needs, as far as they are listed: of each, what was written last.

        Raises:
            GalleryError: an entry is damaged.
        """

        def look(versions: list[int]) -> Sums:
            found: Sums = {}
            for before in reversed([number for number in versions if number <= version]):
                if len(found) == len(names):
                    break
                entry = self.read(before)
                found |= {name: entry.files[name] for name in names - set(found) if name in entry.files}
            return found

        return self._undisturbed(look)

    def _small(self, version: int, name: str, sums: tuple[int, str]) -> bytes:
        try:
            with open_plain(self.folder / name) as stream:
                content = stream.read(sums[0] + 1)
        except OSError as cause:
            raise self._damaged(version, name, f"cannot be read ({cause.strerror or cause})") from cause
        if (len(content), hashlib.sha256(content).hexdigest()) != sums:
            raise self._damaged(version, name, self._whose(name, content))
        return content

    def _whose(self, name: str, content: bytes) -> str:
        """Say what is in a file that is not what it was: another version's manifest, or damage."""
        other = read_lance_manifest(content) if manifest_number(name) is not None else None
        if other is not None and other.version in self.versions():
            sums = (len(content), hashlib.sha256(content).hexdigest())
            if sums in self.read(other.version).files.values():
                return f"is that of version {other.version}"
        return OTHER

    def _damaged(self, version: int, name: str, what: str) -> GalleryError:
        return GalleryError(
            f"the gallery '{self.folder}' could not be opened: '{name}', which version {version} needs, {what}. "
            "Restore the gallery as a whole from one copy, open an older version in Python (Gallery.open(…, "
            "version=N)), or index the images again into a new folder."
        )

    def keep(self, versions: Sequence[int], gone: AbstractSet[str] = frozenset()) -> None:
        """Forget all acknowledged versions but these, and all files that are gone; the first takes over the others'.

        Ends the same wherever it is broken off and begun again.

        Args:
            versions: the newest ones, ascending; at least one.
            gone: files that are about to be deleted, which are forgotten as well.
        """
        entries = [self.read(version) for version in self.versions()]
        there = self.table_files() - gone
        taken: Sums = {}
        for entry in entries:
            taken.update(entry.files)
            if entry.version in versions:
                files = taken if entry.version == versions[0] else entry.files
                kept = {name: sums for name, sums in files.items() if name in there}
                previous = None if entry.version == versions[0] else entry.previous
                if (kept, previous) != (entry.files, entry.previous):
                    self._write(replace(entry, files=kept, previous=previous))
        for entry in reversed(entries):  # newest first: a crash leaves no entry without the one that it builds on
            if entry.version not in versions:
                (self.path / f"{entry.version}.json").unlink(missing_ok=True)
        sync(self.path)

    @contextmanager
    def side_file(self, name: str) -> Iterator[Path]:
        """Give the path of a file beside the table, to be written whole or not at all, and record its sum afterwards.

        While it is written it is no part of the gallery, so that a crash leaves no sum that does not fit it.

        Raises:
            GalleryError: the folder cannot be written, or the disk is full.
        """
        with self._writing():
            self.path.mkdir(exist_ok=True)
            (self.path / f"{name}.json").unlink(missing_ok=True)
            sync(self.path)
            yield self.folder / name
            sums = make_durable(self.folder, [name])
        seal(self.path / f"{name}.json", {"files": sums})

    def _write(self, entry: Entry) -> None:
        seal(self.path / f"{entry.version}.json", asdict(entry))

    def _names(self) -> list[str]:
        try:
            return sorted(file.name for file in self.path.iterdir() if file.suffix == ".json")
        except FileNotFoundError:
            return []

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as cause:
            raise GalleryError(
                f"the gallery '{self.folder}' could not be written: {cause.strerror or cause}. Free some space, or "
                "choose a folder that may be written to; what was acknowledged before is unharmed."
            ) from cause


def require_plain(folder: Path) -> None:
    """Refuse a gallery of which a part is a link or a pipe, before LanceDB follows it or waits for it.

    What a link leads to is none of the gallery's business.

    Raises:
        GalleryError: there is one; it is named.
        OSError: a folder may not be looked into.
    """
    for name in _OWN:
        if (folder / name).is_symlink():
            raise GalleryError(
                f"'{folder / name}' is a link. A gallery's own files and folders are plain: ask where this one comes "
                "from; to have a gallery on another disk, move its whole folder, which may be reached by a link."
            )
    for name in odd_files(folder, TABLE_FOLDER):
        raise GalleryError(
            f"'{folder / name}' is no plain file, but a link, a pipe, a device or the like, and LanceDB would read it. "
            "A gallery's own files are plain: ask where this one comes from, and restore it from a copy."
        )


def manifest_versions(folder: Path) -> dict[int, Path]:
    """Return LanceDB's manifests, acknowledged or not: version -> file."""
    files = (folder / TABLE_FOLDER / "_versions").glob("*.manifest")
    numbers = ((manifest_number(file.name), file) for file in files)
    return {number: file for number, file in numbers if number is not None}


def manifest_number(name: str) -> int | None:
    """Return the version that a file is the manifest of, by its name; None for other files."""
    stem, _, suffix = name.rpartition("/")[2].rpartition(".")
    if suffix != "manifest" or not stem.isdecimal():
        return None
    # Numbers below 2^63 are versions themselves: the older way of naming.
    number = int(stem)
    return number if number < 1 << 63 else _NEWEST_FIRST - number


def _entry(content: dict[str, Any]) -> Entry:
    return Entry(**{**content, "files": _sums(content["files"])})


def _sums(listed: dict[str, Any]) -> Sums:
    return {name: (int(size), str(mark)) for name, (size, mark) in listed.items()}
