"""The rows of a gallery's table as a source for search: in tiles, or one by one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.gallery.search.memory import RowMemory
from occluded_reid.gallery.storage.table import ROW_ID, TableReader, to_embeddings
from occluded_reid.matchers import Matcher, Prepared

__all__ = ["TableRows"]


class TableRows:
    """Rows of one version, in the order in which they were added; a replaced image counts as added anew.

    Positions 0 … len - 1 follow the column `row`, which grows with every addition: ties of a search are broken by it.
    Held in memory are 16 bytes a row, and 8 for each label that a search has asked for.

    Args:
        store: one version of the table; rows that several threads share need one that no write moves, a `Snapshot`.
        memory: keeps what is read in tiles for the next version; None keeps nothing.
    """

    def __init__(self, store: TableReader, memory: RowMemory | None = None) -> None:
        self._store, self._memory = store, memory
        self._held: PartEmbeddings | None = None
        self._counting = threading.RLock()  # labels are numbered by one thread, for all of them
        numbers, ids = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
        for batch in store.scan(["row"]):
            numbers.append(batch.column("row").to_numpy())
            ids.append(batch.column(ROW_ID).to_numpy())
        self.numbers = np.concatenate(numbers)
        self._ids = np.concatenate(ids)
        order = np.argsort(self.numbers, kind="stable")  # a replacement may put rows anywhere in the table
        self.numbers, self._ids = self.numbers[order], self._ids[order]
        self._values: dict[str, dict[object, int]] = {}
        self._codes: dict[str, np.ndarray] = {}
        self._marks: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def passing(self, condition: str) -> np.ndarray:
        """Return the positions of the rows that a filter leaves, ascending.

        Raises:
            GalleryError: the filter is not understood.
        """
        found = [batch.column("row").to_numpy() for batch in self._store.scan(["row"], condition)]
        return np.searchsorted(self.numbers, np.sort(np.concatenate([*found, np.empty(0, np.int64)])))

    def tiles(self, rows: int) -> Iterator[tuple[int, PartEmbeddings]]:
        """Yield (position of the first row, at most `rows` rows) in order.

        Rows are taken by address: LanceDB's scans are no faster, and read hundreds of megabytes ahead.
        """
        if self._held is None and self._memory is not None:
            self._held = self._memory.rows(self.numbers, self._read)
        for start in range(0, len(self), rows):
            if self._held is not None:
                yield start, self._held[start : start + rows]
            else:
                yield start, self._read(np.arange(start, min(start + rows, len(self))))

    def prepared(self, start: int, tile: PartEmbeddings, matcher: Matcher) -> Prepared:
        """Return what ``matcher.prepare(tile)`` gives, as an earlier search has made it where that is kept.

        Args:
            start: position of the tile's first row.
            tile: rows as `tiles` gave them.
            matcher: the distance.
        """
        if self._held is None or self._memory is None:
            return matcher.prepare(tile)
        return self._memory.prepared(start, self.numbers[start : start + len(tile)], tile, matcher)

    def take(self, positions: Sequence[int] | np.ndarray) -> PartEmbeddings:
        """Return the rows at these positions, in the order asked for."""
        held = self._held
        return self._read(positions) if held is None else held[torch.as_tensor(np.asarray(positions, np.int64))]

    def _read(self, positions: Sequence[int] | np.ndarray) -> PartEmbeddings:
        manifest = self._store.manifest
        return to_embeddings(self.records(positions, ["visibility", *manifest.columns]), manifest)

    def records(self, positions: Sequence[int] | np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Return columns of the rows at these positions, in the order asked for."""
        return self._store.take(self._ids[np.asarray(positions, dtype=np.int64)], columns)

    def codes(self, label: str) -> np.ndarray:
        """Return one number for each row, equal for equal values of a label; -1 where it is not known."""
        with self._counting:
            if label not in self._codes:
                numbers, codes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
                values: dict[object, int] = {}
                for batch in self._store.scan(["row", label]):
                    numbers.append(batch.column("row").to_numpy())
                    codes.append(_encode(batch.column(label), values))
                order = np.argsort(np.concatenate(numbers), kind="stable")
                known = np.concatenate(numbers)[order]
                self._values[label] = values
                self._codes[label] = np.concatenate(codes)[order][np.searchsorted(known, self.numbers)]
            return self._codes[label]

    def code_of(self, label: str, value: object) -> int:
        """Return the number of a value; -2 where no row has it, or where the value is None."""
        self.codes(label)
        return -2 if value is None else self._values[label].get(value, -2)

    def holding(self, column: str, values: Sequence[str]) -> dict[str, np.ndarray]:
        """Return for each of these texts the positions of the rows that hold it, ascending; none is left out.

        The first call for a column reads it and keeps 16 bytes a row; what then looks alike is compared as text.
        """
        if not len(self) or not values:
            return {}
        marks, order = self._marked(column)
        wanted = np.array([hash(value) for value in values], dtype=np.int64)
        begin, end = (np.searchsorted(marks, wanted, side=side) for side in ("left", "right"))
        found = {value: np.sort(order[b:e]) for value, b, e in zip(values, begin, end, strict=True) if b < e}
        for value, positions in found.items():
            texts = self.records(positions, [column]).column(column)
            found[value] = positions[[text == value for text in texts.to_pylist()]]
        return {value: positions for value, positions in found.items() if len(positions)}

    def _marked(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Return hashes of a column's texts in ascending order, and the positions that they come from."""
        with self._counting:
            if column not in self._marks:
                numbers, marks = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
                for batch in self._store.scan(["row", column]):
                    numbers.append(batch.column("row").to_numpy())
                    marks.append(np.array([hash(text) for text in batch.column(column).to_pylist()], dtype=np.int64))
                order = np.argsort(np.concatenate(numbers), kind="stable")
                known = np.concatenate(numbers)[order]
                mine = np.concatenate(marks)[order][np.searchsorted(known, self.numbers)]
                by_mark = np.argsort(mine, kind="stable")
                self._marks[column] = mine[by_mark], by_mark
            return self._marks[column]


def _encode(column: pa.Array, values: dict[object, int]) -> np.ndarray:
    """Number the values of a column, adding new ones to `values`; nulls become -1."""
    encoded = column.dictionary_encode()
    numbers = [values.setdefault(value, len(values)) for value in encoded.dictionary.to_pylist()]
    place = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return np.asarray(np.array([*numbers, -1], dtype=np.int64)[place])
