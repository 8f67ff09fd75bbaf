"""Agreement of two views against a loop written from its formula."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid import LOSSES
from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, ModelOutput, StageInfo, Targets
from occluded_reid.errors import BuildError, ShapeError
from occluded_reid.functional import view_consistency


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def views(images: int) -> torch.Tensor:
    return torch.tensor([0] * images + [1] * images)


def looped(rows: list[list[float]]) -> float:
    """1/N Σ_i (1 - cos(e_{N+i}, e_i))."""
    images, total = len(rows) // 2, 0.0
    for clean, occluded in zip(rows[:images], rows[images:], strict=True):
        dot = sum(a * b for a, b in zip(clean, occluded, strict=True))
        total += 1 - dot / math.sqrt(sum(a * a for a in clean)) / math.sqrt(sum(b * b for b in occluded))
    return total / images


@settings(max_examples=30, deadline=None)
@given(images=st.integers(1, 5), width=st.integers(1, 6), seed=st.integers(0, 999))
def test_it_is_its_formula(images: int, width: int, seed: int) -> None:
    rows = random(2 * images, width, seed=seed)
    assert float(view_consistency(rows, views(images))) == pytest.approx(looped(rows.tolist()), rel=1e-12, abs=1e-12)


def test_the_gradient_is_right_and_reaches_the_occluded_view_alone() -> None:
    clean, occluded = random(3, 4), random(3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: view_consistency(torch.cat([clean, rows]), views(3)), occluded)
    rows = random(6, 4).requires_grad_()
    view_consistency(rows, views(3)).backward()
    assert rows.grad is not None
    assert not rows.grad[:3].any()
    assert rows.grad[3:].any(1).all()


@pytest.mark.parametrize("view", [torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1])])
def test_rows_that_are_no_pairs(view: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match="clean views"):
        view_consistency(random(4, 2), view)


INFO = BuildInfo(
    stages={"last": StageInfo(8, 16)},
    input_size=(32, 16),
    num_classes=2,
    heads={"parts": HeadInfo(slots={"part_1": 3, "part_2": 3}), "mask": HeadInfo()},
    name="agree",
)


def output(embeddings: dict[str, torch.Tensor]) -> ModelOutput:
    heads = {"parts": HeadOutput(embeddings=embeddings), "mask": HeadOutput()}
    return ModelOutput(FeatureMaps({}, torch.zeros(4, 3, 32, 16)), heads)


def targets(view: torch.Tensor | None) -> Targets:
    return Targets(torch.zeros(4, dtype=torch.long), torch.zeros(4, dtype=torch.long), view=view)


def test_the_loss_is_the_mean_over_the_slots() -> None:
    first, second = random(4, 3), random(4, 3, seed=1)
    loss = LOSSES.create("consistency", INFO, on="parts")
    wanted = (view_consistency(first, views(2)) + view_consistency(second, views(2))) / 2
    assert torch.allclose(loss(output({"part_1": first, "part_2": second}), targets(views(2))), wanted)


def test_what_is_missing_is_said() -> None:
    loss = LOSSES.create("consistency", INFO, on="parts")
    with pytest.raises(BuildError, match="clean_and_occluded"):
        loss(output({"part_1": random(4, 3)}), targets(None))
    with pytest.raises(BuildError, match="does not give"):
        loss(output({}), targets(views(2)))
    with pytest.raises(BuildError, match="has none"):
        LOSSES.create("consistency", INFO, on="mask")
