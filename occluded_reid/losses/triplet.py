"""The batch-hard triplet loss (Hermans et al., In Defense of the Triplet Loss, 2017; Luo et al., BoT, 2019)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from occluded_reid.contracts import BuildInfo, ModelOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.losses.base import Loss
from occluded_reid.registry import LOSSES

__all__ = ["TripletLoss"]


@LOSSES.register("triplet")
class TripletLoss(Loss):
    """Mean over anchors of max(0, d⁺ - d⁻ + m), with the farthest positive and the nearest negative of the batch.

    d is Euclidean on the features before the neck, not normalised. Anchors without a positive or a negative in the
    batch count for nothing.

    Args:
        info: what the builder knows.
        on: head whose features are compared, each slot for itself.
        margin: m. None takes the soft margin ln(1 + exp(d⁺ - d⁻)).
        normalize: bring features to length 1 first.
        aggregate: "sum" over the slots or their "mean".

    Raises:
        BuildError: the head has no slots.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str,
        margin: Annotated[float, Field(ge=0)] | None = 0.3,
        normalize: bool = False,
        aggregate: Literal["sum", "mean"] = "sum",
    ) -> None:
        from pytorch_metric_learning import (
            distances,
            losses,
            miners,
            reducers,
        )  # slow to import, of use in training only

        super().__init__(info, on=on)
        if not self.head_info.slots:
            raise BuildError(f"loss '{info.name}' compares slots, but head '{on}' has none. Put it on another head.")
        self.aggregate = aggregate
        distance = distances.LpDistance(normalize_embeddings=normalize, p=2)
        self.miner = miners.BatchHardMiner(distance=distance)
        self.loss = losses.TripletMarginLoss(
            margin=0.0 if margin is None else margin,
            smooth_loss=margin is None,
            distance=distance,
            reducer=reducers.MeanReducer(),
        )

    def forward(self, output: ModelOutput, targets: Targets) -> Tensor:
        """Return the loss as a scalar.

        Raises:
            BuildError: the head gives no features.
        """
        features = output[self.on].features
        if not features:
            raise BuildError(
                f"loss '{self.name}' compares features, which head '{self.on}' does not give "
                f"({type(output[self.on]).__name__}.features is empty). Put the loss on another head."
            )
        each = [self.loss(rows, targets.identity, self.miner(rows, targets.identity)) for rows in features.values()]
        total = torch.stack(each).sum()
        return total if self.aggregate == "sum" else total / len(each)
