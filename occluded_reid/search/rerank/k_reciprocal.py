"""k-reciprocal encoding (Zhong et al., CVPR 2017): from lists of neighbours to sparse rows, compared by Jaccard.

Pure pieces, each O(N · k) numbers large. What the paper and its released code say differently is done as released:

- The distance of a row is divided by the largest distance of that row, and is the *squared* Euclidean one (1 - cosine
  similarity, which is half of it for vectors of length 1, is taken as it is).
- The neighbours of half the depth join where they agree by *more* than two thirds (the paper: at least).
- Weights exp(-d) are divided by their sum, so that Jaccard needs the minima alone.

What neither says, said here: neighbours are ordered by (distance rounded to 1e-6, position), queries before the
gallery; images that share no slot are no image's neighbors and stand at the largest distance; where that
is 0, all distances are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from occluded_reid.arguments import check_fields
from occluded_reid.errors import ShapeError
from occluded_reid.matchers.base import DECIMALS, NO_SHARED_SLOT, Matcher

if TYPE_CHECKING:
    from scipy.sparse import csc_array, csr_array

__all__ = ["KReciprocal", "PairDistance", "encode", "expanded_sets", "reciprocal_sets", "shared_minima"]

PairDistance = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Takes n rows and n other rows, gives their n distances, rounded to 1e-6."""

_ROWS = 4096  # rows of a set that are expanded at a time
_MINIMA = 1 << 20  # minima that are summed at a time


@dataclass(frozen=True)
class KReciprocal:
    """Re-ranking by k-reciprocal neighbours: (1 - weight) · Jaccard distance + weight · distance.

    The distance is that of the matcher, which must be symmetric, divided by the largest one of its row.

    Args:
        k1: neighbours beside the image itself; expansion looks at half as many.
        k2: nearest images, itself included, whose encodings are averaged; 1 averages nothing.
        weight: of the distance, λ; 0 is the Jaccard distance alone.
        squared: square the distance first. None does so unless the matcher's metric is "cosine", which is the released
            behaviour on features of length 1.

    Raises:
        ShapeError: a value makes no sense.

    Example:
        >>> print(KReciprocal(k1=10))
        k-reciprocal (k1=10, k2=6, weight=0.3)
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3
    squared: bool | None = None

    def __post_init__(self) -> None:
        check_fields(self, ShapeError)
        if self.k1 < 1 or not 1 <= self.k2 <= self.k1 + 1:
            raise ShapeError(
                f"k1 is {self.k1} and k2 is {self.k2}; k1 must be at least 1, and k2 between 1 and k1 + 1: "
                "the neighbours that are averaged come from the same lists."
            )
        if not 0 <= self.weight <= 1:
            raise ShapeError(f"weight is {self.weight}; the share of the plain distance lies between 0 and 1.")

    def __str__(self) -> str:
        squared = "" if self.squared is None else f", squared={self.squared}"
        return f"k-reciprocal (k1={self.k1}, k2={self.k2}, weight={self.weight}{squared})"

    @property
    def depth(self) -> int:
        """Length of a list of neighbours: k1, and the image itself."""
        return self.k1 + 1

    @property
    def half_depth(self) -> int:
        """Length of the lists behind the expansion; a half of k1 is rounded to the even number."""
        return round(self.k1 / 2) + 1

    def squares(self, matcher: Matcher) -> bool:
        """Return whether distances of this matcher are squared."""
        if self.squared is not None:
            return self.squared
        options: dict[str, Any] = matcher.config.get("options", {})
        return bool(options.get("metric") != "cosine")

    def normalise(self, distance: np.ndarray, largest: np.ndarray, squares: bool) -> np.ndarray:
        """Return distances in [0, 1], float64.

        Args:
            distance: any shape.
            largest: the largest distance of each one's row, of a shape that fits.
            squares: whether distances are squared first.
        """
        share = np.minimum(distance / np.where(largest > 0, largest, 1.0), 1.0)
        share = np.where(largest > 0, share, 0.0)
        return np.where(distance >= NO_SHARED_SLOT, 1.0, share * share if squares else share)

    def combine(self, overlap: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Return the re-ranked distance, rounded to 1e-6.

        Args:
            overlap: Σ min of both encodings.
            distance: the normalised distance.
        """
        jaccard = 1 - overlap / (2 - overlap)
        return np.asarray(np.round((1 - self.weight) * jaccard + self.weight * distance, DECIMALS) + 0.0)


