"""Bins of queries by how much of each the matcher takes for visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EvaluationError
from occluded_reid.matchers.base import Matcher
from occluded_reid.matchers.slots import SlotMatcher

__all__ = ["Bins", "visibility_bins"]

_DECIMALS = 6
_QUARTERS = 4


@dataclass(frozen=True)
class Bins:
    """Queries by visibility, least visible first.

    Attributes:
        visibility: (Nq,) mean over the slots that count, rounded to 1e-6.
        place: (Nq,) the bin of each query.
        names: of the bins.
        keys: the number of visible slots, or the edges of each bin.
        note: how the bins were made, in words.
    """

    visibility: np.ndarray
    place: np.ndarray
    names: tuple[str, ...]
    keys: tuple[tuple[float, ...], ...]
    note: str


def visibility_bins(
    query: PartEmbeddings, matcher: Matcher, answerable: np.ndarray, edges: Sequence[float] | None = None
) -> Bins:
    """Put each query into a bin by the visibility that the matcher counts with.

    A slot of weight 0 does not count. Visibility that is 0 or 1 makes one bin for each number of visible slots. Other
    visibility is averaged over the slots; the edges between its bins are those visibilities below which a quarter, a
    half and three quarters of the queries lie, or the given ones. A bin holds its lower edge, not its upper.

    Args:
        query: Nq rows.
        matcher: whose rule of visibility is used.
        answerable: (Nq,) which queries count: the quarters are theirs.
        edges: ascending edges within (0, 1) between the bins; None chooses as above.

    Raises:
        EvaluationError: the edges are not ascending within (0, 1).
    """
    given = np.asarray(() if edges is None else edges, dtype=np.float64)
    if given.ndim != 1 or not np.all(np.diff([0.0, *given, 1.0]) > 0):
        raise EvaluationError(
            f"visibility_edges are {edges}; give ascending numbers between 0 and 1, such as 0.5 0.75."
        )
    seen = _visibility(query, matcher)
    slots = seen.shape[1]
    mean = np.round(seen.mean(1), _DECIMALS)
    if edges is None and np.isin(seen, (0, 1)).all():
        counts, place = np.unique(seen.sum(1).astype(np.int64), return_inverse=True)
        names = tuple(f"{n} of {slots} slot{'s' if slots > 1 else ''}" for n in counts)
        note = (
            "The matcher takes every slot of every query for visible, so visibility says nothing here."
            if counts.tolist() == [slots]
            else "Visibility of the query: how many of its slots the matcher takes for visible."
        )
        return Bins(mean, place, names, tuple((float(n),) for n in counts), note)
    counted = mean[answerable]
    how = "between given edges"
    first, last = 0.0, 1.0
    if edges is None:
        how = "in quarters of the queries"
        first, last = float(mean.min()), float(mean.max())
        ranked = np.sort(counted)
        cuts = ranked[[len(ranked) * part // _QUARTERS for part in range(1, _QUARTERS)]]
        given = np.unique(cuts[cuts > ranked[0]])
    bounds = [first, *given.tolist(), last]
    keys = tuple(pairwise(bounds))
    names = tuple(f"[{low:.3f}, {high:.3f}" + ("]" if n == len(keys) else ")") for n, (low, high) in enumerate(keys, 1))
    note = f"Visibility of the query: the mean over the {slots} slots that the matcher counts, {how}."
    if (counted == counted[0]).all():
        note = "The matcher takes every query for as visible as every other, so visibility says nothing here."
    return Bins(mean, np.searchsorted(given, mean, side="right"), names, keys, note)


def _visibility(query: PartEmbeddings, matcher: Matcher) -> np.ndarray:
    """(Nq, S) visibility by the matcher's own rule: what a row shares with itself is its square."""
    rows = np.arange(len(query))
    seen = np.sqrt(matcher.explain(query, query, rows, rows).shared)
    if isinstance(matcher, SlotMatcher):
        seen = seen[:, [query.names.index(name) for name in matcher.used(query.names)]]
    return np.asarray(seen)
