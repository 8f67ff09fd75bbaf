"""The largest distance of each row, by a tiled pass."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from occluded_reid.errors import ShapeError
from occluded_reid.matchers.base import NO_SHARED_SLOT, Matcher, PairScorer
from occluded_reid.search.rows import RowSource
from occluded_reid.search.tiles import Tile, Tiles, score_pairs

__all__ = ["farthest"]

_BLOCK_ROWS = 2048  # rows on either side of a tile

Pairs = tuple[np.ndarray, np.ndarray]


def farthest(
    rows: RowSource,
    matcher: Matcher,
    *,
    sample: int | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Find how far the farthest row is from each row, among the rows that share a slot with it.

    The distance must be symmetric: each tile serves the rows on both of its sides, so that half of all tiles do.
    Tiles in float32 only propose; what lies within the tolerance of the largest is scored in float64, so neither tiles
    nor threads change the answer. Memory: 2,048 rows on either side, as they are and prepared, and their distances.

    Args:
        rows: N rows.
        matcher: the distance.
        sample: look only among this many rows, drawn at random, where there are more; for all others the answer is a
            lower bound then.
        seed: of the sample.
        device: where to multiply, see `Tiles`.

    Returns:
        (N,) float64, rounded to 1e-6; 0 for a row that shares a slot with no row, not even with itself.

    Raises:
        ShapeError: sample is below 1.
    """
    if sample is not None and sample < 1:
        raise ShapeError(f"sample is {sample}; it must be at least 1.")
    every = np.arange(len(rows))
    if sample is not None and sample < len(rows):
        every = np.sort(np.random.default_rng(seed).choice(every, sample, replace=False))
    largest = np.full(len(rows), -np.inf)
    for begin in range(0, len(every), _BLOCK_ROWS):
        positions = every[begin : begin + _BLOCK_ROWS]
        block = rows.take(positions)
        # With all rows in blocks, the pairs of earlier blocks are known from the other side.
        since = begin if len(every) == len(rows) else 0
        for tile in Tiles(block, rows, matcher, device=device).tiles(_BLOCK_ROWS, _BLOCK_ROWS**2, since=since):
            # Twice: the largest may look that much too large, and what is larger that much too small.
            margin = 2 * tile.tolerance
            distance = tile.distance.cpu()
            distance[distance >= NO_SHARED_SLOT] = -torch.inf
            lines = _near(distance, largest[positions], margin)
            columns, others = _near(distance.T, largest[tile.start : tile.stop], margin)
            swapped = matcher.scorer(tile.rows, block)
            for pairs in (lines, (others, columns)):
                _raise(largest, pairs, positions, tile, swapped)
    return np.where(np.isfinite(largest), largest, 0.0)


def _near(distance: Tensor, known: np.ndarray, margin: float) -> Pairs:
    """Pairs (row, column) that may be farther than what is known of the row, and are near the farthest of the row."""
    here = distance.amax(1).double()
    limit = torch.maximum(here, torch.from_numpy(known)) - margin
    rows = torch.nonzero((here >= limit) & here.isfinite())[:, 0]
    found = torch.nonzero(distance[rows] >= limit[rows, None].float())
    return rows[found[:, 0]].numpy(), found[:, 1].numpy()


def _raise(largest: np.ndarray, pairs: Pairs, positions: np.ndarray, tile: Tile, swapped: PairScorer) -> None:
    """Raise the largest distances of both sides by the exact distances of pairs."""
    i, j = pairs
    # The earlier row is always the first of its pair, whatever block it lies in.
    first = positions[i] <= j + tile.start
    exact = np.empty(len(i))
    exact[first], exact[~first] = tile.exact(i[first], j[first]), score_pairs(swapped, j[~first], i[~first])
    shared = exact < NO_SHARED_SLOT
    np.maximum.at(largest, positions[i[shared]], exact[shared])
    np.maximum.at(largest, j[shared] + tile.start, exact[shared])
