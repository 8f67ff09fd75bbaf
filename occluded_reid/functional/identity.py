"""Identity cross-entropy of parts (SORN Eq. 1 and 6)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from occluded_reid.errors import ShapeError
from occluded_reid.functional.checks import require_rank

__all__ = ["part_identity_loss"]


def part_identity_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Sum over parts of the identity cross-entropy, mean over the batch (SORN Eq. 1; one part: Eq. 6).

    Args:
        logits: (N, P, C).
        labels: (N,) class indices.
        smoothing: label smoothing; 0 is the paper's plain cross-entropy.

    Returns:
        Scalar.

    Raises:
        ShapeError: the shapes do not fit.
    """
    require_rank(logits, 3, "logits", "(N, P, C)")
    if labels.shape != logits.shape[:1]:
        raise ShapeError(f"labels must be ({logits.shape[0]},); got {tuple(labels.shape)}.")
    count, parts, classes = logits.shape
    repeated = labels[:, None].expand(count, parts)
    mean = cross_entropy(logits.reshape(-1, classes), repeated.reshape(-1), label_smoothing=smoothing)
    return mean * parts
