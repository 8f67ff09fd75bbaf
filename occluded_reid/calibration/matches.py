"""Where each query's own person stands among all others: what a search for somebody comes back with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from occluded_reid.calibration.pairs import Comparisons, Tile
from occluded_reid.matchers.base import NO_SHARED_SLOT

__all__ = ["Mates", "find_mates"]

_MARGIN = 1.25  # tolerances: what float32 comparisons lose is added


@dataclass(frozen=True)
class Mates:
    """For each of Nq queries its nearest impostor, and its nearest match (its *mate*) with the rank of that.

    Attributes:
        impostor: (Nq,) exact distance of the nearest image of any identity else; infinite where none shares a slot.
        mate: (Nq,) exact distance of the nearest match; infinite where none shares a slot.
        rank: (Nq,) 1 + the impostors that are as near as the mate or nearer; 0 where the mate is infinitely far. An
            impostor at the same distance counts as nearer, so that the order of the gallery is worth nothing.
        known: (Nq,) whether there is any match.
        others: (Nq,) images of other people.
        excluded: pairs of one person left out because of their camera.
        unshared: pairs left in that share no slot.
    """

    impostor: np.ndarray
    mate: np.ndarray
    rank: np.ndarray
    known: np.ndarray
    others: np.ndarray
    excluded: int
    unshared: int


def find_mates(walk: Comparisons) -> Mates:
    """Walk over all pairs once.

    Memory: one tile, the matches, and a few numbers for each query.

    Args:
        walk: over queries and gallery.
    """
    queries, rows = _matches(walk)
    own = np.bincount(queries, minlength=len(walk.query))
    if walk.exclude_same_camera:
        kept = walk.query.camera[queries] != walk.gallery.camera[rows]
        queries, rows = queries[kept], rows[kept]
    mate = np.full(len(walk.query), np.inf)
    distance = walk.exact(queries, rows)
    np.minimum.at(mate, queries, np.where(distance < NO_SHARED_SLOT, distance, np.inf))
    known = np.bincount(queries, minlength=len(walk.query)) > 0
    impostor = np.full(len(walk.query), np.inf)
    nearer = np.zeros(len(walk.query), dtype=np.int64)
    unshared = int((distance >= NO_SHARED_SLOT).sum())
    for tile in walk.tiles():
        unshared += int((~tile.same & (tile.shared == 0)).sum())
        _look(walk, tile, mate, impostor, nearer)
    rank = np.where(np.isfinite(mate), nearer + 1, 0)
    return Mates(impostor, mate, rank, known, len(walk.gallery) - own, int(own.sum()) - len(queries), unshared)


def _look(walk: Comparisons, tile: Tile, mate: np.ndarray, impostor: np.ndarray, nearer: np.ndarray) -> None:
    """Bring nearest impostors and ranks up to date with a tile; what is too near to call is scored exactly."""
    block = slice(tile.first, tile.first + len(tile.distance))
    margin = _MARGIN * walk.tolerance
    distance = np.where(~tile.same & (tile.shared > 0), tile.distance, np.float32(np.inf))
    limit = np.minimum(distance.min(1) + 2 * margin, impostor[block] + margin)
    to_mate = distance - np.where(np.isfinite(mate[block]), mate[block], -np.inf)[:, None]
    nearer[block] += (to_mate < -margin).sum(1)
    decides = (distance <= limit[:, None]) & np.isfinite(distance)
    q, g = np.nonzero(decides | (np.abs(to_mate) <= margin))
    exact = tile.exact(q, g)
    np.minimum.at(impostor, q + tile.first, exact)
    close = np.abs(to_mate[q, g]) <= margin
    nearer[block] += np.bincount(q[close & (exact <= mate[block][q])], minlength=len(tile.distance))


def _matches(walk: Comparisons) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of one person: query rows and gallery rows."""
    order = np.argsort(walk.gallery.identity, kind="stable")
    sorted_people = walk.gallery.identity[order]
    begin, end = (np.searchsorted(sorted_people, walk.query.identity, side=side) for side in ("left", "right"))
    queries = np.repeat(np.arange(len(walk.query)), end - begin)
    first = np.repeat(begin - np.concatenate([[0], np.cumsum(end - begin)[:-1]]), end - begin)
    return queries, order[first + np.arange(len(queries))]
