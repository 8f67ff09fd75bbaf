"""The rows of a gallery's table as a source for search: in tiles, or one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.gallery.store import ROW_ID, Store, to_embeddings

__all__ = ["TableRows"]


class TableRows:
    """Rows that a filter leaves, in the order in which they were added; a replaced image counts as added anew.

    Positions 0 … len - 1 follow the column `row`, which grows with every addition: ties of a search are broken by it.
    Only addresses and the labels asked for are held in memory.

    Args:
        store: the table.
        where: SQL filter, or None for every row.
        labels: columns to hold as numbers, one for each different value.

    Raises:
        GalleryError: the filter is not understood.
    """

    def __init__(self, store: Store, where: str | None = None, labels: Sequence[str] = ()) -> None:
        self._store = store
        self._values: dict[str, dict[object, int]] = {label: {} for label in labels}
        numbers, ids = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
        codes: dict[str, list[np.ndarray]] = {label: [np.empty(0, np.int64)] for label in labels}
        for batch in store.scan(["row", *labels], where):
            numbers.append(batch.column("row").to_numpy())
            ids.append(batch.column(ROW_ID).to_numpy())
            for label in labels:
                codes[label].append(_encode(batch.column(label), self._values[label]))
        order = np.argsort(np.concatenate(numbers), kind="stable")  # a replacement may put rows anywhere in the table
        self._ids = np.concatenate(ids)[order]
        self._codes = {label: np.concatenate(parts)[order] for label, parts in codes.items()}

    def __len__(self) -> int:
        return len(self._ids)

    def tiles(self, rows: int) -> Iterator[tuple[int, PartEmbeddings]]:
        """Yield (position of the first row, at most `rows` rows) in order.

        Rows are taken by address: LanceDB's scans are no faster, and read hundreds of megabytes ahead.
        """
        for start in range(0, len(self), rows):
            yield start, self.take(np.arange(start, min(start + rows, len(self))))

    def take(self, positions: Sequence[int] | np.ndarray) -> PartEmbeddings:
        """Return the rows at these positions, in the order asked for."""
        return to_embeddings(self.records(positions, self._columns), self._store.layout)

    def records(self, positions: Sequence[int] | np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Return columns of the rows at these positions, in the order asked for."""
        return self._store.take(self._ids[np.asarray(positions, dtype=np.int64)], columns)

    def codes(self, label: str) -> np.ndarray:
        """Return one number for each row, equal for equal values of a label; -1 where it is not known."""
        return self._codes[label]

    def code_of(self, label: str, value: object) -> int:
        """Return the number of a value; -2 where no row has it, or where the value is None."""
        return -2 if value is None else self._values[label].get(value, -2)

    def positions_of(self, ids: np.ndarray) -> np.ndarray:
        """Return the positions of these addresses; -1 for those that the filter has left out."""
        if not len(self):
            return np.full(len(ids), -1)
        order = np.argsort(self._ids)
        place = order[np.minimum(np.searchsorted(self._ids, ids, sorter=order), len(order) - 1)]
        return np.where(self._ids[place] == ids, place, -1)

    @property
    def _columns(self) -> list[str]:
        return ["visibility", *self._store.layout.columns]


def _encode(column: pa.Array, values: dict[object, int]) -> np.ndarray:
    """Number the values of a column, adding new ones to `values`; nulls become -1."""
    encoded = column.dictionary_encode()
    numbers = [values.setdefault(value, len(values)) for value in encoded.dictionary.to_pylist()]
    place = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return np.asarray(np.array([*numbers, -1], dtype=np.int64)[place])
