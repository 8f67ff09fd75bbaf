"""Visibility of regions and weighted pooling against SGAM Eq. 2-3 in plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.errors import ShapeError
from occluded_reid.functional import region_pool, region_visibility

MODES = ["ref", "area", "relative", "peak", "binary"]


def random_maps(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def average_pooled(plane, rows, columns):
    """AP of one map: cell (y, x) is the mean of all pixels that it touches."""
    height, width = len(plane), len(plane[0])
    cells = []
    for y in range(rows):
        top, bottom = math.floor(y * height / rows), math.ceil((y + 1) * height / rows)
        line = []
        for x in range(columns):
            left, right = math.floor(x * width / columns), math.ceil((x + 1) * width / columns)
            pixels = [plane[i][j] for i in range(top, bottom) for j in range(left, right)]
            line.append(sum(pixels) / len(pixels))
        cells.append(line)
    return cells


def visibility_by_definition(maps, mode, reference, threshold, pooled_size):
    count, regions, height, width = maps.shape
    result = torch.zeros(count, regions, dtype=torch.float64)
    for n in range(count):
        sums = [sum(sum(row) for row in maps[n, i].tolist()) for i in range(regions)]  # Eq. 2
        for i in range(regions):
            if mode == "ref":
                value = min(1.0, sums[i] / (reference[i] * height * width)) if reference[i] else 0.0
            elif mode == "area":
                value = sums[i] / (height * width)
            elif mode == "relative":
                value = sums[i] / sum(sums) if sum(sums) else 0.0
            elif mode == "peak":
                value = max(max(row) for row in average_pooled(maps[n, i].tolist(), *pooled_size))
            else:
                share = sums[i] / (height * width)
                value = float((share / reference[i] if reference[i] else 0.0) >= threshold[i])
            result[n, i] = value
    return result


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODES), st.integers(1, 3), st.integers(1, 4), st.integers(1, 7), st.integers(1, 5), st.data())
def test_visibility_against_the_definitions(mode, count, regions, height, width, data):
    maps = random_maps(count, regions, height, width, seed=7 * height + width) ** 3
    fractions = st.lists(st.sampled_from([0.0, 0.03, 0.2, 0.5, 1.0]), min_size=regions, max_size=regions)
    reference, threshold = data.draw(fractions), data.draw(fractions)
    size = (data.draw(st.integers(1, height)), data.draw(st.integers(1, width)))
    options = {
        "ref": {"reference": reference},
        "binary": {"reference": reference, "threshold": threshold},
        "peak": {"pooled_size": size},
    }.get(mode, {})
    actual = region_visibility(maps, mode, **options)
    expected = visibility_by_definition(maps, mode, reference, threshold, size)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    assert ((actual >= 0) & (actual <= 1)).all()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(MODES),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    st.integers(1, 40),
    st.sampled_from([0.0, 1e-7, 0.1, 1 / 3, 1.0]),
)
def test_visibility_never_leaves_its_range(mode, dtype, size, value):
    maps = torch.full((2, 4, size, 3), value).to(dtype)
    options = {"reference": [0.0, 1e-3, 0.3, 1.0]} if mode in ("ref", "binary") else {}
    seen = region_visibility(maps, mode, **options)
    assert seen.dtype == torch.float32
    assert ((seen >= 0) & (seen <= 1)).all()


@pytest.mark.parametrize("mode", MODES)
def test_a_region_that_nobody_sees_is_hidden(mode):
    maps = random_maps(3, 4, 6, 4)
    maps[:, 3] = 0  # shoes behind a car
    maps[1] = 0  # nobody at all
    reference = [0.1, 0.4, 0.3, 0.05] if mode in ("ref", "binary") else None
    seen = region_visibility(maps, mode, reference)
    assert (seen[:, 3] == 0).all()
    assert (seen[1] == 0).all()
    assert (seen[0, :3] > 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_covering_a_region_lowers_its_visibility(mode):
    maps = torch.zeros(2, 2, 8, 4)
    maps[:, 0, :4], maps[:, 1, 4:] = 0.9, 0.9
    maps[1, 1, 5:] = 0.0  # the second image: the lower region is all but covered
    maps[1, 1, 4] = 0.1
    reference = 0.45 if mode in ("ref", "binary") else None
    before, after = region_visibility(maps, mode, reference)
    assert after[1] < before[1]
    assert after[0] >= before[0], "the region that is not covered loses nothing"


def test_a_softmax_without_background_would_hide_no_occlusion():
    """Eq. 1 sums over the regions alone: then every pixel of a car is some region, and Σ_i S_i never falls."""
    scores = random_maps(1, 5, 6, 4, seed=3)
    scores[:, 0, 3:] += 20  # a car: surely background
    with_background = scores.softmax(1)[:, 1:]
    literal = scores[:, 1:].softmax(1)
    assert float(region_visibility(literal, "area").sum()) == pytest.approx(1)
    assert float(region_visibility(with_background, "area").sum()) < 0.5


def test_regions_of_every_size_are_measured_by_their_own():
    maps = torch.zeros(1, 2, 10, 10)
    maps[0, 0, :5], maps[0, 1, 9, :4] = 1, 1  # upper body: half of the image; shoes: 4 %
    assert region_visibility(maps, "area").tolist() == [[pytest.approx(0.5), pytest.approx(0.04)]]
    assert region_visibility(maps, "ref", [0.5, 0.04]).tolist() == [[pytest.approx(1), pytest.approx(1)]]
    assert region_visibility(maps, "ref", torch.tensor([1.0, 0.08])).tolist() == [[0.5, pytest.approx(0.5)]]


def test_binary_takes_its_own_thresholds_and_one_default():
    maps = torch.full((1, 3, 4, 4), 0.3)
    assert region_visibility(maps, "binary").tolist() == [[1, 1, 1]]  # 0.3 of the image is at least 0.2
    assert region_visibility(maps, "binary", threshold=0.4).tolist() == [[0, 0, 0]]
    assert region_visibility(maps, "binary", threshold=[0.2, 0.4, 0.0]).tolist() == [[1, 0, 1]]
    assert region_visibility(maps, "binary", 0.6, threshold=[0.4, 0.6, 0.49]).tolist() == [[1, 0, 1]]


def pool_by_definition(features, maps):
    count, channels, height, width = features.shape
    regions = maps.shape[1]
    result = torch.zeros(count, regions, channels, dtype=torch.float64)
    for n in range(count):
        for i in range(regions):
            weights = average_pooled(maps[n, i].tolist(), height, width)
            below = sum(sum(row) for row in weights) + 1e-6
            for c in range(channels):
                above = sum(weights[y][x] * float(features[n, c, y, x]) for y in range(height) for x in range(width))
                result[n, i, c] = above / below
    return result


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 13), st.integers(1, 9)
)
def test_pooling_against_equation_3(count, regions, height, width, map_height, map_width):
    features = random_maps(count, 3, height, width) - 0.5
    maps = random_maps(count, regions, map_height, map_width, seed=1)
    expected = pool_by_definition(features, maps)
    torch.testing.assert_close(region_pool(features, maps), expected, rtol=0, atol=1e-12)


def test_the_denominator_is_the_sum_of_the_pooled_map():
    """With the S_i of the full map below the line, as Eq. 3 is printed, f_i would shrink by the 16 of the pooling."""
    features, maps = torch.full((1, 2, 6, 2), 3.0, dtype=torch.float64), random_maps(1, 4, 24, 8)
    torch.testing.assert_close(region_pool(features, maps), torch.full((1, 4, 2), 3.0).double(), rtol=1e-5, atol=0)
    shrunk = 3.0 * torch.nn.functional.avg_pool2d(maps, 4).sum((2, 3)) / maps.sum((2, 3))
    torch.testing.assert_close(shrunk, torch.full((1, 4), 3.0 / 16).double(), rtol=1e-5, atol=0)


def test_equation_2_as_it_is_printed_is_a_sum():
    maps = random_maps(2, 3, 5, 4)
    expected = [[sum(float(maps[n, i, y, x]) for y in range(5) for x in range(4)) for i in range(3)] for n in range(2)]
    found = region_visibility(maps, "sum")
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(found / 20, region_visibility(maps, "area"))
    assert torch.autograd.gradcheck(lambda p: region_visibility(p, "sum"), maps.requires_grad_())


def test_equation_3_as_it_is_printed_divides_by_the_full_sum():
    features, maps = random_maps(2, 3, 6, 2) - 0.5, random_maps(2, 4, 24, 8, seed=1)
    expected = torch.zeros(2, 4, 3, dtype=torch.float64)
    for n in range(2):
        for i in range(4):
            weights = average_pooled(maps[n, i].tolist(), 6, 2)
            below = sum(float(maps[n, i, y, x]) for y in range(24) for x in range(8)) + 1e-6
            for c in range(3):
                above = sum(weights[y][x] * float(features[n, c, y, x]) for y in range(6) for x in range(2))
                expected[n, i, c] = above / below
    torch.testing.assert_close(region_pool(features, maps, "full"), expected, rtol=0, atol=1e-12)
    given = (features.requires_grad_(), maps.requires_grad_())
    assert torch.autograd.gradcheck(lambda f, p: region_pool(f, p, "full"), given)


def test_a_region_that_never_appears_pools_to_zero_and_moves_nothing():
    features = (random_maps(2, 3, 6, 2) - 0.5).requires_grad_()
    maps = random_maps(2, 4, 24, 8)
    maps[:, 2] = 0
    pooled = region_pool(features, maps)
    assert (pooled[:, 2] == 0).all()
    pooled[:, 2].sum().backward()
    assert (features.grad == 0).all()


def test_a_region_of_one_pixel_is_the_cell_it_lies_in():
    features, maps = random_maps(1, 3, 6, 2), torch.zeros(1, 1, 24, 8)
    maps[0, 0, 21, 6] = 1.0
    # One pixel is 1/16 of its cell, so the 1e-6 below the line takes 1.6e-5 of it.
    torch.testing.assert_close(region_pool(features, maps)[0, 0], features[0, :, 5, 1], rtol=2e-5, atol=0)


def test_pooling_has_a_gradient():
    features, maps = random_maps(2, 3, 4, 2) - 0.5, random_maps(2, 2, 8, 6, seed=1)
    assert torch.autograd.gradcheck(region_pool, (features.requires_grad_(), maps.requires_grad_()))


def test_visibility_has_a_gradient():
    maps = random_maps(2, 3, 4, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: region_visibility(p, "ref", [0.9, 0.99, 0.0]), maps)
    assert torch.autograd.gradcheck(lambda p: region_visibility(p, "relative"), maps)
    empty = torch.zeros(1, 2, 2, 2, requires_grad=True)
    region_visibility(empty, "relative").sum().backward()
    assert empty.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype):
    # 24 × 8 cells of 1,000: their plain sum, 192,000, is no number of float16.
    features = torch.full((1, 2, 24, 8), 1000.0).to(dtype)
    pooled = region_pool(features, torch.ones(1, 2, 96, 32))
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled.float(), torch.full((1, 2, 2), 1000.0), rtol=0.01, atol=0)


MAPS = torch.zeros(2, 4, 6, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: region_visibility(MAPS[0], "area"), r"probabilities must be \(N, R, h, w\); got \(4, 6, 3\)"),
        (lambda: region_visibility(MAPS, "size"), "mode is 'size'; give one of 'ref', 'area'"),
        (lambda: region_visibility(MAPS), "'ref' measures each region.*give reference"),
        (lambda: region_visibility(MAPS, "ref", [0.1, 0.2]), r"reference must be one number, or 4.*got \(2,\)"),
        (lambda: region_visibility(MAPS, "ref", 1.5), r"reference must lie in \[0, 1\]"),
        (lambda: region_visibility(MAPS, "ref", float("nan")), r"reference must lie in \[0, 1\]"),
        (lambda: region_visibility(MAPS, "binary", threshold=[0.1] * 3), "threshold must be one number, or 4"),
        (lambda: region_visibility(MAPS, "area", 0.2), "'area' has no use for reference; leave it out"),
        (lambda: region_visibility(MAPS, "ref", 0.2, threshold=0.1), "'ref' has no use for threshold"),
        (lambda: region_visibility(MAPS, "area", pooled_size=(2, 1)), "'area' has no use for pooled_size"),
        (lambda: region_visibility(MAPS, "sum", 0.2), "'sum' has no use for reference"),
        (lambda: region_pool(MAPS, MAPS, "whole"), "denominator is 'whole'; give one of 'pooled', 'full'"),
        (lambda: region_pool(MAPS[0], MAPS), r"features must be \(N, C, h, w\)"),
        (lambda: region_pool(MAPS, MAPS[0]), r"probabilities must be \(N, R, H, W\)"),
        (lambda: region_pool(MAPS[:1], MAPS), "features hold 1 images and probabilities 2"),
    ],
)
def test_what_does_not_fit(call, message):
    with pytest.raises(ShapeError, match=message):
        call()
