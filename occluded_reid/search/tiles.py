"""One walk over tiles of distances: fast ones propose, and exact ones decide what lies too near to call.

Search, ranking, re-ranking and calibration are walks of this kind. None of them holds all distances, and none of their
answers depends on tile size, threads or device: those change the last bits of a tile, never an exact distance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import ShapeError
from occluded_reid.matchers.base import Matcher, PairScorer, Prepared, Rows
from occluded_reid.search.device import choose_device, full_precision
from occluded_reid.search.rows import InMemoryRows, PreparingSource, RowSource, moved, tiles_on

__all__ = ["Distances", "MatchedTile", "Tile", "Tiles", "score_pairs"]

_TILE_NUMBERS = {"cpu": 1 << 20, "cuda": 1 << 25}  # of a gallery tile: 4 MB in float32 stay near the processor
_TILE_ROWS = 1024, 1 << 16  # fewer cost the product some of its speed; wide rows have fewer all the same
_BLOCK_VALUES = {"cpu": 1 << 21, "cuda": 1 << 24}  # distances at a time: 8 MB, 64 MB
_RESCORED_PAIRS = 1 << 18  # pairs scored at a time


@dataclass(frozen=True, eq=False)
class Tile:
    """Distances of nq queries, one after another, to ng gallery rows that follow each other.

    Attributes:
        first: number of the first query.
        start: position of the first gallery row.
        distance: (nq, ng) float32, where they were multiplied; nobody else uses them.
        tolerance: how far they may lie from the exact ones: one number, or (nq,).
        score: exact distances of pairs of a query's number and a column of this tile.
        queries: numbers of the queries of the walk; None where these are all queries.
        unshared: (nq, ng) which pairs share no slot; None where a distance of `NO_SHARED_SLOT` tells.
    """

    first: int
    start: int
    distance: Tensor
    tolerance: float | np.ndarray
    score: PairScorer
    queries: np.ndarray | None = None
    unshared: Tensor | None = None

    @property
    def last(self) -> int:
        """Number of the query after the last one."""
        return self.first + self.distance.shape[0]

    @property
    def stop(self) -> int:
        """Position after the last gallery row."""
        return self.start + self.distance.shape[1]

    def exact(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the deciding distances (n,) of n pairs of this tile: float64, rounded to 1e-6.

        Args:
            rows: n rows of `distance`.
            columns: n columns of `distance`.
        """
        numbers = np.asarray(rows, dtype=np.int64) + self.first
        return score_pairs(self.score, numbers if self.queries is None else self.queries[numbers], columns)

    def count_nearer(
        self,
        distance: np.ndarray,
        rows: np.ndarray,
        own: np.ndarray,
        around: np.ndarray,
        earlier: Callable[[np.ndarray, np.ndarray], np.ndarray],
        columns: np.ndarray | None = None,
    ) -> np.ndarray:
        """Count, by their exact distances, the images before each of n known ones that tiles cannot tell from it.

        Args:
            distance: (nq, m) of this tile, infinite for images that do not count.
            rows: (n,) row of each known one.
            own: (n,) its exact distance.
            around: (2, n) between which distances an image is too near to call.
            earlier: of pairs (number among the n, position in the gallery): whether the image wins a tie.
            columns: (m,) those of `distance`; None is all of them.

        Returns:
            (n,) int64.
        """
        asked, owner = np.unique(rows, return_inverse=True)
        near = distance[rows]
        which, place = np.nonzero((near >= around[0, :, None]) & (near <= around[1, :, None]) & np.isfinite(near))
        # Several known ones of a query may be near to one image: each pair is scored once.
        wanted = np.zeros((len(asked), distance.shape[1]), dtype=bool)
        wanted[owner[which], place] = True
        q, g = np.nonzero(wanted)
        scores = np.empty(wanted.shape)
        columns = np.arange(distance.shape[1]) if columns is None else columns
        scores[q, g] = self.exact(asked[q], columns[g])
        exact, mine = scores[owner[which], place], own[which]
        before = (exact < mine) | ((exact == mine) & earlier(which, columns[place] + self.start))
        return np.bincount(which[before], minlength=len(rows))


@dataclass(frozen=True, eq=False, kw_only=True)
class MatchedTile(Tile):
    """A tile that a matcher made.

    Attributes:
        tolerance: one number.
        rows: the gallery rows, as they were read.
        sides: both sides as the matcher prepared them.
    """

    tolerance: float
    rows: PartEmbeddings
    sides: tuple[Prepared, Prepared]

    def shared(self) -> Tensor:
        """Return how many slots each pair shares, (nq, ng) int64: those with v(query) · v(gallery) > 0."""
        query, gallery = ((side.shared > 0).float() for side in self.sides)
        return (query @ gallery.T).round().long()


class Distances(Protocol):
    """Distances of Nq queries to Ng gallery rows, of which nobody holds all."""

    def score(self, query_rows: Rows, gallery_rows: Rows) -> np.ndarray:
        """Return the deciding distances of n pairs: float64, rounded to 1e-6."""
        ...

    def tiles(self, rows: int | None = None, values: int | None = None) -> Iterator[Tile]:
        """Yield all of them, at most `rows` gallery rows and about `values` distances at a time.

        Every query meets some gallery rows before the next rows come.
        """
        ...


