"""Occlusion erasing: each part is weighed by a predicted score of being visible (FED, Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, MapInfo, Targets
from occluded_reid.errors import BuildError, MaskError
from occluded_reid.functional import bands, occlusion_stripes
from occluded_reid.heads.base import Head, make_classifier, make_neck
from occluded_reid.registry import HEADS

__all__ = ["ErasingInfo", "OcclusionErasingHead", "PartNorms", "mask_scores"]


class PartNorms(nn.Module):
    """One batch normalisation for each part, with its bias fixed at 0 (BNNeck).

    Args:
        parts: P.
        width: C.
        views: "apart" normalises the clean and the occluded views of a batch in two passes, the clean ones first, each
            with the statistics of its own view; "joint" together. The running statistics, which inference uses, take
            in both passes in turn, or one.
    """

    def __init__(self, parts: int, width: int, views: Literal["joint", "apart"] = "apart") -> None:
        super().__init__()
        self.norms = nn.ModuleList(make_neck(width, "bnneck") for _ in range(parts))
        self.views = views

    def forward(self, features: Tensor, targets: Targets | None = None) -> Tensor:
        """Return the parts (N, P, C) normalised."""
        view = None if targets is None or not self.training or self.views == "joint" else targets.view
        if view is None:
            return self._normalize(features)
        passes = [rows for number in (0, 1) if len(rows := (view == number).nonzero()[:, 0])]
        normalized = torch.cat([self._normalize(features[rows]) for rows in passes])
        return normalized[torch.cat(passes).argsort()]

    def _normalize(self, features: Tensor) -> Tensor:
        return torch.stack([norm(features[:, p]) for p, norm in enumerate(self.norms)], dim=1)


@dataclass(frozen=True)
class ErasingInfo(HeadInfo):
    """What the heads behind an erasing head may know of it.

    Attributes:
        parts: P.
        width: C, channels of a part.
        norms: the norms of the parts, to be shared. In a tuple, so that a head that holds it does not own them.
    """

    parts: int = 0
    width: int = 0
    norms: tuple[PartNorms, ...] = field(default=(), repr=False, compare=False)


@HEADS.register("occlusion_erasing")
class OcclusionErasingHead(Head):
    """P parts, each weighed by its score, normalised, concatenated and classified: slot ``erased``.

    F_p is the mean of a map over band p; s_p = σ(W₂ LN(W₁ F_p)), with weights of its own for each part;
    z_p = BN_p(s_p F_p), and z = [z_1 … z_P] is what is matched, at visibility 1, as the scores are inside it.
    The map ``scores`` (N, P, 1, 1) hands s to losses and to later heads.

    Args:
        info: what the builder knows.
        on: stage of the backbone.
        parts: P, at most the rows of the map (FED: 4).
        reduction: W₁ narrows C to C / reduction (FED: 768 to 192).
        erase: "soft" multiplies by s; "hard" by 1 where s ≥ ½ and by 0 elsewhere; "none" leaves features as they are.
        scores: what erases in training: the "predicted" s (FED), or the occluder's true "mask" m. At inference it is s.
        slots: "whole" (FED), or "per_part": slots part_1 … part_P with visibility s. That is another metric than
            FED's, and ours.
        bn_views: "apart" or "joint": whether clean and occluded views share one pass of batch normalisation. The
            authors' code runs them apart.

    Raises:
        BuildError: the map has fewer rows than parts, or too few channels to reduce.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str | int = "last",
        parts: int = 4,
        reduction: Annotated[int, Field(ge=1)] = 4,
        erase: Literal["soft", "hard", "none"] = "soft",
        scores: Literal["predicted", "mask"] = "predicted",
        slots: Literal["whole", "per_part"] = "whole",
        bn_views: Literal["joint", "apart"] = "apart",
    ) -> None:
        super().__init__(info)
        self.stage, self.parts, self.erase, self.scores = info.stage_name(on), parts, erase, scores
        stage = info.stages[self.stage]
        self.rows, columns = info.map_size(self.stage)
        if not 1 <= parts <= self.rows:
            raise BuildError(
                f"head '{info.name}' cuts {self.stage} into {parts} parts, but for images of "
                f"{info.input_size[0]}×{info.input_size[1]} that map is {self.rows}×{columns}. "
                "Use fewer parts, taller images, or last_stride: 1."
            )
        width, hidden = stage.channels, stage.channels // reduction
        if hidden < 1:
            raise BuildError(f"head '{info.name}': {width} channels cannot be reduced {reduction} times. Lower it.")
        if scores == "mask":
            require_whole_rows(info, self.rows)
        self.scorers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.Linear(hidden, 1), nn.Sigmoid())
            for _ in range(parts)
        )
        self.norms = PartNorms(parts, width, bn_views)
        self.classifier = make_classifier(parts * width, info.num_classes, bias=False) if info.num_classes else None
        self.per_part = tuple(f"part_{p}" for p in range(1, parts + 1)) if slots == "per_part" else ()
        given = dict.fromkeys(self.per_part, width) if self.per_part else {"erased": parts * width}
        self.info = ErasingInfo(
            slots=given,
            inference_slots=tuple(given),
            maps={"scores": MapInfo(parts, stage.stride)},
            visibility_of=self.per_part,
            parts=parts,
            width=width,
            norms=(self.norms,),
        )

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return the erased features, their embedding z, its logits, and the scores."""
        pooled = self.pooled(features)
        scores = torch.cat([scorer(pooled[:, p]) for p, scorer in enumerate(self.scorers)], dim=1)
        erased = pooled * self._weights(scores, targets)[:, :, None]
        normalized = self.norms(erased, targets)
        output = HeadOutput(maps={"scores": scores[:, :, None, None]})
        if self.per_part:
            for p, name in enumerate(self.per_part):
                output.features[name], output.embeddings[name] = erased[:, p], normalized[:, p]
                output.visibility[name] = scores[:, p].detach()
        else:
            output.features["erased"], output.embeddings["erased"] = erased.flatten(1), normalized.flatten(1)
        if self.classifier is not None:
            output.logits["erased"] = self.classifier(normalized.flatten(1))
        return output

    def pooled(self, features: FeatureMaps) -> Tensor:
        """Return F (N, P, C), the mean of the map over each band."""
        grid = features[self.stage]
        edges = bands(grid.shape[2], self.parts)
        return torch.stack([grid[:, :, start:stop].mean((2, 3)) for start, stop in edges], dim=1)

    def initial_embeddings(self, features: FeatureMaps) -> Tensor:
        """Return [BN_1(F_1) … BN_P(F_P)], without scores: what the memory starts from."""
        normalized: Tensor = self.norms(self.pooled(features))
        return normalized.flatten(1)

    def _weights(self, scores: Tensor, targets: Targets | None) -> Tensor:
        if self.erase == "none":
            return torch.ones_like(scores)
        if self.training and self.scores == "mask":
            return mask_scores(self.name, targets, self.parts, self.rows).to(scores.dtype)
        return (scores >= 0.5).to(scores.dtype) if self.erase == "hard" else scores


def mask_scores(name: str, targets: Targets | None, parts: int, rows: int) -> Tensor:
    """Return m (N, P), 1 where a part is not occluded, from the masks of pasted occluders.

    Raises:
        MaskError: the batch carries none.
    """
    if targets is None or targets.occlusion_mask is None:
        raise MaskError(
            f"head '{name}' takes its scores from occlusion masks, and this batch has none. Paste occluders in "
            "data.augment (npo, occlude), or set scores: predicted."
        )
    return occlusion_stripes(targets.occlusion_mask, parts, rows=rows)


def require_whole_rows(info: BuildInfo, rows: int) -> None:
    """Raise BuildError unless a row of the map is a whole number of pixels, so that masks can be laid over it."""
    if info.input_size[0] % rows:
        raise BuildError(
            f"head '{info.name}' lays masks of {info.input_size[0]} rows over a map of {rows} rows. "
            "Give the images a height that is a multiple of it."
        )
