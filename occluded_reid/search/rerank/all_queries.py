"""Re-ranked distances of all queries to the gallery, as published: every query sees every other one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.matchers.base import NO_SHARED_SLOT, Matcher, Rows
from occluded_reid.search.rerank.farthest import farthest
from occluded_reid.search.rerank.k_reciprocal import KReciprocal, encode, shared_minima
from occluded_reid.search.rerank.neighbors import nearest_rows, pair_distances
from occluded_reid.search.tiles import Tile, Tiles

__all__ = ["JoinedRows", "RerankedDistances"]

_CELLS = 1 << 20  # distances of a block that decides
_EPSILON = 2e-6  # rounding to 1e-6 on both sides, and float32 of numbers up to 1


class JoinedRows:
    """Several sets of rows as one source, one after another, without a copy of them.

    Args:
        parts: rows with the same slots.

    Example:
        >>> rows = PartEmbeddings(("a",), (torch.ones(3, 2),), torch.ones(3, 1))
        >>> [(start, len(tile)) for start, tile in JoinedRows([rows, rows]).tiles(2)]
        [(0, 2), (2, 1), (3, 2), (5, 1)]
    """

    def __init__(self, parts: Sequence[PartEmbeddings]) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def tiles(self, rows: int) -> Iterator[tuple[int, PartEmbeddings]]:
        """Yield slices that share memory with the rows; no tile reaches from one set into the next."""
        for begin, part in zip(self._starts, self._parts, strict=False):
            for start in range(0, len(part), rows):
                yield int(begin) + start, part[start : start + rows]

    def take(self, positions: Sequence[int] | np.ndarray) -> PartEmbeddings:
        """Return copies of the rows at these positions."""
        places = np.asarray(positions, dtype=np.int64)
        owner = np.searchsorted(self._starts, places, side="right") - 1
        order = np.argsort(owner, kind="stable")
        chosen = [part[torch.from_numpy(places[owner == n] - self._starts[n])] for n, part in enumerate(self._parts)]
        if np.array_equal(order, np.arange(len(order))):
            used = [rows for rows in chosen if len(rows)] or chosen[:1]
            return used[0] if len(used) == 1 else PartEmbeddings.cat(used)
        return PartEmbeddings.cat(chosen)[torch.from_numpy(np.argsort(order))]


class RerankedDistances:
    """(1 - λ) · Jaccard distance of k-reciprocal encodings + λ · distance, over all queries and the gallery at once.

    Lists of neighbours, largest distances and encodings are computed here, by tiled passes over the N = Nq + Ng rows:
    O(N · k1) numbers stay. Distances are made for one block of queries and one tile of the gallery at a time.

    Args:
        query: Nq rows.
        gallery: Ng rows with the same slots.
        matcher: the distance; it must be symmetric.
        rerank: the parameters.
        device: where to multiply, see `Tiles`.
    """

    def __init__(
        self,
        query: PartEmbeddings,
        gallery: PartEmbeddings,
        matcher: Matcher,
        rerank: KReciprocal,
        *,
        device: str | torch.device | None = None,
    ) -> None:
        self._plain = Tiles(query, gallery, matcher, device=device)
        on = self._plain.device
        everyone = JoinedRows([query, gallery])
        neighbours, distances = nearest_rows(everyone, matcher, rerank.depth, device=on)
        largest = farthest(everyone, matcher, device=on)
        self._rerank, self._squares = rerank, rerank.squares(matcher)
        encoding = encode(
            neighbours,
            distances,
            largest,
            rerank,
            squares=self._squares,
            pair_distance=lambda i, j: pair_distances(everyone.take, matcher, i, j),
        )
        self._query, self._gallery = encoding[: len(query)].tocsr(), encoding[len(query) :].tocsr()
        self._largest = largest[: len(query)]
        self._window = (0, len(gallery), self._gallery.tocsc())

    def score(self, queries: Rows, rows: Rows) -> np.ndarray:
        """Return the re-ranked distances of pairs: float64, rounded to 1e-6."""
        queries, rows = np.asarray(queries, dtype=np.int64), np.asarray(rows, dtype=np.int64)
        distance = self._rerank.normalise(self._plain.score(queries, rows), self._largest[queries], self._squares)
        return self._rerank.combine(self._overlap(queries, rows), distance)

    def tiles(self, rows: int | None = None, values: int | None = None) -> Iterator[Tile]:
        """Yield all re-ranked distances, at most `rows` gallery rows and about `values` distances at a time."""
        weight = self._rerank.weight
        for tile in self._plain.tiles(rows, values):
            first, start, stop = tile.first, tile.start, tile.stop
            if first == 0:
                columns = self._gallery[start:stop].tocsc()
                self._window = (start, stop, columns)
            largest = self._largest[first : tile.last]
            scale = np.where(largest > 0, 1 / np.where(largest > 0, largest, 1), 0)
            distance = tile.distance.cpu()
            unshared = distance >= NO_SHARED_SLOT
            distance.mul_(torch.from_numpy(scale).float()[:, None]).clamp_(0, 1)
            if self._squares:
                distance.square_()
            distance.masked_fill_(unshared, 1).mul_(weight).add_(1 - weight)
            overlap = shared_minima(self._query[first : tile.last].tocsr(), columns)
            distance.sub_(torch.from_numpy((1 - weight) * overlap / (2 - overlap)).float())
            # The slope of a square is at most 2 in [0, 1].
            tolerance = weight * (2 if self._squares else 1) * tile.tolerance * scale + _EPSILON
            yield Tile(first, start, distance, tolerance, partial(self._score_columns, start), unshared=unshared)

    def _score_columns(self, start: int, queries: Rows, columns: Rows) -> np.ndarray:
        return self.score(queries, np.asarray(columns) + start)

    def _overlap(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Σ min of the encodings of pairs, read from dense blocks of the queries that occur."""
        result = np.empty(len(queries))
        if not len(queries):
            return result
        start, stop, columns = self._window
        if rows.min() < start or rows.max() >= stop:
            start, stop, columns = 0, self._gallery.shape[0], self._gallery.tocsc()
        order = np.argsort(queries, kind="stable")
        names, begin = np.unique(queries[order], return_index=True)
        begin = np.append(begin, len(order))
        step = max(1, _CELLS // (stop - start))
        for first in range(0, len(names), step):
            block = names[first : first + step]
            dense = shared_minima(self._query[block].tocsr(), columns)
            chosen = order[begin[first] : begin[first + len(block)]]
            result[chosen] = dense[np.searchsorted(block, queries[chosen]), rows[chosen] - start]
        return result
