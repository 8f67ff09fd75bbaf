"""The part-averaged triplet loss (Somers et al., BPBreID, WACV 2023)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

from occluded_reid.errors import ShapeError
from occluded_reid.functional.checks import require_rank

__all__ = ["part_triplet_loss"]


def part_triplet_loss(
    parts: Tensor, labels: Tensor, visibility: Tensor | None = None, margin: float | None = 0.3
) -> Tensor:
    """Mean over anchors of max(0, d⁺ - d⁻ + m), where d is a mean over parts and the hardest pairs are those of d.

    d(i, j) = Σ_k v_k(i) v_k(j) ‖f_k(i) - f_k(j)‖ / Σ_k v_k(i) v_k(j): one distance for a pair, so that a part that is
    alike on two people cannot be the hardest negative on its own. A pair that shares no part has no distance and is
    neither a positive nor a negative; an anchor without a positive or a negative counts for nothing.

    Args:
        parts: f (N, K, D).
        labels: (N,) identities.
        visibility: v (N, K) in [0, 1], not differentiated; None is 1 for all (the mean over all K parts).
        margin: m. None takes the soft margin ln(1 + exp(d⁺ - d⁻)).

    Returns:
        Scalar; 0 without an anchor that counts.

    Raises:
        ShapeError: the shapes do not fit.

    Example:
        >>> parts = torch.tensor([[[0.0], [0.0]], [[1.0], [3.0]], [[4.0], [0.0]]])
        >>> part_triplet_loss(parts, torch.tensor([0, 0, 1]), margin=0.5)  # d⁺ = 2; d⁻ = 2 and 3
        tensor(0.2500)
    """
    require_rank(parts, 3, "parts", "(N, K, D)")
    count = parts.shape[:2]
    if labels.shape != count[:1] or (visibility is not None and visibility.shape != count):
        given = "none" if visibility is None else str(tuple(visibility.shape))
        raise ShapeError(
            f"parts {tuple(parts.shape)}, labels {tuple(labels.shape)} and visibility {given} do not fit: wanted "
            "(N, K, D), (N,) and (N, K). Give one label an image, and one visibility a part."
        )
    by_part = parts.transpose(0, 1).contiguous()
    # By differences, not by expansion: the gradient at a distance of 0 is 0 and not NaN.
    distance = torch.cdist(by_part, by_part, compute_mode="donot_use_mm_for_euclid_dist")
    seen = (torch.ones_like(parts[:, :, 0]) if visibility is None else visibility.detach().to(parts.dtype)).T
    weight = seen[:, :, None] * seen[:, None, :]
    total = weight.sum(0)
    shared = total > 0
    mean = (weight * distance).sum(0) / torch.where(shared, total, 1.0)
    alike = labels[:, None] == labels[None, :]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive, negative = shared & alike & ~itself, shared & ~alike
    anchors = positive.any(1) & negative.any(1)
    farthest = torch.where(positive, mean, -torch.inf)[anchors]
    nearest = torch.where(negative, mean, torch.inf)[anchors]
    if not len(farthest):
        return mean.sum() * 0.0  # a scalar of the graph: backward() gives zeros
    gap = farthest.amax(1) - nearest.amin(1)
    return (softplus(gap) if margin is None else relu(gap + margin)).mean()
