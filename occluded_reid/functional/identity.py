"""Identity cross-entropy of parts and of the whole (SORN Eq. 1 and 6)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from occluded_reid.functional.checks import require_labels, require_rank

__all__ = ["identity_loss", "part_identity_loss"]


def identity_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Identity cross-entropy of one feature, mean over the batch (SORN Eq. 6).

    Args:
        logits: (N, C).
        labels: (N,) class indices.
        smoothing: label smoothing; 0 is the paper's plain cross-entropy.

    Returns:
        Scalar.

    Raises:
        ShapeError: the shapes do not fit, or a label is not below C.

    Example:
        >>> import torch
        >>> identity_loss(torch.zeros(2, 4), torch.tensor([0, 3])).exp()
        tensor(4.)
    """
    require_rank(logits, 2, "logits", "(N, C)")
    return part_identity_loss(logits[:, None], labels, smoothing)


def part_identity_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Sum over parts of the identity cross-entropy, mean over the batch (SORN Eq. 1).

    Args:
        logits: (N, P, C).
        labels: (N,) class indices.
        smoothing: label smoothing; 0 is the paper's plain cross-entropy.

    Returns:
        Scalar.

    Raises:
        ShapeError: the shapes do not fit, or a label is not below C.

    Example:
        >>> import torch
        >>> part_identity_loss(torch.zeros(2, 3, 4), torch.tensor([0, 3])) / torch.tensor(4.0).log()
        tensor(3.)
    """
    require_rank(logits, 3, "logits", "(N, P, C)")
    count, parts, classes = logits.shape
    labels = require_labels(labels, (count,), classes)
    repeated = labels[:, None].expand(count, parts)
    mean = cross_entropy(logits.reshape(-1, classes), repeated.reshape(-1), label_smoothing=smoothing)
    return mean * parts
