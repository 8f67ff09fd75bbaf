"""Label-smoothed segmentation (SORN Eq. 7-9)."""

from __future__ import annotations

import torch
from torch import Tensor

from occluded_reid.errors import ShapeError
from occluded_reid.functional.checks import require_rank

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
        Scalar.

    Raises:
        ShapeError: the shapes do not fit, or a label is not below K.
    """
    require_rank(logits, 4, "logits", "(N, K, h, w)")
    classes = logits.shape[1]
    if labels.shape != (logits.shape[0], *logits.shape[2:]):
        raise ShapeError(f"labels must be {(logits.shape[0], *logits.shape[2:])}; got {tuple(labels.shape)}.")
    counted = torch.ones_like(labels, dtype=torch.bool) if ignore_index is None else labels != ignore_index
    target = labels.where(counted, 0).long()
    if bool(((target < 0) | (target >= classes)).any()):
        wrong = int(target[(target < 0) | (target >= classes)][0])
        raise ShapeError(f"a label is {wrong}, but the logits have classes 0 … {classes - 1}. Map the labels first.")
    log_probability = logits.log_softmax(1)
    at_label = log_probability.gather(1, target[:, None])[:, 0]
    loss = -((1 - smoothing) * at_label + smoothing * log_probability.mean(1))
    weight = counted.to(loss.dtype)
    if class_balanced:
        sizes = torch.bincount(target[counted], minlength=classes).to(loss.dtype)
        weight = weight / sizes.clamp(min=1)[target]
    return (loss * weight).sum() / weight.sum().clamp(min=torch.finfo(loss.dtype).tiny)
