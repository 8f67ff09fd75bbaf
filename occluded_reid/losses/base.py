"""The contract of a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from occluded_reid.contracts import BuildInfo, HeadInfo, ModelOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.registry import did_you_mean

__all__ = ["Loss"]


class Loss(nn.Module, ABC):
    """A scalar made of a model's outputs and the targets; a mean over the batch.

    Args:
        info: what the builder knows, with all heads.
        on: the head whose outputs it reads.

    Raises:
        BuildError: there is no such head.
    """

    def __init__(self, info: BuildInfo, *, on: str) -> None:
        super().__init__()
        if on not in info.heads:
            raise BuildError(
                f"loss '{info.name}' works on head '{on}', which this model does not have."
                f"{did_you_mean(on, list(info.heads))} Heads: {', '.join(info.heads)}."
            )
        self.name, self.on = info.name, on
        self.head_info: HeadInfo = info.heads[on]

    @abstractmethod
    def forward(self, output: ModelOutput, targets: Targets) -> Tensor:
        """Return the loss as a scalar."""

    def require_map(self, name: str) -> None:
        """Raise BuildError unless the head gives a map of that name."""
        if name not in self.head_info.maps:
            raise BuildError(
                f"loss '{self.name}' needs the map '{name}', which head '{self.on}' does not give "
                f"(it gives {', '.join(self.head_info.maps) or 'no maps'}). Put the loss on another head, or remove it."
            )
