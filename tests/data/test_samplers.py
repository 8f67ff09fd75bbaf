"""Batches of samples: complete, different each epoch, the same from the same seed."""

import numpy as np
import pytest

from occluded_reid.config import DataConfig
from occluded_reid.data.samplers import PKSampler, ShuffleSampler, make_sampler
from occluded_reid.errors import DataError

SKEWED = np.repeat(np.arange(9), [1, 2, 3, 4, 5, 8, 13, 40, 4])


def most_batches(groups: list[int], people: int) -> int:
    """The longest schedule, found by playing it: always the identities with most groups left."""
    left, batches = sorted(groups), 0
    while sum(g > 0 for g in left) >= people:
        left = sorted(left, reverse=True)
        left = [g - 1 for g in left[:people]] + left[people:]
        batches += 1
    return batches


def test_shuffle_shows_each_sample_at_most_once() -> None:
    sampler = ShuffleSampler(np.arange(23) % 5, 4, seed=1)
    batches = sampler.batches(1)
    assert batches.shape == (sampler.steps_per_epoch, 4) == (5, 4)
    assert len(set(batches.ravel().tolist())) == 20
    assert set(np.concatenate([sampler.batches(e).ravel() for e in range(1, 9)]).tolist()) == set(range(23))


@pytest.mark.parametrize("identities", [SKEWED, np.random.default_rng(0).permutation(SKEWED)])
@pytest.mark.parametrize(("batch", "instances"), [(8, 4), (12, 4), (6, 2), (18, 2), (4, 4)])
def test_pk_has_p_identities_of_k_images(identities: np.ndarray, batch: int, instances: int) -> None:
    sampler = PKSampler(identities, batch, instances, seed=3)
    sizes = np.bincount(identities)
    groups = [max(1, int(n) // instances) for n in sizes]
    assert sampler.steps_per_epoch == most_batches(groups, batch // instances)
    for epoch in (1, 2, 7):
        batches = sampler.batches(epoch)
        assert batches.shape == (sampler.steps_per_epoch, batch)
        seen: dict[int, int] = {}
        for row in batches:
            people = [{int(identities[i]) for i in row[k : k + instances]} for k in range(0, batch, instances)]
            assert all(len(p) == 1 for p in people)
            assert len(set.union(*people)) == batch // instances
            for i in row:
                seen[int(i)] = seen.get(int(i), 0) + 1
        for position, times in seen.items():
            if sizes[identities[position]] >= instances:
                assert times == 1
        if instances == 4:  # identity 1 has two images: each shows up, and together they fill the group
            assert sum(seen.get(int(i), 0) for i in np.flatnonzero(identities == 1)) in (0, 4)
            assert seen.get(int(np.flatnonzero(identities == 0)[0]), 0) in (0, 4)


def test_pk_shows_every_image_of_a_small_identity() -> None:
    sampler = PKSampler([0, 0, 0, 1, 1, 1, 1], 8, 4, seed=0)
    assert sampler.steps_per_epoch == 1
    for epoch in range(10):
        row = sampler.batches(epoch)[0]
        assert set(row.tolist()) == set(range(7))


def test_pk_mixes_identities_freely() -> None:
    """Which identities meet in a batch changes within an epoch and between epochs."""
    identities = np.repeat(np.arange(20), 16)
    sampler = PKSampler(identities, 16, 4, seed=0)
    meets = [frozenset(identities[row].tolist()) for e in (1, 2) for row in sampler.batches(e)]
    assert len(set(meets)) > 0.9 * len(meets)


@pytest.mark.parametrize("kind", ["shuffle", "pk"])
def test_seed_and_epoch_settle_everything(kind: str) -> None:
    config = DataConfig(batch=8, sampler=kind, instances=2)  # type: ignore[arg-type]
    sampler = make_sampler(config, SKEWED, seed=5)
    assert type(sampler) is (PKSampler if kind == "pk" else ShuffleSampler)
    np.random.seed(0)  # noqa: NPY002 - global state must have no say
    first = sampler.batches(3)
    np.random.seed(1)  # noqa: NPY002
    assert np.array_equal(first, make_sampler(config, SKEWED, seed=5).batches(3))
    assert not np.array_equal(first, sampler.batches(4))
    assert not np.array_equal(first, make_sampler(config, SKEWED, seed=6).batches(3))


def test_bad_input() -> None:
    for make in (lambda ids: ShuffleSampler(ids, 2, seed=0), lambda ids: PKSampler(ids, 4, 2, seed=0)):
        with pytest.raises(DataError, match="5 images of 1 identities; telling people apart needs at least two"):
            make([3] * 5)
    with pytest.raises(DataError, match="3 training images do not fill one batch of 4"):
        ShuffleSampler([0, 1, 2], 4, seed=0)
    with pytest.raises(DataError, match="needs 4 identities; the training split holds 3"):
        PKSampler([0, 1, 2] * 9, 8, 2, seed=0)
    with pytest.raises(DataError, match="multiple of instances"):
        PKSampler([0, 1, 2], 3, 2, seed=0)
    with pytest.raises(DataError, match="seed must not be negative"):
        ShuffleSampler([0, 1, 2], 2, seed=-1)
