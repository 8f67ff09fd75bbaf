"""The head, announced by entry point and decorated too, as a careful author might do."""

from __future__ import annotations

from collections.abc import Mapping

from occluded_reid import HEADS, BuildInfo, FeatureMaps, Head, HeadInfo, HeadOutput, Targets
from occluded_reid.heads.base import make_classifier


@HEADS.register("waist")
class WaistHead(Head):
    """Pools the middle rows of a map: slot ``waist``.

    Args:
        info: what the builder knows.
        on: stage of the backbone.
        share: share of the rows that is taken for the waist.
    """

    def __init__(self, info: BuildInfo, *, on: str = "last", share: float = 0.25) -> None:
        super().__init__(info)
        self.stage, self.share = info.stage_name(on), share
        width = info.stages[self.stage].channels
        self.classifier = make_classifier(width, info.num_classes, bias=True) if info.num_classes else None
        self.info = HeadInfo(slots={"waist": width}, inference_slots=("waist",))

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return the feature, and logits in training."""
        grid = features[self.stage]
        rows = max(1, round(self.share * grid.shape[2]))
        start = (grid.shape[2] - rows) // 2
        waist = grid[:, :, start : start + rows].mean((2, 3))
        logits = {} if self.classifier is None else {"waist": self.classifier(waist)}
        return HeadOutput(features={"waist": waist}, embeddings={"waist": waist}, logits=logits)
