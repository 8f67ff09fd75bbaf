"""What a query may find in a gallery, and the nearest of it, with or without groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.gallery.images import Source
from occluded_reid.gallery.question import Question
from occluded_reid.gallery.rows import TableRows
from occluded_reid.matchers.base import Matcher
from occluded_reid.search import TopK, exact_topk

__all__ = ["Exclusions", "exclusions", "nearest"]

_TILE_NUMBERS = 1 << 24  # numbers of a tile: 64 MB in float32
_GROUP_MARGIN = 4  # rows asked for, for each group wanted, before looking further


@dataclass
class Exclusions:
    """Rows that a query may not find.

    Attributes:
        camera: (Nq,) code of each query's camera, or None where cameras do not matter.
        identity: (Nq,) code of its identity: then only rows of the same camera *and* the same identity are out.
        positions: for each query single rows that are out.
    """

    camera: np.ndarray | None
    identity: np.ndarray | None
    positions: list[np.ndarray]
    _groups: list[set[int]] = field(default_factory=list)

    def allowed(self, rows: TableRows, group_by: str | None, queries: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Return what these queries may find among the rows start … stop, boolean (n, stop - start)."""
        mask = np.ones((len(queries), stop - start), dtype=bool)
        if self.camera is not None:
            same = self.camera[queries, None] == rows.codes("camera")[None, start:stop]
            if self.identity is not None:
                same &= self.identity[queries, None] == rows.codes("identity")[None, start:stop]
            mask &= ~same
        for line, q in zip(mask, queries, strict=True):
            out = self.positions[q]
            line[out[(out >= start) & (out < stop)] - start] = False
            if group_by is not None and self._groups and self._groups[q]:
                line &= ~np.isin(rows.codes(group_by)[start:stop], list(self._groups[q]))
        return mask

    def found(self, query: int, group: int, position: int) -> None:
        """Do not find this group again; a row of no group is out by its position."""
        if not self._groups:
            self._groups = [set() for _ in self.positions]
        if group >= 0:
            self._groups[query].add(group)
        else:
            self.positions[query] = np.append(self.positions[query], position)

    @property
    def any(self) -> bool:
        """Whether anything is out."""
        return self.camera is not None or bool(self._groups) or any(len(p) for p in self.positions)


def nearest(
    query: PartEmbeddings, rows: TableRows, matcher: Matcher, k: int, out: Exclusions, group_by: str | None
) -> TopK:
    """Return the k nearest rows that each query may find, of each group the nearest alone.

    With groups, rounds of a plain search follow each other; each leaves out the groups found before, so that one large
    group cannot hide the others, and memory stays that of a plain search.
    """
    tile_rows = max(64, min(4096, _TILE_NUMBERS // sum(query.widths.values())))

    def search(queries: np.ndarray, count: int) -> TopK:
        def allowed(start: int, stop: int) -> np.ndarray:
            return out.allowed(rows, group_by, queries, start, stop)

        chosen = query if len(queries) == len(query) else query[queries.tolist()]
        return exact_topk(chosen, rows, matcher, count, tile_rows=tile_rows, allowed=allowed if out.any else None)

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


def exclusions(question: Question, rows: TableRows) -> Exclusions:
    """Return what each query of a question may not find among these rows."""

    def codes(label: str, values: Sequence[Any] | None) -> np.ndarray | None:
        return None if values is None else np.array([rows.code_of(label, value) for value in values])

    return Exclusions(
        camera=codes("camera", question.cameras),
        identity=codes("identity", question.identities),
        positions=_own_rows(rows, question.origins),
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
