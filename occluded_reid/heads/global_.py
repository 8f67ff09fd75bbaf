"""The global branch: one embedding of the whole map, with aggregation maps for the SPC loss (SORN §III-C)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import nn

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, MapInfo, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import aggregation_maps, refined_pool
from occluded_reid.heads.base import Head, make_classifier, make_neck, pool
from occluded_reid.heads.source import map_source
from occluded_reid.registry import HEADS

__all__ = ["GlobalHead"]


@HEADS.register("global")
class GlobalHead(Head):
    """A pooled, normalised and classified map; with several channel sets also their maps M_n (SORN, BoT, OCNet).

    Args:
        info: what the builder knows.
        on: stage of the backbone.
        source: map of an earlier head instead, as "head.map": "center_focus.focused" (OCNet Table 2, row 2).
        num_sets: N channel sets of SORN Eq. 2; with more than one the map ``aggregation`` (N_batch, N, h, w) is given.
        set_width: c', channels of a set: T_g = a 1×1 convolution to N·c' channels, which the map ``projected`` holds.
            None: no convolution, the stage itself is pooled (BoT).
        total_width: N·c' in place of c', the same for any N. SORN leaves c' unsaid. "Extended from c to Nc'" asks for
            N·c' > 2048 and "the reduced number of channels in each set" for c' < 2048: of one c' both hold for N = 2,
            3 and 4 only between 1,025 and 2,047, of N·c' = 3,072 they hold with the 1,024 of N = 3 (a guess), and the
            embedding is equally wide whatever N is.
        convolution: "plain" (no bias, no activation) or "bn_relu".
        aggregate: A_n is the "sum" (Eq. 2) or the "mean" of its channels.
        neck: "bn" (SORN), "bnneck" (bias fixed at 0) or "none".
        match: which side of the neck is matched: "after" or "before".
        pooling: "average" or "max".
        attention: a map of an earlier head with one channel, as "head.map": the average is weighted by it (BPBreID's
            foreground embedding).
        slot: name of the slot.
        training_only: the slot is for losses alone; a model for use does not have the head (BPBreID).

    Raises:
        BuildError: several sets are asked for and the channels cannot be divided, there is no such stage or map, or the
            attention does not fit.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str | int = "last",
        source: str | None = None,
        num_sets: int = 1,
        set_width: int | None = None,
        total_width: int | None = None,
        convolution: Literal["plain", "bn_relu"] = "plain",
        aggregate: Literal["sum", "mean"] = "sum",
        neck: Literal["bn", "bnneck", "none"] = "bn",
        match: Literal["after", "before"] = "after",
        pooling: Literal["average", "max"] = "average",
        attention: str | None = None,
        slot: str = "global",
        training_only: bool = False,
    ) -> None:
        super().__init__(info)
        self.source, stage = map_source(info, on, source)
        self.match, self.pooling, self.slot = match, pooling, slot
        self.num_sets, self.aggregate = num_sets, aggregate
        if set_width and total_width:
            raise BuildError(
                f"head '{info.name}' is given set_width: {set_width} and total_width: {total_width}. Give one of the "
                "two: the channels of a set, or of all sets together."
            )
        width = total_width or (num_sets * set_width if set_width else stage.channels)
        self.attention = None if attention is None else _attention_source(info, attention, stage, pooling)
        rows, columns = (-(-side // stage.stride) for side in info.input_size)
        if width % num_sets or not 1 <= num_sets <= rows:
            raise BuildError(
                f"head '{info.name}' asks for {num_sets} channel sets: {width} channels must be divisible by it and "
                f"the map ({rows}×{columns}) must have as many rows. Change num_sets, set_width or total_width."
            )
        self.project = nn.Sequential()
        if set_width or total_width:
            self.project.append(nn.Conv2d(stage.channels, width, 1, bias=False))
            if convolution == "bn_relu":
                self.project.extend([nn.BatchNorm2d(width), nn.ReLU()])
        self.neck = make_neck(width, neck)
        self.classifier = make_classifier(width, info.num_classes, bias=neck != "bnneck") if info.num_classes else None
        maps = {"projected": MapInfo(width, stage.stride)} if set_width or total_width else {}
        if num_sets > 1:
            maps["aggregation"] = MapInfo(num_sets, stage.stride)
        self.info = HeadInfo(
            slots={slot: width},
            inference_slots=() if training_only else (slot,),
            maps=maps,
            training_only=training_only,
        )

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return the global feature, embedding, logits, and the maps M_n."""
        head, name = self.source
        grid = self.project(features[name] if head is None else context[head].maps[name])
        if self.attention is None:
            pooled = pool(grid, self.pooling)
        else:
            by, weights = self.attention
            pooled = refined_pool(grid, context[by].maps[weights], "weighted")[:, 0]
        necked = self.neck(pooled)
        output = HeadOutput(
            features={self.slot: pooled}, embeddings={self.slot: necked if self.match == "after" else pooled}
        )
        if self.project:
            output.maps["projected"] = grid
        if self.num_sets > 1:
            output.maps["aggregation"] = aggregation_maps(grid, self.num_sets, self.aggregate)
        if self.classifier is not None:
            output.logits[self.slot] = self.classifier(necked)
        return output


def _attention_source(info: BuildInfo, attention: str, stage: MapInfo, pooling: str) -> tuple[str, str]:
    """Head and name of the map that weighs the cells."""
    (head, name), given = map_source(info, "last", attention)
    if given != MapInfo(1, stage.stride) or pooling != "average":
        raise BuildError(
            f"head '{info.name}' weighs its average by {attention}, which has {given.channels} channels at stride "
            f"{given.stride}; it pools a map of stride {stage.stride} by '{pooling}'. Name a map of one channel and of "
            "that stride, with pooling: average."
        )
    return str(head), name
