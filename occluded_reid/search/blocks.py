"""What ranks are counted by: deciding distances of pairs, and fast blocks of distances that only propose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.matchers.base import Matcher, PairScorer
from occluded_reid.search.device import full_precision

__all__ = ["Block", "BlockReader", "Distances", "PlainDistances"]


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
