"""CMC, average precision and inverse negative penalty against loops written from their definitions."""

import numpy as np
import pytest

from occluded_reid.evaluation.metrics import average_precision, cmc, first_ranks, inverse_negative_penalty


def lists(seed: int) -> list[list[int]]:
    """For each query the ranks of its matches; some queries have none."""
    generator = np.random.default_rng(seed)
    return [sorted(generator.choice(30, generator.integers(0, 7), replace=False) + 1) for _ in range(40)]


def flat(found: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([r for ranks in found for r in ranks], dtype=np.int64), np.cumsum([0, *map(len, found)])


def precision_at(ranks: list[int], k: int) -> float:
    return sum(rank <= k for rank in ranks) / k if k else 1.0


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_the_mean_precision_at_the_matches(seed: int) -> None:
    found = lists(seed)
    hits = [np.mean([precision_at(r, k) for k in r]) if r else np.nan for r in found]
    between = [np.mean([(precision_at(r, k) + precision_at(r, k - 1)) / 2 for k in r]) if r else np.nan for r in found]
    np.testing.assert_allclose(average_precision(*flat(found)), hits, rtol=1e-12)
    np.testing.assert_allclose(average_precision(*flat(found), "trapezoid"), between, rtol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_inverse_penalty_looks_at_the_last_match_and_cmc_at_the_first(seed: int) -> None:
    found = lists(seed)
    ranks, offsets = flat(found)
    inp = [len(r) / r[-1] if r else np.nan for r in found]
    np.testing.assert_allclose(inverse_negative_penalty(ranks, offsets), inp, rtol=1e-12)
    first = first_ranks(ranks, offsets)
    assert first.tolist() == [r[0] if r else 0 for r in found]
    for k in (1, 5, 30):
        answerable = [r for r in found if r]
        assert cmc(first[first > 0], k) == sum(r[0] <= k for r in answerable) / len(answerable)
