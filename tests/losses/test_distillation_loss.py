"""The distillation loss as a model calls it, and what it refuses."""

from __future__ import annotations

import pytest
import torch

from occluded_reid import LOSSES
from occluded_reid.contracts import BuildInfo, FeatureMaps, HeadInfo, HeadOutput, ModelOutput, StageInfo, Targets
from occluded_reid.errors import BuildError
from occluded_reid.functional import similarity_distillation, teacher_distance

INFO = BuildInfo(
    stages={"last": StageInfo(8, 16)},
    input_size=(32, 16),
    num_classes=2,
    heads={
        "parts": HeadInfo(slots={"part_1": 4, "part_2": 4}),
        "wide": HeadInfo(slots={"wide": 6}),
        "mask": HeadInfo(),
    },
    name="teacher",
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def output(**slots: torch.Tensor) -> ModelOutput:
    heads = {
        name: HeadOutput(embeddings={slot: slots[slot] for slot in info.slots if slot in slots})
        for name, info in INFO.heads.items()
    }
    return ModelOutput(FeatureMaps({}, torch.zeros(3, 3, 32, 16)), heads)


def targets(teacher: torch.Tensor | None) -> Targets:
    return Targets(torch.zeros(3, dtype=torch.long), torch.zeros(3, dtype=torch.long), teacher=teacher)


def test_it_is_the_mean_over_the_slots_of_both_terms() -> None:
    first, second, teacher = random(3, 4), random(3, 4, seed=1), random(3, 4, seed=2)
    loss = LOSSES.create("distillation", INFO, on="parts", similarity=0.5, temperature=0.2)
    wanted = sum(
        teacher_distance(rows, teacher) + 0.5 * similarity_distillation(rows, teacher, 0.2) for rows in (first, second)
    )
    assert torch.allclose(loss(output(part_1=first, part_2=second), targets(teacher)), wanted / 2)


def test_without_similarities_only_the_distance_is_left() -> None:
    rows, teacher = random(3, 6), random(3, 6, seed=1)
    loss = LOSSES.create("distillation", INFO, on="wide", similarity=0.0)
    assert torch.equal(loss(output(wide=rows), targets(teacher)), teacher_distance(rows, teacher))


def test_a_slot_of_another_width_learns_through_a_layer_of_its_own() -> None:
    rows, teacher = random(3, 6).requires_grad_(), random(3, 4, seed=1)
    loss = LOSSES.create("distillation", INFO, on="wide", width=4)
    loss(output(wide=rows), targets(teacher)).backward()
    assert rows.grad is not None
    assert [tuple(p.shape) for p in loss.parameters()] == [(4, 6)]
    assert all(p.grad is not None for p in loss.parameters())


def test_what_is_missing_is_said() -> None:
    loss = LOSSES.create("distillation", INFO, on="wide")
    with pytest.raises(BuildError, match=r"data\.teacher\.model"):
        loss(output(wide=random(3, 6)), targets(None))
    with pytest.raises(BuildError, match="width=5"):
        loss(output(wide=random(3, 6)), targets(random(3, 5)))
    with pytest.raises(BuildError, match="does not give"):
        loss(output(), targets(random(3, 6)))
    with pytest.raises(BuildError, match="has none"):
        LOSSES.create("distillation", INFO, on="mask")
