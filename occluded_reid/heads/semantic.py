"""The semantic branch: a part mask, and from it the visibility of another head's stripes (SORN §III-D, III-E)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, MapInfo, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import mask_foreground
from occluded_reid.heads.base import Head
from occluded_reid.heads.stripes import stripes_of, visibility_of_stripes
from occluded_reid.registry import HEADS

__all__ = ["SemanticHead"]

_LOG = logging.getLogger("occluded_reid")


@HEADS.register("semantic")
class SemanticHead(Head):
    """Two deconvolutions over three stages to K part classes at four times the last map's size.

    Structure (paper): the last two stages, equal in size, are concatenated → 3×3 deconvolution with stride 2, BN, ReLU
    → concatenated with the stage twice as large → the same again → 1×1 convolution to K classes.

    A backbone without a stage twice as large (a transformer, whose stages are of one size, or one that gives a single
    stage) has nothing for that skip: the second deconvolution then sees the first alone, and a notice says so. A stage
    before the last one that has its size is concatenated wherever there is one.

    Args:
        info: what the builder knows.
        on: the coarsest stage that is used; of those before it the nearest of its size and of twice its size.
        classes: K, one of 8 (background, head, torso, upper arm, lower arm, upper leg, lower leg, foot),
            5 (background, head, torso, arm, leg) or 2 (background, foreground).
        widths: channels after the first and the second deconvolution (unsaid by SORN; 256 as in EANet's head).
        visibility_of: head whose stripes get their visibility here; None gives none.
        visibility: "binary" I_p of Eq. 12, or "soft" v_p of Eq. 11.
        threshold: τ of Eq. 12.
        mask: E(x, y) is whether the likeliest class is no background ("argmax"), or the "probability" of that.

    Raises:
        BuildError: the last stage is half as large as the one before, or `visibility_of` has no stripes.
    """

    def __init__(
        self,
        info: BuildInfo,
        *,
        on: str | int = "last",
        classes: Literal[8, 5, 2] = 8,
        widths: tuple[int, int] = (256, 256),
        visibility_of: str | None = "local",
        visibility: Literal["binary", "soft"] = "binary",
        threshold: float = 0.15,
        mask: Literal["argmax", "probability"] = "argmax",
    ) -> None:
        super().__init__(info)
        self.coarse, self.middle, self.fine = _stages(info, info.stage_name(on))
        channels = [0 if name is None else info.stages[name].channels for name in (self.coarse, self.middle, self.fine)]
        self.up_first = _deconvolution(channels[0] + channels[1], widths[0])
        self.up_second = _deconvolution(widths[0] + channels[2], widths[1])
        self.classify = nn.Conv2d(widths[1], classes, 1)
        nn.init.normal_(self.classify.weight, std=0.001)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]
        self.classes, self.mask = classes, mask
        self.threshold = threshold if visibility == "binary" else None
        self.slots = stripes_of(info, visibility_of)
        self.rows = info.map_size(self.coarse)[0]
        stride = max(1, info.stages[self.coarse].stride // 4)
        self.info = HeadInfo(maps={"segmentation": MapInfo(classes, stride)}, visibility_of=self.slots)

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return the class logits (N, K, 4h, 4w) and the visibility of the stripes."""
        below = features[self.coarse]
        below = below if self.middle is None else torch.cat([features[self.middle], below], 1)
        grown = self.up_first(below)
        grown = grown if self.fine is None else torch.cat([grown, features[self.fine]], 1)
        logits = self.classify(self.up_second(grown))
        visible = self.visibility_of_foreground(mask_foreground(logits.detach(), self.mask))
        return HeadOutput(maps={"segmentation": logits}, visibility=visible)

    def visibility_of_foreground(self, foreground: Tensor) -> dict[str, Tensor]:
        """Turn a foreground mask (N, H, W), predicted or true, into the visibility of the stripes (Eq. 11-12)."""
        return visibility_of_stripes(foreground, self.slots, self.threshold, self.rows)


def _stages(info: BuildInfo, last: str) -> tuple[str, str | None, str | None]:
    """The coarsest stage, one of its size before it, and one of twice its size, where there are any."""
    names = list(info.stages)
    before = names[: names.index(last)][::-1]
    stride = info.stages[last].stride
    if before and info.stages[before[0]].stride != stride:
        shown = ", ".join(f"{n} stride {info.stages[n].stride}" for n in names)
        raise BuildError(
            f"head '{info.name}' needs the last two stages at one stride and the one before at half of it; this "
            f"backbone gives {shown}. Set last_stride: 1 on a backbone with a pyramid."
        )
    middle = before[0] if before else None
    fine = next((name for name in before if 2 * info.stages[name].stride == stride), None)
    if fine is None:
        _LOG.warning(
            "head '%s': this backbone has no stage twice as large as '%s': the second deconvolution does without it",
            info.name,
            last,
        )
    return last, middle, fine


def _deconvolution(channels: int, width: int) -> nn.Sequential:
    deconvolution = nn.ConvTranspose2d(channels, width, 3, stride=2, padding=1, output_padding=1, bias=False)
    nn.init.normal_(deconvolution.weight, std=0.001)
    return nn.Sequential(deconvolution, nn.BatchNorm2d(width), nn.ReLU())
