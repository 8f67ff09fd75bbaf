"""All comparisons of labelled queries with a labelled gallery, tile by tile, and what thresholds need of them.

An *impostor* pair shows two people, a *match* one person. Every pair belongs to the number of slots that it shares.
Only these things are kept: for each number of shared slots a histogram of impostor distances, for each query its
nearest impostor, and the distances of the matches. A second walk looks again, exactly, at the few pairs that decide, so
that thresholds depend neither on tile size nor on threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import ShapeError
from occluded_reid.matchers.base import Matcher, Prepared, Rows
from occluded_reid.search.tiles import MatchedTile, Tiles, score_pairs

__all__ = ["Block", "Comparisons", "Progress", "Survey", "Tile", "shared_slots"]

_BINS = 20_000
_CELL = 10  # bins
_MARGIN = 1.25  # tolerances: what float32 loses on the way from a distance to its bin is added
_BLOCK_VALUES = 1 << 18  # distances looked at together: 1 MB, and a few times as much for masks and counts

Progress = Callable[[int, int], None]
"""Called with (gallery rows done, gallery rows in all), over all walks."""

Block = tuple[int, ...]
"""Numbers of shared slots whose pairs are taken together."""


@dataclass(frozen=True)
class Survey:
    """What one walk over all pairs has kept; S is the number of slots that count.

    Attributes:
        impostors: (S + 1,) impostor pairs by number of shared slots; those that share none stand at 0.
        histogram: (S + 1, bins) impostor distances in bins of `width`, by the tiles; the last bin takes all that is
            farther.
        width: of a bin: ten times the tolerance of the matcher's tiles.
        nearest: (Nq, S + 1) float32 distance of each query's nearest impostor by the tiles; infinite without one.
        match_distance: distances of the matches, exact, queries in order and then gallery positions.
        match_shared: how many slots each match shares; matches that share none are left out.
        matches_unshared: matches that share no slot.
        unknown_gallery: (Nq,) rows that remain of the gallery once the query's own person is taken out.
    """

    impostors: np.ndarray
    histogram: np.ndarray
    width: float
    nearest: np.ndarray
    match_distance: np.ndarray
    match_shared: np.ndarray
    matches_unshared: int
    unknown_gallery: np.ndarray

    @property
    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Impostors in cells of ten bins, (S + 1, cells), exactly, and the middle of each cell, (cells,)."""
        cells = self.histogram[:, :-1].reshape(len(self.histogram), -1, _CELL).sum(2)
        middles = (np.arange(cells.shape[1] + 1) + 0.5) * _CELL * self.width
        return np.concatenate([cells, self.histogram[:, -1:]], axis=1), middles

    @property
    def auroc(self) -> float | None:
        """How often a match is nearer than an impostor that shares as many slots; ties count half, and 0.5 is chance.

        None where distances lie beyond the bins, so that nobody can tell.
        """
        cells, _ = self.cells
        if cells[1:, -1].sum() > 0.01 * cells[1:].sum():
            return None
        nearer, asked = 0.0, 0
        for n, row in enumerate(cells):
            distance = self.match_distance[self.match_shared == n]
            if n and row.sum() and len(distance):
                place = np.clip(distance / (self.width * _CELL), 0, len(row) - 1).astype(np.int64)
                farther = row.sum() - np.cumsum(row)[place] + row[place] / 2
                nearer += float(farther.sum()) / float(row.sum())
                asked += len(distance)
        return nearer / asked if asked else None


