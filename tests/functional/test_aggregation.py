"""Aggregation maps against SORN Eq. 2-4 in plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.errors import ShapeError
from occluded_reid.functional import aggregation_maps


def by_definition(features, num_sets, reduction):
    count, channels, height, width = features.shape
    width_of_set = channels // num_sets
    maps = torch.zeros(count, num_sets, height, width, dtype=torch.float64)
    for i in range(count):
        for n in range(num_sets):
            aggregated = [[0.0] * width for _ in range(height)]
            for c in range(n * width_of_set, (n + 1) * width_of_set):  # Eq. 2
                for y in range(height):
                    for x in range(width):
                        aggregated[y][x] += float(features[i, c, y, x])
            if reduction == "mean":
                aggregated = [[value / width_of_set for value in row] for row in aggregated]
            mean = sum(sum(row) for row in aggregated) / (height * width)  # Eq. 3
            for y in range(height):
                for x in range(width):
                    maps[i, n, y, x] = 1 / (1 + math.exp(-(aggregated[y][x] - mean)))  # Eq. 4
    return maps


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(["sum", "mean"]),
)
def test_against_the_equations(count, num_sets, width_of_set, height, width, reduction):
    generator = torch.Generator().manual_seed(count + 10 * height)
    features = torch.randn(count, num_sets * width_of_set, height, width, generator=generator, dtype=torch.float64)
    maps = aggregation_maps(features, num_sets, reduction)
    torch.testing.assert_close(maps, by_definition(features, num_sets, reduction), rtol=1e-12, atol=1e-12)
    assert ((maps > 0) & (maps < 1)).all()


def test_sum_is_the_default_and_sets_are_neighbouring_channels():
    features = torch.zeros(1, 4, 1, 2)
    features[0, 1, 0, 0] = 3.0  # the second channel belongs to the first of two sets
    maps = aggregation_maps(features, 2)
    assert maps[0, 0, 0, 0] > maps[0, 0, 0, 1]
    assert torch.equal(maps[0, 1], torch.full((1, 2), 0.5))
    assert torch.equal(maps, aggregation_maps(features, 2, "sum"))
    assert not torch.equal(maps, aggregation_maps(features, 2, "mean"))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradient(reduction):
    features = torch.randn(2, 4, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: aggregation_maps(f, 2, reduction), features.requires_grad_())


def test_refused():
    with pytest.raises(ShapeError, match="5 channels cannot be divided into 2 equal sets"):
        aggregation_maps(torch.zeros(1, 5, 2, 2), 2)
    with pytest.raises(ShapeError, match="cannot be divided into 0"):
        aggregation_maps(torch.zeros(1, 5, 2, 2), 0)
    with pytest.raises(ShapeError, match=r"features must be \(N, C, h, w\); got \(5, 2, 2\)"):
        aggregation_maps(torch.zeros(5, 2, 2), 1)
    with pytest.raises(ShapeError, match="'sum', 'mean'"):
        aggregation_maps(torch.zeros(1, 4, 2, 2), 2, "max")
