"""The weighted sum of a recipe's losses, with every part by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from occluded_reid.contracts import ModelOutput, Targets
from occluded_reid.losses.base import Loss

__all__ = ["Criterion", "LossValues"]


class LossValues(NamedTuple):
    """The weighted total, and each part before its weight."""

    total: Tensor
    named: dict[str, Tensor]


class Criterion(nn.Module):
    """Adds weighted losses and keeps every named part, so that each can be logged.

    Args:
        losses: name -> loss.
        weights: name -> weight in the total. A loss of weight 0 is computed and logged, and moves nothing.
    """

    def __init__(self, losses: Mapping[str, Loss], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.losses = nn.ModuleDict(losses)
        self.weights = dict(weights)

    def forward(self, output: ModelOutput, targets: Targets) -> LossValues:
        """Return the total and the parts."""
        named = {name: loss(output, targets) for name, loss in self.losses.items()}
        total = sum(
            (self.weights[name] * value for name, value in named.items()), start=targets.identity.new_zeros(()).float()
        )
        return LossValues(total, named)
