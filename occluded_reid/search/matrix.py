"""Distances that somebody else has computed, as tiles."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from occluded_reid.errors import EvaluationError
from occluded_reid.matchers.base import DECIMALS, NO_SHARED_SLOT, Rows
from occluded_reid.search.tiles import Tile

__all__ = ["MatrixDistances"]

_BLOCK_VALUES = 1 << 21


class MatrixDistances:
    """Distances that somebody else has computed.

    Args:
        distance: (Nq, Ng), finite; it is not copied. Pairs at `NO_SHARED_SLOT` or beyond share no slot: all of them
            come last, and are equally far.

    Raises:
        EvaluationError: it is no matrix, or holds NaN or infinity.
    """

    def __init__(self, distance: np.ndarray) -> None:
        if distance.ndim != 2 or not np.issubdtype(distance.dtype, np.number) or np.iscomplexobj(distance):
            raise EvaluationError(
                f"distances must be a matrix (queries, gallery images) of numbers; got {distance.dtype} "
                f"{distance.shape}."
            )
        largest = 0.0
        for number, row in enumerate(distance):
            if not np.isfinite(row).all():
                column = int(np.flatnonzero(~np.isfinite(row))[0])
                raise EvaluationError(
                    f"the distance of query {number} to gallery image {column} is {row[column]}; ranks need finite "
                    "numbers. Look at where it comes from; for a pair that must come last give a large number."
                )
            sizes = np.abs(row.astype(np.float64))
            largest = max(largest, float(sizes[sizes < NO_SHARED_SLOT].max(initial=0)))
        self._distance = distance
        # Half a unit of the rounding, and what float32 loses of the largest distance.
        self._tolerance = 10.0**-DECIMALS + largest * 2.0**-23

    def score(self, query_rows: Rows, gallery_rows: Rows) -> np.ndarray:
        """Return the deciding distances of n pairs: float64, rounded to 1e-6."""
        pairs = self._distance[np.asarray(query_rows, dtype=np.int64), np.asarray(gallery_rows, dtype=np.int64)]
        return np.round(_bounded(pairs), DECIMALS)

    def tiles(self, rows: int | None = None, values: int | None = None) -> Iterator[Tile]:
        """Yield all of them, at most `rows` columns and about `values` distances at a time."""
        queries, gallery = self._distance.shape
        rows, values = rows or gallery, values or _BLOCK_VALUES
        for start in range(0, gallery, rows):
            columns = self._distance[:, start : start + rows]
            size = max(1, values // columns.shape[1])
            for first in range(0, queries, size):
                part = torch.from_numpy(_bounded(columns[first : first + size]).astype(np.float32))
                yield Tile(first, start, part, self._tolerance, partial(self._score_columns, start))

    def _score_columns(self, start: int, queries: Rows, columns: Rows) -> np.ndarray:
        return self.score(queries, np.asarray(columns) + start)


def _bounded(distance: np.ndarray) -> np.ndarray:
    """Distances as float64, none beyond `NO_SHARED_SLOT`: float32 tells larger ones apart no better than infinity."""
    return np.clip(distance.astype(np.float64), -NO_SHARED_SLOT, NO_SHARED_SLOT)
