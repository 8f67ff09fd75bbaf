"""Search on a server without its indexes: the rows are read through this machine, some at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.gallery.filters.where import to_milvus
from occluded_reid.gallery.hit import Hit
from occluded_reid.gallery.milvus.store import MilvusStore
from occluded_reid.gallery.search.nearest import exclusions, nearest
from occluded_reid.gallery.search.query import hits_of
from occluded_reid.gallery.search.request import SearchRequest
from occluded_reid.gallery.search.rows import TableRows
from occluded_reid.gallery.storage.store import to_embeddings
from occluded_reid.matchers import Matcher
from occluded_reid.search.exact import TopK, exact_topk

__all__ = ["NumberedRows", "exact_answer", "hits_of_numbers"]


class NumberedRows:
    """Rows with certain numbers as a source for search and for hits; position i is the i-th number.

    Args:
        store: the rows.
        numbers: ascending.
    """

    def __init__(self, store: MilvusStore, numbers: np.ndarray) -> None:
        self._store, self.numbers = store, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def tiles(self, rows: int) -> Iterator[tuple[int, PartEmbeddings]]:
        """Yield (position of the first row, at most `rows` rows) in order."""
        for start in range(0, len(self), rows):
            yield start, self.take(np.arange(start, min(start + rows, len(self))))

    def take(self, positions: Sequence[int] | np.ndarray) -> PartEmbeddings:
        """Return the rows at these positions, in the order asked for."""
        manifest = self._store.manifest
        return to_embeddings(self.records(positions, ["visibility", *manifest.columns]), manifest)

    def records(self, positions: Sequence[int] | np.ndarray, columns: Sequence[str]) -> pa.Table:
        """Return columns of the rows at these positions, in the order asked for."""
        return self._store.take(self.numbers[np.asarray(positions, dtype=np.int64)], columns)


def exact_answer(store: MilvusStore, matcher: Matcher, request: SearchRequest, device: torch.device) -> list[list[Hit]]:
    """Answer from all rows that the filter leaves, as a gallery in a folder does.

    Memory: 16 bytes a row, 8 for each label that the request needs, and a tile.
    """
    view = store.filtered(to_milvus(request.where))
    rows = TableRows(cast(Any, view))
    if not len(rows):
        return [[] for _ in request.origins]

    def find(query: PartEmbeddings, k: int, allowed: Any) -> TopK:
        return exact_topk(query, rows, matcher, k, allowed=allowed, device=device)

    best = nearest(request.rows, rows, request.k, exclusions(request, rows), request.group_by, find)
    numbers = [rows.numbers[positions] for positions in best.positions]
    return hits_of_numbers(store, matcher, request.rows, TopK(numbers, best.distances))


def hits_of_numbers(store: MilvusStore, matcher: Matcher, query: PartEmbeddings, best: TopK) -> list[list[Hit]]:
    """Return hits of an answer whose positions are row numbers."""
    numbers = np.unique(np.concatenate([np.empty(0, np.int64), *best.positions]))
    places = TopK([np.searchsorted(numbers, found) for found in best.positions], best.distances)
    rows = NumberedRows(store, numbers)
    return hits_of(query, cast(Any, rows), rows, matcher, places)
