"""ResNet-50 with instance and batch normalisation side by side (Pan et al., Two at Once, ECCV 2018): IBN-Net50-a."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import timm
import torch
from torch import Tensor, nn

from occluded_reid.backbones.layouts import Imported
from occluded_reid.backbones.timm import TimmBackbone
from occluded_reid.backbones.weights import load_into, transfer_by_name
from occluded_reid.errors import BuildError, WeightsError
from occluded_reid.registry import BACKBONES

__all__ = ["InstanceBatchNorm2d", "ResNet50IBNa"]

_STAGES = ("layer1", "layer2", "layer3")  # the last stage tells identities apart and keeps to batch normalisation


class InstanceBatchNorm2d(nn.Module):
    """Instance normalisation of the first half of the channels, batch normalisation of the others.

    The first half no longer knows contrast and colour cast of its image, in training and evaluation alike. The names
    `IN` and `BN` are those of the published weights.

    Args:
        channels: C; of an odd number the batch normalisation gets one more.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.instanced = channels // 2
        self.IN = nn.InstanceNorm2d(self.instanced, affine=True)
        self.BN = nn.BatchNorm2d(channels - self.instanced)

    def forward(self, grid: Tensor) -> Tensor:
        """Return the normalised map (N, C, h, w)."""
        return torch.cat([self.IN(grid[:, : self.instanced]), self.BN(grid[:, self.instanced :])], dim=1)


@BACKBONES.register("resnet50_ibn_a")
class ResNet50IBNa(TimmBackbone):
    """timm's ResNet-50 with IBN-a: the first normalisation of every block of layer1 to layer3 is instance and batch.

    Stages are named as `TimmBackbone` names them: ``stage0 …``, layer4 is ``stage4`` with 2048 channels.

    Args:
        input_size: (height, width) of the images in pixels.
        last_stride: stride of the last stage, 1 or 2; see `TimmBackbone`.
        options: further keywords of timm.create_model; see `TimmBackbone`.
        stem: what the first layers compute; see `TimmBackbone`.

    Raises:
        BuildError: the images are so small that a map has one cell, of which there is no instance normalisation.
    """

    file: ClassVar[str] = "the one that IBN-Net's authors publish (resnet50_ibn_a-….pth)"

    def __init__(
        self,
        input_size: tuple[int, int],
        *,
        last_stride: int = 2,
        options: dict[str, Any] | None = None,
        stem: Literal["usual", "linear", "unpadded"] = "usual",
    ) -> None:
        super().__init__(input_size, "resnet50", last_stride=last_stride, options=options, stem=stem)
        rows, columns = (-(-side // self.feature_info["stage3"].stride) for side in input_size)
        if rows * columns < 2:
            raise BuildError(
                f"resnet50_ibn_a normalises each image's maps for themselves, but images of {input_size[0]}×"
                f"{input_size[1]} leave one cell in layer3. Use larger images, or resnet50."
            )
        _insert(self.network)

    def load_pretrained(self, source: str, match: str = "auto") -> Imported | None:
        """Load ImageNet weights from a local .safetensors or .pth file in IBN-Net's layout.

        That layout is timm's, with ``layer1.0.bn1.IN.weight`` and ``layer1.0.bn1.BN.running_mean`` in place of
        ``layer1.0.bn1.weight`` and ``layer1.0.bn1.running_mean``.

        Args:
            source: a path.
            match: see `TimmBackbone.load_pretrained`.

        Raises:
            WeightsError: the file's key layout does not fit (the message shows both), or "hub" was asked for.
        """
        if source == "hub":
            raise WeightsError(
                f"timm's hub has no weights for 'resnet50_ibn_a'. Give a file, {self.file}, as a path: "
                "model.backbone.weights=FILE (--weights FILE, pretrained=FILE). Or begin with random values "
                "(--weights none, pretrained=False)."
            )
        whole = timm.create_model("resnet50", pretrained=False, **self.options)
        _insert(whole)
        imported = load_into(whole, source, match, stem=self.stem)
        transfer_by_name(whole, self.network, "resnet50_ibn_a")
        return imported


def _insert(network: nn.Module) -> None:
    """Replace the first normalisation of every block of the first three layers."""
    for stage in _STAGES:
        for block in network.get_submodule(stage).children():
            block.bn1 = InstanceBatchNorm2d(block.bn1.num_features)  # type: ignore[union-attr, arg-type]
