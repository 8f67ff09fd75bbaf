"""Training batches: the same whatever the number of workers, and from the middle of an epoch on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from occluded_reid.config import DataConfig, InputConfig
from occluded_reid.contracts import Batch, Targets
from occluded_reid.data.cache import DecodedImages
from occluded_reid.data.dataset import Sample
from occluded_reid.data.occlusion import Occluders
from occluded_reid.data.samplers import make_sampler, sample_generator
from occluded_reid.data.transforms import View, make_transform
from occluded_reid.errors import DataError, OccludedReIDError

__all__ = ["TrainLoader"]

_PEOPLE = 400  # pedestrians that are cut out to occlude others with


class TrainLoader:
    """Batches of a training split.

    Each global batch holds `data.batch` samples in an order settled by (seed, epoch); rank r of w takes the r-th
    contiguous w-th of it. How a sample is augmented is settled by (seed, epoch, sample), by how often the epoch has
    shown it before, and by nothing else.

    Args:
        samples: the training split.
        classes: identity -> class index.
        input: image size and normalisation.
        data: batch size, sampler, augmentation, masks.
        seed: of order and augmentation, not negative.
        workers: processes that prepare batches; 0 prepares them in line.
        rank: of this process.
        world_size: number of processes.
        limit_bytes: keep decoded images in memory up to this many bytes.
        skip_unreadable: leave out images that cannot be read; they are named in ``images.skipped``.
        progress: called with (images decoded, images) while the cache is filled.

    Attributes:
        images: the decoded images.
        samples: those that can be read.
        steps_per_epoch: batches of an epoch, the same for each.

    Raises:
        DataError: the split is empty, has one identity or one that is no class, or does not make a batch for each
            process.
        ImageError: an image cannot be read; it is named.
        MaskError: masks are wanted and missing.
        RecipeError: the augmentation's options do not fit.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        classes: Mapping[str, int],
        input: InputConfig,
        data: DataConfig,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        limit_bytes: int = 4 << 30,
        skip_unreadable: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        _require_classes(samples, classes)
        _require_shares(data, rank, world_size)
        self.images = DecodedImages(
            samples,
            input.height,
            input.width,
            masks=data.masks,
            resample=input.resample,
            limit_bytes=limit_bytes,
            skip_unreadable=skip_unreadable,
            progress=progress,
        )
        self.samples = self.images.samples
        self._identity = torch.tensor([classes[sample.identity] for sample in self.samples])
        self._camera = torch.tensor([sample.camera for sample in self.samples])
        self._sampler = make_sampler(data, self._identity.numpy(), seed=seed)
        self.steps_per_epoch = self._sampler.steps_per_epoch
        self._views = _Views(self.images, input, data, seed)
        self._mean = torch.tensor(input.mean).mul(255).view(1, 3, 1, 1)
        self._std = torch.tensor(input.std).mul(255).view(1, 3, 1, 1)
        self._seed, self._workers = seed, workers
        share = data.batch // world_size
        self._mine = slice(rank * share, (rank + 1) * share)

    def batches(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield this process's share of each batch of an epoch, from number `skip` on.

        Args:
            epoch: not negative; settles order and augmentation.
            skip: batches of this epoch that are done already.

        Raises:
            DataError: the epoch has fewer batches than are to be skipped.
            ImageError: an image that is not kept in memory cannot be read any more.
        """
        if not 0 <= skip <= self.steps_per_epoch:
            raise DataError(f"cannot skip {skip} batches of an epoch that has {self.steps_per_epoch}.")
        positions = self._sampler.batches(epoch)
        occurrences = _occurrences(positions)
        plan = [
            _Part(epoch, tuple(p.tolist()), tuple(o.tolist()))
            for p, o in zip(positions[skip:, self._mine], occurrences[skip:, self._mine], strict=True)
        ]
        for part, made in zip(plan, self._prepare(plan), strict=True):
            if isinstance(made, OccludedReIDError):
                raise made
            yield self._finish(part, *made)

    def _prepare(self, plan: list[_Part]) -> Iterator[_Prepared]:
        if not self._workers:
            return map(self._views.__getitem__, plan)
        loader = DataLoader(
            self._views,
            sampler=plan,
            batch_size=None,  # a worker makes a whole batch, so nothing is collated again
            collate_fn=_as_it_is,
            num_workers=self._workers,
            # Workers are seeded from this one; left out, every epoch would advance torch's global generator.
            generator=torch.Generator().manual_seed(self._seed),
        )
        return iter(loader)

    def _finish(self, part: _Part, pixels: Tensor, parsing: Tensor | None, occlusion: Tensor | None) -> Batch:
        """Normalise here rather than in the workers: bytes are a quarter of what would have to be sent."""
        # (N, H, W, C) seen as (N, C, H, W) is torch's channels_last layout, which convolutions like best on a CPU.
        images = pixels.permute(0, 3, 1, 2).float().sub_(self._mean).div_(self._std)
        rows = torch.tensor(part.positions)
        targets = Targets(
            identity=self._identity[rows],
            camera=self._camera[rows],
            path=tuple(self.samples[position].name for position in part.positions),
            parsing=None if parsing is None else parsing.long(),
            occlusion_mask=None if occlusion is None else occlusion.float(),
        )
        return Batch(images, targets)


@dataclass(frozen=True)
class _Part:
    """What one process takes of one batch: positions, and how often the epoch has shown each before."""

    epoch: int
    positions: tuple[int, ...]
    occurrences: tuple[int, ...]


# uint8 images (N, H, W, 3), parsing (N, H, W), occlusion (N, H, W); or why there are none.
_Prepared = tuple[Tensor, Tensor | None, Tensor | None] | OccludedReIDError


class _Views(Dataset[_Prepared]):
    """Augmented bytes of a part of a batch: what worker processes make."""

    def __init__(self, images: DecodedImages, input: InputConfig, data: DataConfig, seed: int) -> None:
        self.images, self.seed = images, seed
        people = partial(_pedestrians, images) if images.masks else None
        self.transforms = [make_transform(component, mean=input.mean, people=people) for component in data.augment]
        self.occludes = any(transform.occludes for transform in self.transforms)

    def __getitem__(self, part: _Part) -> _Prepared:
        shape = (len(part.positions), self.images.height, self.images.width)
        pixels = torch.empty((*shape, 3), dtype=torch.uint8)
        parsing = torch.empty(shape, dtype=torch.uint8) if self.images.masks else None
        occlusion = torch.zeros(shape, dtype=torch.uint8) if self.occludes else None
        try:
            for row, (position, occurrence) in enumerate(zip(part.positions, part.occurrences, strict=True)):
                view = self._view(part.epoch, position, occurrence)
                pixels.numpy()[row] = view.image
                if parsing is not None:
                    parsing.numpy()[row] = view.parsing
                if occlusion is not None and view.occlusion is not None:
                    occlusion.numpy()[row] = view.occlusion
        except OccludedReIDError as error:
            # Handed over as it is: raised in a worker, its message would be buried under the worker's stack.
            return error
        return pixels, parsing, occlusion

    def _view(self, epoch: int, position: int, occurrence: int) -> View:
        image, parsing = self.images[position]
        view = View(image, parsing, identity=self.images.samples[position].identity)
        generator = sample_generator(self.seed, epoch, position, occurrence)
        for transform in self.transforms:
            view = transform(view, generator)
        return view


def _as_it_is(prepared: Any) -> Any:
    return prepared


def _pedestrians(images: DecodedImages) -> Occluders:
    """People cut out of at most 400 images, spread evenly over the split."""
    chosen = [int(i) for i in np.unique(np.linspace(0, len(images) - 1, _PEOPLE).round())]
    decoded = [images[position] for position in chosen]
    return Occluders.pedestrians(
        [image for image, _ in decoded],
        [mask for _, mask in decoded if mask is not None],
        [images.samples[position].identity for position in chosen],
    )


def _occurrences(positions: np.ndarray) -> np.ndarray:
    """For each entry, how many equal ones come before it in reading order."""
    flat = positions.ravel()
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.append(starts, len(flat)))
    counts = np.empty_like(flat)
    counts[order] = np.arange(len(flat)) - np.repeat(starts, lengths)
    return counts.reshape(positions.shape)


def _require_classes(samples: Sequence[Sample], classes: Mapping[str, int]) -> None:
    strange = [sample for sample in samples if sample.identity not in classes]
    if strange:
        raise DataError(
            f"{len(strange)} training images are of identities without a class, the first is '{strange[0].name}' of "
            f"'{strange[0].identity}'. Take distractors out of the training split, or give each identity a class."
        )


def _require_shares(data: DataConfig, rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise DataError(f"process {rank} of {world_size} does not exist; ranks run from 0 to {world_size - 1}.")
    group = data.instances if data.sampler == "pk" else 1
    if data.batch % (world_size * group):
        what = f"groups of {group} images" if group > 1 else "images"
        raise DataError(
            f"data.batch={data.batch} cannot be shared equally, in {what}, by {world_size} processes. "
            f"Make it a multiple of {world_size * group}."
        )
