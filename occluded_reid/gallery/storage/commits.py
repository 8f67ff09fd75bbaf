"""Versions of a gallery's table that count, and commits: they count when they are acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lancedb

from occluded_reid.errors import GalleryError, GalleryLockedError
from occluded_reid.gallery.storage.ledger import CHECKSUMS, NEWEST, Ledger, manifest_versions, require_plain
from occluded_reid.gallery.storage.lock import WriterLock
from occluded_reid.gallery.storage.manifest import FORMAT_VERSION, TABLE, Manifest
from occluded_reid.gallery.storage.table import LANCE_ERRORS, TableReader

__all__ = ["Commits", "Snapshot"]

_DELETED_AT_ONCE = 10_000
_ATTEMPTS = 5  # to open a version while a writer drops old ones
_SHOWN = 8


class Snapshot(TableReader):
    """One version of a table that counts, on a handle of its own: whatever others write, it shows the same rows.

    Many threads may read it at once.

    Args:
        folder: the gallery, as messages call it.
        manifest: its gallery.json.
        table: LanceDB's table, at that version, which nobody else has.
        dropped: tells whether a version does not count any more.
    """

    def __init__(self, folder: Path, manifest: Manifest, table: Any, dropped: Callable[[int], bool]) -> None:
        self.folder, self.manifest, self._table = folder, manifest, table
        self._version, self._is_dropped = int(table.version), dropped
        self._count: int | None = None

    @property
    def version(self) -> int:
        """Number of the version; it stays the same."""
        return self._version

    def __len__(self) -> int:
        if self._count is None:
            self._count = super().__len__()
        return self._count

    def _dropped(self) -> bool:
        return self._is_dropped(self._version)


class Commits(TableReader):
    """One version of the table, and the commits that make the next one.

    A reader opens the newest version that was acknowledged, and stays there whatever others write meanwhile. A commit
    of LanceDB counts only when all that it has written is hashed, on the disk for good, and listed in the gallery's
    `Ledger`: where a writer dies before that, readers never see it, and the next writer goes back to what counts.

    Args:
        folder: the gallery.
        manifest: its gallery.json.
        version: an older version of the table, for reading only; None is the newest.

    Raises:
        GalleryError: the table is missing or damaged, or has no such version.
    """

    _pinned: Snapshot | None = None

    def __init__(self, folder: Path, manifest: Manifest, version: int | None = None) -> None:
        self.folder, self.manifest = folder, manifest
        self._writing_here, self._pinning = threading.RLock(), threading.Lock()
        self._present: set[str] = set()
        self._prepare()
        with self.errors("opened"):
            self._table = self._open(version)
            self._base = self.version
            self._require_columns()

    def _prepare(self) -> None:
        """Take hold of what a folder has beside its table: the list of versions that count, and the writer's lock."""
        self.ledger = Ledger(self.folder, self.require_sole)
        self._lock = WriterLock(self.folder)

    def refresh(self) -> None:
        """Go on to the newest acknowledged version; where a thread of this program is writing, it does that itself."""
        if not self._writing_here.acquire(blocking=False):
            return
        try:
            with self.errors("read"):
                self._table = self._open(None)
                self._base = self.version
        finally:
            self._writing_here.release()

    def snapshot(self) -> Snapshot:
        """Return the version that counts for this store, on a handle that no write moves.

        Raises:
            GalleryError: the version was dropped since, or the table is damaged.
        """
        with self._pinning:
            for _ in range(_ATTEMPTS):
                base = self._base
                if self._pinned is not None and self._pinned.version == base:
                    return self._pinned
                try:
                    with self.errors("read"):
                        self._require_whole(base)
                        table = self._connect()
                        table.checkout(base)
                        self._pinned = Snapshot(self.folder, self.manifest, table, self._is_dropped)
                except GalleryError:
                    if self._base == base:  # else a thread that writes has gone on, and dropped this version
                        raise
        raise self._restless("opened")

    def _connect(self) -> Any:
        return lancedb.connect(str(self.folder)).open_table(TABLE)

    @contextmanager
    def committing(self, commits: int | None = 1) -> Iterator[Any]:
        """Give LanceDB's table for some commits, none of which counts before `acknowledge`.

        Args:
            commits: how many they are, where that is known.

        Raises:
            GalleryLockedError: another program has written to the table in between; nothing of this counts then.
            GalleryError: LanceDB could not write.
        """
        with self.errors("written"):
            base = self.version
            self._table.checkout_latest()
            if self.version == base:
                yield self._table
                if commits is None or self.version == base + commits:
                    return
        raise GalleryLockedError(
            f"the gallery '{self.folder}' has gone from version {base} to {self.version} although this writer has its "
            "lock: another program writes to it without one. What this call was writing does not count; stop the "
            "other, and try again."
        )

    def acknowledge(self, action: str) -> None:
        """Make the version that was written last count: hash and keep what is new, then say so.

        Args:
            action: what made it, such as "add 1024".

        Raises:
            GalleryError: the folder cannot be written; the version does not count then.
        """
        with self.errors("written"):
            present = self.ledger.table_files()
            self.ledger.acknowledge(self.version, len(self), action, present - self._present)
            self._lock.require_sole()
        self._present, self._base = present, self.version

    @property
    def acknowledged_files(self) -> Set[str]:
        """Files of the table that were there when the last version was acknowledged; while it is written."""
        return self._present

    def require_sole(self) -> None:
        """Make sure that no other writer has begun, let alone acknowledged anything, since this one did.

        Raises:
            GalleryLockedError: one has, or may have.
        """
        self._lock.require_sole()
        newest = max(self.ledger.versions(), default=None)
        if newest not in (None, self._base):
            raise GalleryLockedError(
                f"another writer has acknowledged version {newest} of the gallery '{self.folder}' while this one was "
                f"writing on version {self._base}. What this call was writing is not acknowledged; call again: what "
                "is there already is skipped."
            )

    def _counting(self) -> list[int]:
        """Return the versions that count; none in a gallery of format 1, which has no list yet.

        Raises:
            GalleryError: the list, or its newest entry, was lost.
        """
        noted, kept = self.ledger.noted(), self.ledger.versions()
        if not kept and self.manifest.format_version >= FORMAT_VERSION:
            raise GalleryError(
                f"the gallery '{self.folder}' has lost its folder '{self.ledger.path.name}', which tells which "
                "versions count. Restore it from a copy, or index again."
            )
        if kept and noted is not None and noted > kept[-1]:
            raise GalleryError(
                f"the gallery '{self.folder}' has lost '{CHECKSUMS}/{noted}.json', without which version {noted}, its "
                f"newest, does not count. Restore that file from a copy; or open version {kept[-1]}, the newest that "
                f"is whole, or remove '{NEWEST}' to go on from there and lose what came after it."
            )
        return kept

    def _open(self, version: int | None) -> Any:
        """Open the table at a version that counts, or at the newest that does."""
        for attempt in range(_ATTEMPTS):
            kept = self._counting() if version is None else self.ledger.versions()
            if version is not None and kept and version not in kept:
                known = ", ".join(map(str, kept if len(kept) <= _SHOWN else [*kept[: _SHOWN - 1], "…", kept[-1]]))
                raise GalleryError(f"the gallery '{self.folder}' has no version {version}. It has kept {known}.")
            if not kept:
                self._counting()  # a gallery of format 1 has no list yet: every commit counts
                require_plain(self.folder)
            try:
                if kept:
                    self._require_whole(version or kept[-1])
                table = self._connect()
                table.checkout(version or (kept[-1] if kept else table.version))
            except LANCE_ERRORS:
                # Either the version was dropped while we looked, or a machine that lost power has left a torn one.
                if self.ledger.versions() == kept and (attempt > 0 or not kept or not self._drop_torn(kept[-1])):
                    raise
            else:
                return table
        raise self._restless("opened")

    def _require_whole(self, version: int) -> None:
        """Look for links and pipes, and compare a version's small files with their sums, before LanceDB reads any.

        A version that was dropped meanwhile is LanceDB's to miss.

        Raises:
            GalleryError: one is damaged, or no plain file.
        """
        require_plain(self.folder)
        try:
            if version in self.ledger.versions():
                self.ledger.require_whole(version)
        except GalleryError:
            if version in self.ledger.versions():
                raise

    def _restless(self, verb: str) -> GalleryLockedError:
        return GalleryLockedError(f"the gallery '{self.folder}' changes faster than it can be {verb}. Try again.")

    def _drop_torn(self, newest: int) -> bool:
        """Remove manifests that do not count, of which a loss of power may have left the last one half-written."""
        torn = [file for version, file in manifest_versions(self.folder).items() if version > newest]
        if torn:
            with self._lock.hold():
                for file in torn:
                    file.unlink(missing_ok=True)
        return bool(torn)

    def _dropped(self) -> bool:
        return self._is_dropped(self._base)

    def _is_dropped(self, version: int) -> bool:
        kept = self.ledger.versions()
        return bool(kept) and version not in kept

    def _require_columns(self) -> None:
        table, wanted = self._table.schema, self.manifest.arrow_schema()
        wrong = [f.name for f in wanted if f.name not in table.names or table.field(f.name).type != f.type]
        if wrong:
            raise GalleryError(
                f"the table of the gallery '{self.folder}' has not the columns {wrong} that its gallery.json "
                "describes. Restore both from one copy, or index again."
            )

    def hide(self, numbers: Sequence[int]) -> None:
        """Hide rows by their number in the column `row`; it does not count before `acknowledge`."""
        for first in range(0, len(numbers), _DELETED_AT_ONCE):
            some = ", ".join(str(int(n)) for n in numbers[first : first + _DELETED_AT_ONCE])
            with self.committing() as table:
                table.delete(f"`row` IN ({some})")
