"""The converter module: one branch's feature from a map, by a grouped convolution and pooling (OCNet §2.1)."""

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
from occluded_reid.heads.source import map_source
from occluded_reid.registry import HEADS

__all__ = ["ConverterHead"]


@HEADS.register("converter")
class ConverterHead(Head):
    """Map → grouped convolution → BN → ReLU → pooling → f_k: one slot, named after the head.

    OCNet says that a grouped convolution reduces the channels, and no more; all numbers here are guesses with a reason:
    width 512, because four such features are as wide as the backbone's; 32 groups, after ResNeXt.

    Args:
        info: what the builder knows.
        on: stage of the backbone, F_BB.
        source: map of an earlier head instead, as "head.map": "center_focus.focused".
        part: [p, P] takes band p of P, counted from 1 at the top: [1, 2] is the upper half. None takes the whole map.
        width: d.
        groups: of the convolution; has to divide the map's channels and d.
        kernel: side of the convolution, 1 or 3.
        activation: "relu", or "none"; only with "none" can the separation loss fall below the number of parts.
        reading: "conv", or "group_max": d groups of neighbouring channels, of each the largest, in place of the
            convolution and without parameters ("reduces channels based on the high response of channels"). `groups` and
            `kernel` belong to the convolution.
        pooling: "average", "max", or "gem" (generalised mean with a learnt exponent, 3 at the start).
        classify: whether an identity loss works on it: then it gets neck and classifier (f_g and f_c; f_t, f_b do not).
        neck: "bnneck" (bias fixed at 0), "bn" or "none"; None: "bnneck" where it classifies, "none" elsewhere.
        match: which side of the neck is the embedding: "after" or "before".
        inference: whether `embed` returns the slot.

    Raises:
        BuildError: there is no such stage or map, P exceeds its rows, or groups or d do not divide the channels.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str | int = "last",
        source: str | None = None,
        part: tuple[int, int] | None = None,
        width: Annotated[int, Field(ge=1)] = 512,
        groups: Annotated[int, Field(ge=1)] = 32,
        kernel: Literal[1, 3] = 1,
        activation: Literal["relu", "none"] = "relu",
        reading: Literal["conv", "group_max"] = "conv",
        pooling: Literal["average", "max", "gem"] = "average",
        classify: bool = False,
        neck: Literal["bnneck", "bn", "none"] | None = None,
        match: Literal["after", "before"] = "after",
        inference: bool = False,
    ) -> None:
        super().__init__(info)
        self.source, given = map_source(info, on, source)
        channels, rows = given.channels, -(-info.input_size[0] // given.stride)
        if part is not None and not 1 <= part[0] <= part[1] <= rows:
            raise BuildError(
                f"head '{info.name}' takes part {list(part)} of a map with {rows} rows; give [p, P] with p from 1 to P "
                f"and P at most {rows}, such as [1, 2] for the upper half."
            )
        self.part, self.pooling, self.match = part, pooling, match
        self.convert = nn.Sequential(
            _convolution(info.name, channels, width, groups, kernel)
            if reading == "conv"
            else _group_max(info.name, channels, width),
            nn.BatchNorm2d(width),
        )
        if activation == "relu":
            self.convert.append(nn.ReLU())
        self.exponent = nn.Parameter(torch.tensor(3.0)) if pooling == "gem" else None
        kind = neck or ("bnneck" if classify else "none")
        self.neck = make_neck(width, kind)
        self.classifier = (
            make_classifier(width, info.num_classes, bias=kind != "bnneck") if classify and info.num_classes else None
        )
        self.info = HeadInfo(slots={info.name: width}, inference_slots=(info.name,) if inference else ())

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return the branch's feature, embedding, and logits where it classifies."""
        head, name = self.source
        grid = features[name] if head is None else context[head].maps[name]
        if self.part is not None:
            start, stop = bands(grid.shape[2], self.part[1])[self.part[0] - 1]
            grid = grid[:, :, start:stop]
        converted = self.convert(grid)
        pooled = pool(converted, self.pooling) if self.exponent is None else _generalised_mean(converted, self.exponent)
        necked = self.neck(pooled)
        output = HeadOutput(
            features={self.name: pooled}, embeddings={self.name: necked if self.match == "after" else pooled}
        )
        if self.classifier is not None:
            output.logits[self.name] = self.classifier(necked)
        return output


class _GroupMax(nn.Module):
    """The largest of each of d groups of neighbouring channels: (N, C, h, w) to (N, d, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, grid: Tensor) -> Tensor:
        count, _, rows, columns = grid.shape
        return grid.reshape(count, self.width, -1, rows, columns).amax(2)


def _convolution(name: str, channels: int, width: int, groups: int, kernel: int) -> nn.Conv2d:
    if channels % groups or width % groups:
        fitting = [n for n in range(1, min(channels, width) + 1) if channels % n == width % n == 0]
        raise BuildError(
            f"head '{name}' convolves {channels} channels to width {width} in {groups} groups, which do not divide "
            f"both. groups may be {', '.join(map(str, fitting))}; or change width."
        )
    return nn.Conv2d(channels, width, kernel, padding=kernel // 2, groups=groups, bias=False)


def _group_max(name: str, channels: int, width: int) -> _GroupMax:
    if channels % width:
        fitting = [n for n in range(1, channels + 1) if channels % n == 0]
        raise BuildError(
            f"head '{name}' takes the largest of each of {width} groups of {channels} channels, which cannot be "
            f"divided evenly. width may be {', '.join(map(str, fitting))}; or set reading: conv."
        )
    return _GroupMax(width)


def _generalised_mean(grid: Tensor, exponent: Tensor) -> Tensor:
    """(mean x^p)^(1/p) over positions (Radenović et al., Fine-tuning CNN image retrieval, 2019)."""
    return grid.clamp(min=1e-6).pow(exponent).mean((2, 3)).pow(1 / exponent)
