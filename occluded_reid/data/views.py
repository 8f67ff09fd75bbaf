"""The augmented views of training images: what worker processes make of a part of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from occluded_reid.config import DataConfig, InputConfig
from occluded_reid.data.cache import DecodedImages
from occluded_reid.data.occlusion import Occluders
from occluded_reid.data.samplers import sample_generator
from occluded_reid.data.transforms import TRANSFORMS, View, make_transform
from occluded_reid.errors import OccludedReIDError, RecipeError

__all__ = ["Part", "Prepared", "Views", "require_views"]

_STOCK = 400  # training images from which pedestrians, or strips of the border, are cut to occlude others with


@dataclass(frozen=True)
class Part:
    """What one process takes of one batch: positions, and how often the epoch has shown each before."""

    epoch: int
    positions: tuple[int, ...]
    occurrences: tuple[int, ...]


# Images (N, H, W, 3) and parsing (N, H, W) in uint8, occlusion (N, H, W) in uint8 or float32; or why there are none.
Prepared = tuple[Tensor, Tensor | None, Tensor | None] | OccludedReIDError


class Views(Dataset[Prepared]):
    """Augmented bytes of a part of a batch: what worker processes make.

    Args:
        images: the decoded images.
        input: normalisation, for transforms that ask for it.
        data: augmentation, views.
        seed: of the augmentation.
        first_occluder: how many transforms come before the first one that occludes.
    """

    def __init__(
        self, images: DecodedImages, input: InputConfig, data: DataConfig, seed: int, first_occluder: int
    ) -> None:
        self.images, self.seed, self.doubled = images, seed, data.views == "clean_and_occluded"
        people = partial(_pedestrians, images) if images.masks else None
        strips = partial(_strips, images)
        transforms = [
            make_transform(component, mean=input.mean, std=input.std, people=people, strips=strips)
            for component in data.augment
        ]
        self.shared, self.others = transforms[:first_occluder], transforms[first_occluder:]
        self.occlusion = _occlusion_type([transform.mask for transform in transforms if transform.occludes])

    def __getitem__(self, part: Part) -> Prepared:
        count = len(part.positions)
        shape = (2 * count if self.doubled else count, self.images.height, self.images.width)
        pixels = torch.empty((*shape, 3), dtype=torch.uint8)
        parsing = torch.empty(shape, dtype=torch.uint8) if self.images.masks else None
        occlusion = None if self.occlusion is None else torch.zeros(shape, dtype=self.occlusion)
        try:
            for number, (position, occurrence) in enumerate(zip(part.positions, part.occurrences, strict=True)):
                rows = range(number, len(pixels), count)
                for row, view in zip(rows, self._made(part.epoch, position, occurrence), strict=True):
                    pixels.numpy()[row] = view.image
                    if parsing is not None:
                        parsing.numpy()[row] = view.parsing
                    if occlusion is not None and view.occlusion is not None:
                        occlusion.numpy()[row] = view.occlusion
        except OccludedReIDError as error:
            # Handed over as it is: raised in a worker, its message would be buried under the worker's stack.
            return error
        return pixels, parsing, occlusion

    def _made(self, epoch: int, position: int, occurrence: int) -> list[View]:
        """The view of an image, or its clean and its occluded one."""
        image, parsing = self.images[position]
        view = View(image, parsing, identity=self.images.samples[position].identity)
        generator = sample_generator(self.seed, epoch, position, occurrence)
        for transform in self.shared:
            view = transform(view, generator)
        clean = view
        for transform in self.others:
            view = transform(view, generator)
        return [clean, view] if self.doubled else [view]


def _occlusion_type(masks: Sequence[str]) -> torch.dtype | None:
    """What an occlusion mask is stored in: bytes for true and false, floats for a difference."""
    if "difference" in masks and len(masks) > 1:
        raise RecipeError(
            "data.augment: a mask 'difference' compares an image with what it was before its only occluder; there are "
            f"{len(masks)}. Take the mask 'coverage', or leave one occluding transform."
        )
    if not masks:
        return None
    return torch.float32 if "difference" in masks else torch.uint8


def require_views(data: DataConfig) -> int:
    """How many transforms come before the first one that occludes; doubled views must have one, and none after it."""
    occludes = [bool(getattr(TRANSFORMS.get(component.type), "occludes", False)) for component in data.augment]
    first = occludes.index(True) if True in occludes else len(occludes)
    if data.views == "single":
        return first
    if first == len(occludes):
        raise RecipeError(
            "data.views is 'clean_and_occluded', but data.augment holds no transform that occludes. Add 'npo', "
            "'occlude' or 'erase_occluder' at its end, or set data.views=single."
        )
    if not all(occludes[first:]):
        late = data.augment[first + occludes[first:].index(False)].type
        raise RecipeError(
            f"data.augment: '{late}' comes after '{data.augment[first].type}', which occludes. With data.views="
            "clean_and_occluded both views share what stands before the first occluder and differ by occluders alone. "
            f"Put '{late}' before it."
        )
    return first


def _spread(images: DecodedImages) -> list[int]:
    """At most 400 positions, spread evenly over the split."""
    return [int(i) for i in np.unique(np.linspace(0, len(images) - 1, _STOCK).round())]


def _strips(images: DecodedImages) -> Occluders:
    chosen = _spread(images)
    return Occluders.strips(
        [images[position][0] for position in chosen], [images.samples[position].person for position in chosen]
    )


def _pedestrians(images: DecodedImages) -> Occluders:
    chosen = _spread(images)
    decoded = [images[position] for position in chosen]
    return Occluders.pedestrians(
        [image for image, _ in decoded],
        [mask for _, mask in decoded if mask is not None],
        [images.samples[position].person for position in chosen],
    )