@dataclass(frozen=True)
class Tile:
    """Some queries against some gallery rows: (nq, ng) distances, shared slots, and whether one person."""

    first: int
    start: int
    distance: np.ndarray
    shared: np.ndarray
    same: np.ndarray
    walked: MatchedTile

    def exact(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the deciding distances (n,) of n pairs of this tile."""
        return self.walked.exact(rows, columns)


def shared_slots(query: Prepared, gallery: Prepared, query_rows: Rows, gallery_rows: Rows) -> np.ndarray:
    """Return how many slots each of n pairs shares, (n,): those with v(query) · v(gallery) > 0 as the matcher counts.

    Args:
        query: from `matcher.prepare`: the matcher's own rule of visibility, and only slots that have a weight.
        gallery: likewise.
        query_rows: n rows of `query`.
        gallery_rows: n rows of `gallery`.
    """
    sides = [(side.shared > 0).cpu().numpy() for side in (query, gallery)]
    rows = [np.asarray(index, dtype=np.int64) for index in (query_rows, gallery_rows)]
    return np.asarray((sides[0][rows[0]] & sides[1][rows[1]]).sum(1))


class Comparisons:
    """Walks over the pairs of two labelled sets.

    Memory: one tile, (S + 1) · 20,001 counts, (S + 1) numbers for each query, and the matches.

    Args:
        query: Nq rows.
        gallery: Ng rows with the same slots.
        matcher: the distance.
        exclude_same_camera: leave out matches of one camera.
        tile_rows: gallery rows at a time.
        progress: called after each tile.
        walks: over the gallery, for the progress.
        device: where to multiply, see `Tiles`.
    """

    def __init__(
        self,
        query: EmbeddedSet,
        gallery: EmbeddedSet,
        matcher: Matcher,
        *,
        exclude_same_camera: bool = True,
        tile_rows: int = 1024,
        progress: Progress | None = None,
        walks: int = 2,
        device: str | torch.device | None = None,
    ) -> None:
        if tile_rows < 1:
            raise ShapeError(f"tile_rows is {tile_rows}; give at least 1.")
        self.query, self.gallery, self.matcher = query, gallery, matcher
        self.exclude_same_camera, self.tile_rows = exclude_same_camera, tile_rows
        self._tiles = Tiles(query.embeddings, gallery.embeddings, matcher, device=device)
        self.slots = self._tiles.prepared.shared.shape[1]
        self._width = 10 * self.tolerance
        self._progress, self._done, self._all = progress, 0, walks * len(gallery)

    @property
    def tolerance(self) -> float:
        """How far the distances of the tiles so far may lie from the exact ones."""
        return self._tiles.tolerance

    def survey(self) -> Survey:
        """Walk over all pairs."""
        bins = _BINS + 1
        histogram = np.zeros((self.slots + 1) * bins, dtype=np.int64)
        impostors = np.zeros(self.slots + 1, dtype=np.int64)
        nearest = np.full((len(self.query), self.slots + 1), np.inf, dtype=np.float32)
        matches: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        own = np.zeros(len(self.query), dtype=np.int64)
        for tile in self.tiles():
            block = slice(tile.first, tile.first + len(tile.distance))
            own[block] += tile.same.sum(1)
            q, g = np.nonzero(self.matches(tile))
            matches.append((q + tile.first, g + tile.start, tile.shared[q, g]))
            impostor = ~tile.same
            impostors += np.bincount(tile.shared[impostor], minlength=self.slots + 1)
            impostor &= tile.shared > 0
            place = self._bins(tile, impostor)
            histogram += np.bincount(tile.shared[impostor] * bins + place, minlength=len(histogram))
            for n in range(1, self.slots + 1):
                mine = np.where(impostor & (tile.shared == n), tile.distance, np.inf).min(1)
                nearest[block, n] = np.minimum(nearest[block, n], mine)
        q, g, shared = (np.concatenate(column) for column in zip(*matches, strict=True))
        order = np.lexsort((g, q))
        order = order[shared[order] > 0]
        return Survey(
            impostors,
            histogram.reshape(self.slots + 1, bins),
            self._width,
            nearest,
            self.exact(q[order], g[order]),
            shared[order],
            int((shared == 0).sum()),
            len(self.gallery) - own,
        )

    def nearest_impostors(self, survey: Survey) -> np.ndarray:
        """Return the distance of each query's nearest impostor, (Nq, S + 1), exactly; infinite where there is none.

        The tiles say how near it is within their tolerance; the pairs that may be it are scored again.
        """
        exact = np.full(survey.nearest.shape, np.inf)
        limit = np.where(np.isfinite(survey.nearest), survey.nearest + 2 * self.tolerance, -np.inf)
        limit[:, 0] = -np.inf
        for tile in self.tiles():
            block = np.arange(tile.first, tile.first + len(tile.distance))
            q, g = np.nonzero(~tile.same & (tile.distance <= limit[block[:, None], tile.shared]))
            np.minimum.at(exact, (q + tile.first, tile.shared[q, g]), tile.exact(q, g))
        return exact

    def order_statistics(self, survey: Survey, wanted: dict[Block, int]) -> dict[Block, float]:
        """Return for each block of numbers of shared slots its k-th smallest impostor distance, k from 1, exactly.

        The histogram says in which bin it lies; the pairs in and beside that bin are scored again.
        """
        block_of = np.full(self.slots + 1, -1)
        low, high = np.zeros(len(wanted)), np.zeros(len(wanted))
        for number, (block, k) in enumerate(wanted.items()):
            block_of[list(block)] = number
            place = int(np.searchsorted(survey.histogram[list(block)].sum(0).cumsum(), k))
            low[number] = place * survey.width - 3 * self.tolerance
            high[number] = np.inf if place == _BINS else (place + 1) * survey.width + 3 * self.tolerance
        below = np.zeros(len(wanted), dtype=np.int64)
        values = [np.empty(0) for _ in wanted]
        counts = [np.empty(0, dtype=np.int64) for _ in wanted]
        for tile in self.tiles():
            group = np.where(tile.same, -1, block_of[tile.shared])
            used = group >= 0
            below += np.bincount(group[used & (tile.distance < low[group])], minlength=len(wanted))
            q, g = np.nonzero(used & (tile.distance >= low[group]) & (tile.distance <= high[group]))
            exact, which = tile.exact(q, g), group[q, g]
            for b in range(len(wanted)):
                # Distances stand on a grid of 1e-6: a bin holds few different ones, however many pairs there are.
                new, times = np.unique(exact[which == b], return_counts=True)
                values[b], inverse = np.unique(np.concatenate([values[b], new]), return_inverse=True)
                counts[b] = np.bincount(inverse, weights=np.concatenate([counts[b], times])).astype(np.int64)
        return {
            block: float(values[b][np.searchsorted(below[b] + counts[b].cumsum(), k)])
            for b, (block, k) in enumerate(wanted.items())
        }

    def matches(self, tile: Tile) -> np.ndarray:
        """Return which pairs of a tile (nq, ng) are matches: of one person and, unless told otherwise, two cameras."""
        if not self.exclude_same_camera:
            return tile.same
        block = slice(tile.first, tile.first + len(tile.distance))
        columns = slice(tile.start, tile.start + tile.distance.shape[1])
        return np.asarray(tile.same & (self.query.camera[block, None] != self.gallery.camera[None, columns]))

    def accepted(self, threshold: np.ndarray) -> Iterator[tuple[Tile, np.ndarray]]:
        """Yield each tile with what lies within the threshold (S + 1,) of its number of shared slots, exactly."""
        for tile in self.tiles():
            limit = threshold[tile.shared]
            inside = tile.distance <= limit
            q, g = np.nonzero(np.abs(tile.distance - np.where(np.isfinite(limit), limit, 0)) <= 2 * self.tolerance)
            inside[q, g] = tile.exact(q, g) <= limit[q, g]
            yield tile, inside

    def tiles(self) -> Iterator[Tile]:
        """Yield all pairs, some queries against some gallery rows at a time."""
        for tile in self._tiles.tiles(self.tile_rows, _BLOCK_VALUES):
            people = self.gallery.identity[None, tile.start : tile.stop]
            yield Tile(
                tile.first,
                tile.start,
                tile.distance.cpu().numpy(),
                tile.shared().cpu().numpy(),
                self.query.identity[tile.first : tile.last, None] == people,
                tile,
            )
            if tile.last == len(self.query):
                self._done += tile.stop - tile.start
                if self._progress is not None:
                    self._progress(self._done, self._all)

    def _bins(self, tile: Tile, impostor: np.ndarray) -> np.ndarray:
        """Bins of a tile's impostors, in order; on the right side of the edge of a cell, as exact distances say."""
        q, g = np.nonzero(impostor)
        scaled = np.clip(tile.distance[q, g] / self._width, 0, _BINS)
        place, within = scaled.astype(np.int64), scaled % _CELL
        margin = _MARGIN * self.tolerance / self._width
        near = np.flatnonzero((within < margin) | (within > _CELL - margin))
        exact = tile.exact(q[near], g[near])
        place[near] = np.clip(exact / self._width, 0, _BINS).astype(np.int64)
        return place

    def exact(self, query_rows: np.ndarray, gallery_rows: np.ndarray) -> np.ndarray:
        """Return the deciding distances (n,) of n pairs, a bounded number of them at a time."""
        return score_pairs(self._tiles.score, query_rows, gallery_rows)
