"""Distance to the centre of one's identity, and how centres move (Wen et al., 2016; Luo et al., BoT, 2019)."""

from __future__ import annotations

from torch import Tensor

from occluded_reid.functional.checks import require_rank

__all__ = ["center_loss", "moved_centers"]


def center_loss(features: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """Mean over the batch of the squared distance to the centre of the own identity.

    Args:
        features: (N, D).
        centers: (C, D).
        labels: (N,) int64, 0 … C - 1.

    Returns:
        A scalar.

    Raises:
        ShapeError: a tensor has another rank.

    Example:
        >>> import torch
        >>> center_loss(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.zeros(2, 2), torch.tensor([0, 1])).item()
        13.0
    """
    require_rank(features, 2, "features", "(N, D)")
    require_rank(centers, 2, "centers", "(C, D)")
    require_rank(labels, 1, "labels", "(N,)")
    return (features - centers[labels]).square().sum(1).mean()


def moved_centers(centers: Tensor, features: Tensor, labels: Tensor, rate: float) -> Tensor:
    """Centres after one step of gradient descent on `center_loss`: c_k + rate · 2/N · Σ_{y_i = k} (f_i - c_k).

    Args:
        centers: (C, D).
        features: (N, D) of the whole batch.
        labels: (N,) int64, 0 … C - 1.
        rate: step size.

    Returns:
        (C, D).

    Example:
        >>> import torch
        >>> moved_centers(torch.zeros(2, 1), torch.tensor([[4.0], [2.0]]), torch.tensor([0, 0]), rate=0.5)
        tensor([[3.],
                [0.]])
    """
    pull = (features - centers[labels]).to(centers.dtype)
    return centers.index_add(0, labels, pull, alpha=2 * rate / len(labels))
