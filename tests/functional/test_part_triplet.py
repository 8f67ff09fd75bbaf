"""The part-averaged triplet loss against loops over anchors, partners and parts (BPBreID)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from occluded_reid.errors import ShapeError
from occluded_reid.functional import part_triplet_loss

LABELS = [0, 0, 1, 1, 1, 2]  # identity 2 has one image: it is nobody's positive


def drawn(seed: int = 0, count: int = 6, parts: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, parts, 4, generator=generator, dtype=torch.float64)
    return features, (torch.rand(count, parts, generator=generator) > 0.5).double()


def naive(features: Tensor, labels: list[int], visible: Tensor | None, margin: float | None) -> float:
    count, parts, width = features.shape

    def distance(i: int, j: int) -> float | None:
        top = bottom = 0.0
        for k in range(parts):
            weight = 1.0 if visible is None else float(visible[i, k]) * float(visible[j, k])
            squared = sum((float(features[i, k, c]) - float(features[j, k, c])) ** 2 for c in range(width))
            top, bottom = top + weight * math.sqrt(squared), bottom + weight
        return top / bottom if bottom else None

    terms = []
    for a in range(count):
        near = [(labels[i] == labels[a], distance(a, i)) for i in range(count) if i != a]
        positives = [d for same, d in near if same and d is not None]
        negatives = [d for same, d in near if not same and d is not None]
        if positives and negatives:
            gap = max(positives) - min(negatives)
            terms.append(math.log(1 + math.exp(gap)) if margin is None else max(0.0, gap + margin))
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("margin", [0.3, 0.0, 2.0, None])
@pytest.mark.parametrize("weighted", [False, True])
@given(seed=st.integers(0, 1000))
def test_it_is_the_loop(margin: float | None, weighted: bool, seed: int) -> None:
    features, visible = drawn(seed)
    seen = visible if weighted else None
    found = part_triplet_loss(features, torch.tensor(LABELS), seen, margin)
    assert float(found) == pytest.approx(naive(features, LABELS, seen, margin), rel=1e-9, abs=1e-12)


def test_gradients() -> None:
    features, _ = drawn()
    features = features.mul(0.3).requires_grad_()  # near each other, so that every anchor is within the margin
    visible = torch.tensor([[1.0, 1, 0], [1, 0, 1], [1, 1, 1], [0, 1, 1], [1, 1, 0], [0, 1, 0]]).double()
    labels = torch.tensor(LABELS)
    assert torch.autograd.gradcheck(lambda x: part_triplet_loss(x, labels, visible, 2.0), (features,))
    assert torch.autograd.gradcheck(lambda x: part_triplet_loss(x, labels, visible, None), (features,))


def test_parts_alike_on_everybody_give_finite_gradients() -> None:
    features = torch.ones(4, 2, 3, requires_grad=True)
    loss = part_triplet_loss(features, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.3)
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_without_shared_parts_there_is_nothing_to_learn() -> None:
    features, _ = drawn()
    features.requires_grad_()
    loss = part_triplet_loss(features, torch.tensor(LABELS), torch.zeros(6, 3))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert features.grad is not None
    assert not features.grad.any()


@pytest.mark.parametrize(
    ("features", "labels", "visible"),
    [
        (torch.ones(3, 4), torch.zeros(3), None),
        (torch.ones(3, 2, 4), torch.zeros(2), None),
        (torch.ones(3, 2, 4), torch.zeros(3), torch.ones(3, 4)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(features: Tensor, labels: Tensor, visible: Tensor | None) -> None:
    with pytest.raises(ShapeError, match="N, K, D"):
        part_triplet_loss(features, labels, visible)
