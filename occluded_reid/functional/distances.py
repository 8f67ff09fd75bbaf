"""The one distance behind every matcher: a mean over slots, weighted by what both images show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, ShapeError
from occluded_reid.registry import did_you_mean

__all__ = ["LARGEST_DISTANCE", "NO_SHARED_SLOT", "slot_weights", "weighted_distance"]

NO_SHARED_SLOT = 2.0**100
"""Distance of a pair without a common visible slot: finite, exact in every float type from bfloat16 up."""

LARGEST_DISTANCE = 2.0**99
"""What any other distance is clamped to, so that NO_SHARED_SLOT is larger than all of them."""


def slot_weights(
    names: Sequence[str], weights: Sequence[float] | Mapping[str, float] | None = None
) -> tuple[float, ...]:
    """Return one weight for each slot.

    Args:
        names: the S slot names.
        weights: S numbers in the order of the slots, or a mapping by name (a slot left out weighs 1), or None for 1.

    Returns:
        S non-negative numbers, at least one of them positive.

    Raises:
        EmbeddingError: a name in the mapping is no slot; the closest one is suggested.
        ShapeError: another number of weights than slots, a negative or non-finite weight, or all weights 0.

    Example:
        >>> slot_weights(("global", "part_1"), {"part_1": 0.5})
        (1.0, 0.5)
    """
    if weights is None:
        return (1.0,) * len(names)
    if isinstance(weights, Mapping):
        for name in weights:
            if name not in names:
                raise EmbeddingError(
                    f"a weight is given for the slot '{name}', which these embeddings do not have."
                    f"{did_you_mean(str(name), list(names))} Slots: {', '.join(names)}."
                )
        values = tuple(float(weights.get(name, 1.0)) for name in names)
    else:
        values = tuple(float(w) for w in weights)
        if len(values) != len(names):
            raise ShapeError(
                f"{len(values)} weights were given for {len(names)} slots ({', '.join(names)}); give one for each slot."
            )
    for name, value in zip(names, values, strict=True):
        if not (math.isfinite(value) and value >= 0):
            raise ShapeError(f"the weight of slot '{name}' is {value}; it must be a finite number of at least 0.")
    if not any(values):
        raise ShapeError(f"every weight of the slots {', '.join(names)} is 0; at least one slot must count.")
    return values


def weighted_distance(
    query: PartEmbeddings,
    gallery: PartEmbeddings,
    metric: Literal["cosine", "euclidean"] = "cosine",
    weights: Sequence[float] | Mapping[str, float] | None = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Visibility-weighted distance of all pairs (SORN, Eq. 13-15, as 1 - S; SGAM, Eq. 4).

    D(q, g) = Σ_s w_s v_s(q) v_s(g) d(e_s(q), e_s(g)) / Σ_s w_s v_s(q) v_s(g), with d = 1 - cosine similarity or the
    Euclidean distance of the vectors as they are. Differentiable in embeddings and visibility.

    Args:
        query: Nq rows.
        gallery: Ng rows with the same slots.
        metric: d. A vector of length 0 has cosine similarity 0 to everything.
        weights: w_s, one for each slot in order, or by slot name (a slot left out weighs 1); None is 1 for all.
        reduction: "mean" as above; "sum" leaves the denominator out, which favours pairs that share little.

    Returns:
        (Nq, Ng) in the wider type of both sides, at least float32. A pair that shares no slot is at `NO_SHARED_SLOT`,
        and no other pair is farther than `LARGEST_DISTANCE`.

    Raises:
        EmbeddingError: the slots of both sides differ, or a weight names no slot.
        ShapeError: weights, metric or reduction are not valid.

    Example:
        >>> rows = PartEmbeddings(("a", "b"), (torch.eye(2), torch.eye(2)), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        >>> weighted_distance(rows, rows, weights={"b": 3.0})
        tensor([[0., 1.],
                [1., 0.]])
    """
    if metric not in ("cosine", "euclidean"):
        raise ShapeError(f"metric is {metric!r}; give 'cosine' or 'euclidean'.")
    if reduction not in ("mean", "sum"):
        raise ShapeError(f"reduction is {reduction!r}; give 'mean' or 'sum'.")
    query.require_same_slots(gallery)
    dtype = torch.float32
    for rows in (*query.embeddings, *gallery.embeddings):
        dtype = torch.promote_types(dtype, rows.dtype)
    numerator: Tensor | None = None
    denominator: Tensor | None = None
    for s, weight in enumerate(slot_weights(query.names, weights)):
        shared = weight * query.visibility[:, s, None].to(dtype) * gallery.visibility[None, :, s].to(dtype)
        between = _distances(query.embeddings[s].to(dtype), gallery.embeddings[s].to(dtype), metric)
        numerator = shared * between if numerator is None else numerator + shared * between
        denominator = shared if denominator is None else denominator + shared
    if numerator is None or denominator is None:  # PartEmbeddings refuses to be without slots
        raise ShapeError("embeddings without slots have no distance; give at least one slot.")
    common = denominator > 0
    if reduction == "mean":
        # The inner `where` keeps 0 / 0 out of the backward pass too.
        numerator = numerator / torch.where(common, denominator, torch.ones_like(denominator))
    return torch.where(common, numerator.clamp(max=LARGEST_DISTANCE), NO_SHARED_SLOT)


def _distances(query: Tensor, gallery: Tensor, metric: str) -> Tensor:
    """d of all pairs of one slot, (Nq, Ng)."""
    if metric == "euclidean":
        # By differences, not by expansion: d(x, x) is exactly 0, and its gradient there is 0 instead of NaN.
        return torch.cdist(query, gallery, compute_mode="donot_use_mm_for_euclid_dist")
    return 1 - _unit(query) @ _unit(gallery).T


def _unit(rows: Tensor) -> Tensor:
    """Rows of length 1; a row of length 0 stays 0."""
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(length > 0, length, torch.ones_like(length))
