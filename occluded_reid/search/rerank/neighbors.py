"""The nearest rows of each row of a gallery, computed beforehand and kept in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, ShapeError
from occluded_reid.files import read_safetensors, write_safetensors
from occluded_reid.matchers.base import DECIMALS, NO_SHARED_SLOT, Matcher
from occluded_reid.search.exact import TopK, exact_topk
from occluded_reid.search.rerank.farthest import farthest
from occluded_reid.search.rerank.k_reciprocal import KReciprocal, expanded_sets
from occluded_reid.search.rows import RowSource

__all__ = ["LocatedLists", "NeighbourLists", "ProposeNeighbours", "nearest_rows", "pair_distances"]

_FORMAT = "occluded_reid.neighbours.1"
_ARRAYS = ("numbers", "neighbours", "distances", "largest", "starts", "beyond", "beyond_distances")
_BLOCK_ROWS = 2048  # rows whose neighbours are looked for at a time
_PAIRS = 4096  # pairs of rows that are held and scored at a time
_SAMPLE = 2048  # rows among which the farthest one is looked for

ProposeNeighbours = Callable[[PartEmbeddings, int], TopK]
"""Takes some rows of the gallery and k, gives their k nearest rows, themselves among them."""


def nearest_rows(
    rows: RowSource,
    matcher: Matcher,
    depth: int,
    *,
    search: ProposeNeighbours | None = None,
    progress: Callable[[int, int], None] | None = None,
    device: str | torch.device | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest rows of each row, itself among them, by (distance rounded to 1e-6, position).

    Memory: 12 bytes for each number of the answer, and what a search for 2,048 rows at a time takes.

    Args:
        rows: N rows.
        matcher: the distance.
        depth: how many.
        search: how to look; None searches exhaustively.
        progress: called with (rows done, rows in all).
        device: where an exhaustive search multiplies; None is where the rows are.

    Returns:
        Positions (N, depth) int32, -1 where fewer rows share a slot with a row, and distances (N, depth) float64,
        infinite there.
    """
    neighbours = np.full((len(rows), depth), -1, dtype=np.int32)
    distances = np.full((len(rows), depth), np.inf)
    for start in range(0, len(rows), _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(rows))
        block = rows.take(np.arange(start, stop))
        found = search(block, depth) if search else exact_topk(block, rows, matcher, depth, device=device)
        for row, (positions, distance) in enumerate(zip(found.positions, found.distances, strict=True), start):
            count = int(np.searchsorted(distance, NO_SHARED_SLOT))
            neighbours[row, :count], distances[row, :count] = positions[:count], distance[:count]
        if progress is not None:
            progress(stop, len(rows))
    return neighbours, distances


def pair_distances(
    take: Callable[[np.ndarray], PartEmbeddings], matcher: Matcher, i: np.ndarray, j: np.ndarray
) -> np.ndarray:
    """Return the deciding distances (n,) of pairs of positions, a few thousand rows at a time; best in order."""
    result = np.empty(len(i))
    for start in range(0, len(i), _PAIRS):
        part = slice(start, start + _PAIRS)
        names, place = np.unique(np.concatenate([i[part], j[part]]), return_inverse=True)
        rows = take(names)
        count = len(i[part])
        result[part] = matcher.pairs(rows, rows, place[:count], place[count:])
    return result


