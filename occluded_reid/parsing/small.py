"""A parser for one CPU core: a small backbone and two deconvolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from occluded_reid.backbones.timm import TimmBackbone
from occluded_reid.errors import BuildError
from occluded_reid.parsing.network import ParsingNetwork
from occluded_reid.registry import PARSERS

__all__ = ["SmallParser"]


@PARSERS.register("small")
class SmallParser(ParsingNetwork):
    """A timm network with its last stride at 1, and the decoder of SORN's semantic branch (§III-D), a class map out.

    The last two stages, equal in size, are concatenated → 3×3 deconvolution with stride 2, BN, ReLU → concatenated with
    the stage twice as large → the same again → 1×1 convolution. The map has a quarter of the input's rows.

    Args:
        backbone: timm's name; any network with feature maps of stride 8 and, after the change, 16 and 16.
        label_set: name of the classes in `LABEL_SETS`.
        height, width: input size in pixels, multiples of 16.
        widths: channels after the first and the second deconvolution.
        mean, std: of the normalisation; by default that of EfficientNet-Lite.
        background: see `ParsingNetwork`.

    Raises:
        BuildError: the backbone has not these stages, or the input size is no multiple of 16.
    """

    kind = "small"

    def __init__(
        self,
        *,
        backbone: str = "tf_efficientnet_lite0",
        label_set: str = "sorn8",
        height: int = 192,
        width: int = 64,
        widths: tuple[int, int] = (64, 64),
        mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
        std: tuple[float, float, float] = (0.5, 0.5, 0.5),
        background: bool = True,
    ) -> None:
        options = {
            **{"backbone": backbone, "label_set": label_set, "height": height, "width": width, "widths": list(widths)},
            **{"mean": list(mean), "std": list(std), "background": background},
        }
        shared = {"label_set": label_set, "height": height, "width": width, "mean": mean, "std": std}
        super().__init__(options, **shared, background=background)  # type: ignore[arg-type]
        if height % 16 or width % 16:
            raise BuildError(f"the small parser takes multiples of 16; got {height}×{width}. Change height and width.")
        self.backbone = TimmBackbone((height, width), backbone, last_stride=1)
        stages = list(self.backbone.feature_info.values())[-3:]
        if [stage.stride for stage in stages] != [8, 16, 16]:
            shown = ", ".join(str(stage.stride) for stage in self.backbone.feature_info.values())
            raise BuildError(
                f"the small parser needs stages of stride 8, 16 and 16 at the end; '{backbone}' with its last stride "
                f"at 1 has {shown}. Take another backbone, such as tf_efficientnet_lite0."
            )
        fine, middle, coarse = stages
        self.up_first = _deconvolution(coarse.channels + middle.channels, widths[0])
        self.up_second = _deconvolution(widths[0] + fine.channels, widths[1])
        self.classify = nn.Conv2d(widths[1], self.classes, 1)
        self.freeze()

    def logits(self, images: Tensor) -> Tensor:
        """Return (N, K, height / 4, width / 4)."""
        fine, middle, coarse = list(self.backbone(images).values())[-3:]
        grown = self.up_first(torch.cat([middle, coarse], 1))
        scores: Tensor = self.classify(self.up_second(torch.cat([grown, fine], 1)))
        return scores

    def load_backbone(self, source: str, match: str = "names") -> None:
        """Load ImageNet weights from timm's hub ("hub"), or from a file.

        Raises:
            WeightsError: the hub cannot be reached, or the file does not fit.
        """
        self.backbone.load_pretrained(source, match)


def _deconvolution(channels: int, width: int) -> nn.Sequential:
    deconvolution = nn.ConvTranspose2d(channels, width, 3, stride=2, padding=1, output_padding=1, bias=False)
    return nn.Sequential(deconvolution, nn.BatchNorm2d(width), nn.ReLU())
