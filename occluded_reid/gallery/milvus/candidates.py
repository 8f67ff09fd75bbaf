"""Search on a server: the collection of each slot proposes rows, the matcher decides among them here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.gallery.filters.where import field, to_milvus
from occluded_reid.gallery.milvus.effort import MilvusEffort, search_params
from occluded_reid.gallery.milvus.rows import joined
from occluded_reid.gallery.milvus.schema import VISIBILITY
from occluded_reid.gallery.milvus.store import MilvusStore
from occluded_reid.gallery.search.request import SearchRequest
from occluded_reid.gallery.storage.manifest import Manifest
from occluded_reid.gallery.storage.store import to_embeddings
from occluded_reid.matchers import SlotMatcher
from occluded_reid.matchers.base import NO_SHARED_SLOT
from occluded_reid.search.exact import TopK

__all__ = ["CandidateSearch", "milvus_metric"]

_QUERIES = 256  # queries whose lists are held at a time
_NUMBERS = 1 << 25  # numbers of candidates held for scoring: 128 MB in float32
_HALVINGS = 30


def milvus_metric(matcher: SlotMatcher) -> str:
    """Return the metric of Milvus that puts rows in the order of one slot's distance."""
    return "L2" if matcher.index_metric == "l2" else "COSINE"


@dataclass
class _Found:
    """What a query has found: distance, group and number of rows, nearest first."""

    numbers: np.ndarray
    distances: np.ndarray
    groups: list[Any]


