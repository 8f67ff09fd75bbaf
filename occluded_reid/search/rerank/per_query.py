"""Re-ranking the answer of a search: each query with the gallery alone, by neighbour lists computed beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import ShapeError
from occluded_reid.matchers.base import DECIMALS, NO_SHARED_SLOT, Matcher
from occluded_reid.search.exact import TopK
from occluded_reid.search.rerank.k_reciprocal import KReciprocal, encode, shared_minima
from occluded_reid.search.rerank.neighbors import LocatedLists, pair_distances
from occluded_reid.search.rows import RowSource

__all__ = ["rerank_topk"]


def rerank_topk(
    query: PartEmbeddings,
    best: TopK,
    rows: RowSource,
    matcher: Matcher,
    rerank: KReciprocal,
    k: int,
    *,
    lists: LocatedLists | None = None,
    wanted: Sequence[np.ndarray] | None = None,
    largest: float | None = None,
) -> TopK:
    """Put the candidates of each query in the order of their re-ranked distance; no query knows of another one.

    The answer is that of the published algorithm over one query and the whole gallery, for the candidates alone: the
    query enters the lists of the rows that it is near enough to. The differences:

    - The largest distance of a gallery row is that of `lists`, and that of the query is `largest`.
    - A candidate without a list, added since, gets one from among the query and the candidates, and enters theirs.
      With no lists at all this is the published algorithm over the query and its candidates.
    - Rows that have been removed since are in no list.

    Candidates are the nearest rows of the gallery, at best many more than k (100 for k = 10) and at least k1. What a
    query may not find, of its own camera for instance, is best left among them and out of `wanted`: without it the
    neighbourhoods have holes, and the answer is worse. Memory: the lists around the candidates of
    one query, and a few thousand rows at a time for distances that no list holds.

    Args:
        query: Nq rows.
        best: their candidates as a search has found them, nearest first.
        rows: the gallery in which the candidates have their positions.
        matcher: the distance; it must be symmetric.
        rerank: the parameters.
        k: how many to keep.
        lists: of the gallery.
        wanted: for each query which of its candidates may be in the answer, boolean; None is all of them.
        largest: the largest distance of the query to the gallery, by which its distances are divided. None takes the
            median over its k1 nearest candidates; with no lists, the largest to a candidate.

    Returns:
        Positions and re-ranked distances, rounded to 1e-6; equal ones in the order of the gallery.

    Raises:
        ShapeError: k is below 1, candidates or `wanted` are of another number of queries, or the lists do not fit.
        EmbeddingError: the slots of query and gallery differ.
    """
    if wanted is not None and [len(w) for w in wanted] != [len(p) for p in best.positions]:
        raise ShapeError(
            f"wanted is given for {[len(w) for w in wanted][:5]} … candidates of {len(wanted)} queries; "
            f"there are {[len(p) for p in best.positions][:5]} … of {len(best)}. Give one bool for each candidate."
        )
    if k < 1 or len(best) != len(query):
        raise ShapeError(
            f"k is {k}, and candidates were given for {len(best)} of {len(query)} queries; k must be at least 1, "
            "and each query needs its candidates."
        )
    if lists is not None:
        lists.require(matcher, rerank.k1)
    positions, distances = [], []
    for q, (found, distance) in enumerate(zip(best.positions, best.distances, strict=True)):
        one = _Neighbourhood(query[q : q + 1], found, distance, rows, matcher, rerank, lists, largest)
        final = one.distances() if len(found) else np.empty(0)
        if wanted is not None:
            found, final = found[wanted[q]], final[wanted[q]]
        order = np.lexsort((found, final))[:k]
        positions.append(found[order])
        distances.append(final[order])
    return TopK(positions, distances)


@dataclass(frozen=True)
class _Lists:
    """Lists of some rows: neighbours and distances (n, K), how near one must be to enter, and the largest distance."""

    rows: np.ndarray
    neighbours: np.ndarray
    distances: np.ndarray
    radius: np.ndarray
    largest: np.ndarray


class _Neighbourhood:
    """One query, its candidates, and the rows that have a say in their encodings. The query has the position -1."""

    def __init__(
        self,
        query: PartEmbeddings,
        candidates: np.ndarray,
        distances: np.ndarray,
        rows: RowSource,
        matcher: Matcher,
        rerank: KReciprocal,
        lists: LocatedLists | None,
        largest: float | None,
    ) -> None:
        self.query, self.rows, self.matcher, self.rerank = query, rows, matcher, rerank
        self.candidates, self.to_query = candidates, distances
        self.lists, self.largest = lists, largest
        listed = np.zeros(len(candidates), dtype=bool) if lists is None else lists.known(candidates)
        self.listed, self.new = candidates[listed], candidates[~listed]

    def distances(self) -> np.ndarray:
        """Return the re-ranked distance of each candidate."""
        old = self._stored()
        estimate = self._estimate(old)
        new = self._lists_of_new(old, estimate)
        lists = [self._entered(old), new, self._list_of_query(estimate)]
        owners = np.concatenate([part.rows for part in lists])
        width = self.rerank.depth
        everything = np.concatenate([part.neighbours[:, :width] for part in lists])
        # In the order of positions, and the query first: ties are broken as in the published algorithm.
        names = np.sort(owners)
        neighbours = np.full((len(names), width), -1, dtype=np.int64)
        between = np.full((len(names), width), np.inf)
        largest = np.zeros(len(names))
        place = np.searchsorted(names, owners)
        # Who has no list here is in no set either, but keeps its place in the lists of others.
        where = np.searchsorted(names, everything).clip(max=len(names) - 1)
        neighbours[place] = np.where(names[where] == everything, where, -1)
        between[place] = np.concatenate([part.distances[:, :width] for part in lists])
        largest[place] = np.concatenate([part.largest for part in lists])
        squares = self.rerank.squares(self.matcher)
        encoding = encode(
            neighbours,
            between,
            largest,
            self.rerank,
            squares=squares,
            pair_distance=lambda i, j: self._between(names[i], names[j]),
            rows=np.searchsorted(names, np.concatenate([[-1], self.candidates])),
        )
        overlap = shared_minima(encoding[:1].tocsr(), encoding[1:].tocsc())[0]
        return self.rerank.combine(overlap, self.rerank.normalise(self.to_query, largest[0], squares))

    def _stored(self) -> _Lists:
        """The lists that matter: those of all rows that may stand in the set R* of a candidate's k2 nearest."""
        depth = self.rerank.depth
        near = self._of(self.listed).neighbours[:, : self.rerank.k2]
        averaged = self._of(_together(self.listed, near))
        near = averaged.neighbours[:, :depth]
        around = self._of(_together(near))
        if not len(around.rows):  # no candidate has a list, or none of them shows anything
            return averaged
        # Whoever enters a list pushes others out of it, and makes no two others reciprocal.
        back = around.neighbours[np.searchsorted(around.rows, near).clip(max=len(around.rows) - 1), :depth]
        mutual = near[(back == averaged.rows[:, None, None]).any(2) & (near >= 0)]
        reciprocal = _together(self.listed, mutual)
        halves = self._of(reciprocal).neighbours[:, : self.rerank.half_depth]
        return self._of(_together(averaged.rows, reciprocal, halves))

    def _of(self, positions: np.ndarray) -> _Lists:
        if self.lists is None:
            empty = np.empty((0, self.rerank.depth))
            return _Lists(positions, empty.astype(np.int64), empty, np.empty(0), np.empty(0))
        neighbours, distances, radius, largest = self.lists.of(positions)
        return _Lists(positions, np.where(neighbours >= 0, neighbours, -2), distances, radius, largest)

    def _estimate(self, old: _Lists) -> float | None:
        """The largest distance of rows near the query; None where no candidate has a list."""
        near = self.listed[: self.rerank.k1]
        return float(np.median(old.largest[np.searchsorted(old.rows, near)])) if len(near) else None

    def _list_of_query(self, estimate: float | None) -> _Lists:
        shared = self.to_query < NO_SHARED_SLOT
        own = float(self.matcher.pairs(self.query, self.query, [0], [0])[0])
        largest = self.largest if self.largest is not None else estimate
        if largest is None:
            largest = float(self.to_query[shared].max(initial=0.0))
        positions, distances = np.append(-1, self.candidates[shared]), np.append(own, self.to_query[shared])
        if own >= NO_SHARED_SLOT:
            positions, distances = positions[:0], distances[:0]
        return _padded(-1, positions, distances, self.rerank.depth, largest)

    def _lists_of_new(self, old: _Lists, estimate: float | None) -> _Lists:
        """Lists of candidates that have none, from among the query and the candidates."""
        others = np.concatenate([[-1], np.sort(self.candidates)])
        i, j = (x.ravel() for x in np.meshgrid(self.new, others, indexing="ij"))
        table = pair_distances(self._take, self.matcher, i, j).reshape(len(self.new), len(others))
        self.between_new = dict(zip(self.new.tolist(), table, strict=True))
        made = []
        for position, line in zip(self.new, table, strict=True):
            shared = line < NO_SHARED_SLOT
            largest = float(line[shared].max(initial=0.0)) if estimate is None else estimate
            order = np.argsort(line[shared], kind="stable")
            names, distances = others[shared][order], line[shared][order]
            made.append(_padded(int(position), names, distances, self.rerank.depth, largest))
        if not made:
            return _Lists(old.rows[:0], old.neighbours[:0], old.distances[:0], old.radius[:0], old.largest[:0])
        return _Lists(*(np.concatenate([getattr(m, f) for m in made]) for f in _Lists.__dataclass_fields__))

    def _entered(self, old: _Lists) -> _Lists:
        """The stored lists with the query, and with the candidates that have none, where those are near enough."""
        entrants = np.full((len(old.rows), 1 + len(self.new)), np.inf)
        place = np.searchsorted(old.rows, self.listed)
        known = np.isin(self.candidates, self.listed)
        entrants[place, 0] = self.to_query[known]
        # A row that is no candidate is farther than the last one; it is asked where even then the query could enter.
        far = np.setdiff1d(np.flatnonzero(old.radius >= self.to_query[-1]), place)
        if len(far) and len(self.candidates) < len(self.rows):
            entrants[far, 0] = pair_distances(self._take, self.matcher, np.full(len(far), -1), old.rows[far])
        order = np.searchsorted(np.sort(self.candidates), self.listed) + 1
        for column, position in enumerate(self.new.tolist(), 1):
            entrants[place, column] = self.between_new[position][order]
        # Stored distances are float32: equal ones must stay equal.
        entrants = np.round(entrants.astype(np.float32).astype(np.float64), DECIMALS)
        entrants[(entrants > old.radius[:, None]) | (entrants >= NO_SHARED_SLOT)] = np.inf
        changed = np.flatnonzero(np.isfinite(entrants).any(1))
        neighbours, distances = old.neighbours.copy(), old.distances.copy()
        names = np.broadcast_to(np.append(-1, self.new), (len(changed), 1 + len(self.new)))
        joined = np.concatenate([neighbours[changed], np.where(np.isfinite(entrants[changed]), names, -2)], axis=1)
        between = np.concatenate([distances[changed], entrants[changed]], axis=1)
        best = np.lexsort((joined, between), axis=1)[:, : neighbours.shape[1]]
        neighbours[changed] = np.take_along_axis(joined, best, axis=1)
        distances[changed] = np.take_along_axis(between, best, axis=1)
        return _Lists(old.rows, neighbours, distances, old.radius, old.largest)

    def _between(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Distances of pairs that no list of theirs holds."""
        distance = np.full(len(i), np.nan) if self.lists is None else self.lists.between(i, j)
        unknown = np.isnan(distance)
        if unknown.any():
            distance[unknown] = pair_distances(self._take, self.matcher, i[unknown], j[unknown])
        return distance

    def _take(self, positions: np.ndarray) -> PartEmbeddings:
        """Rows at these positions, ascending; -1 is the query."""
        if positions[0] >= 0:
            return self.rows.take(positions)
        return PartEmbeddings.cat([self.query, self.rows.take(positions[1:])]) if len(positions) > 1 else self.query


def _together(*positions: np.ndarray) -> np.ndarray:
    """All of these positions once, in order; what is below 0 is none."""
    every = np.unique(np.concatenate([p.ravel() for p in positions]))
    return np.asarray(every[every >= 0])


def _padded(owner: int, positions: np.ndarray, distances: np.ndarray, depth: int, largest: float) -> _Lists:
    """One list, cut or filled up to its depth."""
    count = min(len(positions), depth)
    neighbours, between = np.full((1, depth), -2, dtype=np.int64), np.full((1, depth), np.inf)
    neighbours[0, :count], between[0, :count] = positions[:count], distances[:count]
    return _Lists(np.array([owner]), neighbours, between, np.array([np.inf]), np.array([largest]))
