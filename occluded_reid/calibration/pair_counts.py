"""All comparisons of two labelled sets as counts by distance: exact wherever it decides, and honest about the rest.

Distances stand on the grid of 1e-6 on which matchers decide. A first walk over all pairs counts those of two people in
cells of a hundred times the tolerance of the tiles, and scores again whatever lies too near to the edge of a cell to
call: the counts of the cells are exact. A second walk looks into some cells, again exactly, and leaves there one count
for each distance of the grid. Float32 tiles only propose, so nothing depends on tile size, threads, or the order of the
gallery.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from occluded_reid.calibration.pairs import Comparisons, Progress, Tile
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EvaluationError
from occluded_reid.matchers.base import DECIMALS, Matcher

__all__ = ["CELLS", "GRID", "NEVER", "PairCounts", "PairWalks", "count_pairs", "false_matches_allowed"]

CELLS = 20_000
"""Cells of one width; one more takes all that is farther."""

GRID = 10**DECIMALS
"""Steps of the grid of distances to 1."""

NEVER = 1 << 52
"""Stands for the distance of pairs that share no slot, in steps of the grid: no threshold reaches it."""

_CELL = 100  # tolerances: a wider cell is cheaper and coarser
_MARGIN = 1.25  # tolerances: what float32 loses on the way from a distance to its cell is added
_HELD_KEYS = 1 << 22


@dataclass(frozen=True)
class PairCounts:
    """Every comparison of two labelled sets, by distance and by number of shared slots.

    Comparisons of two people (*impostors*) are counted in segments: one distance of the grid where `low` equals `high`,
    and a cell of which only the bounds and the count are known elsewhere. Comparisons of one person (*matches*) are all
    kept. Distances are whole steps of 1e-6.

    Attributes:
        matcher: the distance.
        slots: slot -> width.
        sizes: (queries, gallery images).
        query_people: numbers of the people asked for, each once, ascending.
        gallery_people: of those in the gallery.
        exclude_same_camera: whether matches of one camera were left out.
        excluded: comparisons left out by that.
        shared: (K,) number of slots shared in each segment, from 1.
        low: (K,) nearest distance that a segment may hold; segments are sorted by it.
        high: (K,) farthest distance likewise; segments do not overlap, but for those of other numbers of shared slots.
        count: (K,) impostors.
        impostors_unshared: impostors that share no slot.
        match_distance: (M,) sorted; `NEVER` for matches that share no slot.
        match_shared: (M,) number of slots that each match shares.
        match_person: (M,) whose match it is.
    """

    matcher: Matcher
    slots: Mapping[str, int]
    sizes: tuple[int, int]
    query_people: np.ndarray
    gallery_people: np.ndarray
    exclude_same_camera: bool
    excluded: int
    shared: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    impostors_unshared: int
    match_distance: np.ndarray
    match_shared: np.ndarray
    match_person: np.ndarray

    @property
    def impostors(self) -> int:
        """Comparisons of two people, those without a shared slot included."""
        return int(self.count.sum()) + self.impostors_unshared

    @property
    def matches(self) -> int:
        """Comparisons of one person, those without a shared slot included."""
        return len(self.match_distance)

    @property
    def matches_unshared(self) -> int:
        """Matches that share no slot."""
        return int((self.match_shared == 0).sum())

    @property
    def settled(self) -> float:
        """Share of the impostors whose distance is known to 1e-6; of the others the cell is."""
        coarse = int(self.count[self.low < self.high].sum())
        return 1 - coarse / max(1, self.impostors)

    def facts(self) -> dict[str, Any]:
        """Return what was compared, for reports."""
        return {
            "queries": self.sizes[0],
            "query_people": len(self.query_people),
            "gallery": self.sizes[1],
            "gallery_people": len(self.gallery_people),
            "exclude_same_camera": self.exclude_same_camera,
            "excluded_pairs": self.excluded,
            "impostors": self.impostors,
            "impostors_without_shared_slot": self.impostors_unshared,
            "matches": self.matches,
            "matches_without_shared_slot": self.matches_unshared,
        }


def count_pairs(
    query: EmbeddedSet,
    gallery: EmbeddedSet,
    matcher: Matcher,
    *,
    exclude_same_camera: bool = True,
    rates: Sequence[float] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
    exact_pairs: int = 1 << 20,
    tile_rows: int = 1024,
    progress: Progress | None = None,
) -> PairCounts:
    """Count all comparisons of queries with a gallery.

    Known to 1e-6 are: all matches; the nearest impostors, as many cells of them as hold `exact_pairs` or one in a
    hundred, whichever is more; the cells in which the false-match rates asked for are reached; and the cell in which
    false matches and false non-matches become equally frequent. The other impostors are known by their cell, 0.001 wide
    for cosine distances. With up to `exact_pairs` comparisons in all, each is known to 1e-6, in one walk.

    Memory: one tile, the matches, (S + 1) · 20,001 counts, and at most two numbers for each different distance of an
    impostor known to 1e-6. Time: two walks, and scoring again about 2.5 % of the pairs in the first and a few in the
    second.

    Args:
        query: Nq labelled rows.
        gallery: Ng labelled rows with the same slots.
        matcher: the distance.
        exclude_same_camera: leave out matches of one camera. Impostors of one camera stay in.
        rates: false-match rates that must be met exactly.
        exact_pairs: comparisons that are always known to 1e-6.
        tile_rows: gallery rows at a time: changes time and memory, never a number.
        progress: called with (gallery rows done, gallery rows in all walks).

    Raises:
        EvaluationError: a set is empty, or there is no comparison of one person, or none of two.
        EmbeddingError: the slots of both sides differ.
    """
    if not len(query) or not len(gallery) or tile_rows < 1 or exact_pairs < 0:
        raise EvaluationError(
            f"{len(query)} queries, {len(gallery)} gallery images, tiles of {tile_rows} rows and {exact_pairs} exact "
            "pairs; give at least one of the first three, and no negative number."
        )
    few = len(query) * len(gallery) <= exact_pairs
    walk = Comparisons(
        query,
        gallery,
        matcher,
        exclude_same_camera=exclude_same_camera,
        tile_rows=tile_rows,
        progress=progress,
        walks=1 if few else 2,
    )
    counter = PairWalks(walk)
    chosen = np.full(CELLS + 1, few)
    if not few:
        counter.first_walk()
        chosen = counter.deciding(rates, exact_pairs)
    keys, times = counter.second_walk(chosen, first=few)
    matches = counter.matches
    impostors = int(counter.impostors.sum())
    if not impostors or not len(matches[0]):
        raise EvaluationError(
            f"{len(query)} queries of {len(np.unique(query.identity))} people and {len(gallery)} gallery images of "
            f"{len(np.unique(gallery.identity))} make {impostors} comparisons of two people and {len(matches[0])} of "
            "one person; both are needed. Are identities and cameras numbered alike in both sets?"
        )
    # A refined cell is no segment of its own: its distances are.
    shared, cell = np.nonzero(np.where(chosen, 0, counter.cells))
    low = np.concatenate([cell * counter.step, keys // (walk.slots + 1)])
    high = np.concatenate([np.where(cell == CELLS, NEVER - 1, (cell + 1) * counter.step - 1), low[len(cell) :]])
    shared_all = np.concatenate([shared, keys % (walk.slots + 1)])
    count = np.concatenate([counter.cells[shared, cell], times])
    order = np.lexsort((shared_all, low))
    return PairCounts(
        matcher,
        query.embeddings.widths,
        (len(query), len(gallery)),
        np.unique(query.identity),
        np.unique(gallery.identity),
        exclude_same_camera,
        counter.own - len(matches[0]),
        shared_all[order],
        low[order],
        high[order],
        count[order],
        int(counter.impostors[0]),
        *matches,
    )


def false_matches_allowed(rate: float, comparisons: int) -> int:
    """Return ⌊rate · comparisons⌋, and 0.07 of 100 is 7.

    Example:
        >>> false_matches_allowed(0.07, 100), false_matches_allowed(0.001, 999)
        (7, 0)
    """
    return math.floor(rate * comparisons + 1e-9)


class PairWalks:
    """Counts impostors in cells, and then the distances within some cells.

    Attributes:
        walk: over all pairs.
        step: width of a cell on the grid of distances.
        cells: (S + 1, 20,001) impostors by number of shared slots and cell, once the first walk is done.
        impostors: (S + 1,) impostors by number of shared slots; those that share none stand at 0.
        own: pairs of one person, whatever their cameras.
    """

    def __init__(self, walk: Comparisons) -> None:
        self.walk = walk
        self.step = max(1, round(_CELL * walk.tolerance * GRID))
        self.cells = np.zeros((walk.slots + 1, CELLS + 1), dtype=np.int64)
        self.impostors = np.zeros(walk.slots + 1, dtype=np.int64)
        self.own = 0
        self._met: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def first_walk(self) -> None:
        """Count impostors in cells."""
        for tile in self.walk.tiles():
            impostor = self._look(tile)
            scaled, margin = self._scaled(tile)
            place = np.floor(scaled)
            within = scaled - place
            q, g = np.nonzero(impostor & ((within < margin) | (within > 1 - margin)))
            place[q, g] = self._cell(_steps(tile.exact(q, g)))
            index = tile.shared * (CELLS + 1) + place.astype(np.int64)
            self.cells += np.bincount(index[impostor], minlength=self.cells.size).reshape(self.cells.shape)

    def deciding(self, rates: Sequence[float], exact_pairs: int) -> np.ndarray:
        """Return which cells (20,001,) must be known to 1e-6: a function of exact counts, so no rounding chooses."""
        cells = self.cells.sum(0).cumsum()
        impostors = int(self.impostors.sum())
        chosen = cells <= max(exact_pairs, impostors // 100)
        for rate in rates:
            rank = false_matches_allowed(rate, impostors) + 1
            if rank <= cells[-1]:
                chosen[np.searchsorted(cells, rank)] = True
        distance = self.matches[0]
        beyond = len(distance) - np.searchsorted(distance, np.arange(1, CELLS + 2) * self.step)
        crossed = cells.astype(object) * len(distance) >= beyond.astype(object) * impostors
        chosen[int(np.argmax(crossed)) if crossed.any() else CELLS] = True
        return np.asarray(chosen)

    def second_walk(self, chosen: np.ndarray, *, first: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the different keys distance · (S + 1) + shared of impostors in chosen cells, and how often each comes.

        Args:
            chosen: (20,001,) which cells.
            first: there was no walk before this one.
        """
        keys, times = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        waiting: list[np.ndarray] = []

        def merge() -> None:
            nonlocal keys, times
            new, often = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *waiting]), return_counts=True)
            keys, inverse = np.unique(np.concatenate([keys, new]), return_inverse=True)
            # Whole numbers below 2^53 are exact in the float64 that bincount adds up.
            times = np.bincount(inverse, np.concatenate([times, often]), minlength=len(keys)).astype(np.int64)
            waiting.clear()

        chosen_before = np.concatenate([[0], np.cumsum(chosen)])
        for tile in self.walk.tiles():
            impostor = self._look(tile) if first else _impostor(tile)
            scaled, margin = self._scaled(tile)
            low, high = (np.clip(scaled + side, 0, CELLS).astype(np.int64) for side in (-margin, margin))
            q, g = np.nonzero(impostor & (chosen_before[high + 1] > chosen_before[low]))
            steps = _steps(tile.exact(q, g))
            inside = chosen[self._cell(steps)]
            waiting.append((steps * (self.walk.slots + 1) + tile.shared[q, g])[inside])
            if sum(map(len, waiting)) > _HELD_KEYS:
                merge()
        merge()
        return keys, times

    @cached_property
    def matches(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distance, number of shared slots and person of each match that a walk has met, sorted by all three."""
        nothing = np.empty(0, dtype=np.int64)
        q, g, shared = (np.concatenate(column) for column in zip((nothing,) * 3, *self._met, strict=True))
        self._met.clear()
        steps, person, some = np.full(len(q), NEVER), self.walk.query.identity[q], np.flatnonzero(shared)
        steps[some] = _steps(self.walk.exact(q[some], g[some]))
        order = np.lexsort((person, shared, steps))
        return steps[order], shared[order], person[order]

    def _look(self, tile: Tile) -> np.ndarray:
        """Keep what needs no distance; return which pairs (nq, ng) are impostors that share a slot."""
        q, g = np.nonzero(self.walk.matches(tile))
        self._met.append((q + tile.first, g + tile.start, tile.shared[q, g]))
        self.own += int(tile.same.sum())
        self.impostors += np.bincount(tile.shared[~tile.same], minlength=len(self.impostors))
        return _impostor(tile)

    def _scaled(self, tile: Tile) -> tuple[np.ndarray, float]:
        """Distances (nq, ng) in cells, float32, and how far one may be wrong."""
        cells = np.clip(tile.distance * np.float32(GRID / self.step), 0, CELLS)
        return cells, _MARGIN * self.walk.tolerance * GRID / self.step

    def _cell(self, steps: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(steps // self.step, 0, CELLS))


def _impostor(tile: Tile) -> np.ndarray:
    return np.asarray(~tile.same & (tile.shared > 0))


def _steps(distance: np.ndarray) -> np.ndarray:
    """Rounded distances as whole steps of the grid, at most NEVER - 1."""
    return np.asarray(np.rint(np.minimum(distance * GRID, NEVER - 1)).astype(np.int64))
