"""The local branch: one embedding for each horizontal stripe (PCB, and SORN §III-B after it)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import bands
from occluded_reid.heads.base import Head, make_classifier, make_neck, pool
from occluded_reid.registry import HEADS

__all__ = ["LocalHead"]


@HEADS.register("local")
class LocalHead(Head):
    """P horizontal stripes of a map, each pooled, normalised and classified on its own: slots part_1 … part_P.

    Args:
        info: what the builder knows.
        on: stage of the backbone.
        num_parts: P, at most the rows of the map (SORN: 3, PCB: 6).
        reduction: width after a 1×1 convolution with BN and ReLU (PCB: 256); None keeps the stage's channels (SORN
            states no reduction).
        shared_reduction: one convolution for all parts (PCB) instead of one for each.
        dropout: share of the pooled feature that is dropped before the reduction (PCB: 0.5).
        neck: "bn" (SORN, after Xiong et al. 2018), "bnneck" (bias fixed at 0), or "none".
        match: what is matched: "after" the neck, "before" it, or the feature as "pooled", before dropout and
            reduction (PCB).
        pooling: "average" (SORN Eq. 1) or "max".

    Raises:
        BuildError: the map has fewer rows than parts.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str | int = "last",
        num_parts: int = 3,
        reduction: int | None = None,
        shared_reduction: bool = False,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        neck: Literal["bn", "bnneck", "none"] = "bn",
        match: Literal["after", "before", "pooled"] = "after",
        pooling: Literal["average", "max"] = "average",
    ) -> None:
        super().__init__(info)
        self.stage, self.match, self.pooling = info.stage_name(on), match, pooling
        rows, columns = info.map_size(self.stage)
        if not 1 <= num_parts <= rows:
            raise BuildError(
                f"head '{info.name}' cuts {self.stage} into {num_parts} stripes, but for images of "
                f"{info.input_size[0]}×{info.input_size[1]} that map is {rows}×{columns}. "
                "Use fewer parts, taller images, or last_stride: 1."
            )
        channels = info.stages[self.stage].channels
        width = reduction or channels
        names = tuple(f"part_{p}" for p in range(1, num_parts + 1))
        matched = channels if match == "pooled" else width
        self.info = HeadInfo(slots=dict.fromkeys(names, matched), inference_slots=names)
        self.dropout = nn.Dropout(dropout)
        self.reductions = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
            for _ in names[: 1 if shared_reduction else num_parts]
            if reduction
        )
        self.necks = nn.ModuleList(make_neck(width, neck) for _ in names)
        self.classifiers = nn.ModuleList(
            make_classifier(width, info.num_classes, bias=neck != "bnneck") for _ in names if info.num_classes
        )

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return features, embeddings and logits of each part."""
        grid = features[self.stage]
        stripes = bands(grid.shape[2], len(self.necks))
        pooled = [pool(grid[:, :, start:stop], self.pooling) for start, stop in stripes]
        reduced = self._reduce([self.dropout(part) for part in pooled])
        output = HeadOutput()
        for i, name in enumerate(self.info.slots):
            necked = self.necks[i](reduced[i])
            output.features[name] = reduced[i]
            output.embeddings[name] = {"after": necked, "before": reduced[i], "pooled": pooled[i]}[self.match]
            if self.classifiers:
                output.logits[name] = self.classifiers[i](necked)
        return output

    def _reduce(self, parts: list[Tensor]) -> list[Tensor]:
        if not self.reductions:
            return parts
        if len(self.reductions) == 1:
            # As one map with a part a row: the shared batch normalisation sees all parts of the batch together.
            rows = torch.stack(parts, 2)[..., None]
            return list(self.reductions[0](rows)[..., 0].unbind(2))
        return [reduce(part[:, :, None, None]).flatten(1) for reduce, part in zip(self.reductions, parts, strict=True)]
