"""The nearest of given candidates: cut by fast distances, decided by exact ones."""

from __future__ import annotations

import numpy as np
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.matchers.base import Matcher
from occluded_reid.search.exact import TopK
from occluded_reid.search.rows import RowSource
from occluded_reid.search.tiles import Tiles

__all__ = ["nearest_candidates"]

_ALL = 1 << 62  # rows and distances: one tile


def nearest_candidates(
    query: PartEmbeddings, rows: RowSource, matcher: Matcher, k: int, owner: np.ndarray, place: np.ndarray
) -> TopK:
    """Return the k nearest of each query's candidates, as the matcher's exact distances and the positions say.

    Every row is fetched once, whoever proposed it. One tile of distances, right within the matcher's tolerance, leaves
    of each query's candidates those that can be among its k nearest; only these are scored in float64.

    Memory: the rows of all candidates, and (queries × rows) distances: ask for a few thousand pairs at a time.

    Args:
        query: Nq rows.
        rows: where candidates are fetched.
        matcher: the distance.
        k: how many.
        owner: the query of each of n pairs, ascending.
        place: the position of each of n pairs; no pair twice.
    """
    if not len(owner):
        return TopK([np.empty(0, np.int64)] * len(query), [np.empty(0)] * len(query))
    unique, column = np.unique(place, return_inverse=True)
    walk = Tiles(query, rows.take(unique), matcher)
    if np.bincount(owner).max() > k:
        keep = _within_reach(walk, k, owner, column)
        owner, column, place = owner[keep], column[keep], place[keep]
    distance = walk.score(owner, column)
    order = np.lexsort((place, distance, owner))
    begin = np.searchsorted(owner, np.arange(len(query)))
    rank = np.arange(len(order)) - begin[owner[order]]
    order = order[rank < k]
    cuts = np.searchsorted(owner[order], np.arange(1, len(query)))
    return TopK(np.split(place[order], cuts), np.split(distance[order], cuts))


def _within_reach(walk: Tiles, k: int, owner: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Which pairs can belong to the k nearest of their query; the others are farther, whatever float32 has lost."""
    lines, columns = torch.from_numpy(owner), torch.from_numpy(column)
    (tile,) = walk.tiles(_ALL, _ALL)
    fast = tile.distance.cpu()[lines, columns]
    own = torch.full(tile.distance.shape, torch.inf)
    own[lines, columns] = fast
    # k candidates lie within a tolerance of their fast distances, so the exact k-th is at most one beyond the fast one.
    edge = own.kthvalue(k, dim=1).values.double()
    within: np.ndarray = (fast.double() <= edge[lines] + 2 * walk.tolerance).numpy()
    return within
