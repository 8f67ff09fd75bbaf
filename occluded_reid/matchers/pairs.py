"""Distances of single pairs in float64, summed in an order that depends on nothing but the pair."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.functional.distances import LARGEST_DISTANCE, NO_SHARED_SLOT
from occluded_reid.matchers.base import DECIMALS, PairDetails, Rows

__all__ = ["SlotScorer"]

_CHUNK_VALUES = 1 << 17  # float64 numbers of one side at a time: 1 MB stays in the cache


class SlotScorer:
    """Scores pairs of rows; lengths of vectors are computed once for each row that is asked for.

    NumPy's `einsum` adds up each row by itself in one thread, so the result does not depend on which other pairs are
    scored with it; matrix products do not promise that.

    Args:
        query: one side.
        gallery: the other side, with the same slots.
        visibility: (Nq, S) and (Ng, S), as the matcher counts them.
        weights: S weights.
        euclidean: Euclidean distance instead of 1 - cosine similarity.
        normalize: Euclidean distance of unit vectors.
    """

    def __init__(
        self,
        query: PartEmbeddings,
        gallery: PartEmbeddings,
        *,
        visibility: tuple[Tensor, Tensor],
        weights: tuple[float, ...],
        euclidean: bool,
        normalize: bool,
    ) -> None:
        self._sides = tuple(tuple(_array(e) for e in side.embeddings) for side in (query, gallery))
        self._visible = tuple(v.detach().cpu().double().numpy() for v in visibility)
        self._weights = weights
        self._euclidean = euclidean
        self._normalize = normalize or not euclidean
        self._lengths = tuple(tuple(np.full(len(e), np.nan) for e in side) for side in self._sides)

    def distances(self, query_rows: Rows, gallery_rows: Rows) -> np.ndarray:
        """Return the rounded distances (n,) of n pairs."""
        rows = (np.asarray(query_rows, dtype=np.int64), np.asarray(gallery_rows, dtype=np.int64))
        numerator = np.zeros(len(rows[0]))
        denominator = np.zeros(len(rows[0]))
        for s, weight in enumerate(self._weights):
            if weight:
                shared = weight * self._visible[0][rows[0], s] * self._visible[1][rows[1], s]
                # A slot that a pair does not share is worth no arithmetic.
                seen = np.flatnonzero(shared) if not shared.all() else slice(None)
                numerator[seen] += shared[seen] * self._slot(s, rows[0][seen], rows[1][seen])
                denominator += shared
        return _mean(numerator, denominator)

    def details(self, query_rows: Rows, gallery_rows: Rows) -> PairDetails:
        """Return the same distances, with what each slot says."""
        rows = (np.asarray(query_rows, dtype=np.int64), np.asarray(gallery_rows, dtype=np.int64))
        slots = [self._slot(s, *rows) for s in range(len(self._weights))]
        shared = self._visible[0][rows[0]] * self._visible[1][rows[1]]
        return PairDetails(self.distances(*rows), np.stack(slots, axis=1), shared)

    def _slot(self, s: int, query_rows: np.ndarray, gallery_rows: np.ndarray) -> np.ndarray:
        """d of one slot for n pairs, float64."""
        count, width = len(query_rows), self._sides[0][s].shape[1]
        lengths = [self._lengths_of(side, s, rows) for side, rows in enumerate((query_rows, gallery_rows))]
        result = np.empty(count)
        chunk = max(1, _CHUNK_VALUES // max(1, width))

        def score(start: int) -> None:
            part = slice(start, start + chunk)
            x, y = (_take(self._sides[side][s], rows[part]) for side, rows in enumerate((query_rows, gallery_rows)))
            if not self._euclidean:
                result[part] = 1 - np.einsum("ij,ij->i", x, y) / (lengths[0][part] * lengths[1][part])
                return
            if self._normalize:
                x /= lengths[0][part, None]
                y /= lengths[1][part, None]
            x -= y
            result[part] = np.sqrt(np.einsum("ij,ij->i", x, x))  # their mean is what is clamped, as in tiles

        _run(score, range(0, count, chunk))
        return result

    def _lengths_of(self, side: int, s: int, rows: np.ndarray) -> np.ndarray:
        """Lengths of these rows, 1 for a row of length 0."""
        known = self._lengths[side][s]
        if not self._normalize:
            return known[:0]
        missing = np.unique(rows[np.isnan(known[rows])])
        chunk = max(1, _CHUNK_VALUES // max(1, self._sides[side][s].shape[1]))

        def measure(start: int) -> None:
            part = missing[start : start + chunk]
            x = _take(self._sides[side][s], part)
            length = np.sqrt(np.einsum("ij,ij->i", x, x))
            known[part] = np.where(length > 0, length, 1.0)

        _run(measure, range(0, len(missing), chunk))
        return np.asarray(known[rows])


def _array(rows: Tensor) -> np.ndarray:
    """The rows for NumPy, without a copy where NumPy knows the type."""
    rows = rows.detach().cpu()
    return np.asarray((rows.float() if rows.dtype == torch.bfloat16 else rows).numpy())


def _take(rows: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Copies of these rows in float64. By NumPy: torch would start threads of its own inside each of ours."""
    return np.asarray(rows[index].astype(np.float64))


def _mean(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    common = denominator > 0
    mean = np.full(len(numerator), NO_SHARED_SLOT)
    # Adding 0 turns -0.0, which rounding makes of a last-bit error, into 0.0.
    mean[common] = np.round(np.minimum(numerator[common] / denominator[common], LARGEST_DISTANCE), DECIMALS) + 0.0
    return mean


def _run(work: Callable[[int], None], starts: range) -> None:
    """Call `work` for each start, in threads where that pays; each call fills a place of its own."""
    threads = min(torch.get_num_threads(), len(starts) // 4)
    if threads < 2:
        for start in starts:
            work(start)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, starts))
