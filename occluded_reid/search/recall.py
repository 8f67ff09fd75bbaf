"""How much of the exact answer an approximate search finds, and how hard it must look for a wanted part of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import ShapeError
from occluded_reid.matchers.base import NO_SHARED_SLOT, Matcher
from occluded_reid.search.approximate import approximate_topk
from occluded_reid.search.exact import TopK, exact_topk
from occluded_reid.search.index.base import SlotIndex
from occluded_reid.search.rows import RowSource

__all__ = ["Effort", "NotItself", "Recall", "choose_effort", "measure_recall", "try_efforts"]

CANDIDATES = (16, 32, 64, 128, 256, 512, 1024)
"""Numbers of candidates that `choose_effort` tries."""

_SCORED = 30  # comparing one slot of a candidate, which is fetched first, costs as much as so many vectors of an index
_CHEAP = 200_000  # vectors for one query: what is below is tried even where comparing with every row is cheaper


@dataclass(frozen=True)
class Recall:
    """Parts of the exact answer that an approximate one holds, 0 … 1; NaN where there was nothing to find.

    Attributes:
        best: of the queries, those whose nearest row was found.
        topk: of all rows in the exact lists, those found. Rows that share no slot with the query are left out.
        true_matches: of the true matches in the exact lists, those found; None where they are not known.
    """

    best: float
    topk: float
    true_matches: float | None = None

    @property
    def least(self) -> float:
        """The smaller of `best` and `true_matches`; of `best` and `topk` where true matches are not known."""
        parts = [self.best, self.topk if self.true_matches is None else self.true_matches]
        known = [part for part in parts if not math.isnan(part)]
        return min(known) if known else math.nan

    def __str__(self) -> str:
        parts = {"best hit": self.best, "true matches": self.true_matches, "whole list": self.topk}
        return ", ".join(f"{name} {100 * part:.1f} %" for name, part in parts.items() if part is not None)


@dataclass(frozen=True)
class Effort:
    """How hard an approximate search looks, and what that found on a sample.

    Attributes:
        candidates: m, rows that each slot proposes.
        effort: as `SlotIndex.search` takes it.
        recall: measured.
        wanted: what `recall.least` was to reach.
        queries: size of the sample.
        cost: vectors that a query is compared with, about.
    """

    candidates: int
    effort: int
    recall: Recall
    wanted: float
    queries: int
    cost: float

    @property
    def reached(self) -> bool:
        """Whether the sample found as much as was wanted; else nothing that was tried found more than this."""
        return self.recall.least >= self.wanted

    def __str__(self) -> str:
        outcome = "reached" if self.reached else "NOT reached; this is the best that was tried"
        return (
            f"{self.candidates} candidates a slot, effort {self.effort}: {self.recall} on {self.queries} queries; "
            f"wanted {100 * self.wanted:g} %: {outcome}"
        )


class NotItself:
    """Lets every query find anything but the gallery row that it is.

    Args:
        positions: for each query its own position in the gallery, or -1.

    Example:
        >>> NotItself(np.array([1, -1]))(0, 3).tolist()
        [[True, False, True], [True, True, True]]
    """

    def __init__(self, positions: np.ndarray) -> None:
        self._own = np.asarray(positions, dtype=np.int64)

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Return (nq, stop - start), boolean."""
        return self.at(np.arange(start, stop))

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return (nq, n) for n positions."""
        return np.asarray(self._own[:, None] != positions[None])

    def pairs(self, queries: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Return (n,) for n pairs."""
        return np.asarray(self._own[queries] != positions)


def measure_recall(approximate: TopK, exact: TopK, relevant: Sequence[np.ndarray] | None = None) -> Recall:
    """Compare an approximate answer with the exact one to the same queries.

    Args:
        approximate: what was found.
        exact: what there is to find.
        relevant: for each query the positions of its true matches.

    Raises:
        ShapeError: the numbers of queries differ.

    Example:
        >>> def answer(*positions: int) -> TopK:
        ...     return TopK([np.array(positions)], [np.arange(len(positions)) / 10])
        >>> measure_recall(answer(4, 7), answer(4, 5, 7, 9), [np.array([5, 7, 8])])
        Recall(best=1.0, topk=0.5, true_matches=0.5)
    """
    if len(approximate) != len(exact) or (relevant is not None and len(relevant) != len(exact)):
        raise ShapeError(
            f"{len(approximate)} approximate and {len(exact)} exact answers"
            f"{'' if relevant is None else f' and true matches of {len(relevant)} queries'}; give one of each a query."
        )
    best: list[bool] = []
    found: list[np.ndarray] = []
    matched: list[np.ndarray] = []
    for q, (positions, distances) in enumerate(zip(exact.positions, exact.distances, strict=True)):
        shared = positions[distances < NO_SHARED_SLOT]
        here = np.isin(shared, approximate.positions[q])
        best += here[:1].tolist()
        found.append(here)
        if relevant is not None:
            matched.append(here[np.isin(shared, relevant[q])])
    return Recall(_mean(np.array(best)), _mean(_joined(found)), None if relevant is None else _mean(_joined(matched)))


