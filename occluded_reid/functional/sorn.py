"""The whole training loss of SORN (Eq. 10)."""

from __future__ import annotations

from torch import Tensor

from occluded_reid.errors import ShapeError

__all__ = ["sorn_total"]


def sorn_total(
    local: Tensor,
    global_: Tensor,
    spc: Tensor,
    segmentation: Tensor,
    weights: tuple[float, float, float] = (0.75, 0.5, 1.5),
) -> Tensor:
    """L = L_local + λ1 L_global + λ2 L_SPC + λ3 L_seg (SORN Eq. 10).

    Args:
        local: L_local of Eq. 1, scalar.
        global_: L_global of Eq. 6, scalar.
        spc: L_SPC of Eq. 5, scalar.
        segmentation: L_seg of Eq. 7-9, scalar.
        weights: λ1, λ2, λ3.

    Returns:
        Scalar.

    Raises:
        ShapeError: there are not three weights.

    Example:
        >>> import torch
        >>> one = torch.tensor(1.0)
        >>> sorn_total(one, one, one, one)
        tensor(3.7500)
    """
    if len(weights) != 3:
        raise ShapeError(f"weights must be λ1, λ2, λ3; got {weights}.")
    lambda1, lambda2, lambda3 = weights
    return local + lambda1 * global_ + lambda2 * spc + lambda3 * segmentation
