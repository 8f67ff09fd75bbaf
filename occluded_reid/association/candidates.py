"""Which pairs of tracks are worth a closer look: mutual near neighbours, never all N²."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from occluded_reid.association.evidence import Evidence
from occluded_reid.matchers.base import NO_SHARED_SLOT
from occluded_reid.search.exact import TopK, exact_topk
from occluded_reid.search.rows import InMemoryRows

__all__ = ["Candidates", "find_candidates"]

_QUERIES = 2048  # tracks that are asked for at a time: a mask of 1,024 of the others for each has 2 MB


@dataclass(frozen=True)
class Candidates:
    """Pairs of tracks, each once, ascending.

    Attributes:
        first: (E,) row numbers.
        second: (E,) row numbers, each greater than that in `first`.
        log_odds: (E,) that they show one person.
    """

    first: np.ndarray
    second: np.ndarray
    log_odds: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def find_candidates(
    evidence: Evidence, k: int, *, floor: float = -np.inf, mutual: bool = True, device: str = "cpu"
) -> Candidates:
    """Find for each track the k nearest that may be the same person, and keep the pairs that name each other.

    Memory: k distances for each track, a tile of the search, and a mask of 2,048 tracks against a tile.

    Args:
        evidence: about N tracks.
        k: neighbours of a track.
        floor: log-odds below which a pair is left out.
        mutual: keep only pairs in which each is among the k of the other; else one is enough.
        device: where tiles are multiplied.
    """
    count = len(evidence.tracks)
    firsts, seconds, distances = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    for begin in range(0, count, _QUERIES):
        asked = np.arange(begin, min(begin + _QUERIES, count))
        best = _nearest(evidence, asked, k, device)
        owner = np.repeat(asked, [len(p) for p in best.positions])
        firsts.append(owner)
        seconds.append(np.concatenate(best.positions) if best.positions else np.empty(0, np.int64))
        distances.append(np.concatenate(best.distances) if best.distances else np.empty(0))
    one, two, far = (np.concatenate(column) for column in (firsts, seconds, distances))
    near = far < NO_SHARED_SLOT
    low, high, far = np.minimum(one, two)[near], np.maximum(one, two)[near], far[near]
    code, place, times = np.unique(low * count + high, return_index=True, return_counts=True)
    kept = times == 2 if mutual else np.ones(len(code), dtype=bool)
    low, high, far = low[place[kept]], high[place[kept]], far[place[kept]]
    odds = evidence.log_odds(low, high, far)
    strong = odds >= floor
    return Candidates(low[strong], high[strong], odds[strong])


def _nearest(evidence: Evidence, asked: np.ndarray, k: int, device: str) -> TopK:
    rows = evidence.tracks.embeddings

    def allowed(start: int, stop: int) -> np.ndarray:
        others = np.arange(start, stop)[None, :]
        return np.asarray((asked[:, None] != others) & ~evidence.impossible(asked[:, None], others))

    query = rows[int(asked[0]) : int(asked[-1]) + 1]
    return exact_topk(query, InMemoryRows(rows), evidence.matcher, k, allowed=allowed, device=device)
