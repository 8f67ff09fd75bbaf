"""Separation of part features from the global one (OCNet Eq. 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from occluded_reid.errors import ShapeError
from occluded_reid.functional.checks import require_rank

__all__ = ["separation_loss"]


def separation_loss(global_: Tensor, parts: Tensor) -> Tensor:
    """Separation loss L_SL = Σ_p (1 + cos(f_g, f_p)), mean over the batch (OCNet Eq. 1).

    Cosines of features without negative entries (after a ReLU) are at least 0: then the loss is at least P, which it
    reaches where each part is orthogonal to f_g. Otherwise it is at least 0.

    Args:
        global_: (N, D), f_g.
        parts: (N, P, D), f_t and f_b; any number of parts.

    Returns:
        Scalar, at least float32. A feature of length 0 has cosine 0 to everything.

    Raises:
        ShapeError: the shapes do not fit each other.

    Example:
        >>> global_ = torch.tensor([[1.0, 0.0]])
        >>> separation_loss(global_, torch.tensor([[[2.0, 0.0], [0.0, 3.0]]]))
        tensor(3.)
    """
    require_rank(global_, 2, "global_", "(N, D)")
    require_rank(parts, 3, "parts", "(N, P, D)")
    count, width = global_.shape
    if parts.shape[0] != count or parts.shape[2] != width or not parts.numel():
        raise ShapeError(
            f"parts must be ({count}, P, {width}) beside a global feature {tuple(global_.shape)}, with at least one "
            f"part and one image; got {tuple(parts.shape)}. Give every image the same parts, all as wide as the global "
            "feature."
        )
    cosine = (_unit(global_)[:, None] * _unit(parts)).sum(2)
    return (1 + cosine).sum(1).mean()


def _unit(rows: Tensor) -> Tensor:
    """Vectors of length 1; one of length 0 stays 0, with a gradient that stays finite."""
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(length > 0, length, torch.ones_like(length))
