"""Approximate search: an index for each slot proposes rows, the matcher decides among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, ShapeError, UnknownOptionError
from occluded_reid.matchers import SlotMatcher
from occluded_reid.matchers.base import NO_SHARED_SLOT, Matcher
from occluded_reid.search.exact import Allowed, TopK, exact_topk
from occluded_reid.search.index.base import DamagedIndexError, SlotIndex
from occluded_reid.search.rescore import nearest_candidates
from occluded_reid.search.rows import RowSource
from occluded_reid.search.selected import SelectedRows, allowed_at, allowed_pairs

__all__ = ["LEAST_SELECTIVITY", "approximate_topk"]

LEAST_SELECTIVITY = 0.2
"""A filter that leaves a smaller part of the rows is searched exhaustively: indexes lose near rows there."""

_QUERIES = 256  # queries whose lists are held at a time
_CHUNK = 16  # queries that one call of a parallel index is given
_PAIRS = 2048  # (query, candidate) pairs re-scored at a time: their rows stay in the cache
_WIDER = 8  # times as many candidates where too few could be used
_REMOVED = 0.1  # part of an index that may be gone before its search is told to pass over it


def approximate_topk(
    query: PartEmbeddings,
    rows: RowSource,
    matcher: Matcher,
    k: int,
    indexes: Mapping[str, SlotIndex],
    *,
    candidates: int = 100,
    effort: int | None = None,
    positions: np.ndarray | None = None,
    extra: np.ndarray | None = None,
    allowed: Allowed | None = None,
    passing: np.ndarray | None = None,
) -> TopK:
    """Find near rows of each query: candidates from one index per slot, then the matcher's own distances.

    The index of each slot that the query shows proposes `candidates` rows; their union is scored by the matcher as in
    `exact_topk`, so every distance is exact, and order and ties are decided as there. Only rows that no index proposed
    can be missing. With exact indexes and as many candidates as rows, nothing is missing.

    Answered exactly, by rules that do not depend on the indexes:

    - a query without a visible slot: the first k rows it may find, all at `NO_SHARED_SLOT`;
    - queries of which fewer than k candidates may be found, even after asking for eight times as many: by `exact_topk`;
    - a filter (`passing`) that leaves less than a fifth of the rows: the rows it leaves, by `exact_topk`.

    Memory: the lists of 256 queries and the rows of about 2,048 pairs at a time, beside the answer.

    Args:
        query: Nq rows.
        rows: the gallery, where candidates are read for scoring.
        matcher: the distance; a `SlotMatcher`.
        k: how many.
        indexes: an index for each slot that the matcher uses.
        candidates: m, rows that each slot proposes; at least k, so that the list is full where one slot is visible.
        effort: how hard each index looks (`SlotIndex.efforts`); None is each index's own choice.
        positions: for each id of the indexes its position in `rows`, or -1 where the row was removed; None: the same.
        extra: positions of rows that no index holds; they are all scored.
        allowed: called with (start, stop), returns a boolean (Nq, stop - start) array: what each query may find.
        passing: boolean, one for each row: what every query may find.

    Returns:
        Positions and exact distances; a list is shorter than k where a query may find fewer rows.

    Raises:
        UnknownOptionError: the matcher is no `SlotMatcher`.
        ShapeError: k, candidates or effort is below 1, or a mask has another shape.
        EmbeddingError: an index is missing or has another width or metric than the matcher wants.
    """
    if k < 1 or candidates < 1 or (effort is not None and effort < 1):
        raise ShapeError(f"k is {k}, candidates {candidates} and effort {effort}; each must be at least 1.")
    return _Approximate(query, rows, matcher, k, indexes, candidates, effort, positions, extra, allowed, passing).run()


class _Approximate:
    """One call of `approximate_topk`."""

    def __init__(
        self,
        query: PartEmbeddings,
        rows: RowSource,
        matcher: Matcher,
        k: int,
        indexes: Mapping[str, SlotIndex],
        candidates: int,
        effort: int | None,
        positions: np.ndarray | None,
        extra: np.ndarray | None,
        allowed: Allowed | None,
        passing: np.ndarray | None,
    ) -> None:
        self.matcher = _require_slots(matcher, query, indexes)
        self.query, self.rows, self.k = query, rows, min(k, max(1, len(rows)))
        self.indexes = {slot: indexes[slot] for slot in self.matcher.used(query.names)}
        self.candidates, self.effort = max(candidates, self.k), effort
        self.positions = None if positions is None else np.asarray(positions, dtype=np.int64)
        self.extra = np.empty(0, np.int64) if extra is None else np.unique(np.asarray(extra, dtype=np.int64))
        self.allowed = allowed
        self.passing = None if passing is None else np.asarray(passing, dtype=bool)
        if self.passing is not None and self.passing.shape != (len(rows),):
            raise ShapeError(f"passing has the shape {self.passing.shape}; wanted ({len(rows)},), one for each row.")
        self.able = len(rows) if self.passing is None else int(np.count_nonzero(self.passing))
        self.selector = self._selector()

    def run(self) -> TopK:
        every = np.arange(len(self.query))
        if self.passing is not None and self.able < LEAST_SELECTIVITY * len(self.rows):
            return self._exact(every, np.flatnonzero(self.passing))
        answer = TopK([np.empty(0, np.int64)] * len(self.query), [np.empty(0)] * len(self.query))
        vectors = {slot: self.matcher.index_vectors(self.query, slot) for slot in self.indexes}
        sighted = np.zeros(len(self.query), dtype=bool)
        for numbers, _ in vectors.values():
            sighted[numbers] = True
        extra = self.extra if self.passing is None else self.extra[self.passing[self.extra]]
        beside = self._exact(every, extra) if len(extra) else None
        enough = min(self.k, self.able)
        for first in range(0, len(self.query), _QUERIES):
            block = np.flatnonzero(sighted[first : first + _QUERIES]) + first
            for wider in (1, _WIDER):
                if len(block):
                    self._search(block, vectors, wider, answer, beside)
                    # Rows that share no slot are all equally far: which come first, the exact search must say.
                    block = block[[int((answer.distances[q] < NO_SHARED_SLOT).sum()) < enough for q in block]]
            if len(block):
                _put(answer, block, self._exact(block, None if self.passing is None else np.flatnonzero(self.passing)))
        for q in np.flatnonzero(~sighted):
            answer.positions[q] = self._first(int(q))
            answer.distances[q] = np.full(len(answer.positions[q]), NO_SHARED_SLOT)
        return answer

    def _selector(self) -> np.ndarray | None:
        """For each id whether indexes may return it; None where that is not worth telling them."""
        if self.positions is None:
            return self.passing
        gone = self.positions < 0
        if self.passing is not None:
            return ~gone & self.passing[self.positions] if len(self.passing) else ~gone
        return ~gone if np.count_nonzero(gone) > _REMOVED * len(gone) else None

    def _search(
        self,
        block: np.ndarray,
        vectors: Mapping[str, tuple[np.ndarray, np.ndarray]],
        wider: int,
        answer: TopK,
        beside: TopK | None,
    ) -> None:
        """Answer the queries of a block from the lists of the indexes and what is known about other rows."""
        owner, place = self._union(block, vectors, wider)
        ends = np.searchsorted(owner, np.arange(len(block) + 1))
        for first, last in _batches(ends):
            part = slice(ends[first], ends[last])
            query = _rows(self.query, block[first:last])
            found = nearest_candidates(query, self.rows, self.matcher, self.k, owner[part] - first, place[part])
            _put(answer, block[first:last], found)
        if beside is not None:
            for q in block:
                _merge(answer, int(q), beside, self.k)

    def _union(
        self, block: np.ndarray, vectors: Mapping[str, tuple[np.ndarray, np.ndarray]], wider: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Number in the block, ascending, and position, ascending for each, of every candidate that may be found."""
        lists = []
        for numbers, ids in self._propose(block, vectors, wider):
            owner = np.repeat(np.searchsorted(block, numbers), ids.shape[1])
            place = ids.ravel()
            keep = place >= 0
            lists.append((owner[keep], place[keep]))
        if not lists:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        owner, place = (np.concatenate(side) for side in zip(*lists, strict=True))
        known = len(self.rows) if self.positions is None else len(self.positions)
        if len(place) and place.max() >= known:
            raise DamagedIndexError(
                f"an index returned the id {place.max()}, but ids below {known} are known. Give `positions` with one "
                "entry for each id that was added, or build the indexes for these rows."
            )
        if self.positions is not None:
            place = self.positions[place]
            owner, place = owner[place >= 0], place[place >= 0]
        both = np.unique(owner * len(self.rows) + place)
        owner, place = both // max(1, len(self.rows)), both % max(1, len(self.rows))
        # What is known beside the indexes is merged later, and would then be there twice.
        keep = ~np.isin(place, self.extra) if len(self.extra) else np.ones(len(place), dtype=bool)
        if self.passing is not None:
            keep &= self.passing[place]
        if self.allowed is not None:
            keep &= allowed_pairs(self.allowed, block[owner], place, len(self.query))
        return owner[keep], place[keep]

    def _propose(
        self, block: np.ndarray, vectors: Mapping[str, tuple[np.ndarray, np.ndarray]], wider: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (queries, ids (n, m)) from each index, a few queries at a time where it can be asked in parallel."""
        jobs: list[tuple[SlotIndex, np.ndarray, np.ndarray]] = []
        alone: list[tuple[SlotIndex, np.ndarray, np.ndarray]] = []
        for slot, index in self.indexes.items():
            numbers, rows = vectors[slot]
            mine = np.flatnonzero(np.isin(numbers, block, assume_unique=True))
            if not len(mine) or not len(index):
                continue
            step = _CHUNK if index.parallel else len(mine)
            for start in range(0, len(mine), step):
                part = mine[start : start + step]
                (jobs if index.parallel else alone).append((index, numbers[part], rows[part]))

        def ask(job: tuple[SlotIndex, np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            index, numbers, rows = job
            effort = self.effort
            if effort is not None and wider > 1:
                effort = max(effort, min(4 * effort, index.efforts[-1]))
            # More than there are would only be room for nothing.
            _, ids = index.search(rows, min(self.candidates * wider, len(index)), effort=effort, allowed=self.selector)
            return numbers, ids

        yield from map(ask, alone)
        yield from _in_threads(ask, jobs)

    def _exact(self, queries: np.ndarray, chosen: np.ndarray | None) -> TopK:
        """Exact answers of some queries, over all rows or the chosen ones."""
        source: RowSource = self.rows if chosen is None else SelectedRows(self.rows, chosen)
        rule, count = self.allowed, len(self.query)

        def mask(start: int, stop: int) -> np.ndarray:
            if rule is None:
                return np.ones((len(queries), stop - start), dtype=bool)
            place = np.arange(start, stop) if chosen is None else chosen[start:stop]
            return np.asarray(allowed_at(rule, place, count)[queries])

        found = exact_topk(
            _rows(self.query, queries), source, self.matcher, self.k, allowed=None if rule is None else mask
        )
        if chosen is None:
            return found
        return TopK([chosen[p] for p in found.positions], found.distances)

    def _first(self, q: int) -> np.ndarray:
        """The first k positions that this query may find."""
        found: list[np.ndarray] = []
        count, step = 0, 1 << 13
        for start in range(0, len(self.rows), step):
            stop = min(start + step, len(self.rows))
            mask = np.ones(stop - start, dtype=bool) if self.passing is None else self.passing[start:stop].copy()
            if self.allowed is not None:
                mask &= np.asarray(self.allowed(start, stop), dtype=bool)[q]
            found.append(np.flatnonzero(mask) + start)
            count += len(found[-1])
            if count >= self.k:
                break
        return np.concatenate(found)[: self.k] if found else np.empty(0, np.int64)


def _require_slots(matcher: Matcher, query: PartEmbeddings, indexes: Mapping[str, SlotIndex]) -> SlotMatcher:
    if not isinstance(matcher, SlotMatcher):
        raise UnknownOptionError(
            f"approximate search needs a matcher that compares slot by slot (a SlotMatcher); got "
            f"{type(matcher).__name__}. Search exactly, or subclass SlotMatcher."
        )
    for slot in matcher.used(query.names):
        if slot not in indexes:
            raise EmbeddingError(
                f"the slot '{slot}' has no index; there are indexes for {', '.join(indexes) or 'no slot'}. "
                "Build one for each slot that the matcher uses, or search exactly."
            )
        index = indexes[slot]
        if index.width != query.widths[slot] or index.metric != matcher.index_metric:
            raise EmbeddingError(
                f"the index of slot '{slot}' holds {index.width} numbers compared by {index.metric}; this search needs "
                f"{query.widths[slot]} compared by {matcher.index_metric}. Build the index for this matcher."
            )
    return matcher


def _in_threads(
    work: Callable[[tuple[SlotIndex, np.ndarray, np.ndarray]], tuple[np.ndarray, np.ndarray]],
    jobs: list[tuple[SlotIndex, np.ndarray, np.ndarray]],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Do all jobs, in as many threads as torch uses, and give their results in order."""
    threads = min(torch.get_num_threads(), len(jobs))
    if threads < 2:
        yield from map(work, jobs)
        return
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, jobs)


