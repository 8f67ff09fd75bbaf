"""Training batches: the same whatever the number of workers, and from the middle of an epoch on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from occluded_reid.config import DataConfig, InputConfig
from occluded_reid.contracts import Batch, Targets
from occluded_reid.data.cache import DecodedImages
from occluded_reid.data.dataset import Sample
from occluded_reid.data.samplers import make_sampler
from occluded_reid.data.views import Part, Prepared, Views, require_views
from occluded_reid.errors import DataError, OccludedReIDError

__all__ = ["TrainLoader"]


class TrainLoader:
    """Batches of a training split.

    Each global batch holds `data.batch` samples in an order settled by (seed, epoch); rank r of w takes the r-th
    contiguous w-th of it. How a sample is augmented is settled by (seed, epoch, sample), by how often the epoch has
    shown it before, and by nothing else.

    With `data.views` "clean_and_occluded" a share of n samples makes a batch of 2·n rows: the n clean views, then the
    n occluded views in the same order, told apart by ``targets.view``. Both come from the same draws up to the first
    transform that occludes; from there on only the occluded view is changed. So either half is what a loader of single
    views gives for the same seed: the clean one without the occluding transforms, the other with them.

    Args:
        samples: the training split.
        classes: identity -> class index.
        input: image size and normalisation.
        data: batch size, sampler, augmentation, views, masks.
        images: what is decoded already, in place of `samples` and of the options below that decode.
        seed: of order and augmentation, not negative.
        workers: processes that prepare batches; 0 prepares them in line.
        rank: of this process.
        world_size: number of processes.
        limit_bytes: keep decoded images in memory up to this many bytes.
        skip_unreadable: leave out images that cannot be read; they are named in ``images.skipped``.
        progress: called with (images decoded, images) while the cache is filled.
        teacher: gives the embeddings (N, D) of the clean images, which become ``targets.teacher`` of all their views.

    Attributes:
        images: the decoded images.
        samples: those that can be read.
        classes: identity -> class index, as given.
        steps_per_epoch: batches of an epoch, the same for each.

    Raises:
        DataError: the split is empty, has one identity or one that is no class, or does not make a batch for each
            process.
        ImageError: an image cannot be read; it is named.
        MaskError: masks are wanted and missing.
        RecipeError: the augmentation's options do not fit, or do not make the views that are wanted.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        classes: Mapping[str, int],
        input: InputConfig,
        data: DataConfig,
        images: DecodedImages | None = None,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        limit_bytes: int = 4 << 30,
        skip_unreadable: bool = False,
        progress: Callable[[int, int], None] | None = None,
        teacher: Callable[[Sequence[Sample]], Tensor] | None = None,
    ) -> None:
        _require_classes(samples, classes)
        _require_shares(data, rank, world_size)
        first_occluder = require_views(data)
        self.images = images or DecodedImages(
            samples,
            input.height,
            input.width,
            masks=data.masks,
            resample=data.resample or input.resample,
            limit_bytes=limit_bytes,
            skip_unreadable=skip_unreadable,
            progress=progress,
        )
        self.samples = self.images.samples
        self.classes = dict(classes)
        self._identity = torch.tensor([classes[sample.person] for sample in self.samples])
        self._camera = torch.tensor([sample.camera for sample in self.samples])
        self._teacher = None if teacher is None else teacher(self.samples)
        self._sampler = make_sampler(data, self._identity.numpy(), seed=seed)
        self.steps_per_epoch = self._sampler.steps_per_epoch
        self._views = Views(self.images, input, data, seed, first_occluder)
        self._mean = torch.tensor(input.mean).mul(255).view(1, 3, 1, 1)
        self._std = torch.tensor(input.std).mul(255).view(1, 3, 1, 1)
        self._seed, self._workers, self._distinct = seed, workers, data.distinct_views
        self._resample = input.resample
        share = data.batch // world_size
        self._mine = slice(rank * share, (rank + 1) * share)

    @property
    def plain(self) -> DecodedImages:
        """The images resized as a model in use resizes them, which `data.resample` may do otherwise."""
        return self.images.resampled(self._resample)

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
        shown = epoch if self._distinct is None else (epoch - 1) % self._distinct + 1
        plan = [
            Part(shown, tuple(p.tolist()), tuple(o.tolist()))
            for p, o in zip(positions[skip:, self._mine], occurrences[skip:, self._mine], strict=True)
        ]
        for part, made in zip(plan, self._prepare(plan), strict=True):
            if isinstance(made, OccludedReIDError):
                raise made
            yield self._finish(part, *made)

    def _prepare(self, plan: list[Part]) -> Iterator[Prepared]:
        if not self._workers:
            return map(self._views.__getitem__, plan)
        loader = DataLoader(
            self._views,
            sampler=plan,
            batch_size=None,  # a worker makes a whole batch, so nothing is collated again
            collate_fn=_as_it_is,
            num_workers=self._workers,
            worker_init_fn=_leave_stopping_to_the_parent,
            # Workers are seeded from this one; left out, every epoch would advance torch's global generator.
            generator=torch.Generator().manual_seed(self._seed),
        )
        return iter(loader)

    def _finish(self, part: Part, pixels: Tensor, parsing: Tensor | None, occlusion: Tensor | None) -> Batch:
        """Normalise here rather than in the workers: bytes are a quarter of what would have to be sent."""
        # (N, H, W, C) seen as (N, C, H, W) is torch's channels_last layout, which convolutions like best on a CPU.
        images = pixels.permute(0, 3, 1, 2).float().sub_(self._mean).div_(self._std)
        views = len(images) // len(part.positions)
        positions = part.positions * views
        rows = torch.tensor(positions)
        targets = Targets(
            identity=self._identity[rows],
            camera=self._camera[rows],
            path=tuple(self.samples[position].name for position in positions),
            parsing=None if parsing is None else parsing.long(),
            occlusion_mask=None if occlusion is None else occlusion.float(),
            teacher=None if self._teacher is None else self._teacher[rows],
            view=None if views == 1 else torch.arange(views).repeat_interleave(len(part.positions)),
        )
        return Batch(images, targets)


def _leave_stopping_to_the_parent(_: int) -> None:
    """Service managers send SIGTERM to every process of a job: the batch in hand is wanted until the parent stops."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _as_it_is(prepared: Any) -> Any:
    return prepared


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
