"""The relational adaptive module: features corrected by what their relations say of them (OCNet §2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import correct_features, relation_vectors, relation_weights
from occluded_reid.heads.base import Head, make_classifier, make_neck
from occluded_reid.heads.source import read_features, slot_sources
from occluded_reid.registry import HEADS

__all__ = ["RelationHead"]


@HEADS.register("relation", aliases=("ram",))
class RelationHead(Head):
    """F_final = F_w ⊙ [f_g, f_t, f_b, f_c], with weights from two shared fully connected layers: slot ``final``.

    The paper says what the layers are for; their input, widths and activation are unsaid.

    Args:
        info: what the builder knows.
        heads: the heads whose slots are related, in the order of F_concat; all as wide as each other.
        reading: "pair": the layers see each ordered pair [f_i ; f_j], 2d → d/r → d, and the mean over j goes through
            the activation. "se": they see F_concat at once, K·d → K·d/r → K·d, as in squeeze and excitation.
        ratio: r; None is 2 for "pair" and 16 for "se".
        scalar: one weight for each feature, instead of one for each of its channels.
        activation: "sigmoid", "2sigmoid" (1 where the layers give 0) or "softmax" over the features times K.
        include_self: relate each feature with itself too ("pair" only).
        residual: 1 + F_w in place of F_w, so that no feature can vanish.
        use: what is made of the relations: "weights" as above, or the "vectors" ρ_i themselves, side by side in place
            of the features: the Relation Network that the paper compares with (Table 2, rows 5 and 6). `scalar`,
            `activation` and `residual` belong to the weights.
        slot: name of the slot.
        neck: "bnneck" (bias fixed at 0), "bn" or "none".
        match: which side of the neck is matched: "after" or "before".

    Raises:
        BuildError: a head does not come before this one or has no slot, the widths differ, or there are too few.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        heads: tuple[str, ...] = ("global", "top", "bottom", "center"),
        reading: Literal["pair", "se"] = "pair",
        ratio: Annotated[int, Field(ge=1)] | None = None,
        scalar: bool = False,
        activation: Literal["sigmoid", "2sigmoid", "softmax"] = "sigmoid",
        include_self: bool = False,
        residual: bool = False,
        use: Literal["weights", "vectors"] = "weights",
        slot: str = "final",
        neck: Literal["bnneck", "bn", "none"] = "bnneck",
        match: Literal["after", "before"] = "after",
    ) -> None:
        super().__init__(info)
        self.sources, width = slot_sources(info, heads, "relates")
        number = len(self.sources)
        if reading == "pair" and number < 2 and not include_self:
            raise BuildError(
                f"head '{info.name}' relates pairs, but heads: {list(heads)} give one feature. Name more heads, or set "
                "include_self: true or reading: se."
            )
        if include_self and reading == "se":
            raise BuildError(f"head '{info.name}': include_self is for reading: pair; 'se' has no pairs. Leave it out.")
        if use == "vectors" and (scalar or residual or activation != "sigmoid"):
            raise BuildError(
                f"head '{info.name}': scalar, activation and residual are about weights, and use: vectors has none. "
                "Leave them out."
            )
        seen, told = (2 * width, width) if reading == "pair" else (number * width, number * width)
        hidden = max(1, told // (ratio or (2 if reading == "pair" else 16)))
        weights = told // width if scalar else told
        self.relate = nn.Sequential(nn.Linear(seen, hidden), nn.ReLU(), nn.Linear(hidden, weights))
        self.reading, self.activation, self.use = reading, activation, use
        self.include_self, self.residual, self.slot, self.match = include_self, residual, slot, match
        total = number * width
        self.neck = make_neck(total, neck)
        self.classifier = make_classifier(total, info.num_classes, bias=neck != "bnneck") if info.num_classes else None
        self.info = HeadInfo(slots={slot: total}, inference_slots=(slot,))

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return F_final, its embedding, and logits.

        Raises:
            BuildError: a head gives no feature for its slot.
        """
        branches = torch.stack(read_features(self.name, context, self.sources, "relates"), dim=1)
        if self.use == "vectors":
            vectors = relation_vectors(branches, self.relate, reading=self.reading, include_self=self.include_self)
            final = vectors.flatten(1)
        else:
            weights = relation_weights(
                branches, self.relate, reading=self.reading, activation=self.activation, include_self=self.include_self
            )
            final = correct_features(branches, weights, self.residual)
        necked = self.neck(final)
        output = HeadOutput(
            features={self.slot: final}, embeddings={self.slot: necked if self.match == "after" else final}
        )
        if self.classifier is not None:
            output.logits[self.slot] = self.classifier(necked)
        return output
