"""The local branch: one embedding for each horizontal stripe (SORN §III-B, after PCB)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import nn

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
        num_parts: P, at most the rows of the map (SORN: 3).
        reduction: width after a 1×1 convolution with BN and ReLU of each part's own; None keeps the stage's channels
            (SORN states no reduction).
        neck: "bn" (SORN, after Xiong et al. 2018), "bnneck" (bias fixed at 0), or "none".
        match: which side of the neck is matched: "after" or "before".
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
        neck: Literal["bn", "bnneck", "none"] = "bn",
        match: Literal["after", "before"] = "after",
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
        self.info = HeadInfo(slots=dict.fromkeys(names, width), inference_slots=names)
        self.reductions = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
            for _ in names
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
        output = HeadOutput()
        for i, (name, (start, stop)) in enumerate(
            zip(self.info.slots, bands(grid.shape[2], len(self.necks)), strict=True)
        ):
            pooled = pool(grid[:, :, start:stop], self.pooling)
            if self.reductions:
                pooled = self.reductions[i](pooled[:, :, None, None]).flatten(1)
            necked = self.necks[i](pooled)
            output.features[name] = pooled
            output.embeddings[name] = necked if self.match == "after" else pooled
            if self.classifiers:
                output.logits[name] = self.classifiers[i](necked)
        return output
