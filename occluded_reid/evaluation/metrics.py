"""CMC, average precision and inverse negative penalty, from the ranks of the matches of each query.

Ranks are counted from 1. The M matches of all queries stand one after another: those of query q, ascending in rank, at
``offsets[q]`` to ``offsets[q + 1] - 1``.
"""

from __future__ import annotations

import numpy as np

from occluded_reid.evaluation.ranking.matches import MatchRanks

__all__ = ["average_precision", "cmc", "first_ranks", "inverse_negative_penalty", "query_numbers"]


def cmc(first_rank: np.ndarray, k: int) -> float:
    """Return Rank-k, the cumulative matching characteristic at k: the share of queries with a match among the first k.

    Args:
        first_rank: (Nq,) rank of the first match of each query that has one, or (Nq, draws) with single shots.
        k: from 1.

    Example:
        >>> cmc(np.array([1, 3, 2, 1]), 1)
        0.5
    """
    return float((first_rank <= k).mean())


def average_precision(ranks: np.ndarray, offsets: np.ndarray, ap: str = "hits") -> np.ndarray:
    """Return the average precision (Nq,) of each query; NaN for one without a match. Their mean is the mAP.

    Args:
        ranks: (M,) of the matches.
        offsets: (Nq + 1,) where those of each query begin and end.
        ap: "hits": the mean over the matches of (matches so far) / rank. "trapezoid": the mean of that and of the
            precision just before the match, which is 1 before the very first image.

    Example:
        >>> average_precision(np.array([1, 4, 2]), np.array([0, 2, 3, 3]))
        array([0.75, 0.5 ,  nan])
    """
    counts = np.diff(offsets)
    answerable = counts > 0
    nth = np.arange(len(ranks)) - np.repeat(offsets[:-1], counts) + 1
    precision = nth / ranks
    if ap == "trapezoid":
        before = np.where(ranks > 1, (nth - 1) / np.maximum(ranks - 1, 1), 1.0)
        precision = (precision + before) / 2
    sums = np.bincount(np.repeat(np.arange(len(counts)), counts), weights=precision, minlength=len(counts))
    found = np.full(len(counts), np.nan)
    found[answerable] = sums[answerable] / counts[answerable]
    return found


def first_ranks(ranks: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the rank (Nq,) of the first match of each query, what `cmc` counts; 0 for one without a match.

    Args:
        ranks: (M,) of the matches.
        offsets: (Nq + 1,) where those of each query begin and end.
    """
    answerable = np.diff(offsets) > 0
    found = np.zeros(len(answerable), dtype=np.int64)
    found[answerable] = ranks[offsets[:-1][answerable]]
    return found


def inverse_negative_penalty(ranks: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return matches / rank of the last match (Nq,) of each query; NaN for one without. Their mean is the mINP.

    Args:
        ranks: (M,) of the matches.
        offsets: (Nq + 1,) where those of each query begin and end.

    Example:
        >>> inverse_negative_penalty(np.array([1, 4, 2]), np.array([0, 2, 3]))
        array([0.5, 0.5])
    """
    counts = np.diff(offsets)
    answerable = counts > 0
    found = np.full(len(counts), np.nan)
    found[answerable] = counts[answerable] / ranks[offsets[1:][answerable] - 1]
    return found


def query_numbers(found: MatchRanks, ap: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return average precision, rank of the first match and inverse negative penalty of each query, as `Report` takes.

    Args:
        found: where the matches stand.
        ap: see `average_precision`.
    """
    ranks, offsets = found.ranks, found.offsets
    return (
        average_precision(ranks, offsets, ap),
        first_ranks(ranks, offsets),
        inverse_negative_penalty(ranks, offsets),
    )
