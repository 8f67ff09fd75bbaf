"""Identity cross-entropy of the regions that can be seen (SGAM Eq. 5)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import cross_entropy

from occluded_reid.errors import ShapeError
from occluded_reid.functional.checks import require_labels, require_rank
from occluded_reid.functional.regions import VISIBLE_FROM, region_values

__all__ = ["visible_part_loss"]


def visible_part_loss(
    logits: Tensor, labels: Tensor, visibility: Tensor, thresholds: float | Sequence[float] | Tensor = VISIBLE_FROM
) -> Tensor:
    """Σ_i max(v_i - t_i, 0) · CE_i over the regions, mean over the batch (SGAM Eq. 5).

    The visibility weighs, it is not learned: no gradient reaches it.

    Args:
        logits: (N, R, C).
        labels: (N,) class indices.
        visibility: (N, R) in [0, 1], v.
        thresholds: t_i in [0, 1], one for all regions or R of them.

    Returns:
        Scalar; 0 where no region is above its threshold.

    Raises:
        ShapeError: the shapes do not fit, a label is not below C, or a threshold is not in [0, 1].

    Example:
        >>> import torch
        >>> logits, labels = torch.zeros(1, 2, 4), torch.tensor([3])
        >>> visible_part_loss(logits, labels, torch.tensor([[1.0, 0.1]]), 0.2) / torch.tensor(4.0).log()
        tensor(0.8000)
    """
    require_rank(logits, 3, "logits", "(N, R, C)")
    count, regions, classes = logits.shape
    labels = require_labels(labels, (count,), classes)
    if visibility.shape != (count, regions):
        raise ShapeError(
            f"visibility must be ({count}, {regions}), a number for each region of each image; "
            f"got {tuple(visibility.shape)}."
        )
    repeated = labels[:, None].expand(count, regions)
    each = cross_entropy(logits.reshape(-1, classes), repeated.reshape(-1), reduction="none").reshape(count, regions)
    seen = visibility.detach()
    # In the visibility's own type: a region exactly at its threshold says nothing.
    weights = (seen - region_values(thresholds, regions, "thresholds", seen)).clamp(min=0)
    return (weights.to(each.dtype) * each).sum(1).mean()