def reciprocal_sets(neighbours: np.ndarray, depth: int) -> csr_array:
    """Return which neighbours have a row among their own: R(i, k) of the paper, a boolean (N, N) of few entries.

    Args:
        neighbours: (N, K) positions, nearest first; -1 where a list is shorter.
        depth: how much of each list counts.
    """
    from scipy.sparse import csr_array  # here: searches that re-rank nothing do not wait for it

    lists = neighbours[:, :depth]
    known = lists >= 0
    indptr = np.concatenate([[0], np.cumsum(known.sum(1))])
    size = len(neighbours)
    forward = csr_array((np.ones(indptr[-1], dtype=bool), lists[known], indptr), shape=(size, size))
    mutual = forward.multiply(forward.T.tocsr()).tocsr()
    mutual.sort_indices()
    return mutual


def expanded_sets(neighbours: np.ndarray, rerank: KReciprocal, rows: np.ndarray) -> csr_array:
    """Return R*(i, k1) of rows: their reciprocal neighbours, and theirs of half the depth where those mostly agree.

    Args:
        neighbours: (N, K) as `reciprocal_sets` takes them.
        rerank: the depths.
        rows: the n rows wanted.

    Returns:
        Boolean (n, N) with columns in order.
    """
    whole = reciprocal_sets(neighbours, rerank.depth)
    half = reciprocal_sets(neighbours, rerank.half_depth)
    # Reciprocal sets are symmetric: (whole @ half)[i, c] counts what the sets of i and of c have in common.
    counts, sizes = half.astype(np.int32), np.diff(half.indptr)
    blocks = []
    for start in range(0, len(rows), _ROWS):
        own = whole[rows[start : start + _ROWS]].tocsr()
        common = (own.astype(np.int32) @ counts).multiply(own).tocsr()
        common.data = 3 * common.data > 2 * sizes[common.indices]
        common.eliminate_zeros()
        blocks.append((own + common.astype(bool) @ half).tocsr())
    return _stacked(blocks, whole.shape[1])


def encode(
    neighbours: np.ndarray,
    distances: np.ndarray,
    largest: np.ndarray,
    rerank: KReciprocal,
    *,
    squares: bool,
    pair_distance: PairDistance,
    rows: np.ndarray | None = None,
) -> csr_array:
    """Return the encoding of each row: weights exp(-d) over R*(i, k1), of sum 1, averaged over its k2 nearest.

    Args:
        neighbours: (N, K) as `reciprocal_sets` takes them.
        distances: (N, K) float64, theirs.
        largest: (N,) the largest distance of each row.
        rerank: the parameters.
        squares: whether distances are squared.
        pair_distance: distances of pairs that no list holds.
        rows: the rows wanted; None is all of them.

    Returns:
        (N or n, N) float64 with columns in order. A row without any reciprocal neighbour is empty.
    """
    from scipy.sparse import csr_array

    size = len(neighbours)
    wanted = np.arange(size) if rows is None else rows
    nearest = neighbours[wanted, : rerank.k2] if rerank.k2 > 1 else wanted[:, None]
    needed = np.unique(nearest[nearest >= 0])
    sets = expanded_sets(neighbours, rerank, needed)
    i, j = np.repeat(needed, np.diff(sets.indptr)), sets.indices.astype(np.int64)
    distance = _distances(neighbours[:, : rerank.depth], distances[:, : rerank.depth], i, j, pair_distance)
    weight = np.exp(-rerank.normalise(distance, largest[i], squares))
    weight /= np.bincount(i, weight, minlength=size)[i]
    starts = np.zeros(size, dtype=np.int64)
    starts[needed] = np.diff(sets.indptr)
    encoding = csr_array((weight, sets.indices, np.concatenate([[0], np.cumsum(starts)])), shape=(size, size))
    if rerank.k2 == 1:
        return encoding[wanted].tocsr()
    known = nearest >= 0
    counts = known.sum(1)
    share = np.repeat(1 / np.maximum(counts, 1), counts)
    mean = csr_array((share, nearest[known], np.concatenate([[0], np.cumsum(counts)])), shape=(len(wanted), size))
    blocks = [(mean[start : start + _ROWS] @ encoding).tocsr() for start in range(0, len(wanted), _ROWS)]
    return _stacked(blocks, size)


