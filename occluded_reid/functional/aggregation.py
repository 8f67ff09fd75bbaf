"""Aggregation maps of channel sets (SORN Eq. 2-4)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from occluded_reid.errors import ShapeError
from occluded_reid.functional.checks import require_choice, require_rank

__all__ = ["aggregation_maps"]


def aggregation_maps(features: Tensor, num_sets: int, reduction: Literal["sum", "mean"] = "sum") -> Tensor:
    """Normalised aggregation maps M_n = σ(A_n - mean A_n), A_n the sum of the n-th set of channels (SORN Eq. 2-4).

    Args:
        features: (N, C, h, w), T_g.
        num_sets: S sets of C/S neighbouring channels.
        reduction: A_n is the "sum" (Eq. 2) or the "mean" of its channels.

    Returns:
        (N, S, h, w) in (0, 1).

    Raises:
        ShapeError: features is not (N, C, h, w), or C is not divisible by S.

    Example:
        >>> import torch
        >>> aggregation_maps(torch.zeros(1, 4, 2, 3), num_sets=2).unique()
        tensor([0.5000])
    """
    require_rank(features, 4, "features", "(N, C, h, w)")
    require_choice(reduction, ("sum", "mean"), "reduction")
    count, channels, height, width = features.shape
    if num_sets < 1 or channels % num_sets:
        raise ShapeError(f"{channels} channels cannot be divided into {num_sets} equal sets; change either number.")
    sets = features.reshape(count, num_sets, channels // num_sets, height, width)
    aggregated = sets.sum(2) if reduction == "sum" else sets.mean(2)
    return (aggregated - aggregated.mean((2, 3), keepdim=True)).sigmoid()
