"""Answering requests from one version of a gallery: exactly, or by its indexes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import GalleryError
from occluded_reid.gallery.filters.where import to_sql
from occluded_reid.gallery.hit import Hit
from occluded_reid.gallery.index.gallery_index import NOT_USED, GalleryIndex, IndexedRows
from occluded_reid.gallery.search.efforts import USUAL_RECALL, EffortLike
from occluded_reid.gallery.search.memory import RowMemory
from occluded_reid.gallery.search.nearest import Finder, RowMask, exclusions, nearest
from occluded_reid.gallery.search.query import hits_of
from occluded_reid.gallery.search.request import SearchRequest
from occluded_reid.gallery.search.reranking import candidate_count, first_of_groups, joined
from occluded_reid.gallery.search.rows import TableRows
from occluded_reid.gallery.storage.store import Snapshot
from occluded_reid.gallery.storage.writer import Progress
from occluded_reid.matchers import Matcher
from occluded_reid.search.approximate import approximate_topk
from occluded_reid.search.exact import TopK, exact_topk
from occluded_reid.search.index.base import DamagedIndexError
from occluded_reid.search.rerank.bridge import Bridge, bridge_topk
from occluded_reid.search.rerank.k_reciprocal import KReciprocal
from occluded_reid.search.rerank.neighbors import LocatedLists, NeighbourLists
from occluded_reid.search.rerank.per_query import rerank_topk
from occluded_reid.search.selected import SelectedRows

__all__ = ["Searcher"]

_log = logging.getLogger("occluded_reid")


class Searcher:
    """The rows of one version and the index over them, kept from one search to the next.

    Memory: 16 bytes a row, 16 more with an index, 8 for each label that a request has asked for, and what a search
    itself needs (see `exact_topk`, `approximate_topk`). Nothing grows with the number of queries but the answer.

    Args:
        store: one version of the table, on a handle of its own.
        index: the current index, or None.
        lost: there should be an index and it cannot be used: every search is exact then, whatever effort it asks for.
        lists: gives the neighbour lists that the gallery keeps, or None.
        device: where tiles are multiplied.
        memory: keeps the embeddings of a small gallery for the searches of its next versions.
    """

    def __init__(
        self,
        store: Snapshot,
        index: GalleryIndex | None,
        device: torch.device,
        *,
        lost: bool = False,
        lists: Callable[[], NeighbourLists | None] = lambda: None,
        memory: RowMemory | None = None,
    ) -> None:
        self.rows = TableRows(store, memory)
        self.index, self.lost = index, lost
        self._device, self._folder, self._open_lists = device, store.folder, lists
        self._located: LocatedLists | None = None
        self._indexed = None if index is None else index.over(self.rows)
        self._source: TableRows | IndexedRows = self.rows if self._indexed is None else self._indexed

    @property
    def unindexed(self) -> int:
        """Rows that no index holds."""
        return len(self.rows) if self._indexed is None else len(self._indexed.extra)

    @property
    def removed(self) -> int:
        """Rows of the index that this version does not have."""
        return 0 if self._indexed is None else int((self._indexed.positions < 0).sum())

    def answer(self, request: SearchRequest, matcher: Matcher) -> list[list[Hit]]:
        """Return the hits of each query; where the index turns out to be damaged, from the table alone."""
        try:
            return self._answer(request, matcher)
        except DamagedIndexError as cause:
            self._do_without_index(cause)
            return self._answer(request, matcher)

    def _do_without_index(self, cause: DamagedIndexError) -> None:
        if not self.lost:
            _log.warning(NOT_USED, self._folder, cause)
        self.lost = True
        self._source, self._indexed, self.index = self.rows, None, None

    def _answer(self, request: SearchRequest, matcher: Matcher) -> list[list[Hit]]:
        request = _bounded(request, len(self.rows))
        condition = to_sql(request.where)
        passing = None if condition is None else self.rows.passing(condition)
        if not len(self.rows) or (passing is not None and not len(passing)):
            return [[] for _ in request.origins]
        find = self._finder(request, matcher, passing)
        out = exclusions(request, self.rows)
        if request.rerank is None:
            best = nearest(request.rows, self.rows, request.k, out, request.group_by, find)
            return hits_of(request.rows, self.rows, self._source, matcher, best)
        if isinstance(request.rerank, Bridge):
            bridged = self._bridging(request.rerank, matcher, passing)
            best = nearest(request.rows, self.rows, request.k, out, request.group_by, bridged)
            return hits_of(request.rows, self.rows, self._source, matcher, best, reranked=True)
        count = candidate_count(request)
        able = nearest(request.rows, self.rows, count, out, None, find)
        # What a query may not find stays in the neighbourhoods: without it they would have holes.
        everything = self._finder(request, matcher, None)(request.rows, count, None)
        candidates, wanted = joined(able, everything)
        keep = request.k if request.group_by is None else 2 * count
        best = rerank_topk(
            request.rows, candidates, self._source, matcher, request.rerank, keep, lists=self._lists(), wanted=wanted
        )
        if request.group_by is not None:
            best = first_of_groups(best, self.rows.codes(request.group_by), request.k)
        return hits_of(request.rows, self.rows, self._source, matcher, best, reranked=True)

    def neighbours(self, matcher: Matcher, k1: int, effort: EffortLike, progress: Progress) -> NeighbourLists:
        """Return the k1 nearest rows of each row, as hard to find as a search would look for them."""
        try:
            return self._neighbours(matcher, k1, effort, progress)
        except DamagedIndexError as cause:
            self._do_without_index(cause)
            return self._neighbours(matcher, k1, effort, progress)

    def _neighbours(self, matcher: Matcher, k1: int, effort: EffortLike, progress: Progress) -> NeighbourLists:
        k1 = min(k1, _most(len(self.rows)))
        rows = self._source.take([])
        find = self._finder(SearchRequest(rows=rows, origins=[], k=k1 + 1, effort=effort), matcher, None)
        return NeighbourLists.build(
            self._source,
            matcher,
            k1,
            numbers=self.rows.numbers,
            search=lambda block, depth: find(block, depth, None),
            progress=progress,
        )

    def _lists(self) -> LocatedLists:
        if self._located is None:
            lists = self._open_lists()
            if lists is None:
                raise GalleryError(
                    f"the gallery '{self._folder}' keeps no neighbour lists, which re-ranking needs. "
                    "Compute them with build_neighbours() (`occluded-reid gallery neighbours`)."
                )
            self._located = lists.locate(self.rows.numbers)
        return self._located

    def _finder(self, request: SearchRequest, matcher: Matcher, passing: np.ndarray | None) -> Finder:
        effort = self._effort(request, matcher)

        def exactly(query: PartEmbeddings, k: int, allowed: RowMask | None) -> TopK:
            if passing is None:
                return exact_topk(query, self._source, matcher, k, allowed=allowed, device=self._device)
            rule = None if allowed is None else lambda start, stop: allowed.at(passing[start:stop])
            found = exact_topk(
                query, SelectedRows(self._source, passing), matcher, k, allowed=rule, device=self._device
            )
            return TopK([passing[p] for p in found.positions], found.distances)

        index, indexed = self.index, self._indexed
        if effort is None or index is None or indexed is None:
            return exactly
        candidates, harder = min(effort[0], max(1, len(index))), effort[1]
        mask = None
        if passing is not None:
            mask = np.zeros(len(self.rows), dtype=bool)
            mask[passing] = True

        def nearly(query: PartEmbeddings, k: int, allowed: RowMask | None) -> TopK:
            return approximate_topk(
                query,
                indexed,
                matcher,
                k,
                index.slots,
                candidates=max(candidates, k),
                effort=harder,
                positions=indexed.positions,
                extra=indexed.extra,
                allowed=allowed,
                passing=mask,
            )

        return nearly

    def _bridging(self, bridge: Bridge, matcher: Matcher, passing: np.ndarray | None) -> Finder:
        """Exact, whatever the effort: no index knows of bridges. What does not pass may still be a bridge."""

        def find(query: PartEmbeddings, k: int, allowed: RowMask | None) -> TopK:
            def rule(start: int, stop: int) -> np.ndarray:
                mask = np.ones((len(query), stop - start), dtype=bool) if allowed is None else allowed(start, stop)
                return mask if passing is None else mask & np.isin(np.arange(start, stop), passing)

            return bridge_topk(query, self._source, matcher, bridge, k, allowed=rule, device=self._device)

        return find

    def _effort(self, request: SearchRequest, matcher: Matcher) -> tuple[int, int] | None:
        """Return candidates and effort to search with; None searches exactly."""
        wanted = request.effort
        if wanted == "exact":
            return None
        index = self.index
        if index is None:
            if wanted == "auto" or self.lost:
                return None
            raise GalleryError(
                f"effort is {wanted!r}, but the gallery has no index. Build one with build_index() (`occluded-reid "
                "gallery build-index`), or search with "
                "effort='exact'."
            )
        index.require_matcher(matcher)
        if isinstance(wanted, tuple):
            return wanted
        # Groups beyond the person's own are found by whole lists alone.
        whole = request.group_by is not None
        entry = index.effort_for(USUAL_RECALL if wanted == "auto" else float(wanted), whole=whole)
        if entry is None:
            _log.info("No effort that was measured finds %s of the exact answer; the search is exact.", wanted)
            return None
        return entry.candidates, entry.effort


def _bounded(request: SearchRequest, rows: int) -> SearchRequest:
    """The same request with numbers that no longer exceed the gallery, and the same answer: memory follows them."""
    rerank = request.rerank
    if isinstance(rerank, KReciprocal):
        most = _most(rows)
        rerank = replace(rerank, k1=min(rerank.k1, most), k2=min(rerank.k2, most))
    return replace(request, k=min(request.k, max(1, rows)), rerank=rerank)


def _most(rows: int) -> int:
    """Neighbours beyond which more change nothing: half of them are more than there are rows."""
    return 2 * rows + 2
