"""Answers that may be "nobody here": the hits of a search that are near enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from occluded_reid.calibration.calibration import Calibration
from occluded_reid.calibration.pairs import shared_slots
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import CalibrationError
from occluded_reid.matchers.base import Matcher
from occluded_reid.search.exact import TopK
from occluded_reid.search.rows import RowSource

__all__ = ["apply_threshold", "shared_of_hits", "shared_of_visibility", "within_threshold"]

_ROWS = 4096  # gallery rows held at a time
_GROWTH = 4  # times as many hits are asked for where dropped ones may hide others


def shared_of_hits(query: PartEmbeddings, rows: RowSource, matcher: Matcher, best: TopK) -> list[np.ndarray]:
    """Return how many slots each hit shares with its query: Nq int64 arrays like `best.positions`.

    Memory: at most 4,096 gallery rows.
    """
    prepared = matcher.prepare(query)
    counts = [len(positions) for positions in best.positions]
    queries = np.repeat(np.arange(len(best)), counts)
    positions = np.concatenate([*best.positions, np.empty(0, np.int64)])
    shared = np.empty(len(positions), dtype=np.int64)
    for first in range(0, len(positions), _ROWS):
        part = slice(first, first + _ROWS)
        unique, place = np.unique(positions[part], return_inverse=True)
        shared[part] = shared_slots(prepared, matcher.prepare(rows.take(unique)), queries[part], place)
    return np.split(shared, np.cumsum(counts)[:-1]) if counts else []


def shared_of_visibility(shared_visibility: Mapping[str, float], matcher: Matcher) -> int:
    """Return how many slots a hit shares with its query, from what it tells of each slot.

    Args:
        shared_visibility: slot -> v(query) · v(gallery), as the matcher counts.
        matcher: slots that have no weight in it do not count.

    Example:
        >>> from occluded_reid.matchers import VisibilityWeightedMatcher
        >>> shared = {"global": 1.0, "part_1": 0.3, "part_2": 0.0}
        >>> shared_of_visibility(shared, VisibilityWeightedMatcher(weights={"global": 0}))
        1
    """
    weights: Mapping[str, float] = getattr(matcher, "weights", {})
    return sum(shared > 0 and weights.get(slot, 1) != 0 for slot, shared in shared_visibility.items())


def apply_threshold(best: TopK, shared: Sequence[np.ndarray], threshold: float | Calibration) -> TopK:
    """Drop the hits beyond the threshold; a query whose list is empty then has found nobody.

    Args:
        best: what a search has found.
        shared: for each query, how many slots each of its hits shares; `shared_of_hits` counts them.
        threshold: one distance for every hit (a hit at it stays), or a calibration.

    Raises:
        CalibrationError: the threshold is NaN, or the numbers of shared slots do not fit hits or calibration.
    """
    if [len(s) for s in shared] != [len(p) for p in best.positions]:
        raise CalibrationError(
            f"{sum(map(len, shared))} numbers of shared slots of {len(shared)} queries were given for "
            f"{sum(map(len, best.positions))} hits of {len(best)}; give one for each hit."
        )
    limit = _limit(threshold)
    keep = [d <= limit(s) for d, s in zip(best.distances, shared, strict=True)]
    return TopK(
        [positions[kept] for positions, kept in zip(best.positions, keep, strict=True)],
        [distances[kept] for distances, kept in zip(best.distances, keep, strict=True)],
    )


def within_threshold(
    search: Callable[[np.ndarray, int], TopK],
    shared: Callable[[np.ndarray, TopK], Sequence[np.ndarray]],
    queries: int,
    k: int,
    threshold: float | Calibration,
) -> TopK:
    """Find the k nearest rows of each query that lie within their threshold.

    Thresholds differ with the number of shared slots, so rows that are dropped may stand before others that are not;
    where they do, more rows are asked for until the farthest lies beyond every threshold.

    Args:
        search: gives the nearest rows of some queries (their numbers, and how many rows), nearest first.
        shared: gives how many slots the hits of some queries share.
        queries: Nq.
        k: how many rows each query wants.
        threshold: one distance, or a calibration.

    Raises:
        CalibrationError: the threshold is NaN, or does not fit the matcher.
    """
    farthest = max(g.threshold for g in threshold.groups) if isinstance(threshold, Calibration) else threshold
    found = TopK([np.empty(0, np.int64)] * queries, [np.empty(0)] * queries)
    left, wanted = np.arange(queries), k
    while len(left):
        best = search(left, wanted)
        near = apply_threshold(best, shared(left, best), threshold)
        again = []
        for place, q in enumerate(left):
            found.positions[q], found.distances[q] = near.positions[place][:k], near.distances[place][:k]
            more = len(best.positions[place]) == wanted and bool(best.distances[place][-1] <= farthest)
            if more and len(near.positions[place]) < k:
                again.append(q)
        left, wanted = np.array(again, dtype=np.int64), wanted * _GROWTH
    return found


def _limit(threshold: float | Calibration) -> Callable[[np.ndarray], np.ndarray]:
    if isinstance(threshold, Calibration):
        return threshold.threshold
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or math.isnan(threshold):
        raise CalibrationError(f"the threshold is {threshold!r}; give a distance, or a Calibration.")
    return lambda shared: np.full(len(shared), float(threshold))
