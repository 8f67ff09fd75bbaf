"""What a query may find in a gallery, and the nearest of it, with or without groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.gallery.images import Source
from occluded_reid.gallery.search.request import SearchRequest
from occluded_reid.gallery.search.rows import TableRows
from occluded_reid.search.exact import TopK

__all__ = ["Exclusions", "Finder", "RowMask", "exclusions", "nearest"]

_GROUP_MARGIN = 4  # rows asked for, for each group wanted, before looking further


@dataclass
class Exclusions:
    """Rows that a query may not find.

    Attributes:
        camera: (Nq,) code of each query's camera, or None where cameras do not matter.
        identity: (Nq,) code of its identity: then only rows of the same camera *and* the same identity are out.
        positions: for each query single rows that are out, ascending.
    """

    camera: np.ndarray | None
    identity: np.ndarray | None
    positions: list[np.ndarray]
    _groups: list[set[int]] = field(default_factory=list)

    def found(self, query: int, group: int, position: int) -> None:
        """Do not find this group again; a row of no group is out by its position."""
        if not self._groups:
            self._groups = [set() for _ in self.positions]
        if group >= 0:
            self._groups[query].add(group)
        else:
            self.positions[query] = np.union1d(self.positions[query], [position])

    def groups(self, query: int) -> list[int]:
        """Return the groups that a query has found."""
        return sorted(self._groups[query]) if self._groups else []

    @property
    def any(self) -> bool:
        """Whether anything is out."""
        return self.camera is not None or bool(self._groups) or any(len(p) for p in self.positions)


@dataclass(frozen=True)
class RowMask:
    """What some queries may find among the rows of a version, asked for in windows, at positions, or pair by pair.

    Attributes:
        rows: the rows, for their labels.
        out: what is out.
        group_by: label of the groups in `out`.
        queries: numbers of the queries in `out`.
    """

    rows: TableRows
    out: Exclusions
    group_by: str | None
    queries: np.ndarray

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Return (n, stop - start) for the rows start … stop."""
        return self.at(np.arange(start, stop))

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return (n, m) for m ascending positions."""
        mask = ~self._same_camera(self.queries[:, None], positions[None])
        for line, q in zip(mask, self.queries, strict=True):
            out = self.out.positions[q]
            place = np.searchsorted(positions, out)
            inside = place < len(positions)
            place, out = place[inside], out[inside]
            line[place[positions[place] == out]] = False
            if (groups := self.out.groups(q)) and self.group_by is not None:
                line &= ~np.isin(self.rows.codes(self.group_by)[positions], groups)
        return mask

    def pairs(self, queries: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Return (p,) for p pairs: a number in `self.queries`, ascending, and a position."""
        mask = ~self._same_camera(self.queries[queries], positions)
        for n, begin, end in _runs(queries):
            q, here = int(self.queries[n]), positions[begin:end]
            if len(self.out.positions[q]):
                mask[begin:end] &= ~np.isin(here, self.out.positions[q])
            if (groups := self.out.groups(q)) and self.group_by is not None:
                mask[begin:end] &= ~np.isin(self.rows.codes(self.group_by)[here], groups)
        return mask

    def _same_camera(self, queries: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Whether camera, and identity where it was given, are the query's own; never where cameras do not matter."""
        if self.out.camera is None:
            return np.zeros(np.broadcast_shapes(queries.shape, positions.shape), dtype=bool)
        same = self.out.camera[queries] == self.rows.codes("camera")[positions]
        if self.out.identity is not None:
            same &= self.out.identity[queries] == self.rows.codes("identity")[positions]
        return np.asarray(same)


Finder = Callable[[PartEmbeddings, int, RowMask | None], TopK]
"""A search for the k nearest rows that are allowed; see `exact_topk`."""


def nearest(
    query: PartEmbeddings, rows: TableRows, k: int, out: Exclusions, group_by: str | None, find: Finder
) -> TopK:
    """Return the k nearest rows that each query may find, of each group the nearest alone.

    With groups, rounds of a plain search follow each other; each leaves out the groups found before, so that one large
    group cannot hide the others, and memory stays that of a plain search.

    Args:
        query: Nq rows.
        rows: the gallery, for the labels of its rows.
        k: how many rows, or groups.
        out: what a query may not find.
        group_by: label whose values are groups.
        find: a plain search.
    """

    def search(queries: np.ndarray, count: int) -> TopK:
        chosen = query if len(queries) == len(query) else query[queries.tolist()]
        return find(chosen, count, RowMask(rows, out, group_by, queries) if out.any else None)

    everyone = np.arange(len(query))
    if group_by is None:
        return search(everyone, k)
    wanted = min(k * _GROUP_MARGIN, len(rows))
    groups = rows.codes(group_by)
    positions: list[list[int]] = [[] for _ in everyone]
    distances: list[list[float]] = [[] for _ in everyone]
    queries = everyone
    while len(queries):
        best = search(queries, wanted)
        unfinished = []
        for place, q in enumerate(queries):
            seen: set[int] = set()
            for position, distance in zip(best.positions[place], best.distances[place], strict=True):
                group = int(groups[position])
                if group in seen or len(positions[q]) == k:
                    continue
                seen |= {group} if group >= 0 else set()
                positions[q].append(int(position))
                distances[q].append(float(distance))
                out.found(int(q), group, int(position))
            if len(positions[q]) < k and len(best.positions[place]) == wanted:
                unfinished.append(q)
        queries = np.array(unfinished, dtype=np.int64)
    return TopK([np.array(p, dtype=np.int64) for p in positions], [np.array(d) for d in distances])


def exclusions(request: SearchRequest, rows: TableRows) -> Exclusions:
    """Return what each query of a request may not find among these rows."""

    def codes(label: str, values: Sequence[Any] | None) -> np.ndarray | None:
        return None if values is None else np.array([rows.code_of(label, value) for value in values])

    return Exclusions(
        camera=codes("camera", request.cameras),
        identity=codes("identity", request.identities),
        positions=_own_rows(rows, request.origins),
    )


def _own_rows(rows: TableRows, origins: Sequence[Sequence[Source]]) -> list[np.ndarray]:
    """Return for each query the positions of its own images in the gallery, known by key or by content."""
    everything = [source for sources in origins for source in sources]
    by_key = rows.holding("key", sorted({s.key for s in everything}))
    by_content = rows.holding("sha256", sorted({s.sha256 for s in everything}))
    own = []
    for sources in origins:
        found = [by_key.get(source.key) for source in sources] + [by_content.get(source.sha256) for source in sources]
        own.append(np.unique(np.concatenate([np.empty(0, np.int64), *(p for p in found if p is not None)])))
    return own


def _runs(queries: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (number, begin, end) for each run of equal numbers."""
    begins = np.flatnonzero(np.diff(queries, prepend=-1))
    return [(int(queries[b]), int(b), int(e)) for b, e in zip(begins, [*begins[1:], len(queries)], strict=True)]
