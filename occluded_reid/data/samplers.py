"""Which samples make which batch: shuffled, or P identities with K images each; settled by (seed, epoch) alone.

Here, too, is the generator that augments a sample: all of training's chance in data is keyed in this file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from occluded_reid.config import DataConfig
from occluded_reid.errors import DataError

__all__ = ["BatchSampler", "PKSampler", "ShuffleSampler", "make_sampler", "sample_generator"]

# Keeps the stream that orders samples apart from the streams that augment them, which have no spawn key.
_ORDER = (1,)


class BatchSampler(ABC):
    """Orders samples into the global batches of an epoch; every epoch has the same number of batches.

    Args:
        identities: (N,) class of each sample.
        batch: samples in a global batch.
        seed: not negative; with the epoch it settles the order.

    Raises:
        DataError: fewer than two identities, or too few samples for one batch.
    """

    steps_per_epoch: int

    def __init__(self, identities: Sequence[int] | np.ndarray, batch: int, *, seed: int) -> None:
        if seed < 0:
            raise DataError(f"the seed must not be negative; got {seed}.")
        self.identities = np.asarray(identities, dtype=np.int64)
        self.batch = batch
        self.seed = seed
        people = len(np.unique(self.identities))
        if people < 2:
            raise DataError(
                f"the training split holds {len(self.identities)} images of {people} identities; telling people apart "
                "needs at least two. Check the folder, or hold out fewer identities."
            )

    @abstractmethod
    def batches(self, epoch: int) -> np.ndarray:
        """Return (steps_per_epoch, batch) int64 positions of samples; row i is the i-th global batch."""

    def _generator(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, epoch], spawn_key=_ORDER))


class ShuffleSampler(BatchSampler):
    """Every sample at most once an epoch in random order; the last, incomplete batch is dropped.

    Example:
        >>> sampler = ShuffleSampler([0, 0, 1, 1, 2], 2, seed=0)
        >>> sampler.steps_per_epoch, sampler.batches(1).shape
        (2, (2, 2))
    """

    def __init__(self, identities: Sequence[int] | np.ndarray, batch: int, *, seed: int) -> None:
        super().__init__(identities, batch, seed=seed)
        self.steps_per_epoch = len(self.identities) // batch
        if not self.steps_per_epoch:
            raise DataError(
                f"{len(self.identities)} training images do not fill one batch of {batch}. "
                "Lower data.batch, or add images."
            )

    def batches(self, epoch: int) -> np.ndarray:
        """Return (steps_per_epoch, batch) int64 positions of samples."""
        order = self._generator(epoch).permutation(len(self.identities))
        return order[: self.steps_per_epoch * self.batch].reshape(self.steps_per_epoch, self.batch)


class PKSampler(BatchSampler):
    """P = batch / instances different identities in each batch, with K = instances images each, side by side.

    The images of an identity are shuffled and cut into groups of K; what is left over sits the epoch out. An identity
    with fewer than K images makes one group: each of its images once, the rest drawn from them with replacement. One
    with a single image therefore fills its group with that image, K times, which augmentation makes different.

    An epoch has as many batches as P *different* identities a batch allow; where groups are left over, chance decides
    which. With g_i groups of identity i, that is the largest B with Σ min(g_i, B) ≥ P·B.

    Raises:
        DataError: fewer identities than P.

    Example:
        >>> sampler = PKSampler([0, 0, 0, 0, 1, 1, 2, 2], 4, 2, seed=0)
        >>> sampler.steps_per_epoch, np.sort(sampler.identities[sampler.batches(1)], axis=1).tolist()
        (2, [[0, 0, 1, 1], [0, 0, 2, 2]])
    """

    def __init__(self, identities: Sequence[int] | np.ndarray, batch: int, instances: int, *, seed: int) -> None:
        super().__init__(identities, batch, seed=seed)
        if instances < 1 or batch % instances:
            raise DataError(f"batch {batch} must be a multiple of instances {instances}. Change data.batch.")
        self.instances = instances
        self.people = batch // instances
        classes, self._class_of = np.unique(self.identities, return_inverse=True)
        if len(classes) < self.people:
            raise DataError(
                f"a batch of {batch} with {instances} images each needs {self.people} identities; the training split "
                f"holds {len(classes)}. Lower data.batch, or raise data.instances."
            )
        self._groups = np.maximum(np.bincount(self._class_of) // instances, 1)
        steps = int(self._groups.sum()) // self.people
        while (fits := int(np.minimum(self._groups, steps).sum()) // self.people) < steps:
            steps = fits
        self.steps_per_epoch = steps

    def batches(self, epoch: int) -> np.ndarray:
        """Return (steps_per_epoch, batch) int64 positions of samples; every K side by side are one identity."""
        generator = self._generator(epoch)
        groups = np.minimum(self._groups, self.steps_per_epoch)
        owners = np.repeat(np.arange(len(groups)), groups)
        kept = generator.permutation(owners)[: self.steps_per_epoch * self.people]
        counts = np.bincount(kept, minlength=len(groups))
        room = np.full(self.steps_per_epoch, self.people)
        result = np.empty((self.steps_per_epoch, self.people, self.instances), dtype=np.int64)
        for identity in generator.permutation(len(groups)):
            # Each group to another batch, the emptiest first, by lot among equals: this way nobody is left over (it is
            # how a 0/1 matrix with given row and column sums is built, after Gale and Ryser).
            chosen = np.argsort(-(room + generator.random(len(room))))[: counts[identity]]
            cut = self._cut(np.flatnonzero(self._class_of == identity), generator)
            result[chosen, self.people - room[chosen]] = cut[: len(chosen)]
            room[chosen] -= 1
        return result.reshape(self.steps_per_epoch, self.batch)

    def _cut(self, positions: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """(groups, K) shuffled positions of one identity."""
        shuffled = generator.permutation(positions)
        if len(shuffled) < self.instances:
            again = generator.choice(shuffled, self.instances - len(shuffled))
            shuffled = np.concatenate([shuffled, again])
        whole = len(shuffled) // self.instances
        return shuffled[: whole * self.instances].reshape(whole, self.instances)


def make_sampler(data: DataConfig, identities: Sequence[int] | np.ndarray, *, seed: int) -> BatchSampler:
    """Return the sampler that a recipe asks for.

    Args:
        data: batch size, sampler and instances.
        identities: (N,) class of each sample.
        seed: not negative.

    Raises:
        DataError: the samples do not make a batch.
    """
    if data.sampler == "pk":
        return PKSampler(identities, data.batch, data.instances, seed=seed)
    return ShuffleSampler(identities, data.batch, seed=seed)


def sample_generator(seed: int, epoch: int, index: int, occurrence: int = 0) -> np.random.Generator:
    """Return the generator that augments one sample in one epoch: workers and order change nothing.

    Args:
        seed: of the run, not negative.
        epoch: not negative.
        index: position of the sample in its split.
        occurrence: how often this epoch has shown it before, as a sampler that draws with replacement does.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, epoch, index, occurrence]))
