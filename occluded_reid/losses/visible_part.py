"""Identity cross-entropy that only visible regions cause (SGAM Eq. 5)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from occluded_reid.contracts import BuildInfo, ModelOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import visible_part_loss
from occluded_reid.functional.regions import VISIBLE_FROM, named_values
from occluded_reid.losses.base import Loss
from occluded_reid.registry import LOSSES

__all__ = ["VisiblePartLoss"]

Threshold = Annotated[float, Field(ge=0, le=1)]


@LOSSES.register("visible_part")
class VisiblePartLoss(Loss):
    """Σ_i max(v_i - t_i, 0) · CE_i over a head's slots, mean over the batch (SGAM Eq. 5).

    v_i is the visibility that the model itself gives the slot, from whichever head supplies it.

    Args:
        info: what the builder knows.
        on: head with slots, identity logits and visibility.
        thresholds: t_i, one for all slots, a list in their order, or by name (unsaid by SGAM; 0.2).
        pixels: M: v_i and t_i are shares of M pixels, and the loss takes their numbers, as Eq. 2 is printed: M times
            as much. None takes the shares.

    Raises:
        BuildError: the head has no slots, no head gives one of them a visibility, or the thresholds do not fit.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str = "region_pooling",
        thresholds: Threshold | tuple[Threshold, ...] | dict[str, Threshold] = VISIBLE_FROM,
        pixels: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        super().__init__(info, on=on)
        self.slots = tuple(self.head_info.slots)
        if not self.slots:
            raise BuildError(f"loss '{info.name}' classifies slots, but head '{on}' has none. Put it on another head.")
        given = {slot: name for name, head in info.heads.items() for slot in head.visibility_of}
        if missing := [slot for slot in self.slots if slot not in given]:
            raise BuildError(
                f"loss '{info.name}' weighs each slot of head '{on}' by its visibility, and no head gives that of "
                f"{', '.join(missing)}. Add a head that does, or take the loss 'identity'."
            )
        self.providers = tuple(given[slot] for slot in self.slots)
        self.scale = 1 if pixels is None else pixels
        self.thresholds = named_values(thresholds, self.slots, f"loss '{info.name}': thresholds")

    def forward(self, output: ModelOutput, targets: Targets) -> Tensor:
        """Return the loss as a scalar.

        Raises:
            BuildError: the head gives no logits.
        """
        given = output[self.on].logits
        if missing := [slot for slot in self.slots if slot not in given]:
            raise BuildError(
                f"loss '{self.name}' needs identity logits for each slot, and head '{self.on}' gives none for "
                f"{', '.join(missing)}. Give the head classifiers, or put the loss on another head."
            )
        logits = torch.stack([given[slot] for slot in self.slots], dim=1)
        seen = [output[head].visibility[slot] for head, slot in zip(self.providers, self.slots, strict=True)]
        return self.scale * visible_part_loss(logits, targets.identity, torch.stack(seen, dim=1), self.thresholds)
