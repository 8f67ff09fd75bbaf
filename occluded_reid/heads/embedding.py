"""The embedding that a network brings along, as a slot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.heads.base import Head, make_classifier, make_neck
from occluded_reid.registry import HEADS

__all__ = ["EmbeddingHead"]


@HEADS.register("embedding")
class EmbeddingHead(Head):
    """One slot: the vector that the backbone itself gives, such as that of a frozen network.

    Args:
        info: what the builder knows.
        vector: name of the one that is taken; None takes the last.
        neck: between vector and classifier: "none", "bn" or "bnneck" (bias fixed at 0).
        match: which side of the neck is matched: "after" or "before".
        slot: name of the slot.

    Raises:
        BuildError: the backbone gives no vector.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        vector: str | None = None,
        neck: Literal["none", "bn", "bnneck"] = "none",
        match: Literal["after", "before"] = "after",
        slot: str = "global",
    ) -> None:
        super().__init__(info)
        if not info.vectors or vector not in (None, *info.vectors):
            named = "own embedding" if vector is None else f"vector '{vector}'"
            raise BuildError(
                f"head '{info.name}' takes the backbone's {named}, and this backbone gives "
                f"{', '.join(info.vectors) or 'none'}. Take 'global', which pools a map; or, of a frozen network, name "
                "its vector in model.backbone.options.outputs."
            )
        self.vector = list(info.vectors)[-1] if vector is None else vector
        width = info.vectors[self.vector]
        self.match, self.slot = match, slot
        self.neck = make_neck(width, neck)
        # Without a neck and frozen below, a classifier would be all that learns: it is there only where a neck is.
        learns = info.num_classes is not None and neck != "none"
        self.classifier = make_classifier(width, info.num_classes or 0, bias=neck == "bn") if learns else None
        self.info = HeadInfo(slots={slot: width}, inference_slots=(slot,))

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return the vector, its embedding, and its logits."""
        vector = features.vectors.get(self.vector)
        if vector is None:
            raise BuildError(
                f"head '{self.name}' takes the vector '{self.vector}', which the backbone announced and did not give. "
                "Its forward() must return FeatureMaps(…, vectors={…})."
            )
        necked = self.neck(vector)
        output = HeadOutput(
            features={self.slot: vector}, embeddings={self.slot: necked if self.match == "after" else vector}
        )
        if self.classifier is not None:
            output.logits[self.slot] = self.classifier(necked)
        return output
