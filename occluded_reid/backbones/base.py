"""The contract of a backbone, and the way from a recipe's words to one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor, nn

from occluded_reid.backbones.layouts import Imported
from occluded_reid.contracts import FeatureMaps, StageInfo
from occluded_reid.errors import BuildError, UnknownNameError
from occluded_reid.registry import BACKBONES, check_options, did_you_mean

__all__ = ["Backbone", "create_backbone", "is_frozen"]


class Backbone(nn.Module, ABC):
    """Images (N, 3, H, W) in, named feature maps from fine to coarse out.

    A subclass sets `feature_info` in its constructor, so that heads know channels and strides before any forward pass.

    Args:
        input_size: (height, width) of the images in pixels.

    Attributes:
        feature_info: stage name -> channels and stride.
        class_token: width of the class token that `FeatureMaps` carries; None for a backbone without one.
        vectors: name -> width of the vectors that it carries.
        frozen: whether it is a network from a file, which is given to it and never trained.
        file: for a network whose weights are on no hub: whose file to give; empty where timm's hub has them.
    """

    feature_info: Mapping[str, StageInfo]
    class_token: int | None = None
    vectors: Mapping[str, int] = MappingProxyType({})
    frozen: ClassVar[bool] = False
    file: ClassVar[str] = ""

    def __init__(self, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.input_size = input_size

    @abstractmethod
    def forward(self, images: Tensor) -> FeatureMaps:
        """Return the maps named in `feature_info`, each (N, C, h, w)."""

    def load_pretrained(self, source: str, match: str = "auto") -> Imported | None:
        """Load weights: "hub", or a local file.

        Args:
            source: "hub" or a path.
            match: how the file is laid out, as a recipe's `weights_match` says it.

        Returns:
            What a file of another project held besides the backbone, for the heads; None where there is nothing.

        Raises:
            BuildError: this backbone has no pretrained weights.
        """
        raise BuildError(
            f"{type(self).__name__} offers no pretrained weights; {source!r} (matched by {match}) cannot be loaded. "
            "Build with pretrained=False, or override load_pretrained()."
        )


def is_frozen(name: str) -> bool:
    """Return whether a backbone is a network from a file, which a recipe's `weights` must name."""
    return bool(name in BACKBONES and getattr(BACKBONES.get(name), "frozen", False))


def create_backbone(name: str, input_size: tuple[int, int], options: Mapping[str, Any] | None = None) -> Backbone:
    """Create a registered backbone, or any timm model by its timm name.

    Args:
        name: a name in `BACKBONES`, or one that timm knows: ``"resnet50.tv_in1k"``.
        input_size: (height, width) of the images in pixels.
        options: keywords of the backbone.

    Raises:
        UnknownNameError: neither this library nor timm knows the name.
        UnknownOptionError: the backbone takes no such keyword.
    """
    if name in BACKBONES and name != "timm":
        factory = BACKBONES.get(name)
        return factory(input_size, **check_options(factory, options or {}, "model.backbone.options", skip=1))
    import timm

    from occluded_reid.backbones.timm import TimmBackbone

    if not timm.is_model(name.split(".")[0]):
        known = [*BACKBONES.names(), *timm.list_models()]
        raise UnknownNameError(
            f"no backbone is named '{name}'.{did_you_mean(name, known)} Registered: {', '.join(BACKBONES.names())}; "
            "any name of timm.list_models() works too."
        )
    checked = check_options(TimmBackbone, options or {}, "model.backbone.options", skip=2)
    return TimmBackbone(input_size, name, **checked)
