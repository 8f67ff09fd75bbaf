"""Two images that share no part, compared through images that show the whole person: each query with the gallery alone.

An upper body and a lower body have nothing in common to compare. A complete image h of the gallery has something in
common with both: B(q, g) = min over the n complete images h nearest to q of (d(q, h) + d(h, g)) / 2. Half of the sum,
so that a bridged distance is of the size of a plain one and both stand in one order. The idea is that of re-ranking
through the gallery; the formula, the threshold and the rule for "complete" are this library's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from occluded_reid.arguments import check_fields
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import ShapeError
from occluded_reid.matchers.base import DECIMALS, NO_SHARED_SLOT, Matcher, Rows
from occluded_reid.matchers.slots import SlotMatcher
from occluded_reid.search.device import full_precision
from occluded_reid.search.exact import Allowed, TopK, exact_topk
from occluded_reid.search.rows import InMemoryRows, RowSource, moved
from occluded_reid.search.selected import SelectedRows
from occluded_reid.search.tiles import MatchedTile, Tile, Tiles

__all__ = ["Bridge", "BridgedDistances", "bridge_topk", "shared_part"]

_TILE = 1024  # gallery rows at a time
_PAIRS = 1 << 12  # pairs that are decided at a time, with n bridges each
_QUERIES = 128  # of a block: n times as many bridges are multiplied with a tile
_EPSILON = 2e-6  # rounding to 1e-6 on both sides, and float32


@dataclass(frozen=True)
class Bridge:
    """Compare images that share too little through complete images of the gallery.

    Args:
        n: complete gallery images nearest to the query that may be bridges; 1 was best on validation people of
            Market-1501 (benchmarks/bridge.py).
        below: a pair is bridged where its shared part is smaller, see `shared_part`. A pair that no bridge reaches
            keeps its own distance.
        complete: mean visibility from which an image is complete.
        temperature: τ of a soft minimum, -τ ln(mean of exp(-x / τ)); 0 is the minimum.

    Raises:
        ShapeError: a value makes no sense.

    Example:
        >>> print(Bridge(n=5))
        bridge (n=5, below=0.5, complete=0.9, temperature=0.0)
    """

    n: int = 1
    below: float = 0.5
    complete: float = 0.9
    temperature: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, ShapeError)
        if self.n < 1:
            raise ShapeError(f"n is {self.n}; give the number of bridges of a query, at least 1.")
        if not (0 < self.below <= 1 and 0 < self.complete <= 1):
            raise ShapeError(f"below is {self.below} and complete is {self.complete}; both lie in (0, 1].")
        if not 0 <= self.temperature < np.inf:
            raise ShapeError(f"temperature is {self.temperature}; give 0 (the minimum) or a finite number above it.")

    def __str__(self) -> str:
        return f"bridge (n={self.n}, below={self.below}, complete={self.complete}, temperature={self.temperature})"


def shared_part(query: Tensor, gallery: Tensor) -> Tensor:
    """How much of the image that shows less the other one shows too: Σ_s v_s(q) v_s(g) / min(Σ_s v_s(q), Σ_s v_s(g)).

    Args:
        query: visibility (…, S), float64.
        gallery: visibility of the other images, of a shape that fits.

    Returns:
        (…) in [0, 1]; 0 where one image shows nothing. A pair gets the same number alone and among others.

    Example:
        >>> upper, lower, whole = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1]]).double()
        >>> [float(shared_part(upper, other)) for other in (lower, whole, upper)]
        [0.0, 1.0, 1.0]
    """
    shared = torch.zeros_like(query[..., 0] * gallery[..., 0])
    of_query, of_gallery = shared, shared
    for s in range(query.shape[-1]):  # one after another: a fixed order of additions, whatever the shapes are
        shared = shared + query[..., s] * gallery[..., s]
        of_query, of_gallery = of_query + query[..., s], of_gallery + gallery[..., s]
    least = torch.minimum(of_query, of_gallery)
    return torch.where(least > 0, shared / torch.where(least > 0, least, 1.0), 0.0)


class BridgedDistances:
    """The matcher's distances, and bridged ones where two images share too little.

    The bridges of each query are found by one exact search among the complete images. Memory beside the gallery: n rows
    for each query (fewer where they share bridges), and for one block of queries and one tile the distances of its
    bridges to the tile.

    Args:
        query: Nq rows.
        rows: the gallery.
        matcher: the distance.
        bridge: the parameters.
        device: where to multiply, see `Tiles`.
    """

    def __init__(
        self,
        query: PartEmbeddings,
        rows: PartEmbeddings | RowSource,
        matcher: Matcher,
        bridge: Bridge,
        *,
        device: str | torch.device | None = None,
    ) -> None:
        self._plain = Tiles(query, rows, matcher, device=device)
        self._query, self._matcher, self._bridge = query, matcher, bridge
        self._rows: RowSource = InMemoryRows(rows) if isinstance(rows, PartEmbeddings) else rows
        self._seen = _visibility(query, matcher)
        complete = [
            start + np.flatnonzero(_visibility(tile, matcher).mean(1).numpy() >= bridge.complete)
            for start, tile in self._rows.tiles(_TILE)
        ]
        positions = np.concatenate([np.empty(0, np.int64), *complete])
        # Of each query: the numbers of its bridges among all bridges, and their distances; what is missing is infinite.
        self._number = np.zeros((len(query), bridge.n), dtype=np.int64)
        self._to_bridge = np.full((len(query), bridge.n), np.inf)
        found = np.zeros_like(self._number)
        if len(positions) and len(query):
            best = exact_topk(query, SelectedRows(self._rows, positions), matcher, bridge.n, device=self._plain.device)
            for q, (places, distance) in enumerate(zip(best.positions, best.distances, strict=True)):
                reached = distance < NO_SHARED_SLOT
                found[q, : reached.sum()] = positions[places[reached]]
                self._to_bridge[q, : reached.sum()] = distance[reached]
        used, number = np.unique(found[np.isfinite(self._to_bridge)], return_inverse=True)
        self._number[np.isfinite(self._to_bridge)] = number
        self._bridges = self._rows.take(used)

    def score(self, queries: Rows, rows: Rows) -> np.ndarray:
        """Return the distances of pairs: float64, rounded to 1e-6."""
        queries, rows = np.asarray(queries, dtype=np.int64), np.asarray(rows, dtype=np.int64)
        result = np.empty(len(queries))
        order = np.argsort(rows, kind="stable")
        for start in range(0, len(order), _PAIRS):
            part = order[start : start + _PAIRS]
            names, place = np.unique(rows[part], return_inverse=True)
            result[part] = self._pairs(queries[part], place, self._rows.take(names))
        return result

    def _pairs(self, queries: np.ndarray, places: np.ndarray, gallery: PartEmbeddings) -> np.ndarray:
        distance = np.array(self._matcher.pairs(self._query, gallery, queries, places), dtype=np.float64)
        seen = _visibility(gallery, self._matcher)
        far = np.flatnonzero((shared_part(self._seen[queries], seen[places]) < self._bridge.below).numpy())
        if not len(far) or not len(self._bridges):
            return distance
        first = self._to_bridge[queries[far]]
        pairs, column = np.nonzero(np.isfinite(first))
        second = np.full_like(first, np.inf)
        second[pairs, column] = self._matcher.pairs(
            self._bridges, gallery, self._number[queries[far]][pairs, column], places[far][pairs]
        )
        bridged = self._combined(torch.from_numpy(first), torch.from_numpy(second)).numpy()
        reached = np.isfinite(bridged)
        distance[far[reached]] = np.round(bridged[reached], DECIMALS)
        return distance

    def _combined(self, first: Tensor, second: Tensor) -> Tensor:
        """The (soft) minimum over the last dimension of half of the sums; infinite where no bridge reaches."""
        through = torch.where(second < NO_SHARED_SLOT, (first + second) / 2, torch.inf)
        least = through.amin(-1)
        if self._bridge.temperature == 0:
            return least
        # Less the minimum first: exp() of the nearest is then 1, and no temperature makes all of them 0.
        lowest = torch.where(least.isfinite(), least, 0.0)[..., None]
        above = torch.where(through.isfinite(), through - lowest, torch.inf)
        mean = torch.exp(-above / self._bridge.temperature).sum(-1) / through.isfinite().sum(-1).clamp(min=1)
        return torch.where(least.isfinite(), least - self._bridge.temperature * mean.log(), torch.inf)

    def tiles(self, rows: int | None = None, values: int | None = None) -> Iterator[Tile]:
        """Yield all plain and bridged distances, at most `rows` gallery rows and about `values` distances at a time."""
        start, seen = -1, torch.empty(0)
        for tile in self._plain.tiles(rows, values):
            if tile.start != start:
                start, seen = tile.start, _visibility(tile.rows, self._matcher)
            yield self._bridged(tile, seen)

    def _bridged(self, tile: MatchedTile, seen: Tensor) -> Tile:
        distance, margin, gallery, device = tile.distance.cpu(), tile.tolerance, tile.sides[1], self._plain.device
        for begin in range(tile.first, tile.last, _QUERIES) if len(self._bridges) else ():
            end = min(begin + _QUERIES, tile.last)
            used, number = np.unique(self._number[begin:end], return_inverse=True)
            with full_precision(device):
                bridges = self._matcher.prepare(moved(self._bridges[torch.from_numpy(used)], device))
                margin = max(margin, self._matcher.tolerance(bridges, gallery))
                second = self._matcher.tile(bridges, gallery).cpu().double()
            number = number.reshape(end - begin, -1)
            for q in range(begin, end):
                few = shared_part(self._seen[q], seen) < self._bridge.below
                if not bool(few.any()):
                    continue
                legs = second[number[q - begin]][:, few].T
                bridged = self._combined(torch.from_numpy(self._to_bridge[q]), legs)
                line = distance[q - tile.first]
                line[few] = torch.where(bridged.isfinite(), bridged.float(), line[few])
        return Tile(tile.first, tile.start, distance, margin + _EPSILON, partial(self._score_columns, tile.start))

    def _score_columns(self, start: int, queries: Rows, columns: Rows) -> np.ndarray:
        return self.score(queries, np.asarray(columns) + start)


def bridge_topk(
    query: PartEmbeddings,
    rows: RowSource,
    matcher: Matcher,
    bridge: Bridge,
    k: int,
    *,
    allowed: Allowed | None = None,
    device: str | torch.device = "cpu",
) -> TopK:
    """Find the k nearest rows of each query by plain and bridged distances; no query knows of another one.

    Three passes over the gallery: for the complete images, for the bridges, and for the answer, of which tiles propose
    and pairs decide. Bridges may be rows that a query may not find.

    Args:
        query: Nq rows.
        rows: the gallery.
        matcher: the distance.
        bridge: the parameters.
        k: how many.
        allowed: as for `exact_topk`.
        device: where to multiply.

    Returns:
        Positions and distances, rounded to 1e-6; equal ones in the order of the gallery.

    Raises:
        ShapeError: k is below 1.
        EmbeddingError: the slots of query and gallery differ.
    """
    if k < 1:
        raise ShapeError(f"k is {k}; it must be at least 1.")
    distances = BridgedDistances(query, rows, matcher, bridge, device=device)
    positions = [np.empty(0, np.int64) for _ in range(len(query))]
    nearest = [np.empty(0) for _ in range(len(query))]
    start, mask = -1, None
    for tile in distances.tiles(_TILE):
        if allowed is not None and tile.start != start:
            start, mask = tile.start, allowed(tile.start, tile.stop)
        for q in range(tile.first, tile.last):
            line = tile.distance[q - tile.first].numpy()
            able = np.arange(len(line)) if mask is None else np.flatnonzero(mask[q])
            near = able[_proposed(line[able], nearest[q], float(np.max(tile.tolerance)), k)]
            both = np.concatenate([positions[q], near + tile.start])
            every = np.concatenate([nearest[q], tile.exact(np.full(len(near), q - tile.first), near)])
            order = np.lexsort((both, every))[:k]
            positions[q], nearest[q] = both[order], every[order]
    return TopK(positions, nearest)


def _proposed(line: np.ndarray, known: np.ndarray, tolerance: float, k: int) -> np.ndarray:
    """Places of a tile's distances that may be among the k nearest."""
    limit = known[-1] if len(known) == k else np.inf
    if len(line) > k:
        limit = min(limit, float(np.partition(line, k - 1)[k - 1]) + tolerance)
    return np.flatnonzero(line <= limit + tolerance)


def _visibility(rows: PartEmbeddings, matcher: Matcher) -> Tensor:
    """The visibility that counts for the matcher, (N, S) float64, of the slots that it uses."""
    if not isinstance(matcher, SlotMatcher):
        return rows.visibility.double().cpu()
    used = set(matcher.used(rows.names))
    return matcher.visibility_of(rows)[:, [s for s, name in enumerate(rows.names) if name in used]].double().cpu()
