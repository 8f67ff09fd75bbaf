"""Refined part pooling against loops over columns and parts (PCB, §3)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from occluded_reid.errors import ShapeError
from occluded_reid.functional import bands, part_probabilities, refined_pool


def drawn(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 5, 4, 3, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    return features, weight, torch.randn(3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("with_bias", [False, True])
def test_probabilities_are_a_softmax_over_the_parts(with_bias: bool) -> None:
    features, weight, bias = drawn()
    given = part_probabilities(features, weight, bias if with_bias else None)
    for n in range(2):
        for y in range(4):
            for x in range(3):
                logits = [
                    sum(float(weight[p, c]) * float(features[n, c, y, x]) for c in range(5))
                    + (float(bias[p]) if with_bias else 0.0)
                    for p in range(3)
                ]
                total = sum(math.exp(value) for value in logits)
                for p in range(3):
                    assert float(given[n, p, y, x]) == pytest.approx(math.exp(logits[p]) / total, abs=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "weighted"])
def test_pooling_is_a_loop_over_places(reduction: str) -> None:
    features, weight, _ = drawn()
    probabilities = part_probabilities(features, weight)
    given = refined_pool(features, probabilities, reduction)  # type: ignore[arg-type]
    for n in range(2):
        for p in range(3):
            places = [(y, x, float(probabilities[n, p, y, x])) for y in range(4) for x in range(3)]
            share = 12 / 3 if reduction == "mean" else sum(value for *_, value in places)
            for c in range(5):
                wanted = sum(value * float(features[n, c, y, x]) for y, x, value in places) / share
                assert float(given[n, p, c]) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "weighted"])
def test_stripes_are_a_special_case(reduction: str) -> None:
    features = torch.randn(2, 5, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    hard = torch.zeros(2, 3, 6, 3, dtype=torch.float64)
    for p, (start, stop) in enumerate(bands(6, 3)):
        hard[:, p, start:stop] = 1
    means = torch.stack([features[:, :, start:stop].mean((2, 3)) for start, stop in bands(6, 3)], 1)
    torch.testing.assert_close(refined_pool(features, hard, reduction), means)  # type: ignore[arg-type]
    alike = torch.full_like(hard, 1 / 3)  # as at the start of training: every part is the mean of the whole map
    whole = features.mean((2, 3))[:, None].expand(-1, 3, -1)
    torch.testing.assert_close(refined_pool(features, alike, reduction), whole)  # type: ignore[arg-type]


def test_a_part_without_columns_is_zero_and_not_nan() -> None:
    features, nothing = torch.ones(1, 2, 2, 2), torch.zeros(1, 3, 2, 2)
    assert not refined_pool(features, nothing, "weighted").any()


@pytest.mark.parametrize("reduction", ["mean", "weighted"])
def test_gradients(reduction: str) -> None:
    inputs = [tensor.requires_grad_() for tensor in drawn()]

    def pooled(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return refined_pool(features, part_probabilities(features, weight, bias), reduction)  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(pooled, inputs)


def test_refused() -> None:
    features, weight, bias = drawn()
    with pytest.raises(ShapeError, match=r"as many inputs as the map has channels"):
        part_probabilities(features, weight[:, :4])
    with pytest.raises(ShapeError, match=r"bias \(2,\) do not fit"):
        part_probabilities(features, weight, bias[:2])
    with pytest.raises(ShapeError, match="not of one size"):
        refined_pool(features, torch.ones(2, 3, 4, 4))
    with pytest.raises(ShapeError, match="'mean', 'weighted'"):
        refined_pool(features, torch.ones(2, 3, 4, 3), "sum")  # type: ignore[arg-type]
