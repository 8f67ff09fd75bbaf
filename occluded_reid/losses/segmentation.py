"""Label-smoothed segmentation against a teacher's part masks (SORN Eq. 7-9)."""

from __future__ import annotations

import torch
from torch import Tensor

from occluded_reid.contracts import BuildInfo, ModelOutput, Targets
from occluded_reid.errors import MaskError
from occluded_reid.functional import smoothed_segmentation_loss
from occluded_reid.losses.base import Loss
from occluded_reid.registry import LOSSES

__all__ = ["SegmentationLoss"]


@LOSSES.register("segmentation")
class SegmentationLoss(Loss):
    """Pixel-mean cross-entropy with smoothed labels; the teacher's mask is resized to the map by nearest neighbour.

    Args:
        info: what the builder knows.
        on: head that gives the map ``segmentation``.
        smoothing: ε of Eq. 8.
        class_balanced: mean over the classes present, instead of over pixels.
        ignore_index: pixels of this label do not count.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str = "semantic",
        smoothing: float = 0.1,
        class_balanced: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(info, on=on)
        self.require_map("segmentation")
        self.smoothing, self.class_balanced, self.ignore_index = smoothing, class_balanced, ignore_index

    def forward(self, output: ModelOutput, targets: Targets) -> Tensor:
        """Return the loss as a scalar.

        Raises:
            MaskError: the batch carries no part masks.
        """
        if targets.parsing is None:
            raise MaskError(
                f"loss '{self.name}' needs part masks, but this batch has none. Give the data set a folder of masks "
                "(masks=…) and the recipe data.masks: 8, 5 or 2."
            )
        logits = output[self.on].maps["segmentation"]
        labels = targets.parsing
        if labels.shape[1:] != logits.shape[2:]:
            # "nearest-exact" samples pixel centres, as image libraries do; "nearest" would shift the mask.
            resized = torch.nn.functional.interpolate(labels[:, None].float(), logits.shape[2:], mode="nearest-exact")
            labels = resized[:, 0].long()
        return smoothed_segmentation_loss(
            logits, labels, self.smoothing, class_balanced=self.class_balanced, ignore_index=self.ignore_index
        )
