"""Agreement between the views of an image: what an occluded view says is drawn to what the clean one says."""

from __future__ import annotations

import torch
from torch import Tensor

from occluded_reid.errors import ShapeError
from occluded_reid.functional.distillation import teacher_distance

__all__ = ["view_consistency"]


def view_consistency(embedding: Tensor, view: Tensor) -> Tensor:
    """Mean over images of 1 - cos(e_occluded, e_clean), with no gradient to the clean view.

    Args:
        embedding: (2·N, D): the N clean views, then their N occluded views in the same order.
        view: (2·N,), 0 for clean and 1 for occluded rows, as `Targets.view` has them.

    Returns:
        Scalar, at least float32, in [0, 2].

    Raises:
        ShapeError: the rows are not N clean and then N occluded ones.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [1.0, 0.0]])
        >>> view_consistency(rows, torch.tensor([0, 0, 1, 1]))
        tensor(0.5000)
    """
    half = len(embedding) // 2
    wanted = torch.arange(2, device=view.device).repeat_interleave(half)
    if half == 0 or view.shape != (len(embedding),) or not torch.equal(view, wanted.to(view.dtype)):
        raise ShapeError(
            f"embedding is {tuple(embedding.shape)} and view {tuple(view.shape)}; wanted the N clean views (0) and "
            "then their N occluded views (1), as data.views=clean_and_occluded gives them."
        )
    return teacher_distance(embedding[half:], embedding[:half])