@dataclass(frozen=True)
class NeighbourLists:
    """For each row of a gallery its nearest rows, itself among them, and how far its farthest row is.

    Rows are known by the numbers that the gallery gives them and never gives again, so that lists serve a gallery from
    which rows were removed and to which others were added since: see `locate`. 8 bytes for each neighbour; besides, the
    distances of the rows that the expansion of k-reciprocal sets brings in from other lists, so that a search computes
    none of them: as many bytes again at most, as a rule.

    Attributes:
        numbers: (N,) int64, ascending: the number of each row.
        neighbours: (N, k1 + 1) int32 places in `numbers`, nearest first; -1 where fewer rows share a slot with a row.
        distances: (N, k1 + 1) float32, infinite there.
        largest: (N,) float32, see `farthest`.
        starts: (N + 1,) int64: where the rows that the expansion brings in begin for each row.
        beyond: int32 places in `numbers` of those rows, ascending for each row.
        beyond_distances: float32, theirs.
        matcher: type and options of the matcher.

    Example:
        >>> from occluded_reid.matchers import PlainMatcher
        >>> from occluded_reid.search import InMemoryRows
        >>> rows = PartEmbeddings(("a",), (torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1]]),), torch.ones(3, 1))
        >>> NeighbourLists.build(InMemoryRows(rows), PlainMatcher(), k1=1, numbers=[10, 20, 30]).neighbours
        array([[0, 2],
               [1, 2],
               [2, 0]], dtype=int32)
    """

    numbers: np.ndarray
    neighbours: np.ndarray
    distances: np.ndarray
    largest: np.ndarray
    starts: np.ndarray
    beyond: np.ndarray
    beyond_distances: np.ndarray
    matcher: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def k1(self) -> int:
        """Neighbours of a row beside itself."""
        return int(self.neighbours.shape[1]) - 1

    @staticmethod
    def build(
        rows: RowSource,
        matcher: Matcher,
        k1: int = 20,
        *,
        numbers: np.ndarray | list[int] | None = None,
        search: ProposeNeighbours | None = None,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> NeighbourLists:
        """Compute the lists of all rows: N searches, exhaustive unless `search` knows a faster way.

        Args:
            rows: the gallery.
            matcher: the distance; it must be symmetric.
            k1: neighbours of a row beside itself; a re-ranking with a smaller k1 can use them too.
            numbers: the number of each row, ascending; None is its position.
            search: how to look for neighbours.
            seed: of the 2,048 rows among which the farthest is looked for in a larger gallery.
            progress: called with (rows done, rows in all).

        Raises:
            ShapeError: k1 is below 1, or the numbers do not fit the rows.
        """
        known = np.arange(len(rows)) if numbers is None else np.asarray(numbers, dtype=np.int64)
        if k1 < 1:
            raise ShapeError(f"k1 is {k1}; it must be at least 1.")
        if known.shape != (len(rows),) or (np.diff(known) <= 0).any():
            raise ShapeError(f"numbers must be {len(rows)} different ones, ascending; got {known.shape}.")
        neighbours, distances = nearest_rows(rows, matcher, k1 + 1, search=search, progress=progress)
        largest = farthest(rows, matcher, sample=_SAMPLE, seed=seed)
        i, j = _brought_in(neighbours, k1)
        beyond = pair_distances(rows.take, matcher, i, j)
        return NeighbourLists(
            numbers=known,
            neighbours=neighbours,
            distances=distances.astype(np.float32),
            largest=largest.astype(np.float32),
            starts=np.searchsorted(i, np.arange(len(known) + 1)),
            beyond=j.astype(np.int32),
            beyond_distances=beyond.astype(np.float32),
            matcher=matcher.config,
        )

    def save(self, path: str | Path) -> None:
        """Write the lists to one safetensors file, whole or not at all.

        Raises:
            EmbeddingError: the file cannot be written.
        """
        tensors = {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in _ARRAYS}
        metadata = {"format": _FORMAT, "matcher": json.dumps(dict(self.matcher), sort_keys=True)}
        write_safetensors(path, tensors, metadata, EmbeddingError)

    @staticmethod
    def load(path: str | Path) -> NeighbourLists:
        """Read what `save` has written; the file is mapped into memory and read where it is looked at.

        Raises:
            EmbeddingError: the file is missing, damaged, or holds something else.
        """
        tensors, metadata = read_safetensors(path, EmbeddingError)
        if metadata.get("format") != _FORMAT:
            raise EmbeddingError(
                f"'{path}' holds no neighbour lists of the format {_FORMAT} (its format: {metadata.get('format')!r}); "
                "compute them again with NeighbourLists.build()."
            )
        arrays = {name: tensors[name].numpy() for name in _ARRAYS}
        return NeighbourLists(**arrays, matcher=json.loads(metadata["matcher"]))

    def locate(self, numbers: np.ndarray | list[int]) -> LocatedLists:
        """Return the lists as the rows of a gallery stand now.

        Args:
            numbers: the number of each of its rows, in the order of their positions.
        """
        return LocatedLists(self, np.asarray(numbers, dtype=np.int64))


class LocatedLists:
    """Neighbour lists over the rows of a gallery as they stand now. Rows that are gone are left out of every list.

    Args:
        lists: computed for this gallery at any time.
        numbers: the number of each row of the gallery, in the order of their positions.
    """

    def __init__(self, lists: NeighbourLists, numbers: np.ndarray) -> None:
        self.lists = lists
        order = np.argsort(numbers, kind="stable")
        place = np.minimum(np.searchsorted(numbers, lists.numbers, sorter=order), max(len(numbers) - 1, 0))
        self._position = np.full(len(lists), -1, dtype=np.int64)
        if len(numbers) and len(lists):
            there = numbers[order[place]] == lists.numbers
            self._position[there] = order[place][there]
        self._list = np.full(len(numbers), -1, dtype=np.int64)
        there = self._position >= 0
        self._list[self._position[there]] = np.flatnonzero(there)

    def known(self, positions: np.ndarray) -> np.ndarray:
        """Return which rows have a list: those added since have none."""
        return np.asarray(self._list[positions] >= 0)

    def of(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the lists of rows that have one.

        Returns:
            Positions (n, k1 + 1) int64, -1 for what is not there; distances (n, k1 + 1) float64, infinite there; (n,)
            how near a row must be to belong to the list: infinite where the list has room; (n,) the largest distance.
        """
        chosen = self._list[positions]
        stored = self.lists.neighbours[chosen]
        distance = _decimal(self.lists.distances[chosen])
        # Only a list that was full says how near the others are.
        radius = np.where(stored[:, -1] >= 0, distance[:, -1], np.inf)
        place = np.where(stored >= 0, self._position[stored], -1)
        distance[place < 0] = np.inf
        order = np.argsort(distance, axis=1, kind="stable")  # closes the gaps
        place, distance = (np.take_along_axis(x, order, axis=1) for x in (place, distance))
        return place, distance, radius, _decimal(self.lists.largest[chosen])

    def between(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Return the distances (n,) of pairs of positions that the expansion has brought together; NaN for others."""
        result = np.full(len(i), np.nan)
        able = np.flatnonzero((i >= 0) & (j >= 0))
        able = able[(self._list[i[able]] >= 0) & (self._list[j[able]] >= 0)]
        owners = np.unique(self._list[i[able]])
        begin, count = self.lists.starts[owners], self.lists.starts[owners + 1] - self.lists.starts[owners]
        if not count.sum():
            return result
        stored = np.repeat(begin - np.cumsum(count) + count, count) + np.arange(count.sum())
        keys = np.repeat(owners, count) * len(self.lists) + self.lists.beyond[stored]
        wanted = self._list[i[able]] * len(self.lists) + self._list[j[able]]
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        found = keys[place] == wanted
        result[able[found]] = _decimal(self.lists.beyond_distances[stored[place[found]]])
        return result

    def require(self, matcher: Matcher, k1: int) -> None:
        """Raise ShapeError unless the lists were made with this matcher and hold k1 neighbours."""
        if self.lists.k1 < k1:
            raise ShapeError(
                f"the lists hold {self.lists.k1} neighbours and k1 is {k1}; "
                f"compute them with NeighbourLists.build(k1={k1}), or re-rank with a smaller k1."
            )
        if self.lists.matcher != json.loads(json.dumps(matcher.config)):
            raise ShapeError(
                f"the lists were made with the matcher {dict(self.lists.matcher)}, and this one is {matcher.config}; "
                "compute them again with NeighbourLists.build()."
            )


def _brought_in(neighbours: np.ndarray, k1: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a row and of what its set holds beyond its list, in order."""
    sets = expanded_sets(neighbours, KReciprocal(k1=k1, k2=1), np.arange(len(neighbours)))
    i, j = np.repeat(np.arange(len(neighbours)), np.diff(sets.indptr)), sets.indices.astype(np.int64)
    listed = neighbours >= 0
    keys = np.repeat(np.arange(len(neighbours)), listed.sum(1)) * len(neighbours) + neighbours[listed]
    beyond = ~np.isin(i * len(neighbours) + j, keys)
    return i[beyond], j[beyond]


def _decimal(distance: np.ndarray) -> np.ndarray:
    """The float64 numbers of six decimals that were stored as float32; numbers beyond 8 have fewer."""
    return np.asarray(np.round(distance.astype(np.float64), DECIMALS))
