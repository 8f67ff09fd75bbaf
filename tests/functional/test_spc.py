"""The SPC loss against SORN Eq. 5 in plain loops."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.errors import ShapeError
from occluded_reid.functional import aggregation_maps, band_share, spc_loss


def own_rows(n, height, sets):
    first, last = (math.floor(Fraction(k * height, sets) + Fraction(1, 2)) for k in (n, n + 1))
    return range(first, last)


def by_definition(maps, reduction):
    count, sets, height, width = maps.shape
    total, positions = 0.0, 0
    for i in range(count):
        for n in range(sets):
            everywhere = sum(float(maps[i, n, y, x]) for y in range(height) for x in range(width))
            inside = sum(float(maps[i, n, y, x]) for y in own_rows(n, height, sets) for x in range(width))
            total += everywhere - inside  # Eq. 5
            positions += (height - len(own_rows(n, height, sets))) * width
    if reduction == "sum":
        return total / count
    return total / positions if positions else 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 5), st.integers(1, 3), st.sampled_from(["sum", "mean"]))
def test_against_the_equation(count, sets, more_rows, width, reduction):
    generator = torch.Generator().manual_seed(sets + 7 * more_rows)
    maps = torch.rand(count, sets, sets + more_rows, width, generator=generator, dtype=torch.float64)
    assert float(spc_loss(maps, reduction)) == pytest.approx(by_definition(maps, reduction), rel=1e-12, abs=1e-12)


def test_the_papers_size_at_the_start():
    # SPEC §3.3: 24 × 8 positions, 3 sets, M = ½: 3 · (2/3 · 192) · ½ = 192 an image, whatever the batch.
    maps = torch.full((5, 3, 24, 8), 0.5)
    assert float(spc_loss(maps)) == 192.0
    assert float(spc_loss(maps, "sum")) == 192.0
    assert float(spc_loss(maps, "mean")) == 0.5


def test_one_set_costs_nothing_and_stays_differentiable():
    maps = torch.rand(2, 1, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for reduction in ("sum", "mean"):
        loss = spc_loss(maps, reduction)
        loss.backward()
        assert loss.item() == 0.0
    assert torch.equal(maps.grad, torch.zeros_like(maps))


def test_only_positions_off_the_own_band_are_pushed_down():
    maps = torch.full((1, 2, 5, 1), 0.5, requires_grad=True)
    spc_loss(maps).backward()
    # ⌊5/2 + ½⌋ = 3: the first band has three rows.
    assert maps.grad.flatten(1).tolist() == [[0, 0, 0, 1, 1, 1, 1, 1, 0, 0]]


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_gradient_through_the_maps(reduction):
    features = torch.randn(2, 6, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: spc_loss(aggregation_maps(f, 3), reduction), features.requires_grad_())


def test_descending_the_loss_raises_the_band_share():
    features = torch.randn(2, 6, 6, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = band_share(aggregation_maps(features, 3)).detach()
    for _ in range(60):
        (gradient,) = torch.autograd.grad(spc_loss(aggregation_maps(features, 3)), features)
        features = (features - gradient).detach().requires_grad_()
    after = band_share(aggregation_maps(features, 3)).detach()
    assert (after > before + 0.4).all()


def test_band_share_against_its_words():
    maps = torch.rand(3, 3, 7, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for n in range(3):
        everywhere = sum(float(maps[i, n, y, x]) for i in range(3) for y in range(7) for x in range(2))
        inside = sum(float(maps[i, n, y, x]) for i in range(3) for y in own_rows(n, 7, 3) for x in range(2))
        assert float(band_share(maps)[n]) == pytest.approx(inside / everywhere)
    torch.testing.assert_close(band_share(torch.ones(2, 4, 12, 3)), torch.full((4,), 0.25))


def test_refused():
    with pytest.raises(ShapeError, match="2 rows cannot be cut into 3 bands"):
        spc_loss(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ShapeError, match=r"maps must be \(N, S, h, w\)"):
        spc_loss(torch.zeros(3, 4, 2))
    with pytest.raises(ShapeError, match=r"maps must be \(N, S, h, w\)"):
        band_share(torch.zeros(3, 4, 2))
    with pytest.raises(ShapeError, match="'mean', 'sum'"):
        spc_loss(torch.zeros(1, 3, 4, 2), "max")
