"""Matching by a sum of distances, in which a slot that is not shared counts as the others do on average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.functional.distances import LARGEST_DISTANCE, NO_SHARED_SLOT, slot_weights
from occluded_reid.matchers.base import PairDetails, Prepared, Rows
from occluded_reid.matchers.pairs import SlotScorer
from occluded_reid.matchers.slots import SlotMatcher
from occluded_reid.registry import MATCHERS

__all__ = ["DistanceSumMatcher"]


@MATCHERS.register("distance_sum")
class DistanceSumMatcher(SlotMatcher):
    """D = Σ_s w_s · (weighted mean of d over the shared slots): Σ_s w_s d_s where every slot is visible (OCNet Eq. 4).

    OCNet's D = ‖F_final^q - F_final^g‖ + α ‖F_BB^q - F_BB^g‖ is `weights` {backbone: α}. A bare sum over what is shared
    would favour the pairs that share least; that one exists only as ``weighted_distance(reduction="sum")``.

    Args:
        metric: distance of a slot, "euclidean" or "cosine".
        weights: w_s by slot name; a slot left out weighs 1.
        normalize: Euclidean only: bring each slot to length 1 first.

    Raises:
        UnknownOptionError: an option has a value that makes no sense.

    Example:
        >>> q = PartEmbeddings(("final", "backbone"), (torch.tensor([[1.0, 0.0]]),) * 2, torch.ones(1, 2))
        >>> g = PartEmbeddings(("final", "backbone"), (torch.tensor([[-1.0, 0.0]]),) * 2, torch.ones(1, 2))
        >>> DistanceSumMatcher(weights={"backbone": 0.5}).distance(q, g)
        tensor([[3.]])
    """

    name: ClassVar[str] = "distance_sum"

    def __init__(
        self,
        *,
        metric: Literal["euclidean", "cosine"] = "euclidean",
        weights: Mapping[str, float] | None = None,
        normalize: bool = True,
    ) -> None:
        super().__init__(metric=metric, weights=weights, normalize=normalize)

    def visibility_of(self, rows: PartEmbeddings) -> Tensor:
        """Return the visibility as it is, (N, S)."""
        return rows.visibility

    def tolerance(self, query: Prepared, gallery: Prepared) -> float:
        """Return that of the mean, as many times larger as the sum is; at least 1e-5."""
        return super().tolerance(query, gallery) * max(1.0, self._total(query))

    @torch.no_grad()
    def tile(self, query: Prepared, gallery: Prepared) -> Tensor:
        """Return float32 distances (nq, ng)."""
        distance = super().tile(query, gallery)
        unshared = distance == NO_SHARED_SLOT
        return distance.mul_(self._total(query)).clamp_(max=LARGEST_DISTANCE).masked_fill_(unshared, NO_SHARED_SLOT)

    def _scorer(self, query: PartEmbeddings, gallery: PartEmbeddings) -> SlotScorer:
        query.require_same_slots(gallery)
        return _SumScorer(
            query,
            gallery,
            visibility=(self._visible(query), self._visible(gallery)),
            weights=slot_weights(query.names, self.weights),
            euclidean=self.metric == "euclidean",
            normalize=self.normalize,
        )

    def _total(self, prepared: Prepared) -> float:
        """Σ_s w_s over the slots that count: those named in `weights`, and 1 for each of the others."""
        named = [weight for weight in self.weights.values() if weight]
        return sum(named) + (prepared.shared.shape[1] - len(named))


class _SumScorer(SlotScorer):
    """A `SlotScorer` whose every d is Σ_s w_s times as large: their weighted mean is the sum, and is rounded once."""

    def details(self, query_rows: Rows, gallery_rows: Rows) -> PairDetails:
        """Return the same distances, with d itself for each slot."""
        details = super().details(query_rows, gallery_rows)
        return replace(details, slot_distance=details.slot_distance / sum(self._weights))

    def _slot(self, s: int, query_rows: np.ndarray, gallery_rows: np.ndarray) -> np.ndarray:
        return super()._slot(s, query_rows, gallery_rows) * sum(self._weights)
