"""Reading a version of a gallery's LanceDB table: scans and look-ups, with errors that name the gallery."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError
from occluded_reid.gallery.storage.manifest import Manifest

__all__ = ["LANCE_ERRORS", "ROW_ID", "DroppedVersionError", "TableReader", "first_line", "to_embeddings"]

LANCE_ERRORS = (ValueError, RuntimeError, OSError)
"""LanceDB has no exceptions of its own: Rust errors arrive as one of these, Arrow's as a subclass of them."""

ROW_ID = "_rowid"
"""LanceDB's own address of a row; good for one version of the table only, so it is never stored."""

_NO_COLUMN = re.compile(r"No field named [`\"]?([\w\-]+)")
_SCAN_ROWS = 8192  # rows of a scan that reads no embeddings


class DroppedVersionError(GalleryError):
    """The version that is read was dropped since; a search goes on to the newest one where it may."""


class TableReader:
    """One version of a table, to be read; a subclass opens it.

    Attributes:
        folder: the gallery, as messages call it.
        manifest: its gallery.json.
    """

    folder: Path
    manifest: Manifest
    _table: Any

    @property
    def version(self) -> int:
        """Number of the version that is read; every commit makes a new one."""
        return int(self._table.version)

    def __len__(self) -> int:
        with self.errors("read"):
            return int(self._table.count_rows())

    def count(self, where: str) -> int:
        """Return how many rows fulfil a filter.

        Raises:
            GalleryError: the filter is not understood.
        """
        with self.errors("read", where):
            return int(self._table.count_rows(where))

    def scan(
        self, columns: Sequence[str], where: str | None = None, rows: int = _SCAN_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Stream columns and the row address; at most `rows` rows at a time.

        Raises:
            GalleryError: the filter is not understood, or the table is damaged.
        """
        with self.errors("read", where):
            query = self._table.search(None).select(list(columns)).with_row_id(True)
            if where is not None:
                query = query.where(where)
            yield from query.to_batches(batch_size=rows)

    def take(self, ids: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Return rows by address, in the order asked for, repeats included."""
        unique, inverse = np.unique(ids, return_inverse=True)
        if not len(unique):
            return self.manifest.arrow_schema().empty_table().select(list(columns))
        with self.errors("read"):
            query = self._table.take_row_ids([int(i) for i in unique]).select(list(columns)).with_row_id()
            found = query.to_arrow()
        if found.num_rows != len(unique):
            if self._dropped():
                raise self._was_dropped(f"it gave {found.num_rows} of {len(unique)} rows")
            raise GalleryError(
                f"the gallery '{self.folder}' gave {found.num_rows} of {len(unique)} rows that it holds: its table is "
                "damaged. Restore it from a copy, or index again."
            )
        order = np.argsort(found.column(ROW_ID).to_numpy())[inverse]  # LanceDB answers in the order of the table
        found = found.select(list(columns))
        return found if np.array_equal(order, np.arange(found.num_rows)) else found.take(order)

    def find(self, columns: Sequence[str], values: Sequence[Sequence[str]]) -> pa.Table:
        """Return `columns` and address of the rows where any of the columns holds one of its values.

        The values are compared as they are, never through SQL, so that no key needs quoting.
        """
        wanted = [pa.array(v, pa.string()) for v in values]
        found = []
        for batch in self.scan(columns):
            hit = pc.is_in(batch.column(columns[0]), wanted[0])
            for column, value_set in zip(columns[1:], wanted[1:], strict=True):
                hit = pc.or_(hit, pc.is_in(batch.column(column), value_set))
            if pc.any(hit).as_py():
                found.append(batch.filter(hit))
        empty = pa.schema([*(pa.field(c, pa.string()) for c in columns), pa.field(ROW_ID, pa.uint64())]).empty_table()
        return pa.concat_tables([pa.Table.from_batches([b]) for b in found]) if found else empty

    @contextmanager
    def errors(self, verb: str, where: str | None = None) -> Iterator[None]:
        """Turn what LanceDB and the operating system raise into a GalleryError."""
        try:
            yield
        except GalleryError:
            raise
        except LANCE_ERRORS as cause:
            # The filter's own faults: found while planning (ValueError) or while it is applied to rows.
            if where is not None and (isinstance(cause, ValueError) or "applying filter" in str(cause)):
                reason = first_line(cause)
                if unknown := _NO_COLUMN.search(reason):
                    quoted = unknown[1].replace("'", "''")
                    reason = f"No field named {unknown[1]}; a text is quoted: '{quoted}'"
                raise GalleryError(
                    f'where {where!r} is not understood: {reason}. Write SQL such as "camera = 3 AND '
                    "identity = '0002'\", with a quote inside a string doubled, or give a mapping: {'camera': 3}."
                ) from cause
            advice = (
                "Free some space, or choose a folder that may be written to; what was committed before is unharmed."
                if verb == "written"
                else "'occluded-reid gallery verify' names damaged files. Restore the gallery from a copy, or index "
                "the images again into a new folder."
            )
            if verb == "read" and self._dropped():
                raise self._was_dropped(first_line(cause)) from cause
            raise GalleryError(
                f"the gallery '{self.folder}' could not be {verb}: {first_line(cause)}. {advice}"
            ) from cause

    def _was_dropped(self, what: str) -> DroppedVersionError:
        return DroppedVersionError(
            f"the gallery '{self.folder}' could not be read at version {self.version}: {what}. This version was "
            "dropped since, by a compaction or an erasure: open the gallery again, or go on with refresh()."
        )

    def _dropped(self) -> bool:
        """Whether the version that is read has been dropped by another program since it was opened."""
        return False


def to_embeddings(rows: pa.Table, manifest: Manifest) -> PartEmbeddings:
    """Return the slots of table rows, in float32, and their visibility."""

    def matrix(column: str, width: int) -> torch.Tensor:
        chunks = [
            np.asarray(c.flatten().to_numpy(zero_copy_only=False), np.float32) for c in rows.column(column).chunks
        ]
        flat = np.concatenate(chunks) if chunks else np.empty(0, np.float32)
        # A single float32 chunk is Arrow's own, read-only memory, which torch must not be given.
        flat = flat if flat.flags.writeable else flat.copy()
        return torch.from_numpy(flat).reshape(rows.num_rows, width)

    slots = zip(manifest.columns, manifest.slots.values(), strict=True)
    return PartEmbeddings(
        tuple(manifest.slots),
        tuple(matrix(column, width) for column, width in slots),
        matrix("visibility", len(manifest.slots)),
    )


def first_line(cause: Any) -> str:
    """Return a message of LanceDB without the place in its source code."""
    lines = re.sub(r",?\s*\S+\.rs:\d+(:\d+)?", "", str(cause)).strip().splitlines()
    return lines[0].rstrip(".: ") if lines else type(cause).__name__
