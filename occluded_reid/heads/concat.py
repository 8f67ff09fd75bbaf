"""Features of several heads side by side, as one slot (OCNet Table 2, "Concat")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, Targets
from occluded_reid.heads.base import Head, make_classifier, make_neck
from occluded_reid.heads.source import read_features, slot_sources
from occluded_reid.registry import HEADS

__all__ = ["ConcatHead"]


@HEADS.register("concat")
class ConcatHead(Head):
    """F_concat = [f_g, f_t, f_b, f_c], not corrected by anything: slot ``final`` (OCNet §2.1; Table 2, rows 3 and 4).

    Args:
        info: what the builder knows.
        heads: the heads whose features before the neck stand side by side, in this order; their widths may differ.
        slot: name of the slot.
        neck: "bnneck" (bias fixed at 0; the paper: "a fully connected layer follows the batch normalization layer"),
            "bn" or "none".
        match: which side of the neck is matched: "after" or "before" (unsaid by OCNet).
        training_only: the slot is for losses alone; a model for use does not have the head (BPBreID).

    Raises:
        BuildError: a head does not come before this one or has no slot, or there is none.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        heads: tuple[str, ...] = ("global", "top", "bottom", "center"),
        slot: str = "final",
        neck: Literal["bnneck", "bn", "none"] = "bnneck",
        match: Literal["after", "before"] = "after",
        training_only: bool = False,
    ) -> None:
        super().__init__(info)
        self.sources, width = slot_sources(info, heads, "concatenates", same_width=False)
        self.slot, self.match = slot, match
        self.neck = make_neck(width, neck)
        self.classifier = make_classifier(width, info.num_classes, bias=neck != "bnneck") if info.num_classes else None
        self.info = HeadInfo(
            slots={slot: width}, inference_slots=() if training_only else (slot,), training_only=training_only
        )

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return F_concat, its embedding, and logits.

        Raises:
            BuildError: a head gives no feature for its slot.
        """
        joined = torch.cat(read_features(self.name, context, self.sources, "concatenates"), dim=1)
        necked = self.neck(joined)
        output = HeadOutput(
            features={self.slot: joined}, embeddings={self.slot: necked if self.match == "after" else joined}
        )
        if self.classifier is not None:
            output.logits[self.slot] = self.classifier(necked)
        return output
