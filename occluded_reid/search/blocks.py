"""What ranks are counted by: deciding distances of pairs, and fast blocks of distances that only propose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EvaluationError
from occluded_reid.matchers.base import DECIMALS, NO_SHARED_SLOT, Matcher, PairScorer, Rows
from occluded_reid.search.device import full_precision

__all__ = ["Block", "BlockReader", "Distances", "MatrixDistances", "PlainDistances"]


@dataclass(frozen=True)
class Block:
    """Distances of some queries to the rows of a tile.

    Attributes:
        distance: (nq, ng) float32 on the CPU.
        tolerance: how far they may lie from the deciding ones: one number, or (nq,).
        unshared: (nq, ng) which pairs share no slot; None where a distance of `NO_SHARED_SLOT` tells.
    """

    distance: Tensor
    tolerance: float | np.ndarray
    unshared: Tensor | None = None


BlockReader = Callable[[int, int], Block]
"""Takes the first query and the one after the last, gives their block."""


class Distances(Protocol):
    """Distances of Nq queries to Ng gallery rows, of which nobody holds all."""

    @property
    def score(self) -> PairScorer:
        """The deciding distances of pairs: float64, rounded to 1e-6."""
        ...

    def tile(self, start: int, stop: int) -> BlockReader:
        """Return the blocks of the gallery rows start … stop."""
        ...


class PlainDistances:
    """The distances of a matcher, multiplied where the rows are.

    Args:
        query: Nq rows.
        gallery: Ng rows with the same slots.
        matcher: the distance.
    """

    def __init__(self, query: PartEmbeddings, gallery: PartEmbeddings, matcher: Matcher) -> None:
        self._gallery, self._matcher = gallery, matcher
        self._prepared = matcher.prepare(query)
        self.score: PairScorer = matcher.scorer(query, gallery)

    def tile(self, start: int, stop: int) -> BlockReader:
        """Return the blocks of the gallery rows start … stop."""
        tile = self._matcher.prepare(self._gallery[start:stop])
        tolerance = self._matcher.tolerance(self._prepared, tile)

        def read(first: int, last: int) -> Block:
            with full_precision(tile.shared.device):
                return Block(self._matcher.tile(self._prepared[first:last], tile).cpu(), tolerance)

        return read


class MatrixDistances:
    """Distances that somebody else has computed.

    Args:
        distance: (Nq, Ng), finite; it is not copied. Pairs at `NO_SHARED_SLOT` or beyond share no slot: all of them
            come last, and are equally far.

    Raises:
        EvaluationError: it is no matrix, or holds NaN or infinity.
    """

    def __init__(self, distance: np.ndarray) -> None:
        if distance.ndim != 2 or not np.issubdtype(distance.dtype, np.number) or np.iscomplexobj(distance):
            raise EvaluationError(
                f"distances must be a matrix (queries, gallery images) of numbers; got {distance.dtype} "
                f"{distance.shape}."
            )
        largest = 0.0
        for number, row in enumerate(distance):
            if not np.isfinite(row).all():
                column = int(np.flatnonzero(~np.isfinite(row))[0])
                raise EvaluationError(
                    f"the distance of query {number} to gallery image {column} is {row[column]}; ranks need finite "
                    "numbers. Look at where it comes from; for a pair that must come last give a large number."
                )
            sizes = np.abs(row.astype(np.float64))
            largest = max(largest, float(sizes[sizes < NO_SHARED_SLOT].max(initial=0)))
        self._distance = distance
        # Half a unit of the rounding, and what float32 loses of the largest distance.
        self._tolerance = 10.0**-DECIMALS + largest * 2.0**-23

    def score(self, query_rows: Rows, gallery_rows: Rows) -> np.ndarray:
        """Return the deciding distances of n pairs: float64, rounded to 1e-6."""
        pairs = self._distance[np.asarray(query_rows, dtype=np.int64), np.asarray(gallery_rows, dtype=np.int64)]
        return np.round(_bounded(pairs), DECIMALS)

    def tile(self, start: int, stop: int) -> BlockReader:
        """Return the blocks of the gallery rows start … stop."""

        def read(first: int, last: int) -> Block:
            part = _bounded(self._distance[first:last, start:stop]).astype(np.float32)
            return Block(torch.from_numpy(part), self._tolerance)

        return read


def _bounded(distance: np.ndarray) -> np.ndarray:
    """Distances as float64, none beyond `NO_SHARED_SLOT`: float32 tells larger ones apart no better than infinity."""
    return np.clip(distance.astype(np.float64), -NO_SHARED_SLOT, NO_SHARED_SLOT)
