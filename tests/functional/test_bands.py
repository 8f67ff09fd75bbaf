"""Bands: SPEC's one rule, computed here with exact fractions."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.errors import OccludedReIDError, ShapeError
from occluded_reid.functional import bands


def edge(n: int, height: int, num_bands: int) -> int:
    return math.floor(Fraction(n * height, num_bands) + Fraction(1, 2))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 200), st.data())
def test_bands_are_the_rule_and_share_out_the_rows(height, data):
    num_bands = data.draw(st.integers(1, height))
    result = bands(height, num_bands)
    assert result == [(edge(n, height, num_bands), edge(n + 1, height, num_bands)) for n in range(num_bands)]
    rows = [row for start, stop in result for row in range(start, stop)]
    assert rows == list(range(height))
    assert all(stop > start for start, stop in result)


def test_bands_are_exact_where_floats_are_not():
    # 3 · h / 6 + ½ needs more digits than a float has.
    height = 2**60 + 1
    assert bands(height, 6)[3][0] == edge(3, height, 6) == 2**59 + 1


@pytest.mark.parametrize(
    ("height", "num_bands", "expected"),
    [
        (24, 3, [(0, 8), (8, 16), (16, 24)]),
        (12, 6, [(0, 2), (2, 4), (4, 6), (6, 8), (8, 10), (10, 12)]),
        (7, 3, [(0, 2), (2, 5), (5, 7)]),  # adaptive pooling would overlap here
        (8, 3, [(0, 3), (3, 5), (5, 8)]),  # tensor_split would give (3, 3, 2)
        (1, 1, [(0, 1)]),
    ],
)
def test_known_bands(height, num_bands, expected):
    assert bands(height, num_bands) == expected


@pytest.mark.parametrize(("height", "num_bands"), [(2, 3), (5, 0), (5, -1), (0, 1)])
def test_refused_bands(height, num_bands):
    with pytest.raises(ShapeError, match=rf"{height} rows cannot be cut into {num_bands} bands"):
        bands(height, num_bands)
    assert issubclass(ShapeError, OccludedReIDError)
