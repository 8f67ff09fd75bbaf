"""One embedding of the whole image from a transformer's class token (ViT baseline of TransReID, FED's global token)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.heads.base import Head, make_classifier, make_neck, pool
from occluded_reid.registry import HEADS

__all__ = ["ClassTokenHead"]


@HEADS.register("class_token")
class ClassTokenHead(Head):
    """The global token g, classified without bias: one slot.

    FED classifies g as it is and does not match it; the ViT baseline classifies it after a BNNeck and matches it
    before (He et al., TransReID, 2021).

    Args:
        info: what the builder knows.
        token: "cls" is the backbone's class token. "first_patch" is the top left cell of the map, which FED's released
            code takes instead, likely by a slip of one. "pool" is the mean of the map, for networks without tokens.
        on: stage of the map, for "first_patch" and "pool".
        neck: between token and classifier: "none" (FED), "bnneck" (bias fixed at 0) or "bn".
        match: which side of the neck is matched: "after" or "before".
        inference: whether `embed` returns the slot.
        slot: its name.

    Raises:
        BuildError: the class token of a backbone that has none is asked for.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        token: Literal["cls", "first_patch", "pool"] = "cls",
        on: str | int = "last",
        neck: Literal["none", "bnneck", "bn"] = "none",
        match: Literal["after", "before"] = "after",
        inference: bool = True,
        slot: str = "global",
    ) -> None:
        super().__init__(info)
        if token == "cls" and info.class_token is None:
            raise BuildError(
                f"head '{info.name}' takes the class token, which this backbone does not have. Choose a transformer "
                "with one (vit_base_patch16_224, deit_small_patch16_224, …), or set token: pool."
            )
        self.token, self.stage, self.match, self.slot = token, info.stage_name(on), match, slot
        width = info.class_token if token == "cls" and info.class_token else info.stages[self.stage].channels
        self.neck = make_neck(width, neck)
        self.classifier = make_classifier(width, info.num_classes, bias=False) if info.num_classes else None
        self.info = HeadInfo(slots={slot: width}, inference_slots=(slot,) if inference else ())

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return the token, its embedding, and its logits."""
        token = self._take(features)
        necked = self.neck(token)
        output = HeadOutput(
            features={self.slot: token}, embeddings={self.slot: necked if self.match == "after" else token}
        )
        if self.classifier is not None:
            output.logits[self.slot] = self.classifier(necked)
        return output

    def _take(self, features: FeatureMaps) -> Tensor:
        if self.token == "pool":
            return pool(features[self.stage], "average")
        if self.token == "first_patch":
            return features[self.stage][:, :, 0, 0]
        if features.class_token is None:
            raise BuildError(
                f"head '{self.name}' takes the class token, which the backbone announced and did not give. "
                "Its forward() must return FeatureMaps(…, class_token=…)."
            )
        return features.class_token