def choose_effort(
    query: PartEmbeddings,
    rows: RowSource,
    matcher: Matcher,
    k: int,
    indexes: Mapping[str, SlotIndex],
    wanted: float,
    *,
    own: np.ndarray | None = None,
    relevant: Sequence[np.ndarray] | None = None,
    positions: np.ndarray | None = None,
    extra: np.ndarray | None = None,
    passing: np.ndarray | None = None,
    candidates: Sequence[int] = CANDIDATES,
    exact: TopK | None = None,
) -> Effort:
    """Find the cheapest number of candidates and effort that reach a wanted recall on sample queries.

    Pairs of both are tried in the order of their price: a count of the vectors that a query is compared with, so that
    the choice does not depend on what else the machine does. Nothing is tried that costs more than comparing with
    every row. If nothing reaches what was wanted, the best is returned and says so (`Effort.reached`).

    Args:
        query: the sample, a few hundred queries: real ones, or rows of the gallery with `own`.
        rows: as for `approximate_topk`.
        matcher: as for `approximate_topk`.
        k: length of the lists.
        indexes: as for `approximate_topk`.
        wanted: 0 … 1, for `Recall.least`: best hits, and true matches or else whole lists.
        own: for queries taken from the gallery their positions, which they do not find.
        relevant: for each query the positions of its true matches.
        positions: as for `approximate_topk`.
        extra: as for `approximate_topk`.
        passing: as for `approximate_topk`.
        candidates: numbers of candidates to try, where they are not below k.
        exact: the exact answer with the same k, own and passing, where it is known.

    Raises:
        ShapeError: there are no queries, or wanted lies outside (0, 1].
    """
    chosen: Effort | None = None
    for tried in try_efforts(
        query,
        rows,
        matcher,
        k,
        indexes,
        wanted=wanted,
        own=own,
        relevant=relevant,
        positions=positions,
        extra=extra,
        passing=passing,
        candidates=candidates,
        exact=exact,
    ):
        if tried.reached or math.isnan(tried.recall.least):
            return tried
        if chosen is None or tried.recall.least > chosen.recall.least:
            chosen = tried
    if chosen is None:
        raise ShapeError("there is no index to choose an effort for; build one for each slot.")
    return chosen


def try_efforts(
    query: PartEmbeddings,
    rows: RowSource,
    matcher: Matcher,
    k: int,
    indexes: Mapping[str, SlotIndex],
    *,
    wanted: float = 1.0,
    own: np.ndarray | None = None,
    relevant: Sequence[np.ndarray] | None = None,
    positions: np.ndarray | None = None,
    extra: np.ndarray | None = None,
    passing: np.ndarray | None = None,
    candidates: Sequence[int] = CANDIDATES,
    exact: TopK | None = None,
    dearest: float = 1.0,
) -> Iterator[Effort]:
    """Yield what each effort finds on sample queries, the cheapest first, for as long as somebody asks.

    Args:
        query: as all that is not named here, as for `choose_effort`.
        rows: likewise.
        matcher: likewise.
        k: likewise.
        indexes: likewise.
        wanted: what `Effort.reached` compares with.
        own: likewise.
        relevant: likewise.
        positions: likewise.
        extra: likewise.
        passing: likewise.
        candidates: likewise.
        exact: likewise.
        dearest: efforts that cost more than this part of comparing with every row are not tried.

    Raises:
        ShapeError: there are no queries, or wanted lies outside (0, 1].
    """
    if not len(query) or not 0 < wanted <= 1 or not candidates:
        raise ShapeError(
            f"{len(query)} queries, wanted {wanted} and {len(candidates)} numbers of candidates; "
            "give some queries and candidates, and a recall above 0, at most 1."
        )
    rule = None if own is None else NotItself(own)
    if exact is None:
        exact = exact_topk(query, rows, matcher, k, allowed=_restricted(rule, passing, len(query)))
    for cost, count, effort in _ladder(indexes, [max(m, k) for m in candidates], len(rows), dearest):
        answer = approximate_topk(
            query,
            rows,
            matcher,
            k,
            indexes,
            candidates=count,
            effort=effort,
            positions=positions,
            extra=extra,
            allowed=rule,
            passing=passing,
        )
        yield Effort(count, effort, measure_recall(answer, exact, relevant), wanted, len(query), cost)


def _ladder(
    indexes: Mapping[str, SlotIndex], candidates: Sequence[int], rows: int, dearest: float
) -> list[tuple[float, int, int]]:
    """(cost, candidates, effort), the cheapest first; nothing dear that costs more than comparing with every row."""
    slots = len(indexes)
    most = max((len(index) for index in indexes.values()), default=0)
    counts = sorted(set(candidates))
    counts = [m for i, m in enumerate(counts) if i == 0 or counts[i - 1] < most]  # more than there are finds no more
    steps = sorted(
        (sum(index.cost(_within(index, effort)) for index in indexes.values()) + _SCORED * m * slots**2, m, effort)
        for effort in {effort for index in indexes.values() for effort in index.efforts}
        for m in counts
    )
    return [step for i, step in enumerate(steps) if i == 0 or step[0] <= max(dearest * rows * slots, _CHEAP)]


def _within(index: SlotIndex, effort: int) -> int:
    """The effort that this index can make of a common one."""
    return min(max(effort, index.efforts[0]), index.efforts[-1])


def _restricted(rule: NotItself | None, passing: np.ndarray | None, count: int) -> NotItself | _Passing | None:
    return rule if passing is None else _Passing(rule, np.asarray(passing, dtype=bool), count)


class _Passing:
    """A rule, and a filter for all queries, as `exact_topk` takes them."""

    def __init__(self, rule: NotItself | None, passing: np.ndarray, count: int) -> None:
        self._rule, self._passing, self._count = rule, passing, count

    def __call__(self, start: int, stop: int) -> np.ndarray:
        mask = np.broadcast_to(self._passing[start:stop], (self._count, stop - start))
        return mask.copy() if self._rule is None else mask & self._rule(start, stop)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype=bool)


def _mean(found: np.ndarray) -> float:
    return float(found.mean()) if len(found) else math.nan
