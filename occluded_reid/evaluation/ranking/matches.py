"""Where the true matches of each query stand, without ever holding the full distance matrix.

Only the distances of true matches are kept. They are scored first, exactly. Then each tile of the gallery tells, by
sorting its rows of distances, how many other images come before each true match; what lies too near to call in float32
is scored exactly too. An image comes before another by (distance rounded to 1e-6, place in the gallery). The place is
that of its name among the sorted names, so that no number depends on the order in which files were read; where the
images have no names, it is the position.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EvaluationError
from occluded_reid.matchers.base import NO_SHARED_SLOT, Matcher
from occluded_reid.search.rerank.all_queries import RerankedDistances
from occluded_reid.search.rerank.k_reciprocal import KReciprocal
from occluded_reid.search.tiles import Distances, Tile, Tiles, score_pairs

__all__ = ["Labelled", "MatchRanks", "places", "rank_matches", "rank_matches_by"]

Progress = Callable[[int, int], None]
"""Called with (gallery rows done, gallery rows in all)."""

_BLOCK_VALUES = 1 << 21  # distances of a tile that are looked at together: 8 MB
_SETTLED_VALUES = 1 << 18  # of them, where matches are too near to call: up to a hundred bytes each


class Labelled(Protocol):
    """Images of which it is known who they show: an `EmbeddedSet`, or labels without embeddings."""

    @property
    def identity(self) -> np.ndarray:
        """(N,) int64."""
        ...

    @property
    def camera(self) -> np.ndarray:
        """(N,) int64."""
        ...

    @property
    def paths(self) -> tuple[str, ...]:
        """N names, or none."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class MatchRanks:
    """All true matches, one after another by query and then by rank.

    Attributes:
        offsets: (Nq + 1,) where the matches of each query begin and end; a query without any has none.
        rows: positions of the matches in the gallery.
        before: how many images of other people come before each match.
        distance: of each match, float64, rounded to 1e-6.
        excluded: pairs dropped for having the same identity and camera.
        unshared: pairs left in that share no slot.
    """

    offsets: np.ndarray
    rows: np.ndarray
    before: np.ndarray
    distance: np.ndarray
    excluded: int
    unshared: int

    @property
    def queries(self) -> np.ndarray:
        """The query of each match."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @property
    def ranks(self) -> np.ndarray:
        """Ranks from 1: the images of others before each match, and the query's own matches before it."""
        own = np.arange(len(self.before)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))
        return np.asarray(self.before + own + 1)

    def select(self, kept: np.ndarray) -> MatchRanks:
        """Return what is left when only some matches count and the others are left out of the gallery.

        Args:
            kept: (matches,) bool.
        """
        counts = np.bincount(self.queries[kept], minlength=len(self.offsets) - 1)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return MatchRanks(
            offsets, self.rows[kept], self.before[kept], self.distance[kept], self.excluded, self.unshared
        )


