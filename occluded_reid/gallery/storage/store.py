"""The LanceDB table of a gallery: rows are added, replaced and hidden by one writer at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import lancedb
import pyarrow as pa
import pyarrow.compute as pc

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.cameras import CAMERAS, CameraTable
from occluded_reid.gallery.storage.checksums import seal
from occluded_reid.gallery.storage.commits import Commits, Snapshot
from occluded_reid.gallery.storage.ledger import Ledger, require_plain
from occluded_reid.gallery.storage.manifest import FILE, FORMAT_VERSION, TABLE, Manifest
from occluded_reid.gallery.storage.table import ROW_ID, to_embeddings
from occluded_reid.gallery.storage.tasks import finish
from occluded_reid.gallery.storage.upkeep import address_range, drop_old_versions, rows_to_join

__all__ = ["ROW_ID", "Snapshot", "Store", "to_embeddings"]

_log = logging.getLogger("occluded_reid")


class Store(Commits):
    """A gallery's table, to be read and written; see `Commits` for which version is read, and what counts."""

    @staticmethod
    def create(folder: Path, manifest: Manifest) -> None:
        """Make gallery.json and an empty table in a folder, and acknowledge both."""
        lancedb.connect(str(folder)).create_table(TABLE, schema=manifest.arrow_schema())
        ledger = Ledger(folder)
        with ledger.side_file(FILE):
            manifest.write(folder)
        ledger.acknowledge(1, 0, "create", ledger.table_files())

    @contextmanager
    def writing(self, wait: float = 0.0) -> Iterator[None]:
        """Be the one writer, at the newest version; what a writer that died has left undone is undone or finished.

        Calls may be nested. Afterwards, the newest version that this store has acknowledged is read.

        Args:
            wait: seconds to wait for another writer; 0 refuses at once.

        Raises:
            GalleryLockedError: another writer is at work; it is named as far as it is known.
            GalleryError: the folder cannot be written.
        """
        with self._lock.hold(wait) as outermost:
            if not outermost:
                yield
                return
            with self._writing_here:
                try:
                    self._begin()
                    yield
                finally:
                    with self.errors("read"):
                        self._table.checkout(self._base)

    def _begin(self) -> None:
        """Go to the newest version that counts, past what a writer that died has left."""
        with self.errors("written"):
            kept = self._counting()
            if kept:
                self._require_whole(kept[-1])
            else:
                require_plain(self.folder)
            self._table.checkout_latest()
            self._adopt()
            newest = self.ledger.versions()[-1]
            self._present = self.ledger.table_files()
            self._base = newest
            if self.version < newest:
                raise GalleryError(
                    f"the gallery '{self.folder}' has lost version {newest}, its newest. Restore it from a copy."
                )
            if self.version > newest:
                self._table.restore(newest)
                self.acknowledge("undo of a write that was broken off")
            finish(self)

    def _adopt(self) -> None:
        """Bring a gallery of format 1, which had no checksums, to this format: all that it holds now counts."""
        if not self._counting():
            self.ledger.acknowledge(self.version, len(self), "first checksums", self.ledger.table_files())
        if self.manifest.format_version < FORMAT_VERSION:
            manifest = self.manifest.model_copy(update={"format_version": FORMAT_VERSION})
            with self.ledger.side_file(FILE):
                manifest.write(self.folder)
            self.manifest = manifest

    def cameras(self) -> CameraTable:
        """Return the names of the gallery's cameras; those of newer versions are among them.

        Raises:
            GalleryError: the file that keeps them is damaged or missing.
        """
        return CameraTable.read(self.folder)

    def name_cameras(self, given: Mapping[str, int | None], wait: float = 0.0) -> CameraTable:
        """Keep names of cameras for good, before any row refers to them.

        Args:
            given: name -> number; None chooses one that no camera of the gallery has.
            wait: seconds to wait for another writer.

        Raises:
            GalleryLockedError: another writer is at work.
            GalleryError: a name is known under another number, or a number under another name; or the folder cannot
                be written.
        """
        with self.writing(wait):
            known = self.cameras()
            grown = known.joined(given, self._camera_numbers() if None in given.values() else ())
            if grown != known:
                self._keep_cameras(grown)
            return grown

    def _keep_cameras(self, cameras: CameraTable) -> None:
        with self.ledger.side_file(CAMERAS) as file:
            seal(file, {"format": 1, "cameras": dict(cameras.numbers)})

    def _camera_numbers(self) -> set[int]:
        """Numbers that rows of the newest version have."""
        found: set[int] = set()
        for batch in self.scan(["camera"]):
            found.update(number for number in pc.unique(batch.column(0)).to_pylist() if number is not None)
        return found

    def append(self, rows: pa.Table) -> None:
        """Add rows, whole or not at all; small pieces of the table may be joined with them."""
        self._add(rows)
        self.acknowledge(f"add {rows.num_rows}")
        self._drop_old_versions()

    def upsert(self, rows: pa.Table) -> None:
        """Add rows, and replace those of an equal key, whole or not at all; small pieces may be joined."""
        with self.committing() as table:
            table.merge_insert("key").when_matched_update_all().when_not_matched_insert_all().execute(rows)
        self._add(None)
        self.acknowledge(f"add or replace {rows.num_rows}")
        self._drop_old_versions()

    def rewrite(self, tables: Iterable[pa.Table], action: str) -> None:
        """Put whole rows in the place of those with the same keys, and acknowledge them as one version.

        Args:
            tables: rows with the numbers that they have; each is read when those before it are written.
            action: what it is, for the list of versions.
        """
        for rows in tables:
            with self.committing() as table:
                table.merge_insert("key").when_matched_update_all().execute(rows)
        self._add(None)
        self.acknowledge(action)
        self._drop_old_versions()

    def delete(self, numbers: Sequence[int]) -> None:
        """Hide rows by their number in the column `row`, all or none."""
        if len(numbers):
            self.hide(numbers)
            self.acknowledge(f"remove {len(numbers)}")
            self._drop_old_versions()

    def _add(self, rows: pa.Table | None) -> None:
        """Write rows, and those of pieces that are small and many; it does not count before `acknowledge`."""
        joined = rows_to_join(self, 0 if rows is None else rows.num_rows)
        if joined is None:
            if rows is not None:
                with self.committing() as table:
                    table.add(rows)
            return
        pieces, moved = joined
        before, fresh = len(self), 0 if rows is None else rows.num_rows
        with self.committing(2) as table:  # away and back again: nobody sees it in between
            table.delete(address_range(pieces))
            table.add(moved if rows is None else pa.concat_tables([moved, rows.cast(moved.schema)]))
        if len(self) != before + fresh:
            raise GalleryError(
                f"the gallery '{self.folder}' has {len(self)} images after small pieces were joined, and should have "
                f"{before + fresh}; this does not count. Your release of LanceDB does not do what is asked of it: "
                "choose another."
            )

    def _drop_old_versions(self) -> None:
        """Drop the oldest of many versions; a fault is a warning, as what was written before counts already."""
        try:
            with self.errors("written"):
                drop_old_versions(self)
        except GalleryError as cause:
            _log.warning("What was written is safe, but old versions could not be dropped: %s", cause)
        self._present = self.ledger.table_files()
