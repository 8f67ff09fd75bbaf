from __future__ import annotations

import math
from itertools import pairwise

import pytest

from occluded_reid.config import OptimConfig, load_recipe
from occluded_reid.training.optim import rate_factor


def test_sorn_as_published() -> None:
    """Adam; epochs 1-10 linear from 3e-5 to 3e-4; 3e-5 from epoch 30, 3e-6 from epoch 60; 80 epochs."""
    optim = load_recipe("sorn").optim
    assert (optim.type, optim.epochs) == ("adam", 80)
    for epoch in range(1, 81):
        if epoch <= 10:
            wanted = 3e-5 + (3e-4 - 3e-5) * (epoch - 1) / 9
        else:
            wanted = 3e-4 if epoch < 30 else 3e-5 if epoch < 60 else 3e-6
        assert optim.lr * rate_factor(optim, epoch) == pytest.approx(wanted, rel=1e-12), epoch


def test_fed_as_published() -> None:
    """Warm-up over 5 epochs from 0.01 of 0.008, then a cosine to 1.6e-5 in epoch 120."""
    optim = OptimConfig(type="sgd", lr=0.008, epochs=120, warmup_epochs=5, warmup_start=0.01, cosine_end=0.002)
    rates = [optim.lr * rate_factor(optim, epoch) for epoch in range(1, 121)]
    assert rates[0] == pytest.approx(8e-5)
    assert rates[4] == pytest.approx(0.008)
    assert rates[-1] == pytest.approx(1.6e-5)
    assert all(a > b for a, b in pairwise(rates[4:]))
    middle = 1.6e-5 + (0.008 - 1.6e-5) * 0.5 * (1 + math.cos(math.pi * 45 / 115))
    assert rates[49] == pytest.approx(middle)


def test_cosine_without_warm_up_starts_at_the_full_rate() -> None:
    optim = OptimConfig(epochs=5, cosine_end=0.0)
    assert [rate_factor(optim, epoch) for epoch in (1, 3, 5)] == pytest.approx([1.0, 0.5, 0.0])
    assert rate_factor(optim, 6) == pytest.approx(0.0)


@pytest.mark.parametrize(("warmup", "wanted"), [(0, [1, 1, 1]), (1, [1, 1, 1]), (2, [0.1, 1, 1]), (3, [0.1, 0.55, 1])])
def test_warm_up_ends_in_its_last_epoch(warmup: int, wanted: list[float]) -> None:
    optim = OptimConfig(epochs=3, warmup_epochs=warmup, warmup_start=0.1)
    assert [rate_factor(optim, epoch) for epoch in (1, 2, 3)] == pytest.approx(wanted)


def test_steps_multiply_each_other_and_warm_up() -> None:
    optim = OptimConfig(epochs=9, warmup_epochs=3, warmup_start=0.0, steps={2: 0.5, 5: 0.1})
    assert [rate_factor(optim, epoch) for epoch in (1, 2, 3, 4, 5)] == pytest.approx([0, 0.25, 0.5, 0.5, 0.05])


@pytest.mark.parametrize("epochs", [1, 2])
def test_short_runs(epochs: int) -> None:
    optim = OptimConfig(epochs=epochs, warmup_epochs=5, cosine_end=0.1)
    assert all(0 < rate_factor(optim, epoch) <= 1 for epoch in range(1, epochs + 1))


def test_the_rates_in_feds_published_log() -> None:
    """1.66e-3, 3.25e-3, 4.83e-3, 6.42e-3, then 7.97e-3 in epoch 5 … 1.6e-5 in epoch 120."""
    optim = OptimConfig(lr=0.008, epochs=120, warmup_epochs=5, warmup_start=0.208, cosine_end=0.002, cosine_start=0)
    rates = [optim.lr * rate_factor(optim, epoch) for epoch in (1, 2, 3, 4, 5, 120)]
    assert rates == pytest.approx([1.66e-3, 3.25e-3, 4.83e-3, 6.42e-3, 7.97e-3, 1.6e-5], rel=3e-3)


def test_bots_warm_up_is_one_step_up_in_its_first_epoch() -> None:
    optim = load_recipe("bot").optim
    for epoch in range(1, 11):
        assert rate_factor(optim, epoch) == pytest.approx(0.01 * (1 - epoch / 10) + epoch / 10)
    assert [rate_factor(optim, epoch) for epoch in (39, 40, 69, 70)] == pytest.approx([1, 0.1, 0.1, 0.01])