def rank_matches(
    query: EmbeddedSet,
    gallery: EmbeddedSet,
    matcher: Matcher,
    *,
    exclude_same_camera: bool = True,
    tile_rows: int = 1024,
    rerank: KReciprocal | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> MatchRanks:
    """Rank the true matches of each query.

    Args:
        query: Nq rows.
        gallery: Ng rows with the same slots.
        matcher: the distance.
        exclude_same_camera: drop gallery images of the query's identity and camera.
        tile_rows: gallery rows at a time.
        rerank: rank by k-reciprocal encodings over all queries and the gallery; None ranks by the matcher alone.
        device: where to multiply, see `choose_device`; None is where the queries are.
        progress: called after each tile.
    """
    distances: Distances
    if rerank is None:
        distances = Tiles(query.embeddings, gallery.embeddings, matcher, device=device)
    else:
        distances = RerankedDistances(query.embeddings, gallery.embeddings, matcher, rerank, device=device)
    return rank_matches_by(
        distances, query, gallery, exclude_same_camera=exclude_same_camera, tile_rows=tile_rows, progress=progress
    )


def rank_matches_by(
    distances: Distances,
    query: Labelled,
    gallery: Labelled,
    *,
    exclude_same_camera: bool = True,
    tile_rows: int = 1024,
    progress: Progress | None = None,
) -> MatchRanks:
    """Rank the true matches of each query by any distances; arguments as in `rank_matches`.

    Raises:
        EvaluationError: a distance is NaN.
    """
    queries, rows, same_camera = _same_identity(query, gallery)
    dropped = same_camera if exclude_same_camera else np.zeros_like(same_camera)
    matches = _Matches(len(query), queries[~dropped], rows[~dropped], distances, places(gallery))
    by_row = np.argsort(rows, kind="stable")
    row_starts = rows[by_row]
    unshared = int((matches.distance >= NO_SHARED_SLOT).sum())
    for tile in distances.tiles(tile_rows, _BLOCK_VALUES):
        first, start = tile.first, tile.start
        if first == 0:
            mine = by_row[slice(*np.searchsorted(row_starts, [start, tile.stop]))]
            mine = mine[np.argsort(queries[mine], kind="stable")]
        # Neither dropped images nor other true matches count here: they are moved out of the way.
        here = mine[slice(*np.searchsorted(queries[mine], [first, tile.last]))]
        distance = tile.distance.cpu()
        distance[torch.from_numpy(queries[here] - first), torch.from_numpy(rows[here] - start)] = torch.inf
        ordered = _sorted(distance)
        _refuse_nan(ordered, first)
        matches.count(tile, distance, ordered)
        if tile.unshared is None:
            unshared += _unshared(ordered, np.bincount(queries[here] - first, minlength=len(distance)))
        else:
            out = here[dropped[here]]
            tile.unshared[torch.from_numpy(queries[out] - first), torch.from_numpy(rows[out] - start)] = False
            unshared += int(tile.unshared.sum())
        if progress is not None and tile.last == len(query):
            progress(tile.stop, len(gallery))
    return MatchRanks(matches.offsets, matches.rows, matches.before, matches.distance, int(dropped.sum()), unshared)


def places(gallery: Labelled) -> np.ndarray:
    """Return the place of each image (N,), by which ties are broken: that of its name, or its position without names.

    Images of one name keep their order.
    """
    if not gallery.paths:
        return np.arange(len(gallery))
    place = np.empty(len(gallery), dtype=np.int64)
    place[sorted(range(len(gallery)), key=gallery.paths.__getitem__)] = np.arange(len(gallery))
    return place


class _Matches:
    """True matches in the order of their queries and ranks, and how many other images were seen before each."""

    def __init__(
        self, num_queries: int, queries: np.ndarray, rows: np.ndarray, distances: Distances, place: np.ndarray
    ) -> None:
        distance = score_pairs(distances.score, queries, rows)
        if len(wrong := np.flatnonzero(np.isnan(distance))):
            raise _nan(int(queries[wrong[0]]), int(rows[wrong[0]]))
        order = np.lexsort((place[rows], distance, queries))
        self.queries, self.rows, self.distance = queries[order], rows[order], distance[order]
        self._place = place
        self.before = np.zeros(len(order), dtype=np.int64)
        self.offsets = np.searchsorted(self.queries, np.arange(num_queries + 1))

    def count(self, tile: Tile, distance: Tensor, ordered: Tensor) -> None:
        """Count the images of a tile before each match of its queries.

        Args:
            tile: the tile.
            distance: (nq, ng) its distances on the CPU, infinite for images that do not count.
            ordered: the same, each row in ascending order.
        """
        first, tolerance = tile.first, tile.tolerance
        mine = slice(int(self.offsets[first]), int(self.offsets[first + len(distance)]))
        if mine.start == mine.stop:
            return
        local = self.queries[mine] - first
        column = np.arange(mine.start, mine.stop) - self.offsets[self.queries[mine]]
        margin = tolerance[local] if isinstance(tolerance, np.ndarray) else tolerance
        around = (self.distance[mine] + np.array([[-1.0], [1.0]]) * margin).astype(np.float32)
        limits = np.full((len(distance), int(column.max()) + 1), -np.inf, dtype=np.float32)
        limits[local, column] = around[0]
        surely = torch.searchsorted(ordered, torch.from_numpy(limits)).numpy()[local, column]
        self.before[mine] += surely
        # The next image in order tells whether any is too near to call.
        following = ordered.numpy()[local, np.minimum(surely, distance.shape[1] - 1)]
        close = np.flatnonzero((following <= around[1]) & (surely < distance.shape[1]))
        step = max(1, _SETTLED_VALUES // distance.shape[1])
        for begin in range(0, len(close), step):
            part = close[begin : begin + step]
            number = mine.start + part
            own, place = self.distance[number], self._place[self.rows[number]]

            def earlier(which: np.ndarray, rows: np.ndarray, place: np.ndarray = place) -> np.ndarray:
                return np.asarray(self._place[rows] < place[which])

            self.before[number] += tile.count_nearer(distance.numpy(), local[part], own, around[:, part], earlier)


def _refuse_nan(ordered: Tensor, first: int) -> None:
    """NaN sorts behind everything, so the last of each row tells."""
    if ordered.shape[1] and bool((wrong := ordered[:, -1].isnan()).any()):
        raise _nan(first + int(wrong.nonzero()[0]))


def _nan(query: int, row: int | None = None) -> EvaluationError:
    where = f"query {query}" + ("" if row is None else f" to gallery image {row}")
    return EvaluationError(
        f"the distance of {where} is NaN, so nothing can be ranked by it. Look at what the matcher or the matrix makes "
        "of that image (a vector of length 0, a division by 0)."
    )


def _same_identity(query: Labelled, gallery: Labelled) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of one identity, by query and gallery position: (query rows, gallery rows, whether one camera)."""
    order = np.argsort(gallery.identity, kind="stable")
    known = gallery.identity[order]
    begin, end = (np.searchsorted(known, query.identity, side=side) for side in ("left", "right"))
    counts = end - begin
    queries = np.repeat(np.arange(len(query)), counts)
    within = np.arange(len(queries)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = order[np.repeat(begin, counts) + within]
    return queries, rows, query.camera[queries] == gallery.camera[rows]


def _unshared(ordered: Tensor, out_of_the_way: np.ndarray) -> int:
    """Number of pairs of a tile without a common slot; (nq,) entries of each row are infinite for another reason."""
    kept = torch.from_numpy(ordered.shape[1] - out_of_the_way)[:, None]
    farthest = ordered.gather(1, (kept - 1).clamp(min=0))[:, 0]
    rows = torch.nonzero((farthest >= NO_SHARED_SLOT) & (kept[:, 0] > 0))[:, 0]
    if not len(rows):
        return 0
    return int((kept[rows] - torch.searchsorted(ordered[rows], torch.full((len(rows), 1), NO_SHARED_SLOT))).sum())


def _sorted(distance: Tensor) -> Tensor:
    """Rows in ascending order. NumPy sorts floats several times faster than torch, in one thread, so in several."""
    rows = distance.numpy()
    ordered = np.empty_like(rows)
    threads = torch.get_num_threads()
    size = -(-len(rows) // threads)

    def sort(start: int) -> None:
        ordered[start : start + size] = np.sort(rows[start : start + size], axis=1)

    if threads == 1 or len(rows) < 2 * threads:
        size = len(rows)
        sort(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(sort, range(0, len(rows), size)))
    return torch.from_numpy(ordered)
