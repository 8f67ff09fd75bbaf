"""Label-smoothed segmentation (SORN Eq. 7-9)."""

from __future__ import annotations

import torch
from torch import Tensor

from occluded_reid.functional.checks import require_labels, require_rank

__all__ = ["smoothed_segmentation_loss"]


def smoothed_segmentation_loss(
    logits: Tensor,
    labels: Tensor,
    smoothing: float = 0.1,
    *,
    class_balanced: bool = False,
    ignore_index: int | None = None,
) -> Tensor:
    """Pixel-mean cross-entropy against q = 1 - (K-1)ε/K at the label and ε/K elsewhere (SORN Eq. 7-9).

    Args:
        logits: (N, K, h, w).
        labels: (N, h, w) integers in 0 … K - 1.
        smoothing: ε.
        class_balanced: mean over the classes present of the mean over their pixels.
        ignore_index: pixels of this label do not count.

    Returns:
        Scalar; 0 where every pixel is ignored.

    Raises:
        ShapeError: the shapes do not fit, or a label is not below K.

    Example:
        >>> smoothed_segmentation_loss(torch.zeros(1, 2, 2, 2), torch.tensor([[[0, 1], [1, 1]]])).exp()
        tensor(2.)
    """
    require_rank(logits, 4, "logits", "(N, K, h, w)")
    count, classes, height, width = logits.shape
    counted = torch.ones_like(labels, dtype=torch.bool) if ignore_index is None else labels.long() != ignore_index
    target = require_labels(labels.where(counted, 0), (count, height, width), classes)
    log_probability = logits.log_softmax(1)
    at_label = log_probability.gather(1, target[:, None])[:, 0]
    # Σ_k q_k log s_k with q_k = (1 - ε)δ + ε/K (Eq. 8) is (1 - ε) log s_t + ε · mean_k log s_k.
    loss = -((1 - smoothing) * at_label + smoothing * log_probability.mean(1))
    weight = counted.to(loss.dtype)
    if class_balanced:
        sizes = torch.bincount(target[counted], minlength=classes).to(loss.dtype)
        weight = weight / sizes.clamp(min=1)[target]
    return (loss * weight).sum() / weight.sum().clamp(min=torch.finfo(loss.dtype).tiny)
