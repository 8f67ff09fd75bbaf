"""The exact nearest rows of each query, in bounded memory, whatever the tiles are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from occluded_reid.arguments import checked
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import ShapeError
from occluded_reid.matchers.base import NO_SHARED_SLOT, Matcher
from occluded_reid.search.device import full_precision
from occluded_reid.search.proposals import Proposals
from occluded_reid.search.rows import RowSource, rows_at
from occluded_reid.search.tiles import Tile, Tiles

__all__ = ["Allowed", "TopK", "exact_topk"]

Allowed = Callable[[int, int], np.ndarray]

_MARGIN = 16  # candidates beyond k: enough unless ties or near-ties crowd around the k-th answer
_JOINED_VALUES = 1 << 18  # distances of several tiles that are looked at together: 1 MB
_RESCORED_NUMBERS = 1 << 23  # of gallery rows held for re-scoring: 32 MB in float32


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


@checked(ShapeError, but=("device",))
def exact_topk(
    query: PartEmbeddings,
    rows: RowSource,
    matcher: Matcher,
    k: int,
    *,
    tile_rows: int | None = None,
    allowed: Allowed | None = None,
    device: str | torch.device | None = "cpu",
) -> TopK:
    """Find the k nearest rows of each query: the answer of the full float64 distance matrix, without the matrix.

    Tiles propose k + margin rows; these are scored again pair by pair in float64, on the CPU. Where the margin cannot
    prove that nothing was missed (ties at its edge), a second pass scores every row that could still belong to the
    answer. So device, tile size and number of threads change the time, never the answer.

    On a GPU the queries stay there, gallery tiles are copied to it while the next one is read, and the proposals are
    kept there. Products are in full float32, TF32 or not; those of Euclidean distances are in float64, which cards for
    data centres do at full or half speed and cards for games at a fraction of it.

    Peak memory beside the rows and the answer, with ΣD numbers a row: the prepared queries (Nq × ΣD × 4 bytes), a tile
    as it is read and as it is prepared (`tile_rows` × ΣD; by default 4 MB, or 1,024 rows up to 32 MB), its distances
    (8 MB), the proposals (Nq × (k + 16) × about 80 bytes while they are scored) and 32 MB of rows to be scored again.
    Euclidean distances need twice the bytes, and five times for the distances of a tile. Of a GPU's memory a search
    takes a tile of 128 MB and 64 MB of distances, and of the CPU's two tiles, one of them pinned.

    Args:
        query: Nq rows.
        rows: the gallery.
        matcher: the distance.
        k: how many; more than the gallery holds gives all of it.
        tile_rows: gallery rows at a time; None chooses by their width and the device.
        allowed: called with (start, stop), returns a boolean (Nq, stop - start) array: what a query may find.
        device: where tiles are multiplied, see `choose_device`; None is where the queries are.

    Returns:
        Positions and distances; a list is shorter than k where a query may find fewer rows.

    Raises:
        ShapeError: k or tile_rows is below 1, or `allowed` returns another shape.
        EmbeddingError: the slots of query and gallery differ.
        DeviceError: there is no such device.
    """
    if k < 1 or (tile_rows is not None and tile_rows < 1):
        raise ShapeError(f"k is {k} and tile_rows is {tile_rows}; both must be at least 1.")
    walk = Tiles(query, rows, matcher, device=device)
    with full_precision(walk.device):
        return _Search(walk, query, rows, matcher, k, tile_rows, allowed).run()


class _Search:
    """One call of `exact_topk`."""

    def __init__(
        self,
        walk: Tiles,
        query: PartEmbeddings,
        rows: RowSource,
        matcher: Matcher,
        k: int,
        tile_rows: int | None,
        allowed: Allowed | None,
    ) -> None:
        self.walk, self.query, self.rows, self.matcher, self.k = walk, query, rows, matcher, k
        self.tile_rows, self.allowed = tile_rows, allowed
        self.positions: list[np.ndarray] = [np.empty(0, np.int64)] * len(query)
        self.distances: list[np.ndarray] = [np.empty(0)] * len(query)

    def run(self) -> TopK:
        size = self.k + _MARGIN
        if size >= len(self.rows):  # everything would be proposed
            self._scan(np.arange(len(self.query)), np.full(len(self.query), NO_SHARED_SLOT))
            return TopK(self.positions, self.distances)
        edge = self._rescore(self._propose(size))
        # The farthest proposal is infinitely far where every allowed row was proposed.
        known = np.flatnonzero(np.isfinite(edge))
        last = np.array([self.distances[q][-1] for q in known])
        doubtful = ~(last + self.walk.tolerance < edge[known])
        if doubtful.any():
            # k rows at these distances are known to exist, so nothing beyond them is wanted.
            self._scan(known[doubtful], last[doubtful])
        return TopK(self.positions, self.distances)

    def _tiles(self, queries: np.ndarray | None = None) -> Iterator[Tile]:
        """Yield the tiles of some queries; what is not allowed is infinitely far."""
        for tile in self.walk.tiles(self.tile_rows, queries=queries):
            if self.allowed is not None:
                if tile.first == 0:
                    mask = self._mask(self.allowed, tile.start, tile.stop, queries)
                tile.distance.masked_fill_(~mask[tile.first : tile.last].to(self.walk.device), torch.inf)
            yield tile

    def _mask(self, allowed: Allowed, start: int, stop: int, queries: np.ndarray | None) -> Tensor:
        mask = np.asarray(allowed(start, stop), dtype=bool)
        if mask.shape != (len(self.query), stop - start):
            raise ShapeError(f"allowed({start}, {stop}) gave {mask.shape}; wanted ({len(self.query)}, {stop - start}).")
        return torch.from_numpy(mask if queries is None else mask[queries])

    def _propose(self, size: int) -> Proposals:
        """The k + margin nearest rows of each query, as tiles see them."""
        nearest = Proposals(len(self.query), size, self.walk.device)
        for start, first, distance in _joined(self._tiles()):
            nearest.update(first, distance, start)
        return nearest

    def _rescore(self, nearest: Proposals) -> np.ndarray:
        """Keep the k best of the proposals by their exact distance; return the farthest proposed distance (Nq,)."""
        proposed = nearest.distance.cpu().double().numpy()
        where = nearest.position.cpu().numpy()
        # Each of the k nearest as tiles see it is at most a tolerance farther than that. A row that tiles see two
        # tolerances beyond the last of them comes after all k.
        kth = np.partition(proposed, self.k - 1, axis=1)[:, self.k - 1, None]
        queries, columns = np.nonzero(np.isfinite(proposed) & (proposed <= kth + 2 * self.walk.tolerance))
        exact = np.full(proposed.shape, np.inf)
        # In the order of the gallery, so that each of its rows is fetched once and near its neighbours.
        order = np.argsort(where[queries, columns], kind="stable")
        queries, columns = queries[order], columns[order]
        unique, begin = np.unique(where[queries, columns], return_index=True)
        begin = np.append(begin, len(queries))
        step = max(1, _RESCORED_NUMBERS // max(1, sum(self.query.widths.values())))
        for first in range(0, len(unique), step):
            last = min(first + step, len(unique))
            pairs = slice(begin[first], begin[last])
            rows, place = rows_at(self.rows, unique[first:last])
            place = np.repeat(place, np.diff(begin[first : last + 1]))
            exact[queries[pairs], columns[pairs]] = self.matcher.pairs(self.query, rows, queries[pairs], place)
        best = np.lexsort((where, exact), axis=1)[:, : self.k]
        found = np.isfinite(exact).sum(1).clip(max=self.k)
        for q, count in enumerate(found.tolist()):
            self.positions[q], self.distances[q] = where[q, best[q, :count]], exact[q, best[q, :count]]
        return np.asarray(proposed.max(1))

    def _keep(self, queries: np.ndarray, positions: np.ndarray, distance: np.ndarray) -> None:
        """Merge scored pairs, none of them known before, into the lists of their queries."""
        order = np.argsort(queries, kind="stable")
        for q, chosen in _groups(queries, order):
            merged_positions = np.concatenate([self.positions[q], positions[chosen]])
            merged_distances = np.concatenate([self.distances[q], distance[chosen]])
            nearest = np.lexsort((merged_positions, merged_distances))[: self.k]
            self.positions[q], self.distances[q] = merged_positions[nearest], merged_distances[nearest]

    def _scan(self, queries: np.ndarray, bound: np.ndarray) -> None:
        """Score every row of the gallery that lies within `bound` (one for each query): it may belong to the answer."""
        for q in queries:
            self.positions[q], self.distances[q] = np.empty(0, np.int64), np.empty(0)
        for tile in self._tiles(queries):
            limit = torch.from_numpy(bound[tile.first : tile.last] + self.walk.tolerance)[:, None]
            within = torch.nonzero(tile.distance <= limit.float().to(self.walk.device), as_tuple=True)
            seen, block, columns = (x.cpu().numpy() for x in (tile.distance[within], *within))
            exact = np.full(len(block), NO_SHARED_SLOT)
            # Pairs without a common slot are known as such; there may be very many of them.
            near = np.flatnonzero(seen < NO_SHARED_SLOT)
            exact[near] = tile.exact(block[near], columns[near])
            self._keep(queries[tile.first + block], columns + tile.start, exact)
            for i in np.unique(block) + tile.first:
                if len(self.distances[queries[i]]) == self.k:
                    bound[i] = min(bound[i], self.distances[queries[i]][-1])


def _joined(tiles: Iterator[Tile]) -> Iterator[tuple[int, int, Tensor]]:
    """Yield (gallery start, first query, distances), those of neighboring tiles side by side while they are few.

    For a few queries, looking for the nearest costs a tile as much as its product.
    """
    held: list[Tensor] = []
    begin = query = 0
    for tile in tiles:
        distance = tile.distance
        alike = bool(held) and (tile.first, len(distance)) == (query, len(held[0]))
        if held and not (alike and distance.numel() + sum(each.numel() for each in held) <= _JOINED_VALUES):
            yield begin, query, torch.cat(held, 1)
            held = []
        if not held:
            begin, query = tile.start, tile.first
        held.append(distance)
    if held:
        yield begin, query, torch.cat(held, 1)


def _groups(queries: np.ndarray, order: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (query, its pairs) for pairs ordered by query."""
    if not len(order):
        return
    sorted_queries = queries[order]
    starts = np.flatnonzero(np.diff(sorted_queries, prepend=-1))
    for begin, end in zip(starts, [*starts[1:], len(order)], strict=True):
        yield int(sorted_queries[begin]), order[begin:end]
