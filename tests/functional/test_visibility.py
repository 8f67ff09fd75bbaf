"""Visibility against SORN Eq. 11-12 in plain loops."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.errors import ShapeError
from occluded_reid.functional import mask_foreground, stripe_visibility


def by_definition(foreground, num_stripes, threshold=None, rows=None):
    count, height, width = foreground.shape
    rows = rows or height
    result = torch.zeros(count, num_stripes, dtype=torch.float64)
    for i in range(count):
        for p in range(num_stripes):
            first, last = (
                math.floor(Fraction(k * rows, num_stripes) + Fraction(1, 2)) * height // rows for k in (p, p + 1)
            )
            pixels = [float(foreground[i, y, x]) for y in range(first, last) for x in range(width)]
            score = sum(pixels) / len(pixels)  # Eq. 11
            result[i, p] = score if threshold is None else float(score >= threshold)  # Eq. 12
    return result


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(0, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([None, 0.0, 0.15, 0.5, 1.0]),
)
def test_against_the_equations(count, num_stripes, more_rows, scale, width, threshold):
    rows = num_stripes + more_rows
    generator = torch.Generator().manual_seed(rows * 31 + scale)
    soft = torch.rand(count, rows * scale, width, generator=generator, dtype=torch.float64)
    for foreground in (soft, (soft > 0.6).double()):
        actual = stripe_visibility(foreground, num_stripes, threshold, rows=rows)
        torch.testing.assert_close(actual, by_definition(foreground, num_stripes, threshold, rows), rtol=0, atol=1e-12)
        assert ((actual >= 0) & (actual <= 1)).all()


def test_the_papers_mask():
    # 96 × 32 over a map of 24 rows, 3 stripes of 32 rows: a person who stands behind a car up to the hips.
    mask = torch.zeros(1, 96, 32)
    mask[0, :40, 8:24] = 1
    assert stripe_visibility(mask, 3, rows=24).tolist() == [[0.5, 0.125, 0.0]]
    assert stripe_visibility(mask, 3, 0.15, rows=24).tolist() == [[1.0, 0.0, 0.0]]


def test_rows_move_the_boundaries_to_those_of_the_map():
    mask = torch.zeros(1, 14, 1)
    mask[0, 4:10] = 1
    # A map of 7 rows is cut at 2 and 5, so at 4 and 10 of the mask; the mask itself would be cut at 5 and 9.
    assert stripe_visibility(mask, 3, rows=7).tolist() == [[0.0, 1.0, 0.0]]
    assert stripe_visibility(mask, 3).tolist() != [[0.0, 1.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.bool, torch.uint8])
@pytest.mark.parametrize("pixels", [100, 1000, 700])
def test_exactly_the_threshold_is_visible_in_every_type(dtype, pixels):
    mask = torch.zeros(1, pixels, 1)
    mask[0, : pixels * 15 // 100] = 1
    assert stripe_visibility(mask.to(dtype), 1, 0.15).tolist() == [[1.0]]
    mask[0, 0] = 0
    assert stripe_visibility(mask.to(dtype), 1, 0.15).tolist() == [[0.0]]
    assert stripe_visibility(mask.to(dtype), 1).dtype == torch.float32


def test_fractions_have_a_gradient():
    foreground = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: stripe_visibility(f, 2), foreground.requires_grad_())


def test_foreground_is_whatever_is_not_background():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 8, 4, 3, generator=generator, dtype=torch.float64)
    hard, soft = mask_foreground(logits), mask_foreground(logits, "probability")
    for i in range(2):
        for y in range(4):
            for x in range(3):
                scores = [float(logits[i, k, y, x]) for k in range(8)]
                assert float(hard[i, y, x]) == float(max(scores) != scores[0])
                background = math.exp(scores[0]) / sum(math.exp(s) for s in scores)
                assert float(soft[i, y, x]) == pytest.approx(1 - background, abs=1e-12)
    assert 0 < hard.mean() < 1


def test_probability_stays_within_bounds():
    logits = torch.tensor([1e4, -1e4]).view(1, 2, 1, 1)
    assert mask_foreground(logits, "probability").tolist() == [[[0.0]]]
    assert mask_foreground(-logits, "probability").tolist() == [[[1.0]]]


def test_refused():
    with pytest.raises(ShapeError, match=r"foreground must be \(N, h, w\)"):
        stripe_visibility(torch.zeros(2, 2), 1)
    with pytest.raises(ShapeError, match="2 rows cannot be cut into 3 bands"):
        stripe_visibility(torch.zeros(1, 2, 2), 3)
    with pytest.raises(ShapeError, match="a mask of 10 rows does not lie over a map of 4 rows"):
        stripe_visibility(torch.zeros(1, 10, 2), 2, rows=4)
    with pytest.raises(ShapeError, match="a map of 0 rows"):
        stripe_visibility(torch.zeros(1, 10, 2), 2, rows=0)
    with pytest.raises(ShapeError, match="threshold is 15; give a fraction"):
        stripe_visibility(torch.zeros(1, 10, 2), 2, 15)
    with pytest.raises(ShapeError, match="a background and at least one more class"):
        mask_foreground(torch.zeros(1, 1, 2, 2))
    with pytest.raises(ShapeError, match="'argmax', 'probability'"):
        mask_foreground(torch.zeros(1, 2, 2, 2), "soft")
    with pytest.raises(ShapeError, match=r"logits must be \(N, K, h, w\)"):
        mask_foreground(torch.zeros(2, 2, 2))
