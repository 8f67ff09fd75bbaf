"""The local branch: one embedding for each stripe (PCB, and SORN §III-B after it), or each refined part (PCB)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, MapInfo, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import bands, part_probabilities, refined_pool
from occluded_reid.heads.base import Head, make_classifier, make_neck, pool
from occluded_reid.registry import HEADS

__all__ = ["LocalHead"]

_GROUP = 8  # channels that PCB's released code averages before it assigns a column to the parts


@HEADS.register("local")
class LocalHead(Head):
    """P horizontal stripes of a map, each pooled, normalised and classified on its own: slots part_1 … part_P.

    With the partition "refined" the parts are no stripes: a part classifier W says of every column f of the map how
    likely it belongs to each, P(f ∈ P_i) = softmax_i(W_iᵀ f), and part i pools all columns by that (PCB, §3). They
    keep the order of the stripes only if the rest of the head was trained with stripes first. The map ``parts`` (N, P,
    h, w) holds the probabilities.

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
        partition: "uniform" stripes, or "refined" parts (PCB's second stage).
        refined_pooling: of refined parts, the "mean" over all places or the "weighted" mean, see `refined_pool`.
        columns: what the part classifier sees of a column: "plain", f itself (the paper); "centred", as the authors'
            code: after dropout, averaged over groups of eight channels, less its mean over the map, and with a bias.

    Raises:
        BuildError: the map has fewer rows than parts, or the options of refined parts do not fit.
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
        partition: Literal["uniform", "refined"] = "uniform",
        refined_pooling: Literal["mean", "weighted"] = "mean",
        columns: Literal["plain", "centred"] = "plain",
    ) -> None:
        super().__init__(info)
        self.stage, self.match, self.pooling = info.stage_name(on), match, pooling
        rows, width_of_map = info.map_size(self.stage)
        if not 1 <= num_parts <= rows:
            raise BuildError(
                f"head '{info.name}' cuts {self.stage} into {num_parts} stripes, but for images of "
                f"{info.input_size[0]}×{info.input_size[1]} that map is {rows}×{width_of_map}. "
                "Use fewer parts, taller images, or last_stride: 1."
            )
        channels = info.stages[self.stage].channels
        width = reduction or channels
        names = tuple(f"part_{p}" for p in range(1, num_parts + 1))
        matched = channels if match == "pooled" else width
        stride = info.stages[self.stage].stride
        maps = {"parts": MapInfo(num_parts, stride)} if partition == "refined" else {}
        self.info = HeadInfo(slots=dict.fromkeys(names, matched), inference_slots=names, maps=maps)
        self.refined_pooling, self.columns = refined_pooling, columns
        self.part_classifier = self._make_part_classifier(channels, num_parts) if partition == "refined" else None
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
        output = HeadOutput()
        if self.part_classifier is None:
            stripes = bands(grid.shape[2], len(self.necks))
            pooled = [pool(grid[:, :, start:stop], self.pooling) for start, stop in stripes]
        else:
            output.maps["parts"] = self._assign(grid, self.part_classifier)
            pooled = list(refined_pool(grid, output.maps["parts"], self.refined_pooling).unbind(1))
        reduced = self._reduce([self.dropout(part) for part in pooled])
        for i, name in enumerate(self.info.slots):
            necked = self.necks[i](reduced[i])
            output.features[name] = reduced[i]
            output.embeddings[name] = {"after": necked, "before": reduced[i], "pooled": pooled[i]}[self.match]
            if self.classifiers:
                output.logits[name] = self.classifiers[i](necked)
        return output

    def _make_part_classifier(self, channels: int, parts: int) -> nn.Linear:
        if self.pooling != "average":
            raise BuildError(f"head '{self.name}' refines parts by an average; pooling: {self.pooling} has none.")
        if self.columns == "centred" and channels % _GROUP:
            raise BuildError(
                f"head '{self.name}' averages groups of {_GROUP} channels, and {self.stage} has {channels}. "
                "Set columns: plain."
            )
        width = channels // _GROUP if self.columns == "centred" else channels
        # With small weights every column belongs to every part alike at the start, and chance does not decide.
        return make_classifier(width, parts, bias=self.columns == "centred")

    def _assign(self, grid: Tensor, classifier: nn.Linear) -> Tensor:
        """P(f ∈ P_i) at each place, (N, P, h, w)."""
        if self.columns == "centred":
            count, channels, rows, width = grid.shape
            grid = self.dropout(grid).view(count, channels // _GROUP, _GROUP, rows, width).mean(2)
            grid = grid - grid.mean((2, 3), keepdim=True)
        return part_probabilities(grid, classifier.weight, classifier.bias)

    def _reduce(self, parts: list[Tensor]) -> list[Tensor]:
        if not self.reductions:
            return parts
        if len(self.reductions) == 1:
            # As one map with a part a row: the shared batch normalisation sees all parts of the batch together.
            rows = torch.stack(parts, 2)[..., None]
            return list(self.reductions[0](rows)[..., 0].unbind(2))
        return [reduce(part[:, :, None, None]).flatten(1) for reduce, part in zip(self.reductions, parts, strict=True)]
