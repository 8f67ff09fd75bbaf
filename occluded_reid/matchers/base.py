"""What search and evaluation ask of a matcher."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.functional.distances import NO_SHARED_SLOT

__all__ = ["DECIMALS", "NO_SHARED_SLOT", "Matcher", "PairDetails", "PairScorer", "Prepared", "Rows"]

DECIMALS = 6
"""Re-scored distances are rounded to 1e-6: nearer together is a tie, and the gallery order decides."""

Rows = Sequence[int] | np.ndarray
"""Row numbers of a PartEmbeddings."""

PairScorer = Callable[[Rows, Rows], np.ndarray]
"""Takes n query rows and n gallery rows, gives their n deciding distances: float64, rounded to 1e-6."""


@dataclass(frozen=True)
class Prepared:
    """Rows made ready for many tiles; what the fields hold is the matcher's own business.

    Attributes:
        factors: matrices with one line for each row.
        shared: (N, S) √w_s · v_s of the slots that count, so that a product of two sides is Σ_s w_s v_s(q) v_s(g).
        always: (S,) whether a slot is visible in every one of these rows.
        scale: upper bound of the length of the vectors, for the tolerance.
    """

    factors: tuple[Tensor, ...]
    shared: Tensor
    always: tuple[bool, ...]
    scale: float = 1.0

    def __len__(self) -> int:
        return self.shared.shape[0]

    def __getitem__(self, rows: slice) -> Prepared:
        """Return a slice of the rows that shares memory with these."""
        return Prepared(tuple(f[rows] for f in self.factors), self.shared[rows], self.always, self.scale)


@dataclass(frozen=True)
class PairDetails:
    """Why some pairs are as far apart as they are.

    Attributes:
        distance: (n,) float64, rounded to 1e-6.
        slot_distance: (n, S) float64, d of each slot whether it is shared or not.
        shared: (n, S) float64, v_s(q) · v_s(g): how much of the slot both images show.
    """

    distance: np.ndarray
    slot_distance: np.ndarray
    shared: np.ndarray


class Matcher(ABC):
    """Turns slots and visibilities into distances: smaller is nearer.

    Tiles (`prepare`, `tile`) are fast and only propose; `pairs` decides, in float64 and in an order of summation that
    depends on nothing but the pair itself. A pair without a common slot is at `NO_SHARED_SLOT`. For a matcher that
    differs only in what it takes for visibility, subclass `SlotMatcher` instead.
    """

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Registered type and options, for reports and fingerprints: ``{"type": …, "options": {…}}``."""

    @abstractmethod
    def prepare(self, rows: PartEmbeddings) -> Prepared:
        """Return what tiles need of these rows; the same for the same rows, since a gallery may keep it."""

    @abstractmethod
    def tile(self, query: Prepared, gallery: Prepared) -> Tensor:
        """Return float32 distances (nq, ng), right within `tolerance`; neither side is changed."""

    @abstractmethod
    def tolerance(self, query: Prepared, gallery: Prepared) -> float:
        """Return how far a distance of `tile` may lie from that of `pairs`; at least 1e-5."""

    @abstractmethod
    def scorer(self, query: PartEmbeddings, gallery: PartEmbeddings) -> PairScorer:
        """Return the deciding distances of these rows as a function; it may keep what single rows need."""

    @abstractmethod
    def explain(
        self, query: PartEmbeddings, gallery: PartEmbeddings, query_rows: Rows, gallery_rows: Rows
    ) -> PairDetails:
        """Return the same distances as `pairs`, with what each slot says."""

    def distance(self, query: PartEmbeddings, gallery: PartEmbeddings) -> Tensor:
        """Return all distances (Nq, Ng), float32.

        Raises:
            EmbeddingError: the slots of both sides differ.
        """
        query.require_same_slots(gallery)
        return self.tile(self.prepare(query), self.prepare(gallery))

    def pairs(self, query: PartEmbeddings, gallery: PartEmbeddings, query_rows: Rows, gallery_rows: Rows) -> np.ndarray:
        """Return the deciding distances (n,) of n pairs, float64, rounded to 1e-6.

        Args:
            query: one side.
            gallery: the other side, with the same slots.
            query_rows: n rows of `query`.
            gallery_rows: n rows of `gallery`.

        Raises:
            EmbeddingError: the slots of both sides differ.
        """
        return self.scorer(query, gallery)(query_rows, gallery_rows)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.config["options"].items())
        return f"{type(self).__name__}({options})"
