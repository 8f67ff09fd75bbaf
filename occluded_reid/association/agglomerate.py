"""Average-link agglomeration over a sparse graph, with pairs that must and pairs that cannot be together."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from occluded_reid.association.candidates import Candidates
from occluded_reid.association.evidence import Evidence

__all__ = ["Clusters", "Link", "Merge"]

_DIGITS = 9  # of a mean: what differs less is a tie, and the order of the tracks decides


@dataclass(frozen=True)
class Link:
    """What all pairs between two clusters say.

    Attributes:
        total: sum of their log-odds.
        pairs: how many of them share a slot.
        forbidden: whether two of them cannot be one person.
    """

    total: float
    pairs: int
    forbidden: bool = False

    @property
    def mean(self) -> float:
        """Mean log-odds; -inf where no pair says anything."""
        return round(self.total / self.pairs, _DIGITS) if self.pairs else -np.inf

    def __add__(self, other: Link) -> Link:
        return Link(self.total + other.total, self.pairs + other.pairs, self.forbidden or other.forbidden)


@dataclass(frozen=True)
class Merge:
    """Two clusters became one.

    Attributes:
        first: its lowest row, which is its name from now on.
        second: lowest row of the other one.
        log_odds: mean over all pairs between them.
    """

    first: int
    second: int
    log_odds: float


@dataclass
class Clusters:
    """Clusters of rows; the most likely pair of clusters is merged again and again.

    The likelihood of a pair of clusters is the mean log-odds over *all* pairs of their rows that share a slot (average
    link), also over those that are no candidates: these are scored when they are first needed. Candidates say which
    pairs of clusters are looked at, and a forbidden pair of rows keeps their clusters apart for ever. Equal means are
    decided by the lowest rows.

    Args:
        evidence: judges pairs of rows.
        candidates: pairs that are looked at.
        together: groups of rows that are one cluster from the beginning.
    """

    evidence: Evidence
    candidates: Candidates
    together: Sequence[Sequence[int]] = ()
    members: dict[int, list[int]] = field(init=False)
    links: dict[int, dict[int, Link]] = field(init=False)
    heap: list[tuple[float, int, int]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.evidence.tracks)
        name = np.arange(count)
        for group in self.together:
            name[list(group)] = min(group)
        self.members = {}
        for row, cluster in enumerate(name.tolist()):
            self.members.setdefault(cluster, []).append(row)
        self.links = {cluster: {} for cluster in self.members}
        wide: set[tuple[int, int]] = set()
        rows = zip(
            self.candidates.first.tolist(),
            self.candidates.second.tolist(),
            self.candidates.log_odds.tolist(),
            strict=True,
        )
        for i, j, odds in rows:
            a, b = sorted((int(name[i]), int(name[j])))
            if a == b:
                continue
            if len(self.members[a]) == len(self.members[b]) == 1:
                self._put(a, b, Link(odds, 1))  # candidates are possible, the search has seen to it
            else:
                wide.add((a, b))
        wanted = sorted(wide)
        for (a, b), link in zip(wanted, self._judge(wanted), strict=True):
            self._put(a, b, link)

    def run(self, least: float) -> Iterator[Merge]:
        """Merge while the best pair of clusters has mean log-odds of at least `least`, and yield each merge."""
        while self.heap:
            negative, a, b = self.heap[0]
            link = self.links.get(a, {}).get(b)
            if link is None or link.forbidden or link.mean != -negative:
                heapq.heappop(self.heap)  # of clusters as they were once
                continue
            if -negative < least:
                return
            heapq.heappop(self.heap)
            self._merge(a, b)
            yield Merge(a, b, -negative)

    def labels(self) -> np.ndarray:
        """Return for each row the name of its cluster: the lowest row in it."""
        found = np.empty(len(self.evidence.tracks), dtype=np.int64)
        for cluster, rows in self.members.items():
            found[rows] = cluster
        return found

    def rivals(self) -> Iterator[tuple[int, int, Link]]:
        """Yield the pairs of clusters that could still be one, with what is known of them."""
        for a in sorted(self.links):
            for b in sorted(self.links[a]):
                if a < b and not self.links[a][b].forbidden and self.links[a][b].pairs:
                    yield a, b, self.links[a][b]

    def cohesion(self, clusters: Iterable[int]) -> list[Link]:
        """Return what all pairs within each of these clusters say; a cluster of one row has none."""
        pairs, ends = [np.empty((0, 2), np.int64)], [0]
        for cluster in clusters:
            rows = np.array(self.members[cluster])
            i, j = np.triu_indices(len(rows), 1)
            pairs.append(np.stack([rows[i], rows[j]], 1))
            ends.append(ends[-1] + len(i))
        both = np.concatenate(pairs)
        return self._links(both[:, 0], both[:, 1], ends, forbid=False)

    def _merge(self, a: int, b: int) -> None:
        of_a, of_b = self.links.pop(a), self.links.pop(b)
        others = sorted((of_a.keys() | of_b.keys()) - {a, b})
        unknown = [(b, c) if c in of_a else (a, c) for c in others if not (c in of_a and c in of_b)]
        # What one side may never join needs no scores: the union may not either.
        scored = [(x, c) for x, c in unknown if not (of_a.get(c) or of_b[c]).forbidden]
        known = dict(zip((c for _, c in scored), self._judge(scored), strict=True))
        self.members[a] = sorted(self.members[a] + self.members.pop(b))
        self.links[a] = {}
        for c in others:
            del self.links[c][a if c in of_a else b]
            if c in of_a and c in of_b:
                self.links[c].pop(b, None)
                link = of_a[c] + of_b[c]
            else:
                one = of_a.get(c) or of_b[c]
                link = one + known[c] if c in known else one
            self._put(min(a, c), max(a, c), link)

    def _put(self, a: int, b: int, link: Link) -> None:
        self.links[a][b] = self.links[b][a] = link
        if not link.forbidden and link.pairs:
            heapq.heappush(self.heap, (-link.mean, a, b))

    def _judge(self, pairs: Sequence[tuple[int, int]]) -> list[Link]:
        """What all rows of one cluster against all rows of another say, for several pairs of clusters."""
        if not pairs:
            return []
        first, second, ends = [], [], [0]
        for a, b in pairs:
            one, two = self.members[a], self.members[b]
            first.append(np.repeat(one, len(two)))
            second.append(np.tile(two, len(one)))
            ends.append(ends[-1] + len(one) * len(two))
        return self._links(np.concatenate(first), np.concatenate(second), ends)

    def _links(self, i: np.ndarray, j: np.ndarray, ends: Sequence[int], *, forbid: bool = True) -> list[Link]:
        odds = self.evidence.log_odds(i, j)
        known = ~np.isnan(odds)
        banned = self.evidence.impossible(i, j) if forbid else np.zeros(len(i), dtype=bool)
        return [
            Link(float(odds[s:e][known[s:e]].sum()), int(known[s:e].sum()), bool(banned[s:e].any()))
            for s, e in pairwise(ends)
        ]
