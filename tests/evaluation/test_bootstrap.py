"""Bootstrapped means against loops over the drawn queries, and what threads may not change."""

from __future__ import annotations

import numpy as np
import pytest

from occluded_reid.evaluation.bootstrap import bootstrap_means, interval_of


def test_means_are_those_of_the_drawn_rows() -> None:
    values = np.random.default_rng(0).random((7, 3))
    drawn = np.random.default_rng(5).integers(0, 7, (20, 7))
    expected = [[sum(values[q, k] for q in row) / 7 for k in range(3)] for row in drawn]
    assert bootstrap_means(values, 20, seed=5) == pytest.approx(np.array(expected), abs=1e-14)


def test_the_last_digit_does_not_depend_on_the_number_of_threads() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    values = np.random.default_rng(1).random((11_659, 5))
    with threadpoolctl.threadpool_limits(1):
        one = bootstrap_means(values, 90, seed=0)
    with threadpoolctl.threadpool_limits(2):
        two = bootstrap_means(values, 90, seed=0)
    assert np.array_equal(one, two)


def test_one_query_has_an_interval_without_width() -> None:
    interval = interval_of(bootstrap_means(np.array([[0.3]]), 50, seed=0)[:, 0], 0.95)
    assert (interval.low, interval.high) == (0.3, 0.3)
