"""Contrast of embeddings with a memory of identities (FED, Fig. 2)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from occluded_reid.contracts import BuildInfo, ModelOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import memory_contrast
from occluded_reid.losses.base import Loss
from occluded_reid.registry import LOSSES

__all__ = ["MemoryContrastLoss"]


@LOSSES.register("memory_contrast")
class MemoryContrastLoss(Loss):
    """w₀ · mean over clean views + w₁ · mean over occluded views of -log(softmax(cos(e, M)/τ)_y + ε).

    With single views it is the plain mean over the batch, times w₀.

    Args:
        info: what the builder knows.
        on: memory head.
        clean: w₀ (FED: 1 for the erased, ½ for the diffused embedding).
        occluded: w₁ (FED: 0.3 and ½).
        epsilon: ε.

    Raises:
        BuildError: the head is no memory.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str = "memory",
        clean: Annotated[float, Field(ge=0)] = 1.0,
        occluded: Annotated[float, Field(ge=0)] = 1.0,
        epsilon: Annotated[float, Field(ge=0)] = 1e-6,
    ) -> None:
        super().__init__(info, on=on)
        if "bank" not in self.head_info.maps:
            raise BuildError(
                f"loss '{info.name}' contrasts with a memory, which head '{on}' is not. "
                "Put it on a head of type memory."
            )
        self.clean, self.occluded, self.epsilon = clean, occluded, epsilon

    def forward(self, output: ModelOutput, targets: Targets) -> Tensor:
        """Return the loss as a scalar."""
        values = memory_contrast(output[self.on].logits["memory"], targets.identity, self.epsilon)
        if targets.view is None:
            return self.clean * values.mean()
        total = values.new_zeros(())
        for view, weight in enumerate((self.clean, self.occluded)):
            rows = (targets.view == view).to(values.dtype)
            total = total + weight * (values * rows).sum() / rows.sum().clamp(min=1)
        return total