class Tiles:
    """The distances of a matcher, multiplied on a device, and decided on the CPU.

    On a GPU the queries stay there, and gallery rows are copied to it while those before them are worked on.

    Args:
        query: Nq rows.
        gallery: Ng rows with the same slots, or where they are read.
        matcher: the distance.
        device: where to multiply, see `choose_device`; None is where the queries are.

    Attributes:
        prepared: the queries as the matcher multiplies them.
        tolerance: the largest of all tiles so far.
        device: the one chosen.

    Raises:
        EmbeddingError: the slots of both sides differ.
        DeviceError: there is no such device.

    Example:
        >>> from occluded_reid.matchers import PlainMatcher
        >>> rows = PartEmbeddings(("a",), (torch.eye(3),), torch.ones(3, 1))
        >>> [(tile.start, tile.distance.shape[1]) for tile in Tiles(rows, rows, PlainMatcher()).tiles(2)]
        [(0, 2), (2, 1)]
    """

    def __init__(
        self,
        query: PartEmbeddings,
        gallery: PartEmbeddings | RowSource,
        matcher: Matcher,
        *,
        device: str | torch.device | None = None,
    ) -> None:
        on = query.visibility.device
        self.device = choose_device((on if on.type == "cuda" else "cpu") if device is None else device)
        self._query, self._gallery, self._matcher = query, gallery, matcher
        if isinstance(gallery, PartEmbeddings):
            query.require_same_slots(gallery)
        self._rows = InMemoryRows(gallery) if isinstance(gallery, PartEmbeddings) else gallery
        self._preparing = gallery if self.device.type == "cpu" and isinstance(gallery, PreparingSource) else None
        with full_precision(self.device):
            self.prepared = matcher.prepare(moved(query, self.device))
        self.tolerance = matcher.tolerance(self.prepared, self.prepared)

    def score(self, query_rows: Rows, gallery_rows: Rows) -> np.ndarray:
        """Return the deciding distances of n pairs: float64, rounded to 1e-6."""
        return self._whole(query_rows, gallery_rows)

    def tiles(
        self,
        rows: int | None = None,
        values: int | None = None,
        *,
        queries: np.ndarray | None = None,
        since: int = 0,
    ) -> Iterator[MatchedTile]:
        """Yield the distances, tile by tile.

        Args:
            rows: of the gallery at a time; None chooses by their width and the device.
            values: distances at a time; None chooses by the device.
            queries: numbers of those that are asked; None asks all.
            since: leave out tiles of rows before this position.
        """
        prepared = self.prepared if queries is None else _take(self.prepared, queries)
        values = values or _BLOCK_VALUES[self.device.type]
        for start, tile, there in tiles_on(self._rows, rows or self._tile_rows(), self.device):
            if start + len(tile) <= since:
                continue
            self._query.require_same_slots(tile)
            with full_precision(self.device):
                gallery = self._prepare(start, tile, there)
            tolerance = self._matcher.tolerance(self.prepared, gallery)
            self.tolerance = max(self.tolerance, tolerance)
            score = self._scorer(start, tile)
            size = max(1, values // len(tile))
            for first in range(0, len(prepared), size):
                block = prepared[first : first + size]
                with full_precision(self.device):
                    distance = self._matcher.tile(block, gallery)
                yield MatchedTile(
                    first=first,
                    start=start,
                    distance=distance,
                    tolerance=tolerance,
                    score=score,
                    queries=queries,
                    rows=tile,
                    sides=(block, gallery),
                )

    @cached_property
    def _whole(self) -> PairScorer:
        if isinstance(self._gallery, PartEmbeddings):
            return self._matcher.scorer(self._query, self._gallery)
        raise ShapeError("rows that are read from a source are decided tile by tile; give all of them at once.")

    def _scorer(self, start: int, tile: PartEmbeddings) -> PairScorer:
        """Exact distances of a tile, by what is known of all rows or, of rows that are read, by their own scorer."""
        if isinstance(self._gallery, PartEmbeddings):
            return lambda queries, columns: self._whole(queries, np.asarray(columns) + start)
        scorers: list[PairScorer] = []

        def score(queries: Rows, columns: Rows) -> np.ndarray:
            if not scorers:
                scorers.append(self._matcher.scorer(self._query, tile))
            return scorers[0](queries, columns)

        return score

    def _prepare(self, start: int, tile: PartEmbeddings, there: PartEmbeddings) -> Prepared:
        if self._preparing is None:
            return self._matcher.prepare(there)
        return self._preparing.prepared(start, tile, self._matcher)

    def _tile_rows(self) -> int:
        numbers, width = _TILE_NUMBERS[self.device.type], max(1, sum(self._query.widths.values()))
        least = max(1, min(_TILE_ROWS[0], 8 * numbers // width))
        return max(least, min(numbers // width, _TILE_ROWS[1]))


def score_pairs(score: Callable[[Rows, Rows], np.ndarray], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the exact distances (n,) of n pairs, a bounded number of them at a time.

    Args:
        score: exact distances of pairs.
        rows: n numbers as `score` takes them.
        columns: n numbers likewise.
    """
    exact = np.empty(len(rows))
    for begin in range(0, len(exact), _RESCORED_PAIRS):
        part = slice(begin, begin + _RESCORED_PAIRS)
        exact[part] = score(rows[part], columns[part])
    return exact


def _take(prepared: Prepared, rows: np.ndarray) -> Prepared:
    """These rows, copied."""
    index = torch.from_numpy(rows).to(prepared.shared.device)
    return Prepared(tuple(f[index] for f in prepared.factors), prepared.shared[index], prepared.always, prepared.scale)
