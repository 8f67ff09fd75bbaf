"""Parsing networks: frozen within a model, where they find body regions, and trained on part masks beforehand."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from occluded_reid.contracts import RegionParser
from occluded_reid.data.resize import resize_image
from occluded_reid.errors import BuildError, MaskError
from occluded_reid.forked import require_threads
from occluded_reid.functional.checks import require_rank
from occluded_reid.parsing.base import Teacher
from occluded_reid.parsing.label_maps import region_classes
from occluded_reid.parsing.label_sets import label_set_named
from occluded_reid.pixels import Channels, ImageLike, few_at_a_time, to_rgb

__all__ = ["TYPICAL_AREA", "ParsingNetwork", "hash_weights"]

TYPICAL_AREA: Mapping[str, float] = {"head": 0.05, "upper_body": 0.29, "lower_body": 0.19, "shoes": 0.02}
"""Share of a person's box that a wholly visible region covers, where training has not measured it."""


class ParsingNetwork(RegionParser, Teacher):
    """A network that gives every pixel a class, and adds classes up to the body regions of SGAM (Eq. 1).

    It is frozen from its construction on: in evaluation mode whatever its owner is put in, without gradients. Training
    it is the business of `train_parser`, which unfreezes it.

    A softmax over all classes is added up per region, and the background's share is dropped, so that nothing of an
    occluded region is left over. With ``label_set="sgam5"`` the network has one class a region from the start. With
    ``background=False`` it has no background at all, as Eq. 1 is printed: every pixel then belongs to some region, and
    no score falls under occlusion.

    A subclass makes its layers, keeps the keywords of its constructor in `options`, and calls `freeze()` at the end.

    Args:
        options: keywords that make this network again.
        label_set: name of the classes in `LABEL_SETS`.
        height, width: input size in pixels; images are brought to it.
        mean, std: of the normalisation of RGB in 0 … 1.
        background: False leaves the background class out; for "sgam5" only.

    Attributes:
        kind: name in `PARSERS`.
        names: of the regions; one that the label set cannot tell (the shoes of pascal7) is left out.
        classes: number of classes that the network tells apart.
        reference: (R,) share of the image that each region usually covers where it is seen (q of the visibility).

    Raises:
        UnknownNameError: there is no such label set.
        BuildError: its classes make up no regions, or `background` does not fit.
    """

    kind: ClassVar[str]
    reference: Tensor

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        label_set: str,
        height: int,
        width: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        background: bool = True,
    ) -> None:
        super().__init__()
        known = label_set_named(label_set)
        try:
            regions = {name: ids for name, ids in region_classes(label_set).items() if ids}
        except MaskError as cause:
            raise BuildError(f"a parser with the classes of '{label_set}' finds no body regions: {cause}") from cause
        if not background and label_set != "sgam5":
            raise BuildError(
                f"background=False is the softmax of Eq. 1 over the regions alone, which needs label_set='sgam5'; got "
                f"'{label_set}'. Set label_set, or keep the background."
            )
        self.options = dict(options)
        self.label_set, self.background = label_set, background
        self.input_size, self.mean, self.std = (height, width), mean, std
        self.names = tuple(regions)
        self.classes = known.classes - (0 if background else 1)
        shift = 0 if background else 1
        self._members = [tuple(k - shift for k in ids) for ids in regions.values()]
        self._frozen = False
        self.register_buffer("reference", torch.tensor([TYPICAL_AREA[name] for name in self.names]))

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """Return (N, K, h, w) of images (N, 3, height, width) that are normalised."""

    @abstractmethod
    def load_backbone(self, source: str, match: str = "names") -> None:
        """Load ImageNet weights into the backbone: "hub", or a file, matched by "names" or by "order".

        Raises:
            WeightsError: the hub cannot be reached, or the file does not fit.
        """

    def adapted(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors of a weights file under this network's own names."""
        return dict(tensors)

    def freeze(self, frozen: bool = True) -> Self:
        """Stop, or allow, training: gradients, and the mode that batch normalisation and dropout are in."""
        self._frozen = frozen
        self.requires_grad_(not frozen)
        return self.eval()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a frozen network stays in evaluation mode."""
        return super().train(mode and not self._frozen)

    def normalize(self, images: Tensor) -> Tensor:
        """Bring RGB images (N, 3, H, W) in 0 … 1 to the input size, and normalise them."""
        require_rank(images, 4, "images", "(N, 3, H, W)")
        if tuple(images.shape[2:]) != self.input_size:
            images = torch.nn.functional.interpolate(
                images, self.input_size, mode="bilinear", align_corners=False, antialias=True
            )
        mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Return the probability of each class (N, K, h, w) for RGB images (N, 3, H, W) in 0 … 1."""
        return self.logits(self.normalize(images)).float().softmax(1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the probability of each region (N, R, h, w) for RGB images (N, 3, H, W) in 0 … 1."""
        each = self.probabilities(images)
        return torch.stack([each[:, ids].sum(1) for ids in self._members], 1)

    def parse(
        self, images: Sequence[ImageLike], names: Sequence[str], *, channels: Channels = "rgb"
    ) -> list[np.ndarray]:
        """Return the likeliest class of each pixel, (H, W) uint8 at each image's own size, upright.

        Args:
            images: of any kind that `occluded_reid.pixels.to_rgb` takes.
            names: what messages call them.
            channels: the order of colours in arrays and tensors.

        Raises:
            ImageError: an image cannot be read; it is named.
            ShapeError: an array or a tensor has another type or shape than an image.
        """
        require_threads("find body parts", self.reference.device.type)
        found: list[np.ndarray] = []
        for pictures in few_at_a_time(images, channels, names=names):
            for picture, one in zip(pictures, self.probabilities(self.pixels(pictures)), strict=True):
                found.append(_likeliest(one, (picture.height, picture.width)) + (0 if self.background else 1))
        return found

    def pixels(self, images: Sequence[ImageLike], *, channels: Channels = "rgb") -> Tensor:
        """Return images of any kind as (N, 3, height, width) in 0 … 1, on the network's device."""
        resized = np.stack([resize_image(to_rgb(image, channels=channels), *self.input_size) for image in images])
        return torch.from_numpy(resized).to(self.reference.device).permute(0, 3, 1, 2).float().div_(255)

    @property
    def fingerprint(self) -> str:
        """Twelve digits of a hash over kind, options and weights."""
        what = json.dumps([self.kind, self.options, hash_weights(self)], sort_keys=True)
        return hashlib.sha256(what.encode()).hexdigest()[:12]

    def describe(self) -> dict[str, Any]:
        """Return kind, options and fingerprint."""
        return {
            "label_set": self.label_set,
            "type": self.kind,
            "options": self.options,
            "fingerprint": self.fingerprint,
        }


def _likeliest(maps: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Which of the maps (K, h, w), grown to a size, is highest at each pixel: the first of equals, (H, W) uint8.

    One after another: all of them at the size of a photograph would not fit into memory.
    """

    def grown(one: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(one[None, None], size, mode="bilinear", align_corners=False)[0, 0]

    highest = grown(maps[0])
    label = torch.zeros(size, dtype=torch.uint8, device=maps.device)
    for number in range(1, len(maps)):
        score = grown(maps[number])
        label.masked_fill_(score > highest, number)
        highest = torch.maximum(highest, score)
    return np.asarray(label.cpu().numpy())


def hash_weights(network: nn.Module) -> str:
    """Return the SHA-256 of a network's weights and buffers by name, without the counters of batch normalisation."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        if not key.endswith("num_batches_tracked"):
            digest.update(key.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