def shared_minima(query: csr_array, gallery: csc_array) -> np.ndarray:
    """Return Σ min(q, g) of all pairs, dense (nq, ng) float64, by the columns that both have.

    Each sum is taken in the order of the columns, so that it depends on nothing but the pair.

    Args:
        query: nq encodings, columns in order.
        gallery: ng encodings, by columns.
    """
    total = np.zeros(query.shape[0] * gallery.shape[0])
    lengths = np.diff(gallery.indptr)[query.indices]
    owner = np.repeat(np.arange(query.shape[0]), np.diff(query.indptr))
    for first, last in _row_blocks(query, lengths):
        part = slice(query.indptr[first], query.indptr[last])
        length = lengths[part]
        entry = np.repeat(np.arange(part.start, part.stop), length)
        within = np.arange(len(entry)) - np.repeat(np.cumsum(length) - length, length)
        place = np.repeat(gallery.indptr[query.indices[part]], length) + within
        cell = (owner[entry] - first) * gallery.shape[0] + gallery.indices[place]
        minima = np.minimum(query.data[entry], gallery.data[place])
        cells = (last - first) * gallery.shape[0]
        total[first * gallery.shape[0] :][:cells] = np.bincount(cell, minima, minlength=cells)
    return total.reshape(query.shape[0], gallery.shape[0])


def _row_blocks(query: csr_array, lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut rows into blocks of about `_MINIMA` minima, of one row at least."""
    minima = np.concatenate([[0], np.cumsum(lengths)])[query.indptr]
    first = 0
    while first < query.shape[0]:
        last = max(first + 1, int(np.searchsorted(minima, minima[first] + _MINIMA, side="right")) - 1)
        yield first, last
        first = last


def _distances(
    neighbours: np.ndarray, distances: np.ndarray, i: np.ndarray, j: np.ndarray, pair_distance: PairDistance
) -> np.ndarray:
    """Distances of pairs: from the list of i, or computed."""
    known = neighbours >= 0
    owner = np.repeat(np.arange(len(neighbours), dtype=np.int64), known.sum(1))
    keys = owner * len(neighbours) + neighbours[known]
    order = np.argsort(keys)
    keys, values = keys[order], distances[known][order]
    wanted = i * len(neighbours) + j
    place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    result = values[place] if len(keys) else np.empty(0)
    missing = np.flatnonzero(keys[place] != wanted) if len(keys) else np.arange(len(wanted))
    if len(missing):
        result[missing] = pair_distance(i[missing], j[missing])
    return np.asarray(result, dtype=np.float64)


def _stacked(blocks: list[csr_array], width: int) -> csr_array:
    """Blocks of rows on top of each other, columns in order; None of them gives no rows."""
    from scipy.sparse import csr_array

    indptr = [np.zeros(1, dtype=np.int64)]
    for block in blocks:
        block.sort_indices()
        indptr.append(block.indptr[1:] + indptr[-1][-1])
    data = [block.data for block in blocks] or [np.empty(0)]
    indices = [block.indices for block in blocks] or [np.empty(0, dtype=np.int64)]
    starts = np.concatenate(indptr)
    return csr_array((np.concatenate(data), np.concatenate(indices), starts), shape=(len(starts) - 1, width))
