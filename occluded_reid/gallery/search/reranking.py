"""Re-ranked answers: candidates in the order of how much of their neighbourhood they share with the query."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from pathlib import Path

import numpy as np

from occluded_reid.arguments import shown
from occluded_reid.errors import EmbeddingError, GalleryError
from occluded_reid.gallery.search.request import SearchRequest
from occluded_reid.gallery.storage import checksums
from occluded_reid.gallery.storage.links import remove_entry, require_no_link
from occluded_reid.gallery.storage.tasks import INDEXES
from occluded_reid.search.exact import TopK
from occluded_reid.search.rerank.bridge import Bridge
from occluded_reid.search.rerank.k_reciprocal import KReciprocal
from occluded_reid.search.rerank.neighbors import NeighbourLists

__all__ = [
    "candidate_count",
    "first_of_groups",
    "joined",
    "neighbours_mark",
    "open_neighbours",
    "require_rerank",
    "save_neighbours",
]

_FOLDER, _FILE = "neighbours", "lists.safetensors"
_CANDIDATES = 100  # at least, for each query


def require_rerank(rerank: object) -> KReciprocal | Bridge | None:
    """Return the parameters of a re-ranking; None for none.

    Raises:
        GalleryError: it is neither true nor false, nor a `KReciprocal` or a `Bridge`.
    """
    if rerank is None or isinstance(rerank, bool):
        return KReciprocal() if rerank else None
    if isinstance(rerank, KReciprocal | Bridge):
        return rerank
    raise GalleryError(f"rerank is {shown(rerank)}; give True, or a KReciprocal or Bridge with its parameters.")


def save_neighbours(gallery: Path, lists: NeighbourLists) -> None:
    """Keep lists in a folder, sealed; they are derived data as the indexes are, and go with them in an erasure.

    The lists before them stay until these are whole.
    """
    indexes = gallery / INDEXES
    require_no_link(indexes)
    token = secrets.token_hex(4)
    made, before = (indexes / f"{_FOLDER}-{name}-{token}.tmp" for name in ("new", "old"))
    try:
        made.mkdir(parents=True)
        lists.save(made / _FILE)
        checksums.write(made)
        if os.path.lexists(indexes / _FOLDER):
            (indexes / _FOLDER).rename(before)
        made.rename(indexes / _FOLDER)
        checksums.sync(indexes)
    except OSError as cause:
        raise GalleryError(
            f"the neighbour lists in '{indexes}' could not be written: {cause.strerror or cause}. Free some space, or "
            "choose a folder that may be written to; the lists before them, if there were any, are kept."
        ) from cause
    finally:
        for left in indexes.glob(f"{_FOLDER}-*.tmp") if indexes.is_dir() else ():
            remove_entry(left)


def neighbours_mark(gallery: Path) -> bytes | None:
    """Return what tells one set of lists from another; None where there are none, or they were never finished."""
    try:
        return (gallery / INDEXES / _FOLDER / checksums.FOLDER_FILE).read_bytes()
    except OSError:
        return None


def open_neighbours(gallery: Path) -> NeighbourLists:
    """Return the gallery's lists, mapped into memory, once they are compared with their checksums.

    Raises:
        GalleryError: they are damaged, or of another release.
    """
    folder = gallery / INDEXES / _FOLDER
    wrong = checksums.verify(folder)
    try:
        if wrong:
            raise EmbeddingError(f"'{folder / next(iter(wrong))}' {next(iter(wrong.values()))}.")
        return NeighbourLists.load(folder / _FILE)
    except EmbeddingError as cause:
        raise GalleryError(
            f"the neighbour lists of the gallery '{gallery}' cannot be used: {cause} Compute them again with "
            "build_neighbours(), or search without rerank."
        ) from cause


def candidate_count(request: SearchRequest) -> int:
    """Return how many candidates of each query to re-rank."""
    least = request.rerank.k1 if isinstance(request.rerank, KReciprocal) else 0
    return max(_CANDIDATES, 5 * request.k, least)


def joined(able: TopK, near: TopK) -> tuple[TopK, list[np.ndarray]]:
    """Return the rows of two answers to the same queries, nearest first, and which of them are in the first one."""
    positions, distances, wanted = [], [], []
    for q in range(len(able)):
        both, place = np.unique(np.concatenate([able.positions[q], near.positions[q]]), return_index=True)
        distance = np.concatenate([able.distances[q], near.distances[q]])[place]
        order = np.lexsort((both, distance))
        positions.append(both[order])
        distances.append(distance[order])
        wanted.append(np.isin(both[order], able.positions[q]))
    return TopK(positions, distances), wanted


def first_of_groups(best: TopK, groups: np.ndarray, k: int) -> TopK:
    """Keep the first row of each group, at most k; rows of no group (-1) stay single."""
    kept = []
    for positions in best.positions:
        of = groups[positions]
        _, first = np.unique(np.where(of < 0, -1 - np.arange(len(of)), of), return_index=True)
        kept.append(np.sort(first)[:k])
    chosen = replace(best, positions=[p[i] for p, i in zip(best.positions, kept, strict=True)])
    return replace(chosen, distances=[d[i] for d, i in zip(best.distances, kept, strict=True)])
