"""Walks that count comparisons of two people by their distance: in cells with exact edges, and within some of them.

Whatever a tile places too near to the edge of a cell to call is scored again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from occluded_reid.matchers.base import DECIMALS
from occluded_reid.search.comparisons import Comparisons, Tile

__all__ = ["CELLS", "GRID", "NEVER", "PairWalks", "false_matches_allowed"]

CELLS = 20_000
"""Cells of one width; one more takes all that is farther."""

GRID = 10**DECIMALS
"""Steps of the grid of distances to 1."""

NEVER = 1 << 52
"""Stands for the distance of pairs that share no slot, in steps of the grid: no threshold reaches it."""

_CELL = 100  # tolerances: a wider cell is cheaper and coarser
_MARGIN = 1.25  # tolerances: what float32 loses on the way from a distance to its cell is added
_HELD_KEYS = 1 << 22


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
            place[q, g] = self._cell(self._exact(tile, q, g))
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
            steps = self._exact(tile, q, g)
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

    def _exact(self, tile: Tile, q: np.ndarray, g: np.ndarray) -> np.ndarray:
        return _steps(self.walk.exact(q + tile.first, g + tile.start))

    def _cell(self, steps: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip(steps // self.step, 0, CELLS))


def _impostor(tile: Tile) -> np.ndarray:
    return np.asarray(~tile.same & (tile.shared > 0))


def _steps(distance: np.ndarray) -> np.ndarray:
    """Rounded distances as whole steps of the grid, at most NEVER - 1."""
    return np.asarray(np.rint(np.minimum(distance * GRID, NEVER - 1)).astype(np.int64))
