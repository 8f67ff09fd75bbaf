"""The spatial-patch contrastive loss (SORN Eq. 5)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from occluded_reid.contracts import BuildInfo, ModelOutput, Targets
from occluded_reid.functional import spc_loss
from occluded_reid.losses.base import Loss
from occluded_reid.registry import LOSSES

__all__ = ["SPCLoss"]


@LOSSES.register("spc")
class SPCLoss(Loss):
    """Responses of each aggregation map outside its own band (SORN Eq. 5).

    Args:
        info: what the builder knows.
        on: head that gives the map ``aggregation`` (a global head with several sets).
        reduction: "sum" over positions and sets (Eq. 5), or the "mean" over the positions off the own bands.
    """

    def __init__(self, info: BuildInfo, *, on: str = "global", reduction: Literal["sum", "mean"] = "sum") -> None:
        super().__init__(info, on=on)
        self.require_map("aggregation")
        self.reduction = reduction

    def forward(self, output: ModelOutput, targets: Targets) -> Tensor:
        """Return the loss as a scalar."""
        return spc_loss(output[self.on].maps["aggregation"], self.reduction)
