"""Matrices that somebody else has computed, with numbers that float32 or the matrix itself cannot hold."""

from __future__ import annotations

import numpy as np
import pytest

from occluded_reid.evaluation import evaluate_matrix
from occluded_reid.matchers import NO_SHARED_SLOT
from occluded_reid.search.matrix import MatrixDistances


@pytest.mark.parametrize("last", [NO_SHARED_SLOT, 1e31, 1e39, 1e300])
def test_whatever_comes_last_comes_last(last: float) -> None:
    distance = np.array([[last, 0.2, 0.1, 2 * last]])
    report = evaluate_matrix(distance, [1], [1, 2, 3, 1], [0], [1, 1, 1, 1])
    assert report.first_match_rank.tolist() == [3]
    assert report.average_precision.tolist() == [(1 / 3 + 2 / 4) / 2]
    assert report.card.pairs_without_shared_slot == 2


def test_half_precision_is_read_without_overflow() -> None:
    matrix = np.array([[0.25, 60_000.0]], dtype=np.float16)
    distances = MatrixDistances(matrix)
    assert distances.score([0, 0], [0, 1]).tolist() == [0.25, 60_000.0 - 60_000.0 % 32]
    (near,) = distances.tiles()
    assert near.distance.tolist() == [[0.25, float(matrix[0, 1])]]
    assert near.tolerance == pytest.approx(1e-6 + float(matrix[0, 1]) * 2**-23)
