"""The part-averaged batch-hard triplet loss (BPBreID: the local half of GiLt)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from occluded_reid.contracts import BuildInfo, ModelOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import part_triplet_loss
from occluded_reid.losses.base import Loss
from occluded_reid.registry import LOSSES

__all__ = ["PartTripletLoss"]


@LOSSES.register("part_triplet")
class PartTripletLoss(Loss):
    """Batch-hard triplets of one distance over all slots of a head: the mean of the slots' own (BPBreID, L_tri^parts).

    Where `triplet` picks the hardest pairs slot by slot and adds up, this one averages first. Features are those before
    the neck, not normalised.

    Args:
        info: what the builder knows.
        on: head whose slots are the parts, all of one width.
        margin: m. None takes the soft margin.
        parts: the mean is over the parts "shared", visible in both images as the model itself says, or over "all".

    Raises:
        BuildError: the head has no slots or some of several widths, or no head gives the visibility of "shared" parts.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str = "parts",
        margin: Annotated[float, Field(ge=0)] | None = 0.3,
        parts: Literal["shared", "all"] = "shared",
    ) -> None:
        super().__init__(info, on=on)
        slots = self.head_info.slots
        if len(set(slots.values())) != 1:
            shown = ", ".join(f"{slot} {width}" for slot, width in slots.items())
            raise BuildError(
                f"loss '{info.name}' averages over slots of one width, but head '{on}' has {shown or 'none'}. "
                "Put it on another head."
            )
        given = {slot: name for name, head in info.heads.items() for slot in head.visibility_of}
        if parts == "shared" and (missing := [slot for slot in slots if slot not in given]):
            raise BuildError(
                f"loss '{info.name}' averages over the parts that two images share, and no head gives the visibility "
                f"of {', '.join(missing)}. Add a head that does, or set parts: all."
            )
        self.margin, self.slots = margin, tuple(slots)
        self.providers = tuple(given[slot] for slot in slots) if parts == "shared" else ()

    def forward(self, output: ModelOutput, targets: Targets) -> Tensor:
        """Return the loss as a scalar.

        Raises:
            BuildError: the head gives no features.
        """
        features = output[self.on].features
        if missing := [slot for slot in self.slots if slot not in features]:
            raise BuildError(
                f"loss '{self.name}' compares features, and head '{self.on}' gives none for {', '.join(missing)}. "
                "Put the loss on another head."
            )
        parts = torch.stack([features[slot] for slot in self.slots], dim=1)
        seen = [output[head].visibility[slot] for head, slot in zip(self.providers, self.slots, strict=False)]
        return part_triplet_loss(parts, targets.identity, torch.stack(seen, dim=1) if seen else None, self.margin)
