"""The contract of a head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, Targets

__all__ = ["Head", "make_classifier", "make_neck"]


class Head(nn.Module, ABC):
    """Feature maps and the outputs of earlier heads in; slots, visibility, logits and maps out.

    A subclass takes `info` and its own keyword options, and sets `self.info`: what it will give, known before any
    forward pass. Classifiers live in attributes whose name starts with ``classifier``: they are not part of a model
    built for inference, and `info.num_classes` is None there.

    Args:
        info: stages, input size, number of classes, and the heads before this one.

    Example:
        >>> from occluded_reid import HEADS, Head
        >>> @HEADS.register("corner")
        ... class CornerHead(Head):
        ...     def __init__(self, info, *, on: str = "last"):
        ...         super().__init__(info)
        ...         self.stage = info.stage_name(on)
        ...         width = info.stages[self.stage].channels
        ...         self.info = HeadInfo(slots={"corner": width}, inference_slots=("corner",))
        ...
        ...     def forward(self, features, context, targets=None):
        ...         rows = features[self.stage]
        ...         return HeadOutput(embeddings={"corner": rows[:, :, 0, 0]})
        >>> HEADS.unregister("corner")
    """

    info: HeadInfo

    def __init__(self, info: BuildInfo) -> None:
        super().__init__()
        self.name = info.name

    @abstractmethod
    def forward(
        self, features: FeatureMaps, context: Mapping[str, HeadOutput], targets: Targets | None = None
    ) -> HeadOutput:
        """Return this head's outputs.

        Args:
            features: the backbone's maps, and the images.
            context: outputs of the heads before this one, by name.
            targets: labels in training, None otherwise.
        """


def make_neck(width: int, kind: str) -> nn.Module:
    """Return the batch normalisation between the pooled feature and the classifier.

    Args:
        width: D.
        kind: "bn" learns scale and bias; "bnneck" keeps the bias at 0 (Luo et al., Bag of Tricks, 2019); "none".
    """
    if kind == "none":
        return nn.Identity()
    neck = nn.BatchNorm1d(width)
    if kind == "bnneck":
        neck.bias.requires_grad_(False)
    return neck


def make_classifier(width: int, num_classes: int, bias: bool) -> nn.Linear:
    """Return a linear classifier with small weights: at the start every identity is equally likely."""
    classifier = nn.Linear(width, num_classes, bias=bias)
    nn.init.normal_(classifier.weight, std=0.001)
    if bias:
        nn.init.zeros_(classifier.bias)
    return classifier


def pool(features: Tensor, kind: str) -> Tensor:
    """Pool (N, C, h, w) to (N, C) by "average" or "max"."""
    return features.mean((2, 3)) if kind == "average" else features.amax((2, 3))
