"""The centre loss (Wen et al., A Discriminative Feature Learning Approach, 2016), as BoT uses it."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from occluded_reid.contracts import BuildInfo, ModelOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional.centers import center_loss, moved_centers
from occluded_reid.functional.gather import gather_rows
from occluded_reid.losses.base import Loss
from occluded_reid.registry import LOSSES

__all__ = ["CenterLoss"]


@LOSSES.register("center")
class CenterLoss(Loss):
    """Mean over the batch of ‖f - c_y‖², on features before the neck; the centres follow the features.

    BoT trains the centres by gradient descent of their own, with rate 0.5 and a gradient freed of the loss's weight.
    That step is c_k ← c_k + rate · 2/B · Σ_{y_i = k} (f_i - c_k), which is taken here when the loss has been computed:
    the same numbers, with no second optimiser. The centres are saved with training checkpoints only.

    Args:
        info: what the builder knows.
        on: head with one slot.
        rate: of the centres.

    Raises:
        BuildError: the head has not exactly one slot.
    """

    centers: Tensor

    def __init__(self, info: BuildInfo, *, on: str, rate: Annotated[float, Field(ge=0)] = 0.5) -> None:
        super().__init__(info, on=on)
        if len(self.head_info.slots) != 1:
            raise BuildError(
                f"loss '{info.name}' keeps one centre an identity for one slot; head '{on}' has "
                f"{len(self.head_info.slots)} ({', '.join(self.head_info.slots) or 'none'}). Put it on another head."
            )
        (self.slot, width), self.rate = next(iter(self.head_info.slots.items())), rate
        self.register_buffer("centers", torch.randn(info.num_classes or 0, width))

    def forward(self, output: ModelOutput, targets: Targets) -> Tensor:
        """Return the loss as a scalar; in training the centres move afterwards.

        Raises:
            BuildError: the head gives no features.
        """
        features = output[self.on].features.get(self.slot)
        if features is None:
            raise BuildError(f"loss '{self.name}' needs features, which head '{self.on}' does not give. Move the loss.")
        # A copy: the backward pass must see the centres from before this batch.
        value = center_loss(features, self.centers.clone(), targets.identity)
        if self.training and torch.isfinite(value):
            rows, labels = gather_rows(features), gather_rows(targets.identity)
            self.centers.copy_(moved_centers(self.centers, rows, labels, self.rate))
        return value
