"""Refined part pooling: every column of a map belongs to every part by a probability (PCB, §3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from occluded_reid.errors import ShapeError
from occluded_reid.functional.checks import require_choice, require_rank

__all__ = ["part_probabilities", "refined_pool"]


def part_probabilities(features: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """P(f ∈ P_i) = softmax_i(W_iᵀ f), for every column vector f of a map (PCB, §3).

    Args:
        features: (N, C, h, w).
        weight: W (P, C), a row a part.
        bias: (P,), added before the softmax; the paper has none.

    Returns:
        (N, P, h, w); sums to 1 over the parts at each place.

    Raises:
        ShapeError: the shapes do not fit.

    Example:
        >>> columns = torch.tensor([[[[0.0, 50.0]]]])
        >>> part_probabilities(columns, torch.tensor([[0.0], [1.0]])).round(decimals=3).tolist()
        [[[[0.5, 0.0]], [[0.5, 1.0]]]]
    """
    require_rank(features, 4, "features", "(N, C, h, w)")
    require_rank(weight, 2, "weight", "(P, C)")
    parts, channels = weight.shape
    if features.shape[1] != channels or (bias is not None and bias.shape != (parts,)):
        given = "none" if bias is None else str(tuple(bias.shape))
        raise ShapeError(
            f"features {tuple(features.shape)}, weight {tuple(weight.shape)} and bias {given} do not fit: wanted "
            "(N, C, h, w), (P, C) and (P,). Give the part classifier as many inputs as the map has channels."
        )
    logits = torch.einsum("nchw,pc->nphw", features, weight)
    return (logits if bias is None else logits + bias[:, None, None]).softmax(1)


def refined_pool(features: Tensor, probabilities: Tensor, reduction: Literal["mean", "weighted"] = "mean") -> Tensor:
    """Pool a map into P parts, each column counted by the probability that it belongs there (PCB, §3).

    "mean" is g_i = P / (h·w) · Σ_f P(f ∈ P_i) f: P times the average over all places, so that probabilities of 1 in the
    own stripe and 0 elsewhere give the means of the stripes. "weighted" divides by Σ_f P(f ∈ P_i) in place of h·w / P:
    a part that few columns belong to is not small.

    Args:
        features: (N, C, h, w).
        probabilities: (N, P, h, w), not negative.
        reduction: "mean" or "weighted".

    Returns:
        (N, P, C).

    Raises:
        ShapeError: the shapes do not fit.

    Example:
        >>> columns = torch.tensor([[[[1.0], [2.0], [3.0], [4.0]]]])
        >>> halves = torch.tensor([[[[1.0], [1.0], [0.0], [0.0]], [[0.0], [0.0], [1.0], [1.0]]]])
        >>> refined_pool(columns, halves).tolist()
        [[[1.5], [3.5]]]
    """
    require_rank(features, 4, "features", "(N, C, h, w)")
    require_rank(probabilities, 4, "probabilities", "(N, P, h, w)")
    require_choice(reduction, ("mean", "weighted"), "reduction")
    if features.shape[0] != probabilities.shape[0] or features.shape[2:] != probabilities.shape[2:]:
        raise ShapeError(
            f"features {tuple(features.shape)} and probabilities {tuple(probabilities.shape)} are not of one size; "
            "wanted (N, C, h, w) and (N, P, h, w)."
        )
    sums = torch.einsum("nchw,nphw->npc", features, probabilities)
    if reduction == "weighted":
        least = torch.finfo(probabilities.dtype).tiny
        return sums / probabilities.sum((2, 3)).clamp(min=least)[:, :, None]
    parts, (rows, columns) = probabilities.shape[1], features.shape[2:]
    return sums * (parts / (rows * columns))
