"""The types that rooms hand to each other: a batch, feature maps, what a head needs and what it gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from occluded_reid.errors import BuildError
from occluded_reid.registry import did_you_mean

__all__ = [
    "Batch",
    "BuildInfo",
    "FeatureMaps",
    "HeadInfo",
    "HeadOutput",
    "MapInfo",
    "ModelOutput",
    "RegionParser",
    "StageInfo",
    "Targets",
]


@dataclass(frozen=True)
class StageInfo:
    """One stage of a backbone, known before any forward pass: its channels, and input pixels per map cell."""

    channels: int
    stride: int


@dataclass(frozen=True)
class MapInfo:
    """A spatial map that a head gives: channels and input pixels per map cell."""

    channels: int
    stride: int


class FeatureMaps(Mapping[str, Tensor]):
    """Named feature maps of a backbone, from fine to coarse, and the images they were made from.

    Args:
        stages: name -> (N, C, h, w), from the finest to the coarsest.
        images: (N, 3, H, W), as the backbone received them.
        class_token: (N, C) of a transformer, after its last normalisation; None where the backbone has none.
        vectors: name -> (N, D), what the backbone itself gives beside maps, such as its own embedding.
    """

    def __init__(
        self,
        stages: Mapping[str, Tensor],
        images: Tensor,
        class_token: Tensor | None = None,
        vectors: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._stages = dict(stages)
        self.images = images
        self.class_token, self.vectors = class_token, dict(vectors or {})

    def __getitem__(self, name: str) -> Tensor:
        return self._stages[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)


@dataclass(frozen=True)
class Targets:
    """What is known about the images of a batch.

    Attributes:
        identity: (N,) int64, class index 0 … num_classes - 1.
        camera: (N,) int64.
        path: file of each image, for messages.
        parsing: (N, H, W) int64 part classes, or None where no masks are used.
        occlusion_mask: (N, H, W) float, 1 where an augmentation has pasted an occluder (or, where the recipe asks for
            the difference, Σ over channels of how much the pixel has changed, in 0 … 3), or None.
        teacher: (N, D), what the recipe's teacher says of each image before any augmentation, or None.
        view: (N,) int64, 0 for a clean view and 1 for an occluded one of a doubled batch, or None.
    """

    identity: Tensor
    camera: Tensor
    path: tuple[str, ...] = ()
    parsing: Tensor | None = None
    occlusion_mask: Tensor | None = None
    view: Tensor | None = None
    teacher: Tensor | None = None

    def to(self, device: torch.device | str) -> Targets:
        """Return the same targets with every tensor on `device`."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Batch:
    """Images (N, 3, H, W), already normalised, and their targets."""

    images: Tensor
    targets: Targets

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch with every tensor on `device`."""
        return Batch(self.images.to(device, non_blocking=True), self.targets.to(device))


class RegionParser(nn.Module, ABC):
    """A frozen network that finds body regions: automatic cropping and region pooling ask it (SGAM, Eq. 1).

    It is owned once, by a model's preprocessing. A head that uses it keeps a reference which is no submodule of its
    own (such as a tuple of one), so that its weights are saved once.

    Attributes:
        names: of the regions, in the order of the maps; background is none of them.
    """

    names: tuple[str, ...]

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return the probability of each region at each place, (N, R, h, w).

        Args:
            images: (N, 3, H, W), RGB in 0 … 1 of any size; resizing and normalising is the parser's own affair.
        """


@dataclass(frozen=True)
class HeadInfo:
    """What a head will give, known before any forward pass.

    Attributes:
        slots: slot name -> width, for slots that are matched or supervised.
        inference_slots: the slots that `embed` returns, a subset of `slots`.
        maps: map name -> channels and stride.
        visibility_of: the slots whose visibility this head supplies (its own, or another head's).
        training_only: the head does not exist at inference, nor in exported weights.
    """

    slots: Mapping[str, int] = field(default_factory=dict)
    inference_slots: tuple[str, ...] = ()
    maps: Mapping[str, MapInfo] = field(default_factory=dict)
    visibility_of: tuple[str, ...] = ()
    training_only: bool = False


@dataclass(frozen=True)
class BuildInfo:
    """What a head may know when it is built.

    Attributes:
        stages: name -> channels and stride, from fine to coarse.
        input_size: (height, width) of the images in pixels.
        num_classes: number of training identities; None builds no classifier.
        heads: the heads before this one, by name.
        name: the name of this head in the recipe.
        class_token: width of the backbone's class token; None where it has none.
        vectors: name -> width of what the backbone itself gives beside maps.
        parser: the model's human parser, owned by its preprocessing; None where the recipe names none.
        mean, std: of the normalisation that images have been through.
    """

    stages: Mapping[str, StageInfo]
    input_size: tuple[int, int]
    num_classes: int | None = None
    heads: Mapping[str, HeadInfo] = field(default_factory=dict)
    name: str = ""
    class_token: int | None = None
    vectors: Mapping[str, int] = field(default_factory=dict)
    parser: RegionParser | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def stage_name(self, stage: str | int) -> str:
        """Resolve ``"last"``, a name, or a position counted from the end (-1 is the coarsest) to a stage name.

        Raises:
            BuildError: the backbone has no such stage; the message lists what it has.
        """
        names = list(self.stages)
        if stage == "last":
            return names[-1]
        if isinstance(stage, str) and stage in self.stages:
            return stage
        if isinstance(stage, int) and -len(names) <= stage < len(names):
            return names[stage]
        shown = ", ".join(f"{n} ({s.channels} channels, stride {s.stride})" for n, s in self.stages.items())
        raise BuildError(
            f"head '{self.name}' asks for stage {stage!r}, which this backbone does not have."
            f"{did_you_mean(str(stage), names)} It has: {shown}; 'last' names the coarsest."
        )

    def map_size(self, stage: str) -> tuple[int, int]:
        """Return (rows, columns) of a stage's map for this input size."""
        stride = self.stages[stage].stride
        return -(-self.input_size[0] // stride), -(-self.input_size[1] // stride)


@dataclass
class HeadOutput:
    """What a head gives; every field may stay empty.

    Attributes:
        features: slot -> (N, D) before the neck: what metric losses see.
        embeddings: slot -> (N, D) after the neck: what is matched.
        visibility: slot -> (N,) in [0, 1]; slots of another head are allowed, one provider a slot.
        logits: name -> (N, num_classes) identity logits.
        maps: name -> (N, C, h, w): aggregation maps, segmentation logits, …
    """

    features: dict[str, Tensor] = field(default_factory=dict)
    embeddings: dict[str, Tensor] = field(default_factory=dict)
    visibility: dict[str, Tensor] = field(default_factory=dict)
    logits: dict[str, Tensor] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class ModelOutput:
    """The outputs of all heads by name, and the backbone's maps: what losses see."""

    features: FeatureMaps
    heads: dict[str, HeadOutput]

    def __getitem__(self, head: str) -> HeadOutput:
        return self.heads[head]
