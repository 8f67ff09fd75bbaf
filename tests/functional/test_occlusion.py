"""Which stripes an occluder hides: FED's soft binarisation in plain loops."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.errors import ShapeError
from occluded_reid.functional import occlusion_stripes


def by_definition(mask, num_stripes, rule="ratio", ratio=3.0, threshold=0.5, vertical_all_visible=True, rows=None):
    count, height, width = mask.shape
    rows = rows or height
    result = torch.ones(count, num_stripes, dtype=torch.float64)
    for i in range(count):
        means, shares = [], []
        for p in range(num_stripes):
            first, last = (
                math.floor(Fraction(k * rows, num_stripes) + Fraction(1, 2)) * height // rows for k in (p, p + 1)
            )
            pixels = [float(mask[i, y, x]) for y in range(first, last) for x in range(width)]
            means.append(sum(pixels) / len(pixels))
            shares.append(sum(value > 0 for value in pixels) / len(pixels))
        touched = [p for p in range(num_stripes) if means[p] > 0]
        if not touched or (vertical_all_visible and len(touched) == num_stripes):
            continue
        if rule == "fraction":
            hidden = [p for p in range(num_stripes) if shares[p] >= threshold]
        elif len(touched) == 1:
            hidden = touched
        else:
            largest = max(touched, key=lambda p: means[p])
            second = max(means[p] for p in touched if p != largest)
            hidden = [largest] if means[largest] / second > ratio else touched
        for p in hidden:
            result[i, p] = 0
    return result


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 1 << 30),
    st.integers(1, 6),
    st.integers(0, 5),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.7, 1.0, 3.0]),
    st.sampled_from([0.001, 0.26, 0.5, 1.0]),
    st.booleans(),
)
def test_against_the_definition(seed, num_stripes, more_rows, scale, width, ratio, threshold, vertical):
    rows = num_stripes + more_rows
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(6, rows * scale, width, generator=generator, dtype=torch.float64)
    start = torch.randint(0, rows * scale + 1, (6, 1, 1), generator=generator)
    mask = noise * (torch.arange(rows * scale).view(1, -1, 1) >= start) * (noise > 0.3)
    for options in ({"rule": "ratio", "ratio": ratio}, {"rule": "fraction", "threshold": threshold}):
        for pixels in (mask, (mask > 0).double()):
            options = {**options, "vertical_all_visible": vertical, "rows": rows}
            actual = occlusion_stripes(pixels, num_stripes, **options)
            assert torch.equal(actual, by_definition(pixels, num_stripes, **options))


@pytest.mark.parametrize("height", range(0, 257))
def test_an_occluder_from_below_of_each_height(height):
    """256 rows, 4 stripes, uniform difference; the two ranges that SPEC names, and those that follow from the rule."""
    mask = torch.zeros(1, 256, 128)
    mask[:, 256 - height :] = 0.37
    hidden = 4 - int(occlusion_stripes(mask, 4).sum())
    expected = (
        0 if height == 0 or height > 192  # nothing there, or all four touched
        else 1 if height <= 85  # the second stripe is covered to a third at most
        else 2 if height <= 128
        else 3
    )  # fmt: skip
    assert hidden == expected


def test_what_touches_every_stripe_hides_none():
    mask = torch.zeros(1, 256, 128)
    mask[:, :, 80:] = 1
    assert occlusion_stripes(mask, 4).tolist() == [[1, 1, 1, 1]]
    assert occlusion_stripes(mask, 4, vertical_all_visible=False).tolist() == [[0, 0, 0, 0]]
    assert occlusion_stripes(mask, 4, rule="fraction", threshold=0.3).tolist() == [[1, 1, 1, 1]]
    uneven = {"rule": "fraction", "threshold": 0.3, "vertical_all_visible": False}
    assert occlusion_stripes(mask, 4, **uneven).tolist() == [[0, 0, 0, 0]]
    mask[0, 255] = 0  # still in every stripe
    assert occlusion_stripes(mask, 4).tolist() == [[1, 1, 1, 1]]
    mask[0, 192:] = 0  # now in three
    assert occlusion_stripes(mask, 4).tolist() == [[0, 0, 0, 1]]


def test_one_stripe_has_nothing_beside_it():
    mask = torch.ones(1, 4, 4)
    assert occlusion_stripes(mask, 1).tolist() == [[1]]
    assert occlusion_stripes(mask, 1, vertical_all_visible=False).tolist() == [[0]]


def test_exactly_three_times_as_much_is_not_more():
    mask = torch.zeros(1, 8, 3)
    mask[0, 2:4] = 0.25
    mask[0, 4:6] = 0.75
    assert occlusion_stripes(mask, 4).tolist() == [[1, 0, 0, 1]]
    mask[0, 5, 0] = 0.76
    assert occlusion_stripes(mask, 4).tolist() == [[1, 1, 0, 1]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_types(dtype):
    mask = torch.zeros(2, 1024, 128, dtype=dtype)
    mask[0, 600:] = 1  # more pixels than half precision can count
    actual = occlusion_stripes(mask, 4)
    assert actual.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert actual.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exactly = occlusion_stripes(mask, 4, rule="fraction", threshold=168 / 256)
    assert exactly.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_refused():
    mask = torch.zeros(1, 8, 4)
    with pytest.raises(ShapeError, match=r"mask must be \(N, H, W\)"):
        occlusion_stripes(mask[0], 2)
    with pytest.raises(ShapeError, match="8 rows cannot be cut into 9 bands"):
        occlusion_stripes(mask, 9)
    with pytest.raises(ShapeError, match="'ratio', 'fraction'"):
        occlusion_stripes(mask, 2, rule="soft")
    with pytest.raises(ShapeError, match=r"ratio is -1"):
        occlusion_stripes(mask, 2, ratio=-1)
    for threshold in (0, 50):
        with pytest.raises(ShapeError, match=rf"threshold is {threshold}; give the covered share"):
            occlusion_stripes(mask, 2, rule="fraction", threshold=threshold)
    with pytest.raises(ShapeError, match="8 rows does not lie over a map of 3 rows"):
        occlusion_stripes(mask, 2, rows=3)
