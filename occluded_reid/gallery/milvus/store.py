"""The rows of a gallery on a Milvus server: scans, look-ups, commits, and the nearest rows of one slot."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np
import pyarrow as pa

from occluded_reid.errors import GalleryError
from occluded_reid.gallery.cameras import CameraTable
from occluded_reid.gallery.filters.where import field
from occluded_reid.gallery.milvus.numbers import COMMIT_ROWS, WRITERS, first_number, tick_at
from occluded_reid.gallery.milvus.rows import (
    MESSAGE_NUMBERS,
    NAMED,
    hashed,
    joined,
    label_row,
    messages,
    numbered,
    padded,
    parts,
    stored,
    to_lists,
    to_matrix,
    to_table,
)
from occluded_reid.gallery.milvus.schema import EMBEDDING, ID, VISIBILITY, slot_collection
from occluded_reid.gallery.milvus.server import MilvusServer
from occluded_reid.gallery.storage.manifest import LABELS, Manifest
from occluded_reid.gallery.storage.store import ROW_ID
from occluded_reid.gallery.values import require_seconds

__all__ = ["MilvusStore"]

_SCANNED = 8192
_ANSWERS = 1 << 18  # hits of one message


class MilvusStore:
    """What `Store` is for a folder, for the collections of a server.

    There are no versions: everybody sees what is acknowledged. Of several programs that write at once, all that they
    add is kept; where two write the same key at the same moment, the later one stays. Rows are numbered by the clock of
    the program that writes, which is the order of the gallery.

    Args:
        server: the connection.
        manifest: of the gallery.
    """

    def __init__(self, server: MilvusServer, manifest: Manifest) -> None:
        self.server, self.manifest = server, manifest
        self.folder = str(server.address)
        self.labels = server.address.collection
        self.slots = [slot_collection(self.labels, number) for number in range(len(manifest.slots))]
        self._widths = list(manifest.slots.values())
        self._expression: str | None = None
        self._consistency = server.address.consistency
        self._writer, self._tick, self._commits = secrets.randbelow(WRITERS), 0, 0

    @property
    def version(self) -> int:
        """Number of commits that this object has made; a server has no versions to go back to."""
        return self._commits

    def __len__(self) -> int:
        return self.count(self.labels, self._expression or "")

    def refresh(self) -> None:
        """Do nothing: a server has no older versions to go on from."""

    def cameras(self) -> CameraTable:
        """Return no names: a server keeps the numbers of cameras alone."""
        return CameraTable(str(self.folder))

    def name_cameras(self, given: Mapping[str, int | None], wait: float = 0.0) -> CameraTable:  # noqa: ARG002
        """Refuse: two programs may write to a server at once, and would give one name two numbers."""
        raise GalleryError(
            f"'{self.folder}' is on a server, which keeps cameras by number alone; got the name(s) "
            f"{', '.join(repr(name) for name in list(given)[:3])}. Give numbers, or keep the gallery in a folder."
        )

    @contextmanager
    def writing(self, wait: float = 0.0) -> Iterator[None]:
        """Read all that was acknowledged to anybody, whatever the address says; a server lets many write at once."""
        require_seconds(wait)
        before, self._consistency = self._consistency, "Strong"
        try:
            yield
        finally:
            self._consistency = before

    def filtered(self, expression: str | None) -> MilvusStore:
        """Return the same store, of which scans and searches show only the rows that an expression leaves."""
        view = copy(self)
        view._expression = joined(self._expression, expression)
        return view

    def scan(self, columns: Sequence[str], where: str | None = None, rows: int = _SCANNED) -> Iterator[pa.RecordBatch]:
        """Stream columns other than slots, and the row address; about `rows` rows at a time, in no order.

        The keys' hashes are spread evenly, so a range of them holds a known part of the rows.

        Raises:
            GalleryError: the filter is not understood, or the server does not answer.
        """
        expression = joined(self._expression, where)
        pieces = max(1, math.ceil(self.count(self.labels) / rows))
        edges = [f"{(1 << 32) * piece // pieces:08x}" for piece in range(pieces)]
        for low, high in zip(edges, [*edges[1:], None], strict=True):
            piece = f'{ID} >= "{low}"' + (f' and {ID} < "{high}"' if high else "")
            found = self.query(self.labels, joined(piece, expression) or piece, stored(columns), where=expression)
            if len(found):
                yield from to_table(found, columns, self.manifest).combine_chunks().to_batches()

    def take(self, ids: np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Return rows by number, in the order asked for, repeats included.

        Raises:
            GalleryError: a row is not there.
        """
        unique, inverse = np.unique(np.asarray(ids, dtype=np.int64), return_inverse=True)
        schema = self.manifest.arrow_schema()
        slots = [number for number, column in enumerate(self.manifest.columns) if column in columns]
        content = {
            self.manifest.columns[number]: to_lists(matrix, schema.field(self.manifest.columns[number]).type)
            for number, matrix in zip(slots, self._vectors(slots, unique), strict=True)
        }
        if rest := [column for column in columns if column not in content]:
            table = to_table(self._rows(self.labels, unique, stored(rest)), rest, self.manifest)
            content.update({column: table.column(column) for column in rest})
        found = pa.table(
            [content[column] for column in columns], pa.schema([schema.field(column) for column in columns])
        )
        return found if np.array_equal(inverse, np.arange(len(unique))) else found.take(inverse)

    def find(self, columns: Sequence[str], values: Sequence[Sequence[str]]) -> pa.Table:
        """Return `columns` and address of the rows where any of the columns holds one of its values."""
        asked = [
            (column, some[first : first + NAMED])
            for column, some in zip(columns, values, strict=True)
            for first in range(0, len(some), NAMED)
        ]

        def look(column: str, some: Sequence[str]) -> Any:
            if column == "key":
                hashes = ", ".join(f'"{hashed(key)}"' for key in some)
                return self.query(self.labels, f"{ID} in [{hashes}]", stored(columns))
            return self.query(self.labels, field(column).is_in(some).milvus(), stored(columns))

        found: dict[int, Any] = {}
        for answer in self.server.each(look, asked):
            found.update({row["row"]: row for row in answer})
        return to_table(list(found.values()), columns, self.manifest)

    def known(self, numbers: np.ndarray, label: str | None = None) -> tuple[np.ndarray, list[Any]]:
        """Return those of these row numbers that count, ascending: what was removed or half-written does not.

        Args:
            numbers: of rows.
            label: a column whose values are wanted too.
        """
        columns = ["row", *([label] if label else [])]

        def look(part: np.ndarray) -> Any:
            return self.query(self.labels, numbered("row", part), stored(columns))

        answers = self.server.each(look, [(part,) for part in parts(np.unique(numbers))])
        table = to_table([row for answer in answers for row in answer], columns, self.manifest)
        table = table.take(np.argsort(table.column("row").to_numpy()))
        return table.column("row").to_numpy(), table.column(columns[-1]).to_pylist()

    def nearest(
        self, slot: int, vectors: np.ndarray, limit: int, metric: str, params: Mapping[str, Any], where: str | None
    ) -> list[np.ndarray]:
        """Return the numbers of the rows nearest to each vector in one slot, at most `limit`, nearest first."""
        found: list[np.ndarray] = []
        wide = padded(vectors)
        step = max(1, min(MESSAGE_NUMBERS // wide.shape[1], _ANSWERS // limit))
        for first in range(0, len(wide), step):
            answer = self.server.call(
                "searched",
                "search",
                self.slots[slot],
                data=list(wide[first : first + step]),
                filter=joined(self._expression, where) or "",
                limit=limit,
                search_params={"metric_type": metric, "params": dict(params)},
                consistency_level=self._consistency,
                where=self._expression,
            )
            found += [np.array(list(dict.fromkeys(hit.id for hit in hits)), dtype=np.int64) for hits in answer]
        return found

    def append(self, rows: pa.Table) -> None:
        """Add rows; the labels come last, and make them count."""
        for first in range(0, rows.num_rows, COMMIT_ROWS):
            self._commit(rows.slice(first, COMMIT_ROWS))

    def upsert(self, rows: pa.Table) -> None:
        """Add rows, and replace those of an equal key."""
        before = self.find(["key"], [rows.column("key").to_pylist()]).column(ROW_ID).to_numpy()
        self.append(rows)
        self._drop(before)

    def rewrite(self, tables: Iterable[pa.Table], action: str) -> None:  # noqa: ARG002 - there are no versions
        """Put whole rows in the place of those with the same keys; they get new numbers, and so come last in order."""
        for rows in tables:
            self.upsert(rows)

    def delete(self, numbers: Sequence[int]) -> None:
        """Remove rows by their number: first what makes them count."""
        gone = np.unique(np.asarray(numbers, dtype=np.int64))
        for part in parts(gone):
            if hashes := [row[ID] for row in self.query(self.labels, numbered("row", part), [ID])]:
                self.server.call("written", "delete", self.labels, ids=hashes)
        self._drop(gone)

    def count(self, collection: str, expression: str = "") -> int:
        """Return how many rows of a collection fulfil an expression."""
        return int(self.query(collection, expression, ["count(*)"])[0]["count(*)"])

    def query(
        self,
        collection: str,
        expression: str,
        fields: Sequence[str],
        *,
        where: str | None = None,
        consistency: str | None = None,
    ) -> Any:
        """Return the rows of a collection that fulfil an expression.

        Args:
            collection: its name.
            expression: of Milvus.
            fields: what to read.
            where: the part of the expression that comes from the user, for messages.
            consistency: another one than the address's.
        """
        return self.server.call(
            "read",
            "query",
            collection,
            filter=expression,
            output_fields=list(fields),
            consistency_level=consistency or self._consistency,
            where=where,
        )

    def _commit(self, rows: pa.Table) -> None:
        self._tick = max(self._tick + 1, tick_at(time.time()))
        start = first_number(self._tick, self._writer)
        labels = [label_row(row, start + i) for i, row in enumerate(rows.select(list(LABELS)).to_pylist())]
        visibility = to_matrix(rows.column(VISIBILITY))
        waiting = []
        for number, column in enumerate(self.manifest.columns):
            matrix = padded(to_matrix(rows.column(column)))
            content = [
                {**label, VISIBILITY: float(visibility[i, number]), EMBEDDING: matrix[i]}
                for i, label in enumerate(labels)
            ]
            waiting += [(self.slots[number], message) for message in messages(content, matrix.shape[1])]
        self.server.each(self._send, waiting)
        wide = padded(visibility)
        content = [{**label, ID: hashed(label["key"]), VISIBILITY: wide[i]} for i, label in enumerate(labels)]
        for message in messages(content, wide.shape[1]):
            self._send(self.labels, message)
        self._commits += 1

    def _send(self, collection: str, message: Sequence[Mapping[str, Any]]) -> None:
        # Never a plain insertion: repeated after a lost answer, it would leave the row there twice.
        self.server.call("written", "upsert", collection, message)

    def _drop(self, numbers: np.ndarray) -> None:
        """Remove rows that do not count any more from the slots."""
        for slot in self.slots:
            for part in parts(np.asarray(numbers, dtype=np.int64)):
                self.server.call("written", "delete", slot, ids=part.tolist())

    def _vectors(self, slots: Sequence[int], numbers: np.ndarray) -> list[np.ndarray]:
        """Return (n, width) vectors of these rows for each slot."""
        asked = [
            (slot, part) for slot in slots for part in parts(numbers, MESSAGE_NUMBERS // max(2, self._widths[slot]))
        ]

        def look(slot: int, part: np.ndarray) -> np.ndarray:
            found = self._rows(self.slots[slot], part, ["row", EMBEDDING])
            return np.array([row[EMBEDDING] for row in found], dtype=np.float32)[:, : self._widths[slot]]

        answers = self.server.each(look, asked)
        found: dict[int, list[np.ndarray]] = {s: [np.empty((0, self._widths[s]), np.float32)] for s in slots}
        for (slot, _), answer in zip(asked, answers, strict=True):
            found[slot].append(answer)
        return [np.concatenate(found[slot]) for slot in slots]

    def _rows(self, collection: str, numbers: np.ndarray, fields: Sequence[str]) -> list[Any]:
        """Return these rows in ascending order of their numbers.

        A row under its number never changes, so the nearest copy will do; only where that lacks one, all are asked.

        Raises:
            GalleryError: a row is not there.
        """
        found: dict[int, Any] = {}
        for consistency in ("Eventually", "Strong"):
            lacking = np.array([n for n in numbers.tolist() if n not in found], dtype=np.int64)
            for part in parts(lacking):
                for row in self.query(collection, numbered("row", part), fields, consistency=consistency):
                    found[row["row"]] = row
        if len(found) < len(numbers):
            raise GalleryError(
                f"the gallery '{self.folder}' gave {len(found)} of {len(numbers)} rows: another program has removed "
                f"the others meanwhile, or the collection '{collection}' is damaged. Search again; if it stays so, "
                "verify() tells what to index again."
            )
        return [found[n] for n in numbers.tolist()]
