"""The folder ``checksums/`` of a gallery: which versions count, and the sha256 of all that belongs to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.checksums import Sums, files_of, make_durable, seal, sync, unseal
from occluded_reid.gallery.layout import TABLE

__all__ = ["CHECKSUMS", "HINT", "TABLE_FOLDER", "Entry", "Ledger", "manifest_versions"]

CHECKSUMS = "checksums"
TABLE_FOLDER = f"{TABLE}.lance"
HINT = f"{TABLE_FOLDER}/_versions/latest_version_hint.json"
"""Where LanceDB looks for the newest version first; written anew with every commit, and no loss if it is wrong."""

_NEWEST_FIRST = (1 << 64) - 1  # manifests are named after this less their version


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
        return entry

    def keep(self, versions: Sequence[int]) -> None:
        """Forget all acknowledged versions but these, and all files that are gone; the first takes over the others'.

        Ends the same wherever it is broken off and begun again.

        Args:
            versions: the newest ones, ascending; at least one.
        """
        entries = [self.read(version) for version in self.versions()]
        there = self.table_files()
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


def manifest_versions(folder: Path) -> dict[int, Path]:
    """Return LanceDB's manifests, acknowledged or not: version -> file."""
    files = (folder / TABLE_FOLDER / "_versions").glob("*.manifest")
    numbers = ((int(file.stem), file) for file in files if file.stem.isdecimal())
    # Numbers below 2^63 are versions themselves: the older way of naming.
    return {n if n < 1 << 63 else _NEWEST_FIRST - n: file for n, file in numbers}


def _entry(content: dict[str, Any]) -> Entry:
    return Entry(**{**content, "files": _sums(content["files"])})


def _sums(listed: dict[str, Any]) -> Sums:
    return {name: (int(size), str(mark)) for name, (size, mark) in listed.items()}
