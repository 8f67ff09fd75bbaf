"""Where gallery rows come from: memory here, a table elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from occluded_reid.embeddings import PartEmbeddings

__all__ = ["InMemoryRows", "RowSource"]


class RowSource(Protocol):
    """Gallery rows that are read in tiles, and again one by one."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def tiles(self, rows: int) -> Iterator[tuple[int, PartEmbeddings]]:
        """Yield (position of the first row, at most `rows` rows) in order, until all rows were given."""
        ...

    def take(self, positions: Sequence[int] | np.ndarray) -> PartEmbeddings:
        """Return the rows at these positions, in the order asked for."""
        ...


class InMemoryRows:
    """Rows of a PartEmbeddings as a source.

    Args:
        rows: the gallery.

    Example:
        >>> rows = InMemoryRows(PartEmbeddings(("a",), (torch.ones(5, 2),), torch.ones(5, 1)))
        >>> [(start, len(tile)) for start, tile in rows.tiles(2)]
        [(0, 2), (2, 2), (4, 1)]
    """

    def __init__(self, rows: PartEmbeddings) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def tiles(self, rows: int) -> Iterator[tuple[int, PartEmbeddings]]:
        """Yield slices that share memory with the rows."""
        for start in range(0, len(self._rows), rows):
            yield start, self._rows[start : start + rows]

    def take(self, positions: Sequence[int] | np.ndarray) -> PartEmbeddings:
        """Return copies of the rows at these positions."""
        return self._rows[torch.as_tensor(np.asarray(positions, dtype=np.int64))]
