"""Body parts found by a pixel-wise classifier, one embedding for each (BPBreID)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, MapInfo, Targets
from occluded_reid.functional import refined_pool
from occluded_reid.heads.base import Head
from occluded_reid.heads.source import map_source
from occluded_reid.registry import HEADS

__all__ = ["PartAttentionHead"]


@HEADS.register("part_attention")
class PartAttentionHead(Head):
    """Slots part_1 … part_K, each the mean of a map's cells weighted by how likely they show that part (BPBreID §3).

    M = softmax(1×1 convolution of G to K + 1 classes), class 0 the background; f_k = Σ M_k G / Σ M_k over the cells.
    The parts have neither neck nor classifier: GiLt gives them a triplet loss alone, and identities to the whole.

    Maps: ``segmentation`` (N, K + 1, h, w), the logits, for the loss `segmentation`; ``parts`` (N, K, h, w), M without
    the background; ``foreground`` (N, 1, h, w), for the head `global` with ``attention: NAME.foreground``.

    Args:
        info: what the builder knows.
        on: stage of the backbone, G.
        source: map of an earlier head instead, as "head.map".
        classes: K + 1, those of the part masks: 8, 5 or 2 (see the head `semantic`; the paper's masks have other ones).
        visibility: of part k, from the greatest M_k of the image: whether it is above the threshold ("binary"), or
            that number itself ("soft").
        threshold: λ_v of "binary".
        foreground: the "max" of the parts at each place, or their "sum".
        reduction: width after a linear layer with BN and ReLU of each part's own, after the pooling (a guess); None
            keeps the channels of the map.

    Raises:
        BuildError: there is no such stage or map.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str | int = "last",
        source: str | None = None,
        classes: Literal[8, 5, 2] = 8,
        visibility: Literal["binary", "soft"] = "binary",
        threshold: Annotated[float, Field(ge=0, lt=1)] = 0.4,
        foreground: Literal["max", "sum"] = "max",
        reduction: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        super().__init__(info)
        self.source, given = map_source(info, on, source)
        self.visibility, self.threshold, self.foreground = visibility, threshold, foreground
        self.classify = nn.Conv2d(given.channels, classes, 1)
        nn.init.normal_(self.classify.weight, std=0.001)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]
        names = tuple(f"part_{k}" for k in range(1, classes))
        width = reduction or given.channels
        self.reductions = nn.ModuleList(
            nn.Sequential(nn.Linear(given.channels, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())
            for _ in names
            if reduction
        )
        channels = {"segmentation": classes, "parts": classes - 1, "foreground": 1}
        self.info = HeadInfo(
            slots=dict.fromkeys(names, width),
            inference_slots=names,
            maps={name: MapInfo(count, given.stride) for name, count in channels.items()},
            visibility_of=names,
        )

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return feature, embedding and visibility of each part, and the maps."""
        head, name = self.source
        grid = features[name] if head is None else context[head].maps[name]
        logits = self.classify(grid)
        parts = logits.softmax(1)[:, 1:]
        foreground = parts.amax(1, keepdim=True) if self.foreground == "max" else parts.sum(1, keepdim=True)
        output = HeadOutput(maps={"segmentation": logits, "parts": parts, "foreground": foreground})
        pooled, seen = refined_pool(grid, parts, "weighted"), self.visibility_of_parts(parts)
        for k, slot in enumerate(self.info.slots):
            vector = self.reductions[k](pooled[:, k]) if self.reductions else pooled[:, k]
            output.features[slot] = output.embeddings[slot] = vector
            output.visibility[slot] = seen[:, k]
        return output

    @torch.no_grad()
    def visibility_of_parts(self, parts: Tensor) -> Tensor:
        """Turn the parts' maps (N, K, h, w) into their visibility (N, K)."""
        highest = parts.amax((2, 3))
        return highest if self.visibility == "soft" else (highest > self.threshold).to(highest.dtype)
