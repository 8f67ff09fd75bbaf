"""One embedding for each body region, weighted by the region's probability map (SGAM §3.2-3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import region_pool, region_visibility
from occluded_reid.functional.regions import VISIBLE_FROM, RegionMode, named_values
from occluded_reid.heads.base import Head, make_classifier, make_neck
from occluded_reid.heads.source import map_source
from occluded_reid.registry import HEADS, did_you_mean

__all__ = ["RegionPoolingHead"]

Share = Annotated[float, Field(ge=0, le=1)]


@HEADS.register("region_pooling")
class RegionPoolingHead(Head):
    """Pools a stage under each map of ``regions``; a slot and its visibility for each body region.

    Each region: weighted pooling (Eq. 3) → 1×1 convolution of its own → neck → classifier. The slots are named after
    the parser's regions (head, upper_body, lower_body, shoes).

    Args:
        info: what the builder knows.
        on: stage of the backbone.
        source: map of an earlier head instead, as "head.map". "global.projected" is what the 1×1 convolution of the
            head `global` gives: with `reduction` None all five features then go through that one convolution, as the
            paper's "a 1×1 convolutional layer" can be read; it changes places with the pooling, both being linear.
        denominator: of Eq. 3: the sum of the "pooled" map, or of the "full" one, S_i as it is printed, which shrinks
            the features by the factor of the pooling.
        regions: the head before this one that gives the map ``regions``.
        reduction: width after the 1×1 convolution (SGAM: 256); None keeps the stage's channels.
        dropout: share that is dropped before the convolution, and again before the classifier (PGFA: 0.5).
        neck: "bn" (unsaid by SGAM, PGFA has it), "bnneck" (bias fixed at 0), or "none".
        match: what is matched: "after" the neck, "before" it, or the feature as "pooled", before the convolution
            (unsaid by SGAM).
        visibility: what a region's visibility is measured against, see `region_visibility` (unsaid by SGAM).
        reference: q_i, the usual share of an image that each region covers, for "ref" and "binary": a list in the
            order of the regions, or by name. None asks the parser, which has measured it on its training images.
        threshold: t_i of "binary", one for all regions, a list, or by name; None is 0.2 there.

    Raises:
        BuildError: no head before this one gives a map that is named, or visibility, reference and threshold do not
            fit it.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str | int = "last",
        source: str | None = None,
        regions: str = "regions",
        denominator: Literal["pooled", "full"] = "pooled",
        reduction: int | None = 256,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        neck: Literal["bn", "bnneck", "none"] = "bn",
        match: Literal["after", "before", "pooled"] = "after",
        visibility: RegionMode = "ref",
        reference: tuple[Share, ...] | dict[str, Share] | None = None,
        threshold: Share | tuple[Share, ...] | dict[str, Share] | None = None,
    ) -> None:
        super().__init__(info)
        self.source, given = map_source(info, on, source)
        self.regions, self.match, self.denominator = regions, match, denominator
        names = _region_names(info, regions)
        self._parser = (info.parser,)  # in a tuple: no submodule, it belongs to the preprocessing
        self.mode = visibility
        self.reference: tuple[float, ...] | None = None
        self.threshold: tuple[float, ...] | None = None
        if visibility in ("ref", "binary"):
            self.reference = _known_reference(info, names, visibility, reference)
        elif reference is not None:
            raise BuildError(f"head '{info.name}': visibility '{visibility}' takes no reference. Remove it.")
        if visibility == "binary":
            limits = VISIBLE_FROM if threshold is None else threshold
            self.threshold = named_values(limits, names, f"head '{info.name}': threshold")
        elif threshold is not None:
            raise BuildError(
                f"head '{info.name}': visibility '{visibility}' takes no threshold; those of Eq. 5 belong to the loss "
                "'visible_part'. Remove it, or set visibility: binary."
            )
        channels = given.channels
        width = reduction or channels
        matched = channels if match == "pooled" else width
        self.info = HeadInfo(slots=dict.fromkeys(names, matched), inference_slots=names, visibility_of=names)
        self.dropout = nn.Dropout(dropout)
        # A 1×1 convolution of a pooled vector is a linear map.
        self.reductions = nn.ModuleList(nn.Linear(channels, width, bias=False) for _ in names if reduction)
        self.necks = nn.ModuleList(make_neck(width, neck) for _ in names)
        self.classifiers = nn.ModuleList(
            make_classifier(width, info.num_classes, bias=neck != "bnneck") for _ in names if info.num_classes
        )

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return features, embeddings, visibility and logits of each region."""
        head, name = self.source
        maps = context[self.regions].maps["regions"]
        grid = features[name] if head is None else context[head].maps[name]
        pooled = region_pool(grid, maps, self.denominator)
        visible = self.visibility_of_maps(maps, (grid.shape[2], grid.shape[3]))
        output = HeadOutput()
        for i, name in enumerate(self.info.slots):
            reduced = self.dropout(pooled[:, i])
            if self.reductions:
                reduced = self.reductions[i](reduced)
            necked = self.necks[i](reduced)
            output.features[name] = reduced
            output.embeddings[name] = {"after": necked, "before": reduced, "pooled": pooled[:, i]}[self.match]
            output.visibility[name] = visible[:, i]
            if self.classifiers:
                output.logits[name] = self.classifiers[i](self.dropout(necked))
        return output

    @torch.no_grad()
    def visibility_of_maps(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        """Turn region maps (N, R, H, W) into visibility (N, R); `size` is that of the map that is pooled."""
        reference: tuple[float, ...] | Tensor | None = None
        if self.mode in ("ref", "binary"):
            # Asked each time: weights may be loaded after the model is built.
            reference = self.reference or _reference_of(self._parser[0])
        return region_visibility(
            maps,
            self.mode,
            reference,
            threshold=self.threshold,
            pooled_size=size if self.mode == "peak" else None,
        )


def _known_reference(
    info: BuildInfo, names: tuple[str, ...], mode: str, given: tuple[float, ...] | dict[str, float] | None
) -> tuple[float, ...] | None:
    """The q_i that the recipe gives, or None where the parser will be asked for them; one of the two must be there."""
    if given is not None:
        return named_values(given, names, f"head '{info.name}': reference")
    known = _reference_of(info.parser)
    if known is None or known.shape != (len(names),):
        raise BuildError(
            f"head '{info.name}': visibility '{mode}' is measured against the usual size of each region, and the "
            f"parser ({type(info.parser).__name__}) does not know it for {len(names)} regions. Give reference: […], "
            "the share of an image that each region covers, or another visibility."
        )
    return None


def _reference_of(parser: nn.Module | None) -> Tensor | None:
    """The parser's own q_i, where it has any."""
    known = getattr(parser, "reference", None)
    return known if isinstance(known, Tensor) else None


def _region_names(info: BuildInfo, head: str) -> tuple[str, ...]:
    """The parser's names, or numbers where the maps come from elsewhere."""
    if head not in info.heads or "regions" not in info.heads[head].maps:
        giving = [name for name, known in info.heads.items() if "regions" in known.maps]
        raise BuildError(
            f"head '{info.name}' pools under the map 'regions' of head '{head}', which does not come before it or "
            f"gives no such map.{did_you_mean(head, giving)} Heads with that map: {', '.join(giving) or 'none'}. "
            "Put a head of type 'regions' before it, or name another in its option 'regions'."
        )
    count = info.heads[head].maps["regions"].channels
    if info.parser is not None and len(info.parser.names) == count:
        return tuple(info.parser.names)
    return tuple(f"region_{i}" for i in range(1, count + 1))
