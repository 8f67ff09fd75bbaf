"""The weighted mean over slots as tiles (fast, float32) and as pairs (deciding, float64)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from occluded_reid.arguments import checked
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import UnknownOptionError
from occluded_reid.functional.distances import LARGEST_DISTANCE, NO_SHARED_SLOT, slot_weights
from occluded_reid.matchers.base import Matcher, PairDetails, PairScorer, Prepared, Rows
from occluded_reid.matchers.pairs import SlotScorer

__all__ = ["HIDDEN_BELOW", "SlotMatcher"]

HIDDEN_BELOW = 1e-9
"""A smaller visibility counts as 0: its product with another would vanish in float32 but not in float64."""


class SlotMatcher(Matcher):
    """D = Σ_s w_s v_s(q) v_s(g) d_s / Σ_s w_s v_s(q) v_s(g), with v as a subclass says.

    With cosine d, D = 1 - N/M: N is one matrix product of the rows [√w_s v_s ê_s for every slot] (ê: unit length) and M
    a small one of the rows [√w_s v_s]. With Euclidean d there is one product for each slot, in float64, because the
    expansion |x|² + |y|² - 2xy loses half of the digits near 0.

    Args:
        metric: d, "cosine" or "euclidean". A vector of length 0 has cosine similarity 0 to everything.
        weights: w_s by slot name; a slot left out weighs 1. Between 1e-6 and 1e6, or 0 to leave a slot out.
        normalize: Euclidean only: bring each slot to length 1 first (a zero vector stays).

    Raises:
        UnknownOptionError: an option has a value that makes no sense.
    """

    name: ClassVar[str] = ""
    """Registered name, as reports show it; empty: module and class."""

    @checked(UnknownOptionError, but=("metric",))
    def __init__(
        self,
        *,
        metric: Literal["cosine", "euclidean"] = "cosine",
        weights: Mapping[str, float] | None = None,
        normalize: bool = True,
    ) -> None:
        if metric not in ("cosine", "euclidean"):
            raise UnknownOptionError(f"matcher: metric is {metric!r}; give 'cosine' or 'euclidean'.")
        for name, weight in (weights or {}).items():
            if weight != 0 and not 1e-6 <= weight <= 1e6:
                raise UnknownOptionError(
                    f"matcher: the weight of slot '{name}' is {weight}; give 0 to leave it out, or 1e-6 … 1e6."
                )
        self.metric = metric
        self.weights = {name: float(weight) for name, weight in (weights or {}).items()}
        self.normalize = normalize

    @abstractmethod
    def visibility_of(self, rows: PartEmbeddings) -> Tensor:
        """Return the visibility (N, S) in [0, 1] that counts for these rows."""

    def weights_of(self, names: Sequence[str]) -> tuple[float, ...]:
        """Return w_s of these slots, in their order.

        Raises:
            EmbeddingError: a weight names a slot that is not among them.
        """
        return slot_weights(names, self.weights)

    @property
    def options(self) -> dict[str, Any]:
        """The options that make a difference, as `config` shows them."""
        options: dict[str, Any] = {"metric": self.metric, "weights": dict(sorted(self.weights.items()))}
        return {**options, "normalize": self.normalize} if self.metric == "euclidean" else options

    @property
    def config(self) -> dict[str, Any]:
        """Registered type (of a class without a name: module and class) and options."""
        return {"type": self.name or f"{type(self).__module__}:{type(self).__qualname__}", "options": self.options}

    def tolerance(self, query: Prepared, gallery: Prepared) -> float:
        """Return 1e-5; Euclidean distances of vectors longer than 1 get as much more."""
        return 1e-5 * max(1.0, query.scale, gallery.scale)

    @torch.no_grad()
    def prepare(self, rows: PartEmbeddings) -> Prepared:
        """Return the rows of the products N and M (cosine), or of one product for each slot (Euclidean).

        Raises:
            EmbeddingError: a weight names a slot that these rows do not have.
        """
        used, weights = self._used_slots(rows)
        visible = self._visible(rows)[:, used].float()
        shared = visible * torch.tensor(weights, device=visible.device).sqrt()
        always = tuple((visible > 0).all(0).tolist())
        slots = [rows.embeddings[s] for s in used]
        if self.metric == "euclidean":
            factors, scale = self._euclidean_factors(slots)
            return Prepared(factors, shared, always, scale)
        joint = torch.empty(len(rows), sum(slot.shape[1] for slot in slots), device=visible.device)
        stop = 0
        for column, slot in enumerate(slots):
            start, stop = stop, stop + slot.shape[1]
            # First to unit length, then by visibility: the other way round a short vector could overflow.
            scale_of_row = shared[:, column] / _lengths(slot)
            torch.mul(slot, scale_of_row[:, None], out=joint[:, start:stop])
        return Prepared((joint,), shared, always)

    @torch.no_grad()
    def tile(self, query: Prepared, gallery: Prepared) -> Tensor:
        """Return float32 distances (nq, ng)."""
        shared = query.shared @ gallery.shared.T
        if self.metric == "cosine":
            distance = query.factors[0] @ gallery.factors[0].T
            torch.addcdiv(distance.new_ones(()), distance, shared, value=-1, out=distance)
        else:
            distance = self._euclidean_sum(query, gallery).div_(shared).clamp_(max=LARGEST_DISTANCE).float()
        if not any(q and g for q, g in zip(query.always, gallery.always, strict=True)):
            distance.masked_fill_(shared == 0, NO_SHARED_SLOT)
        return distance

    @property
    def index_metric(self) -> Literal["inner_product", "l2"]:
        """What an index of one slot compares `index_vectors` by, so that near there is near in that slot's d."""
        return "l2" if self.metric == "euclidean" and not self.normalize else "inner_product"

    def used(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return those of these slots that count: their weight is not 0.

        Raises:
            EmbeddingError: a weight names a slot that is not among them.
        """
        return tuple(name for name, weight in zip(names, self.weights_of(names), strict=True) if weight)

    @torch.no_grad()
    def index_vectors(self, rows: PartEmbeddings, slot: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows where this matcher takes the slot for visible, as an index of that slot holds them.

        Args:
            rows: queries or gallery rows.
            slot: a slot's name.

        Returns:
            Row numbers (n,) int64, ascending, and their vectors (n, D) float32: of length 1 (a zero vector stays), or
            as they are for Euclidean distances without `normalize`.
        """
        visible = self._visible(rows)[:, rows.names.index(slot)] > 0
        vectors = rows.slot(slot)
        numbers = visible.nonzero().flatten()
        if len(numbers) < len(rows):
            vectors = vectors[numbers]
        if self.index_metric == "inner_product":
            vectors = vectors / _lengths(vectors)[:, None]
        return numbers.cpu().numpy(), np.ascontiguousarray(vectors.detach().float().cpu().numpy())

    def scorer(self, query: PartEmbeddings, gallery: PartEmbeddings) -> PairScorer:
        """Return the deciding distances as a function of row numbers."""
        return self._scorer(query, gallery).distances

    def explain(
        self, query: PartEmbeddings, gallery: PartEmbeddings, query_rows: Rows, gallery_rows: Rows
    ) -> PairDetails:
        """Return the same distances as `pairs`, with distance and shared visibility of each slot."""
        return self._scorer(query, gallery).details(query_rows, gallery_rows)

    def _scorer(self, query: PartEmbeddings, gallery: PartEmbeddings) -> SlotScorer:
        query.require_same_slots(gallery)
        return SlotScorer(
            query,
            gallery,
            visibility=(self._visible(query), self._visible(gallery)),
            weights=self.weights_of(query.names),
            euclidean=self.metric == "euclidean",
            normalize=self.normalize,
        )

    def _used_slots(self, rows: PartEmbeddings) -> tuple[list[int], list[float]]:
        """Positions and weights of the slots whose weight is not 0."""
        weights = self.weights_of(rows.names)
        used = [s for s, weight in enumerate(weights) if weight]
        return used, [weights[s] for s in used]

    def _visible(self, rows: PartEmbeddings) -> Tensor:
        visible = self.visibility_of(rows)
        return torch.where(visible < HIDDEN_BELOW, 0.0, visible)

    def _euclidean_factors(self, slots: list[Tensor]) -> tuple[tuple[Tensor, ...], float]:
        """For each slot the float64 rows [x, |x|²]; and the greatest |x|."""
        factors, scale = [], 1.0
        for slot in slots:
            rows = slot.double()
            if self.normalize:
                rows = rows / _lengths(rows)[:, None]
            squared = rows.square().sum(1, keepdim=True)
            factors.append(torch.cat([rows, squared], dim=1))
            scale = max(scale, float(squared.max()) ** 0.5) if len(rows) else scale
        return tuple(factors), scale

    def _euclidean_sum(self, query: Prepared, gallery: Prepared) -> Tensor:
        """Σ_s w_s v_s(q) v_s(g) |x_s - y_s|, float64."""
        total = torch.zeros(len(query), len(gallery), dtype=torch.float64, device=query.shared.device)
        for s, (x, y) in enumerate(zip(query.factors, gallery.factors, strict=True)):
            squared = torch.addmm(y[:, -1], x[:, :-1], y[:, :-1].T, alpha=-2).add_(x[:, -1:]).clamp_(min=0)
            total.addcmul_(squared.sqrt_().mul_(query.shared[:, s, None]), gallery.shared[:, s].double())
        return total


def _lengths(rows: Tensor) -> Tensor:
    """Length of each row (N,), at least float32, with 1 for a row of length 0."""
    length: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.promote_types(rows.dtype, torch.float32))
    # Squares of numbers beyond 1e19 or below 1e-19 leave float32; such rows are rare and get float64.
    odd = ~((length > 1e-15) & (length < 1e15))
    if bool(odd.any()):
        exact = torch.linalg.vector_norm(rows[odd], dim=1, dtype=torch.float64)
        length = length.double()
        length[odd] = torch.where(exact > 0, exact, 1.0)
    return length
