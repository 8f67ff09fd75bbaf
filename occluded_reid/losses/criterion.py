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
        begins: name -> epoch, counted from 1, in which a loss begins to count; until then its weight is 0. Losses that
            are not named count from the start.

    Attributes:
        epoch: the epoch that is trained; whoever trains sets it. None (epochs are not counted): every loss counts.
    """

    def __init__(
        self, losses: Mapping[str, Loss], weights: Mapping[str, float], begins: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.losses = nn.ModuleDict(losses)
        self.weights, self.begins = dict(weights), dict(begins or {})
        self.epoch: int | None = None

    def weight(self, name: str) -> float:
        """Return what a loss weighs in this epoch."""
        waits = self.epoch is not None and self.epoch < self.begins.get(name, 1)
        return 0.0 if waits else self.weights[name]

    def never(self, epochs: int) -> tuple[str, ...]:
        """Return the losses that do not count in a training of so many epochs."""
        return tuple(name for name, begins in self.begins.items() if begins > epochs)

    def forward(self, output: ModelOutput, targets: Targets) -> LossValues:
        """Return the total and the parts."""
        named = {name: loss(output, targets) for name, loss in self.losses.items()}
        total = sum(
            (self.weight(name) * value for name, value in named.items()), start=targets.identity.new_zeros(()).float()
        )
        return LossValues(total, named)
