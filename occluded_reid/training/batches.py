"""Where the loop gets its batches from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from torch import Tensor

from occluded_reid.config import Recipe
from occluded_reid.contracts import Batch
from occluded_reid.data.dataset import ReIDData, Sample
from occluded_reid.data.loader import TrainLoader
from occluded_reid.errors import DataError
from occluded_reid.models import Preprocess

__all__ = ["Batches", "make_loader"]


class Batches(Protocol):
    """What the loop asks of a loader; `TrainLoader` is one."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch, for the progress bar; a sampler may give a few more or fewer."""
        ...

    def batches(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield this process's share of the batches of an epoch, the same each time, without the first `skip` ones."""
        ...


def make_loader(
    data: ReIDData,
    recipe: Recipe,
    preprocess: Preprocess | None = None,
    *,
    seed: int = 0,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    teacher: Callable[[Sequence[Sample]], Tensor] | None = None,
) -> TrainLoader:
    """Make the loader of a data set's training split as the recipe's data part says.

    Args:
        data: its training identities, sorted, become classes 0, 1, …
        recipe: input size, batch, sampler, augmentation, masks.
        preprocess: of the model that is to be trained, whose parser crops the images where the recipe says so. Without
            it nothing of such a recipe is decoded yet: its ``images.crop(model.preprocess.boxes)`` is to follow.
        seed: of order and augmentation.
        workers: processes that prepare batches.
        rank: of this process.
        world_size: number of processes.
        teacher: gives the embeddings of the clean images, see `TrainLoader`.

    Raises:
        DataError: the training split is empty, has one identity, or does not fill a batch.
        MaskError: the recipe needs part masks and some are missing.
    """
    crops = recipe.model.input.crop.rule != "none"
    loader = TrainLoader(
        data.train,
        classes=data.train_classes(),
        input=recipe.model.input,
        data=recipe.data,
        seed=seed,
        workers=workers,
        rank=rank,
        world_size=world_size,
        limit_bytes=0 if crops else 4 << 30,
        teacher=teacher,
    )
    if crops and preprocess is not None:
        loader.images.crop(preprocess.boxes)
    if not loader.steps_per_epoch:
        raise DataError(
            f"the {len(data.train)} training images of '{data.name}' do not fill one batch of {recipe.data.batch}. "
            "Use a smaller data.batch."
        )
    return loader
