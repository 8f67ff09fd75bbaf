"""The separation loss between the global feature and the parts (OCNet Eq. 1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from occluded_reid.contracts import BuildInfo, ModelOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import separation_loss
from occluded_reid.losses.base import Loss
from occluded_reid.registry import LOSSES, did_you_mean

__all__ = ["SeparationLoss"]


@LOSSES.register("separation")
class SeparationLoss(Loss):
    """Σ over parts of 1 + cos(f_g, f_p), mean over the batch (OCNet Eq. 1).

    Args:
        info: what the builder knows.
        on: head of the global feature f_g.
        parts: heads of the part features; every slot of theirs is a part.
        side: features "before" or "after" the neck (unsaid). After a ReLU features have no negative entries: "before"
            can then not fall below the number of parts.

    Raises:
        BuildError: a head is missing, the global head has not one slot, or a part has another width.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str = "global",
        parts: tuple[str, ...] = ("top", "bottom"),
        side: Literal["before", "after"] = "before",
    ) -> None:
        super().__init__(info, on=on)
        if len(self.head_info.slots) != 1:
            raise BuildError(
                f"loss '{info.name}' compares parts with one global feature, but head '{on}' has the slots "
                f"{', '.join(self.head_info.slots) or 'none'}. Put it on a head with one slot."
            )
        (self.slot, width), *_ = self.head_info.slots.items()
        for head in parts:
            if head not in info.heads:
                raise BuildError(
                    f"loss '{info.name}' reads the part '{head}', which this model does not have."
                    f"{did_you_mean(head, list(info.heads))} Heads: {', '.join(info.heads)}."
                )
        self.parts = {(head, slot): w for head in parts for slot, w in info.heads[head].slots.items()}
        if not self.parts or set(self.parts.values()) != {width}:
            shown = ", ".join(f"{slot} {w}" for (_, slot), w in self.parts.items())
            raise BuildError(
                f"loss '{info.name}' compares head '{on}' (width {width}) with parts of the same width; parts: "
                f"{list(parts)} give {shown or 'none'}. Name at least one head with slots, all of that width."
            )
        self.side = side

    def forward(self, output: ModelOutput, targets: Targets) -> Tensor:
        """Return the loss as a scalar.

        Raises:
            BuildError: a head does not give what is compared.
        """
        parts = torch.stack([self._read(output, head, slot) for head, slot in self.parts], dim=1)
        return separation_loss(self._read(output, self.on, self.slot), parts)

    def _read(self, output: ModelOutput, head: str, slot: str) -> Tensor:
        before, after = output[head].features.get(slot), output[head].embeddings.get(slot)
        value = before if self.side == "before" else after
        if value is None:
            raise BuildError(
                f"loss '{self.name}' needs the slot '{slot}' {self.side} the neck, which head '{head}' does not give. "
                "Choose the other side, or another head."
            )
        if self.side == "after" and after is before:
            raise BuildError(
                f"loss '{self.name}' compares what comes after the neck, but head '{head}' has none there. Set "
                f"model.heads.{head}.options.neck: bnneck and match: after, or side: before."
            )
        return value
