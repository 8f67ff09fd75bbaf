"""Pairs that share no visible slot: how many there are, and whom they cost something."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.evaluation.ranking.matches import Labelled, MatchRanks
from occluded_reid.matchers.base import Matcher

__all__ = ["Unshared", "count_unshared", "slots_shared", "slots_visible"]

_BLOCK_VALUES = 1 << 20


@dataclass(frozen=True)
class Unshared:
    """What could not be compared at all, because nothing that one image shows is seen in the other; it ranks last.

    Attributes:
        pairs: pairs of a query and a gallery image that share no slot.
        all_pairs: pairs in all; those of one identity and camera are left out of both, where the protocol drops them.
        matches: true matches among the pairs that share no slot.
        all_matches: true matches in all.
        queries_with_such_a_match: queries that share no slot with at least one of their matches.
        queries_with_such_matches_only: queries that share no slot with any of their matches.
        queries_sharing_nothing: queries that share no slot with any gallery image.
    """

    pairs: int
    all_pairs: int
    matches: int
    all_matches: int
    queries_with_such_a_match: int
    queries_with_such_matches_only: int
    queries_sharing_nothing: int

    @property
    def facts(self) -> dict[str, str]:
        """The counts in words, as tables print them."""
        return {
            "pairs that share no slot": f"{self.pairs:,} of {self.all_pairs:,}",
            "true matches among them": f"{self.matches:,} of {self.all_matches:,}",
            "queries with such a match": f"{self.queries_with_such_a_match:,}",
            "queries with no other match": f"{self.queries_with_such_matches_only:,}",
            "queries that share nothing with any image": f"{self.queries_sharing_nothing:,}",
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON knows them."""
        return asdict(self)


def slots_visible(rows: PartEmbeddings, matcher: Matcher, tile_rows: int = 1024) -> np.ndarray:
    """Return which slots a matcher takes for visible, (N, S) bool; S counts the slots that have a weight.

    Memory: one prepared tile, and N × S bytes.
    """
    tiles = [rows[start : start + tile_rows] for start in range(0, len(rows), tile_rows)]
    return np.concatenate([(matcher.prepare(tile).shared > 0).cpu().numpy() for tile in tiles])


def slots_shared(query: np.ndarray, gallery: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return how many slots each of n pairs shares, (n,).

    Args:
        query: (Nq, S), from `slots_visible`.
        gallery: (Ng, S), likewise.
        queries: n rows of `query`.
        rows: n rows of `gallery`.
    """
    shared = np.empty(len(rows), dtype=np.int64)
    step = max(1, _BLOCK_VALUES // query.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        shared[part] = (query[queries[part]] & gallery[rows[part]]).sum(1)
    return shared


def count_unshared(
    query: Labelled, gallery: Labelled, seen: tuple[np.ndarray, np.ndarray], found: MatchRanks, *, dropped: bool
) -> Unshared:
    """Count what shares no slot.

    Memory: 4 MB at a time, whatever the number of pairs: images that show the same slots are compared once.

    Args:
        query: Nq labelled images.
        gallery: Ng labelled images.
        seen: `slots_visible` of both.
        found: where the matches stand, and how many pairs share no slot.
        dropped: whether gallery images of the query's identity and camera were dropped.
    """
    alone = slots_shared(*seen, found.queries, found.rows) == 0
    matches = np.diff(found.offsets)
    such = np.bincount(found.queries[alone], minlength=len(query))
    return Unshared(
        pairs=found.unshared,
        all_pairs=len(query) * len(gallery) - found.excluded,
        matches=int(alone.sum()),
        all_matches=len(alone),
        queries_with_such_a_match=int((such > 0).sum()),
        queries_with_such_matches_only=int(((such == matches) & (matches > 0)).sum()),
        queries_sharing_nothing=_sharing_nothing(query, gallery, seen, dropped=dropped),
    )


def _sharing_nothing(query: Labelled, gallery: Labelled, seen: tuple[np.ndarray, np.ndarray], *, dropped: bool) -> int:
    """Number of queries that share no slot with any gallery image that is left to them."""
    kinds, kind = np.unique(seen[0], axis=0, return_inverse=True)
    others, counts = np.unique(seen[1], axis=0, return_counts=True)
    sides = kinds.astype(np.float32), others.astype(np.float32).T
    sharing = np.empty(len(kinds), dtype=np.int64)  # gallery images that share a slot with a query of this kind
    step = max(1, _BLOCK_VALUES // len(others))
    for start in range(0, len(kinds), step):
        sharing[start : start + step] = (sides[0][start : start + step] @ sides[1] > 0) @ counts
    left = sharing[kind.reshape(-1)]
    if dropped:
        labels = [np.stack([side.identity, side.camera], 1) for side in (query, gallery)]
        _, group = np.unique(np.concatenate(labels), axis=0, return_inverse=True)
        mine, theirs = np.split(group.reshape(-1), [len(query)])
        gone = np.bincount(theirs, minlength=int(group.max()) + 1)[mine]
        # Only where so few images share a slot can all of them have been dropped.
        for q in np.flatnonzero((left > 0) & (left <= gone)):
            left[q] -= (seen[1][theirs == mine[q]] & seen[0][q]).any(1).sum()
    return int((left == 0).sum())
