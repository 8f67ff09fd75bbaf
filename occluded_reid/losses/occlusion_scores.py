"""Supervision of the scores of occlusion erasing (FED, Fig. 2)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from occluded_reid.contracts import BuildInfo, ModelOutput, Targets
from occluded_reid.errors import BuildError, MaskError
from occluded_reid.functional import occlusion_stripes
from occluded_reid.losses.base import Loss
from occluded_reid.registry import LOSSES

__all__ = ["OcclusionScoresLoss"]


@LOSSES.register("occlusion_scores")
class OcclusionScoresLoss(Loss):
    """MSE(s(x¹), 1) + MSE(s(x²), m): scores of clean views against 1, those of occluded views against the mask.

    Each view is a mean over its images and the parts; with single views there is one such mean. m is 1 where a part is
    visible, made from the mask of the pasted occluder; a clean view's mask is empty, so its m is 1.

    Args:
        info: what the builder knows.
        on: head that gives the map ``scores``.
        rule: how m comes from the mask, as `functional.occlusion_stripes`: "ratio" (FED) or "fraction".
        ratio: of the rule "ratio".
        threshold: of the rule "fraction".
        vertical_all_visible: an occluder over all parts hides none of them.

    Raises:
        BuildError: the head gives no scores, or a row of its map is no whole number of pixels.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str = "erasing",
        rule: Literal["ratio", "fraction"] = "ratio",
        ratio: Annotated[float, Field(ge=0)] = 3.0,
        threshold: Annotated[float, Field(gt=0, le=1)] = 0.5,
        vertical_all_visible: bool = True,
    ) -> None:
        super().__init__(info, on=on)
        self.require_map("scores")
        height = info.input_size[0]
        self.rows = -(-height // self.head_info.maps["scores"].stride)
        if height % self.rows:
            raise BuildError(
                f"loss '{info.name}' lays masks of {height} rows over a map of {self.rows} rows. "
                "Give the images a height that is a multiple of it."
            )
        self.rule, self.ratio, self.threshold = rule, ratio, threshold
        self.vertical_all_visible = vertical_all_visible

    def forward(self, output: ModelOutput, targets: Targets) -> Tensor:
        """Return the loss as a scalar.

        Raises:
            MaskError: the batch carries no occlusion masks.
        """
        if targets.occlusion_mask is None:
            raise MaskError(
                f"loss '{self.name}' needs the masks of pasted occluders, but this batch has none. Add npo or occlude "
                "to data.augment, and set data.views=clean_and_occluded."
            )
        scores = output[self.on].maps["scores"].flatten(1)
        visible = occlusion_stripes(
            targets.occlusion_mask,
            scores.shape[1],
            rule=self.rule,
            ratio=self.ratio,
            threshold=self.threshold,
            vertical_all_visible=self.vertical_all_visible,
            rows=self.rows,
        )
        errors = (scores - visible).square().mean(1)
        if targets.view is None:
            return errors.mean()
        occluded = (targets.view == 1).to(errors.dtype)
        return (errors * (1 - occluded)).sum() / (1 - occluded).sum().clamp(min=1) + (
            errors * occluded
        ).sum() / occluded.sum().clamp(min=1)
