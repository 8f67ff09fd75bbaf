"""Consistency: the occluded view of an image is to be embedded as its clean view is."""

from __future__ import annotations

import torch
from torch import Tensor

from occluded_reid.contracts import BuildInfo, ModelOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import view_consistency
from occluded_reid.losses.base import Loss
from occluded_reid.registry import LOSSES

__all__ = ["ConsistencyLoss"]


@LOSSES.register("consistency")
class ConsistencyLoss(Loss):
    """Mean over a head's slots of `functional.view_consistency`: 1 - cos of the occluded and of the clean view.

    The clean view gets no gradient: it is what is to be learnt. It needs no label, but two views of each image
    (``data.views: clean_and_occluded``). No paper of the systems here has it; it is what learning from unlabelled
    views commonly does, with the clean view in the teacher's place.

    Args:
        info: what the builder knows.
        on: head whose embeddings, as they are matched, learn.

    Raises:
        BuildError: the head has no slots.
    """

    def __init__(self, info: BuildInfo, *, on: str) -> None:
        super().__init__(info, on=on)
        if not self.head_info.slots:
            raise BuildError(f"loss '{info.name}' compares slots, but head '{on}' has none. Put it on another head.")

    def forward(self, output: ModelOutput, targets: Targets) -> Tensor:
        """Return the loss as a scalar.

        Raises:
            BuildError: the batch has no pairs of views, or the head gives no embeddings.
        """
        if targets.view is None:
            raise BuildError(
                f"loss '{self.name}' compares the clean and the occluded view of each image, and the batch has single "
                "views. Set data.views=clean_and_occluded, and end data.augment with 'occlude' or 'npo'."
            )
        given = output[self.on].embeddings
        if not given:
            raise BuildError(
                f"loss '{self.name}' compares embeddings, which head '{self.on}' does not give. "
                "Put the loss on another head."
            )
        return torch.stack([view_consistency(rows, targets.view) for rows in given.values()]).mean()