def _batches(ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut queries, whose pairs end where `ends` says, into runs of about `_PAIRS` pairs."""
    first, count = 0, len(ends) - 1
    while first < count:
        last = int(np.searchsorted(ends, ends[first] + _PAIRS, side="right")) - 1
        last = min(count, max(first + 1, last))
        yield first, last
        first = last


def _rows(query: PartEmbeddings, numbers: np.ndarray) -> PartEmbeddings:
    """These ascending rows, without a copy where they lie together."""
    if len(numbers) and numbers[-1] - numbers[0] == len(numbers) - 1:
        return query[int(numbers[0]) : int(numbers[-1]) + 1]
    return query[torch.from_numpy(numbers)]


def _put(answer: TopK, queries: np.ndarray, found: TopK) -> None:
    for q, position, distance in zip(queries, found.positions, found.distances, strict=True):
        answer.positions[q], answer.distances[q] = position, distance


def _merge(answer: TopK, q: int, other: TopK, k: int) -> None:
    """Put a query's other rows, none of them among those it has, into its list."""
    positions = np.concatenate([answer.positions[q], other.positions[q]])
    distances = np.concatenate([answer.distances[q], other.distances[q]])
    order = np.lexsort((positions, distances))[:k]
    answer.positions[q], answer.distances[q] = positions[order], distances[order]
