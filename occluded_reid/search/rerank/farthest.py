"""The largest distance of each row, by a tiled pass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from occluded_reid.errors import ShapeError
from occluded_reid.matchers.base import NO_SHARED_SLOT, Matcher, PairScorer
from occluded_reid.search.device import full_precision
from occluded_reid.search.rows import RowSource

__all__ = ["farthest"]

_BLOCK_ROWS = 2048  # rows on either side of a tile
_RESCORED_PAIRS = 1 << 16

Pairs = tuple[np.ndarray, np.ndarray]


def farthest(rows: RowSource, matcher: Matcher, *, sample: int | None = None, seed: int = 0) -> np.ndarray:
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
        with full_precision(block.visibility.device):
            prepared = matcher.prepare(block)
            for start, tile in rows.tiles(_BLOCK_ROWS):
                stop = start + len(tile)
                # With all rows in blocks, the pairs of earlier blocks are known from the other side.
                if len(every) == len(rows) and stop <= begin:
                    continue
                gallery = matcher.prepare(tile)
                # Twice: the largest may look that much too large, and what is larger that much too small.
                margin = 2 * matcher.tolerance(prepared, gallery)
                distance = matcher.tile(prepared, gallery).cpu()
                distance[distance >= NO_SHARED_SLOT] = -torch.inf
                lines = _near(distance, largest[positions], margin)
                columns, others = _near(distance.T, largest[start:stop], margin)
                scorers = matcher.scorer(block, tile), matcher.scorer(tile, block)
                for i, j in ((lines[0], lines[1]), (others, columns)):
                    _raise(largest, (i, j), positions, start, scorers)
    return np.where(np.isfinite(largest), largest, 0.0)


def _near(distance: Tensor, known: np.ndarray, margin: float) -> Pairs:
    """Pairs (row, column) that may be farther than what is known of the row, and are near the farthest of the row."""
    here = distance.amax(1).double()
    limit = torch.maximum(here, torch.from_numpy(known)) - margin
    rows = torch.nonzero((here >= limit) & here.isfinite())[:, 0]
    found = torch.nonzero(distance[rows] >= limit[rows, None].float())
    return rows[found[:, 0]].numpy(), found[:, 1].numpy()


def _raise(
    largest: np.ndarray, pairs: Pairs, positions: np.ndarray, start: int, scorers: tuple[PairScorer, PairScorer]
) -> None:
    """Raise the largest distances of both sides by the exact distances of pairs."""
    for i, j in _chunks(pairs):
        # The earlier row is always the first of its pair, whatever block it lies in.
        first = positions[i] <= j + start
        exact = np.empty(len(i))
        exact[first], exact[~first] = scorers[0](i[first], j[first]), scorers[1](j[~first], i[~first])
        shared = exact < NO_SHARED_SLOT
        np.maximum.at(largest, positions[i[shared]], exact[shared])
        np.maximum.at(largest, j[shared] + start, exact[shared])


def _chunks(pairs: Pairs) -> Iterator[Pairs]:
    for start in range(0, len(pairs[0]), _RESCORED_PAIRS):
        yield pairs[0][start : start + _RESCORED_PAIRS], pairs[1][start : start + _RESCORED_PAIRS]
