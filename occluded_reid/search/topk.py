"""The exact nearest rows of each query, in bounded memory, whatever the tiles are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import ShapeError
from occluded_reid.matchers.base import NO_SHARED_SLOT, Matcher, Prepared
from occluded_reid.search.rows import RowSource

__all__ = ["TopK", "exact_topk"]

Allowed = Callable[[int, int], np.ndarray]

_MARGIN = 16  # candidates beyond k: enough unless ties or near-ties crowd around the k-th answer
_QUERIES = 512  # queries of a tile at a time
_RESCORED_ROWS = 4096  # gallery rows held for re-scoring at a time
_RESCORED_PAIRS = 1 << 18  # pairs scored at a time


@dataclass(frozen=True)
class TopK:
    """For each query its nearest rows, nearest first; equal distances in the order of the gallery.

    Attributes:
        positions: Nq int64 arrays of gallery positions, at most k each.
        distances: Nq float64 arrays, rounded to 1e-6.
    """

    positions: list[np.ndarray]
    distances: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.positions)


def exact_topk(
    query: PartEmbeddings,
    rows: RowSource,
    matcher: Matcher,
    k: int,
    *,
    tile_rows: int = 4096,
    allowed: Allowed | None = None,
) -> TopK:
    """Find the k nearest rows of each query: the answer of the full float64 distance matrix, without the matrix.

    Tiles propose k + margin rows; these are scored again pair by pair in float64. Where the margin cannot prove that
    nothing was missed (ties at its edge), a second pass scores every row that could still belong to the answer. So
    tile size and number of threads change the time, never the answer.

    Args:
        query: Nq rows.
        rows: the gallery.
        matcher: the distance.
        k: how many; more than the gallery holds gives all of it.
        tile_rows: gallery rows at a time.
        allowed: called with (start, stop), returns a boolean (Nq, stop - start) array: what a query may find.

    Returns:
        Positions and distances; a list is shorter than k where a query may find fewer rows.

    Raises:
        ShapeError: k or tile_rows is below 1, or `allowed` returns another shape.
        EmbeddingError: the slots of query and gallery differ.
    """
    if k < 1 or tile_rows < 1:
        raise ShapeError(f"k is {k} and tile_rows is {tile_rows}; both must be at least 1.")
    return _Search(query, rows, matcher, k, tile_rows, allowed).run()


class _Search:
    """One call of `exact_topk`."""

    def __init__(
        self, query: PartEmbeddings, rows: RowSource, matcher: Matcher, k: int, tile_rows: int, allowed: Allowed | None
    ) -> None:
        self.query, self.rows, self.matcher, self.k = query, rows, matcher, k
        self.tile_rows, self.allowed = tile_rows, allowed
        self.prepared = matcher.prepare(query)
        self.tolerance = matcher.tolerance(self.prepared, self.prepared)
        self.positions: list[np.ndarray] = [np.empty(0, np.int64)] * len(query)
        self.distances: list[np.ndarray] = [np.empty(0)] * len(query)

    def run(self) -> TopK:
        size = self.k + _MARGIN
        if size >= len(self.rows):  # everything would be proposed
            self._scan(list(range(len(self.query))), np.full(len(self.query), NO_SHARED_SLOT))
            return TopK(self.positions, self.distances)
        edge = self._rescore(*self._propose(size))
        doubtful = [
            q
            for q in range(len(self.query))
            # The farthest proposal is infinitely far where every allowed row was proposed.
            if np.isfinite(edge[q]) and not self.distances[q][-1] + self.tolerance < edge[q]
        ]
        if doubtful:
            # k rows at these distances are known to exist, so nothing beyond them is wanted.
            self._scan(doubtful, np.array([self.distances[q][-1] for q in doubtful]))
        return TopK(self.positions, self.distances)

    def _tiles(self, queries: list[int] | None = None) -> Iterator[tuple[int, PartEmbeddings, int, Tensor]]:
        """Yield (gallery start, rows, first query, distances (nq, ng)); what is not allowed is infinitely far."""
        prepared = self.prepared if queries is None else _take(self.prepared, queries)
        for start, tile in self.rows.tiles(self.tile_rows):
            self.query.require_same_slots(tile)
            gallery = self.matcher.prepare(tile)
            self.tolerance = max(self.tolerance, self.matcher.tolerance(self.prepared, gallery))
            mask = self._mask(start, len(tile), queries)
            for first in range(0, len(prepared), _QUERIES):
                block = slice(first, first + _QUERIES)
                distance = self.matcher.tile(prepared[block], gallery).cpu()
                if mask is not None:
                    distance.masked_fill_(~mask[block], torch.inf)
                yield start, tile, first, distance

    def _mask(self, start: int, count: int, queries: list[int] | None) -> Tensor | None:
        if self.allowed is None:
            return None
        mask = np.asarray(self.allowed(start, start + count), dtype=bool)
        if mask.shape != (len(self.query), count):
            raise ShapeError(
                f"allowed({start}, {start + count}) gave {mask.shape}; wanted ({len(self.query)}, {count})."
            )
        return torch.from_numpy(mask if queries is None else mask[queries])

    def _propose(self, size: int) -> tuple[Tensor, Tensor]:
        """Distances and positions (Nq, k + margin) of the nearest rows; infinitely far where there are none."""
        best = torch.full((len(self.query), size), torch.inf)
        where = torch.zeros((len(self.query), size), dtype=torch.int64)
        for start, _, first, distance in self._tiles():
            block = slice(first, first + len(distance))
            near, column = distance.topk(min(size, distance.shape[1]), largest=False, sorted=False)
            joined = torch.cat([best[block], near], dim=1)
            best[block], order = joined.topk(size, largest=False, sorted=False)
            where[block] = torch.cat([where[block], column + start], dim=1).gather(1, order)
        return best, where

    def _rescore(self, best: Tensor, where: Tensor) -> np.ndarray:
        """Keep the k best of the proposals by their exact distance; return the farthest proposed distance (Nq,)."""
        size = best.shape[1]
        block = max(1, _RESCORED_ROWS // size)
        for first in range(0, len(self.query), block):
            found = best[first : first + block].isfinite().numpy()
            queries, columns = np.nonzero(found)
            if not len(queries):
                continue
            positions = where[first : first + block].numpy()[queries, columns]
            unique, inverse = np.unique(positions, return_inverse=True)
            distance = self.matcher.pairs(self.query, self.rows.take(unique), queries + first, inverse)
            self._keep(queries + first, positions, distance)
        return np.asarray(best.amax(1).double().numpy())

    def _keep(self, queries: np.ndarray, positions: np.ndarray, distance: np.ndarray) -> None:
        """Merge scored pairs, none of them known before, into the lists of their queries."""
        order = np.argsort(queries, kind="stable")
        for q, chosen in _groups(queries, order):
            merged_positions = np.concatenate([self.positions[q], positions[chosen]])
            merged_distances = np.concatenate([self.distances[q], distance[chosen]])
            nearest = np.lexsort((merged_positions, merged_distances))[: self.k]
            self.positions[q], self.distances[q] = merged_positions[nearest], merged_distances[nearest]

    def _scan(self, queries: list[int], bound: np.ndarray) -> None:
        """Score every row of the gallery that lies within `bound` (one for each query): it may belong to the answer."""
        for q in queries:
            self.positions[q], self.distances[q] = np.empty(0, np.int64), np.empty(0)
        names = np.array(queries)
        for start, tile, first, distance in self._tiles(queries):
            limit = torch.from_numpy(bound[first : first + len(distance)] + self.tolerance)[:, None]
            block, columns = (x.numpy() for x in torch.nonzero(distance <= limit.float(), as_tuple=True))
            exact = np.full(len(block), NO_SHARED_SLOT)
            # Pairs without a common slot are known as such; there may be very many of them.
            near = np.flatnonzero(distance.numpy()[block, columns] < NO_SHARED_SLOT)
            score = self.matcher.scorer(self.query, tile)
            for part in np.split(near, range(_RESCORED_PAIRS, len(near), _RESCORED_PAIRS)):
                exact[part] = score(names[first + block[part]], columns[part])
            self._keep(names[first + block], columns + start, exact)
            for i in np.unique(block) + first:
                if len(self.distances[queries[i]]) == self.k:
                    bound[i] = min(bound[i], self.distances[queries[i]][-1])


def _groups(queries: np.ndarray, order: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (query, its pairs) for pairs ordered by query."""
    if not len(order):
        return
    sorted_queries = queries[order]
    starts = np.flatnonzero(np.diff(sorted_queries, prepend=-1))
    for begin, end in zip(starts, [*starts[1:], len(order)], strict=True):
        yield int(sorted_queries[begin]), order[begin:end]


def _take(prepared: Prepared, rows: list[int]) -> Prepared:
    """These rows, copied."""
    index = torch.tensor(rows)
    return Prepared(tuple(f[index] for f in prepared.factors), prepared.shared[index], prepared.always, prepared.scale)
