"""The semantic branch: a part mask, and from it the visibility of another head's stripes (SORN §III-D, III-E)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, MapInfo, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import mask_foreground, stripe_visibility
from occluded_reid.heads.base import Head
from occluded_reid.registry import HEADS, did_you_mean

__all__ = ["SemanticHead"]


@HEADS.register("semantic")
class SemanticHead(Head):
    """Two deconvolutions over three stages to K part classes at four times the last map's size.

    Structure (paper): the last two stages, equal in size, are concatenated → 3×3 deconvolution with stride 2, BN, ReLU
    → concatenated with the stage twice as large → the same again → 1×1 convolution to K classes.

    Args:
        info: what the builder knows.
        on: the coarsest stage that is used; the two before it are used too.
        classes: K, one of 8 (background, head, torso, upper arm, lower arm, upper leg, lower leg, foot),
            5 (background, head, torso, arm, leg) or 2 (background, foreground).
        widths: channels after the first and the second deconvolution (unsaid by SORN; 256 as in EANet's head).
        visibility_of: head whose stripes get their visibility here; None gives none.
        visibility: "binary" I_p of Eq. 12, or "soft" v_p of Eq. 11.
        threshold: τ of Eq. 12.
        mask: E(x, y) is whether the likeliest class is no background ("argmax"), or the "probability" of that.

    Raises:
        BuildError: the stages do not have the sizes this structure needs, or `visibility_of` has no stripes.
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
        names = list(info.stages)
        last = names.index(info.stage_name(on))
        self.stages = tuple(names[max(0, last - 2) : last + 1])
        strides = [info.stages[name].stride for name in self.stages]
        if len(strides) < 3 or strides[2] != strides[1] or strides[1] != 2 * strides[0]:
            shown = ", ".join(f"{n} stride {info.stages[n].stride}" for n in names)
            raise BuildError(
                f"head '{info.name}' needs the last two stages at one stride and the one before at half of it; this "
                f"backbone gives {shown}. Set last_stride: 1 on a backbone with a pyramid."
            )
        fine, middle, coarse = (info.stages[name].channels for name in self.stages)
        self.up_first = _deconvolution(coarse + middle, widths[0])
        self.up_second = _deconvolution(widths[0] + fine, widths[1])
        self.classify = nn.Conv2d(widths[1], classes, 1)
        nn.init.normal_(self.classify.weight, std=0.001)
        nn.init.zeros_(self.classify.bias)  # type: ignore[arg-type]
        self.classes, self.mask = classes, mask
        self.threshold = threshold if visibility == "binary" else None
        self.slots = self._stripes(info, visibility_of)
        self.rows = info.map_size(self.stages[2])[0]
        self.info = HeadInfo(maps={"segmentation": MapInfo(classes, max(1, strides[2] // 4))}, visibility_of=self.slots)

    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return the class logits (N, K, 4h, 4w) and the visibility of the stripes."""
        fine, middle, coarse = (features[name] for name in self.stages)
        grown = self.up_first(torch.cat([middle, coarse], 1))
        logits = self.classify(self.up_second(torch.cat([grown, fine], 1)))
        visible = self.visibility_of_foreground(mask_foreground(logits.detach(), self.mask))
        return HeadOutput(maps={"segmentation": logits}, visibility=visible)

    def visibility_of_foreground(self, foreground: Tensor) -> dict[str, Tensor]:
        """Turn a foreground mask (N, H, W), predicted or true, into the visibility of the stripes (Eq. 11-12)."""
        if not self.slots:
            return {}
        scores = stripe_visibility(foreground, len(self.slots), self.threshold, rows=self.rows)
        return {name: scores[:, p] for p, name in enumerate(self.slots)}

    @staticmethod
    def _stripes(info: BuildInfo, head: str | None) -> tuple[str, ...]:
        if head is None:
            return ()
        if head not in info.heads:
            raise BuildError(
                f"head '{info.name}' gives the visibility of head '{head}', which does not come before it."
                f"{did_you_mean(head, list(info.heads))} Heads so far: {', '.join(info.heads) or 'none'}. "
                "Reorder the heads, or set visibility_of."
            )
        return tuple(info.heads[head].slots)


def _deconvolution(channels: int, width: int) -> nn.Sequential:
    deconvolution = nn.ConvTranspose2d(channels, width, 3, stride=2, padding=1, output_padding=1, bias=False)
    nn.init.normal_(deconvolution.weight, std=0.001)
    return nn.Sequential(deconvolution, nn.BatchNorm2d(width), nn.ReLU())
