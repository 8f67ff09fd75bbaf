"""Body regions found by the model's human parser: probability maps for the heads after this one (SGAM Eq. 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, max_pool2d, pad

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, MapInfo, Targets
from occluded_reid.errors import BuildError
from occluded_reid.heads.base import Head
from occluded_reid.registry import HEADS

__all__ = ["RegionsHead"]

_BLOCK = 5  # pixels: random erasing fills larger rectangles, photographs have no such square of exactly one colour


@HEADS.register("regions")
class RegionsHead(Head):
    """Runs the model's parser on the images that the backbone sees and gives the map ``regions`` (N, R, h, w).

    The parser is frozen: it runs without gradient and in evaluation mode, and belongs to the model's preprocessing.

    Args:
        info: what the builder knows; `info.parser` is asked.
        stride: input pixels per cell of the map. The parser's own maps are resized to it, by averaging where they are
            finer.
        zero_erased: in training, make the maps 0 where something was pasted or erased (unsaid by SGAM: the parser sees
            that image, but may guess what lay there). That is under the batch's occlusion mask, and in blocks of at
            least 5×5 pixels that hold the input's mean colour, as the transform ``erase`` leaves them by default;
            what it fills with noise, or another colour, is left to the parser.

    Raises:
        BuildError: the model has no parser.
    """

    fill: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, info: BuildInfo, *, stride: Annotated[int, Field(ge=1)] = 4, zero_erased: bool = True) -> None:
        super().__init__(info)
        if info.parser is None:
            raise BuildError(
                f"head '{info.name}' asks a human parser for body regions, and this model has none. Train one with "
                "'occluded-reid train-parser' and name it in the recipe: model.parser, with its weights in "
                "model.parser.weights. Or remove the head, and those that read its map."
            )
        self._parser = (info.parser,)  # in a tuple: no submodule, its weights are saved with the preprocessing
        self.zero_erased = zero_erased
        self.size = (-(-info.input_size[0] // stride), -(-info.input_size[1] // stride))
        self.register_buffer("mean", torch.tensor(info.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(info.std).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("fill", torch.tensor([round(m * 255) for m in info.mean]).view(1, 3, 1, 1), False)
        self.info = HeadInfo(maps={"regions": MapInfo(len(info.parser.names), stride)})

    @torch.no_grad()
    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return the probability of each region at each place, float32 in [0, 1]."""
        parser = self._parser[0]
        if parser.training:  # the model around it trains; its own normalisation must not follow
            parser.eval()
        colours = (features.images.float() * self.std + self.mean).clamp(0, 1)
        # Antialiasing averages where the map shrinks and interpolates where it grows, each side for itself.
        maps = interpolate(parser(colours).float(), self.size, mode="bilinear", antialias=True).clamp(0, 1)
        if targets is not None and self.zero_erased:
            hidden = self._filled(colours)
            if targets.occlusion_mask is not None:
                hidden = torch.maximum(hidden, targets.occlusion_mask.to(hidden.dtype))
            maps = maps * (1 - adaptive_avg_pool2d(hidden[:, None], self.size))
        return HeadOutput(maps={"regions": maps})

    def _filled(self, colours: Tensor) -> Tensor:
        """(N, H, W), 1 in blocks of the fill colour; a pixel or a line that has it by chance is no block."""
        equal = ((colours * 255 - self.fill).abs().amax(1, keepdim=True) < 0.5).float()
        if min(equal.shape[2:]) < _BLOCK:
            return torch.zeros_like(equal[:, 0])
        whole = -max_pool2d(-equal, _BLOCK, stride=1)
        return max_pool2d(pad(whole, [_BLOCK - 1] * 4), _BLOCK, stride=1)[:, 0]
