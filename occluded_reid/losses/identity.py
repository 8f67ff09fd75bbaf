"""Cross-entropy over identities for every slot of a head (SORN Eq. 1 and 6)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from occluded_reid.contracts import BuildInfo, ModelOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import part_identity_loss
from occluded_reid.losses.base import Loss
from occluded_reid.registry import LOSSES

__all__ = ["IdentityLoss"]


@LOSSES.register("identity")
class IdentityLoss(Loss):
    """Σ over a head's slots of the identity cross-entropy, mean over the batch (SORN Eq. 1; one slot: Eq. 6).

    Args:
        info: what the builder knows.
        on: head with identity logits.
        aggregate: "sum" over the slots (SORN, PCB) or their "mean".
        smoothing: label smoothing ε; SORN uses plain cross-entropy.

    Raises:
        BuildError: the head has no slots to classify.
    """

    def __init__(
        self, info: BuildInfo, *, on: str, aggregate: Literal["sum", "mean"] = "sum", smoothing: float = 0.0
    ) -> None:
        super().__init__(info, on=on)
        if not self.head_info.slots:
            raise BuildError(f"loss '{info.name}' classifies slots, but head '{on}' has none. Put it on another head.")
        self.aggregate, self.smoothing = aggregate, smoothing

    def forward(self, output: ModelOutput, targets: Targets) -> Tensor:
        """Return the loss as a scalar.

        Raises:
            BuildError: the head gives no logits.
        """
        given = output[self.on].logits
        if not given:
            raise BuildError(
                f"loss '{self.name}' needs identity logits, which head '{self.on}' does not give "
                f"({type(output[self.on]).__name__}.logits is empty). Give the head a classifier, or put the loss on "
                "another head."
            )
        logits = torch.stack(list(given.values()), dim=1)
        total = part_identity_loss(logits, targets.identity, self.smoothing)
        return total if self.aggregate == "sum" else total / logits.shape[1]
