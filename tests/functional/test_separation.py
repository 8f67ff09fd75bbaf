"""The separation loss against a loop written from OCNet Eq. 1, and its bounds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.errors import ShapeError
from occluded_reid.functional import separation_loss


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loop(global_: torch.Tensor, parts: torch.Tensor) -> float:
    """(1 + f_g·f_t / |f_g||f_t|) + (1 + f_g·f_b / |f_g||f_b|), mean over the batch."""
    total = 0.0
    for g, of_image in zip(global_.tolist(), parts.tolist(), strict=True):
        for p in of_image:
            dot = sum(a * b for a, b in zip(g, p, strict=True))
            total += 1 + dot / (math.sqrt(sum(a * a for a in g)) * math.sqrt(sum(b * b for b in p)))
    return total / len(global_)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 4), parts=st.integers(1, 4), width=st.integers(1, 6), seed=st.integers(0, 999))
def test_it_is_equation_1(count: int, parts: int, width: int, seed: int) -> None:
    global_, features = random(count, width, seed=seed), random(count, parts, width, seed=seed + 1)
    assert float(separation_loss(global_, features)) == pytest.approx(loop(global_, features), rel=1e-12, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(parts=st.integers(1, 4), seed=st.integers(0, 999))
def test_behind_a_relu_it_stays_at_or_above_the_number_of_parts(parts: int, seed: int) -> None:
    global_, features = random(3, 5, seed=seed).relu(), random(3, parts, 5, seed=seed + 1).relu()
    assert float(separation_loss(global_, features)) >= parts - 1e-12
    assert float(separation_loss(global_, features)) <= 2 * parts + 1e-12


def test_both_bounds_are_reached() -> None:
    global_ = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    orthogonal = torch.tensor([[[0.0, 2.0, 0.0], [0.0, 1.0, 3.0]]], dtype=torch.float64)
    assert float(separation_loss(global_, orthogonal)) == 2, "the least that non-negative features can give"
    assert float(separation_loss(global_, -7 * global_[:, None].expand(1, 2, 3))) == 0, "the least of all"
    assert float(separation_loss(global_, 7 * global_[:, None].expand(1, 2, 3))) == 4


def test_descent_ends_at_2_behind_a_relu_and_at_0_without() -> None:
    ends = []
    for activation in (torch.relu, lambda x: x):
        inner = [random(1, 6, seed=3).abs().requires_grad_(), random(1, 2, 6, seed=4).abs().requires_grad_()]
        optimizer = torch.optim.Adam(inner, lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            loss = separation_loss(*(activation(x) for x in inner))
            loss.backward()
            optimizer.step()
        ends.append(float(loss.detach()))
    assert ends == [pytest.approx(2.0, abs=1e-6), pytest.approx(0.0, abs=1e-3)]


def test_gradients() -> None:
    inputs = [random(2, 3).requires_grad_(), random(2, 2, 3, seed=1).requires_grad_()]
    assert torch.autograd.gradcheck(separation_loss, inputs)


def test_a_feature_of_length_0_has_cosine_0_and_a_finite_gradient() -> None:
    global_ = torch.zeros(1, 3, requires_grad=True)
    loss = separation_loss(global_, torch.ones(1, 2, 3))
    loss.backward()
    assert float(loss.detach()) == 2
    assert global_.grad.abs().max() < 10


def test_half_precision_is_computed_in_single() -> None:
    global_, parts = 1e-4 * random(4, 512).half(), 1e-4 * random(4, 2, 512, seed=1).half()
    loss = separation_loss(global_, parts)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(loop(global_.double(), parts.double()), abs=1e-4)


@pytest.mark.parametrize("shape", [(3, 2, 4), (2, 2, 5), (2, 0, 4)])
def test_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"parts must be \(2, P, 4\) beside a global feature \(2, 4\)"):
        separation_loss(torch.zeros(2, 4), torch.zeros(shape))


def test_ranks() -> None:
    with pytest.raises(ShapeError, match=r"global_ must be \(N, D\)"):
        separation_loss(torch.zeros(4), torch.zeros(2, 2, 4))
    with pytest.raises(ShapeError, match=r"parts must be \(N, P, D\)"):
        separation_loss(torch.zeros(2, 4), torch.zeros(2, 4))