class CandidateSearch:
    """One request, answered from candidates.

    The server gives, for each slot that a query shows, the rows nearest in that slot, among those that show it too,
    fulfil the filter, and are not of the query's camera where that is left out. Rows that count are read by their
    number, and scored by the matcher in float64; ties are decided by the number, which is the order of the gallery.

    Memory: the lists of 256 queries, and 128 MB of candidates (or those of one query, where they are more).

    Args:
        store: the rows.
        matcher: the distance.
        request: what is asked.
        effort: candidates of each slot, and how hard its index looks.
        index: of each slot, as the server describes it.
    """

    def __init__(
        self,
        store: MilvusStore,
        matcher: SlotMatcher,
        request: SearchRequest,
        effort: MilvusEffort,
        index: Sequence[Mapping[str, Any]],
    ) -> None:
        self._store = store.filtered(to_milvus(request.where))
        self._matcher, self._question, self._effort, self._index = matcher, request, effort, index
        names = list(store.manifest.slots)
        self._slots = {name: names.index(name) for name in matcher.used(request.rows.names)}
        self._shown = {name: _shown(matcher, store.manifest, name) for name in self._slots}
        self._own = self._own_rows()

    def run(self) -> tuple[TopK, np.ndarray]:
        """Return row numbers and distances for each query, and the queries that found fewer than k rows this way."""
        count, k = len(self._question.rows), self._question.k
        answer = TopK([np.empty(0, np.int64)] * count, [np.empty(0)] * count)
        for first in range(0, count, _QUERIES):
            queries = np.arange(first, min(first + _QUERIES, count))
            found = self._search(queries) if self._question.group_by is None else self._search_groups(queries)
            for q, rows in found.items():
                answer.positions[q], answer.distances[q] = rows.numbers[:k], rows.distances[:k]
        return answer, np.array([q for q in range(count) if len(answer.positions[q]) < k], dtype=np.int64)

    def _search(self, queries: np.ndarray) -> dict[int, _Found]:
        """Search once, and once more with eight times the candidates where too few count."""
        rules = {int(q): self._same_camera(int(q)) for q in queries}
        found = self._round(queries, rules, self._effort)
        few = np.array([q for q in queries if len(found[int(q)].numbers) < self._question.k], dtype=np.int64)
        wider = self._effort.wider(8)
        if len(few) and wider != self._effort:
            found.update(self._round(few, rules, wider))
        return found

    def _search_groups(self, queries: np.ndarray) -> dict[int, _Found]:
        """Search in rounds, each without the groups found before, so that one large group cannot hide the others."""
        label, k = self._question.group_by or "identity", self._question.k
        best: dict[int, dict[Any, tuple[float, int]]] = {int(q): {} for q in queries}
        while len(queries):
            rules = {int(q): joined(self._same_camera(int(q)), _without(label, best[int(q)])) for q in queries}
            unfinished = []
            for q, rows in self._round(queries, rules, self._effort).items():
                known = len(best[q])
                for number, distance, group in zip(rows.numbers, rows.distances, rows.groups, strict=True):
                    # A row of no group is a group of its own, named by its number.
                    name = (label, group) if group is not None else int(number)
                    best[q].setdefault(name, (float(distance), int(number)))
                if known < len(best[q]) < k:
                    unfinished.append(q)
            queries = np.array(unfinished, dtype=np.int64)
        found = {}
        for q, groups in best.items():
            order = sorted(groups.values())
            found[q] = _Found(np.array([n for _, n in order], dtype=np.int64), np.array([d for d, _ in order]), [])
        return found

    def _round(self, queries: np.ndarray, rules: Mapping[int, str | None], effort: MilvusEffort) -> dict[int, _Found]:
        """Propose rows for these queries and score them."""
        proposed = self._propose(queries, rules, effort)
        everything = np.unique(np.concatenate([np.empty(0, np.int64), *proposed.values()]))
        numbers, groups = self._store.known(everything, self._question.group_by)
        label = dict(zip(numbers.tolist(), groups, strict=True))
        wanted = {q: np.intersect1d(some, numbers) for q, some in proposed.items()}
        found, manifest = {}, self._store.manifest
        for block, union in self._blocks(wanted):
            table = self._store.take(union, [VISIBILITY, *manifest.columns])
            score = self._matcher.scorer(self._question.rows, to_embeddings(table, manifest))
            for q in block:
                mine = wanted[q]
                distance = score(np.full(len(mine), q), np.searchsorted(union, mine))
                order = np.lexsort((mine, distance))
                order = order[distance[order] < NO_SHARED_SLOT]
                found[q] = _Found(mine[order], distance[order], [label[n] for n in mine[order].tolist()])
        return found

    def _propose(
        self, queries: np.ndarray, rules: Mapping[int, str | None], effort: MilvusEffort
    ) -> dict[int, np.ndarray]:
        """Ask each slot that a query shows; return the union of its lists, without the query's own images."""
        most = max((len(self._own[int(q)]) for q in queries), default=0)
        limit = min(effort.candidates + most, MilvusEffort.MOST)
        jobs: list[tuple[int, np.ndarray, np.ndarray, str | None]] = []
        for name, slot in self._slots.items():
            places, vectors = self._matcher.index_vectors(self._question.rows[queries.tolist()], name)
            for rule in dict.fromkeys(rules[int(q)] for q in queries[places]):
                same = np.array([rules[int(q)] == rule for q in queries[places]])
                jobs.append((slot, queries[places[same]], vectors[same], joined(self._shown[name], rule)))

        def ask(slot: int, _: np.ndarray, vectors: np.ndarray, rule: str | None) -> list[np.ndarray]:
            params = search_params(self._index[slot], effort)
            return self._store.nearest(slot, vectors, limit, milvus_metric(self._matcher), params, rule)

        lists: dict[int, list[np.ndarray]] = {int(q): [np.empty(0, np.int64)] for q in queries}
        answers = self._store.server.each(ask, jobs)
        for (_, asked, _, _), answer in zip(jobs, answers, strict=True):
            for q, numbers in zip(asked.tolist(), answer, strict=True):
                lists[q].append(numbers)
        return {q: np.setdiff1d(np.concatenate(parts), self._own[q]) for q, parts in lists.items()}

    def _blocks(self, wanted: Mapping[int, np.ndarray]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Cut queries into blocks whose candidates fit into memory together; yield queries and candidates of each.

        Queries that ask for the same people share most of their candidates, which are read once a block.
        """
        most = _NUMBERS // self._store.manifest.width
        block: list[int] = []
        union = np.empty(0, np.int64)
        for q, numbers in wanted.items():
            together = np.union1d(union, numbers)
            if block and len(together) > most:
                yield block, union
                block, together = [], numbers
            block.append(q)
            union = together
        if block:
            yield block, union

    def _same_camera(self, query: int) -> str | None:
        """What leaves out rows of the query's camera, and identity where that was given."""
        cameras, identities = self._question.cameras, self._question.identities
        if cameras is None or cameras[query] is None or (identities is not None and identities[query] is None):
            return None
        elsewhere = _other("camera", cameras[query])
        return elsewhere if identities is None else f"({elsewhere} or {_other('identity', identities[query])})"

    def _own_rows(self) -> list[np.ndarray]:
        """Return for each query the numbers of its own images in the gallery, known by key or by content."""
        origins = self._question.origins
        keys = {source.key for sources in origins for source in sources}
        digests = {source.sha256 for sources in origins for source in sources}
        if not keys:
            return [np.empty(0, np.int64)] * len(self._question.rows)
        table = self._store.find(["key", "sha256"], [sorted(keys), sorted(digests)])
        named: dict[tuple[str, Any], list[int]] = {}
        for row in table.to_pylist():
            for column in ("key", "sha256"):
                named.setdefault((column, row[column]), []).append(row["_rowid"])
        return [
            np.unique(
                np.array(
                    [
                        number
                        for source in sources
                        for name in (("key", source.key), ("sha256", source.sha256))
                        for number in named.get(name, [])
                    ],
                    dtype=np.int64,
                )
            )
            for sources in origins
        ]


def _shown(matcher: SlotMatcher, manifest: Manifest, name: str) -> str | None:
    """What leaves only rows where the matcher takes the slot for visible; None where it always does.

    Which visibility it takes for that, a single row with one or another tells.
    """

    def visible(value: float) -> bool:
        row = PartEmbeddings(
            tuple(manifest.slots),
            tuple(torch.ones(1, width) for width in manifest.slots.values()),
            torch.full((1, len(manifest.slots)), value),
        )
        return len(matcher.index_vectors(row, name)[0]) > 0

    if visible(0.0):
        return None
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if visible(middle) else (middle, high)
    return f"{VISIBILITY} > {low!r}"


def _other(column: str, value: object) -> str:
    """An unknown value is another one."""
    return f"({(field(column) != value).milvus()} or {field(column).is_null().milvus()})"


def _without(label: str, found: Mapping[Any, object]) -> str | None:
    """What leaves out the groups and the single rows that were found."""
    groups = [name[1] for name in found if isinstance(name, tuple)]
    single = [name for name in found if not isinstance(name, tuple)]
    other = (~field(label).is_in(groups)) | field(label).is_null()
    return joined(other.milvus() if groups else None, f"row not in {single}" if single else None)
