"""The memory's contrast and its movement against loops over rows, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.errors import ShapeError
from occluded_reid.functional import memory_contrast, memory_logits, moved_memory


def rows(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def cosine(first: list[float], second: list[float]) -> float:
    lengths = [math.sqrt(sum(x * x for x in vector)) for vector in (first, second)]
    return sum(x * y for x, y in zip(first, second, strict=True)) / (lengths[0] * lengths[1])


@pytest.mark.parametrize("temperature", [0.05, 0.7])
def test_logits_are_cosines_over_the_temperature(temperature: float) -> None:
    embeddings, bank = rows(5, 4, 0), rows(3, 4, 1)
    logits = memory_logits(embeddings, bank, temperature)
    for i in range(5):
        for c in range(3):
            expected = cosine(embeddings[i].tolist(), bank[c].tolist()) / temperature
            assert float(logits[i, c]) == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(logits, memory_logits(3 * embeddings, bank / 7, temperature))


@pytest.mark.parametrize("epsilon", [0.0, 1e-6, 0.1])
def test_contrast_is_the_bounded_cross_entropy(epsilon: float) -> None:
    logits, labels = 3 * rows(4, 6, 2), torch.tensor([5, 0, 0, 3])
    values = memory_contrast(logits, labels, epsilon)
    for i, label in enumerate(labels.tolist()):
        exponents = [math.exp(z) for z in logits[i].tolist()]
        assert float(values[i]) == pytest.approx(-math.log(exponents[label] / sum(exponents) + epsilon), rel=1e-10)


def test_contrast_is_bounded_by_epsilon() -> None:
    logits, labels = torch.tensor([[0.0, 400.0]]), torch.tensor([0])
    assert float(memory_contrast(logits, labels)[0]) == pytest.approx(-math.log(1e-6), rel=1e-5)
    assert float(memory_contrast(logits, labels, 0.0)[0]) == 400


def test_contrast_starts_at_ln_c_from_an_empty_bank() -> None:
    logits = memory_logits(rows(3, 8, 0), torch.zeros(50, 8, dtype=torch.float64))
    assert torch.allclose(
        memory_contrast(logits, torch.tensor([0, 3, 49])).exp(), torch.tensor(50.0).double(), rtol=1e-3
    )


def test_gradients() -> None:
    embeddings, bank, labels = rows(3, 4, 0).requires_grad_(), rows(5, 4, 1).requires_grad_(), torch.tensor([1, 4, 1])
    assert torch.autograd.gradcheck(lambda e, m: memory_contrast(memory_logits(e, m, 0.3), labels), (embeddings, bank))


def naive_move(
    bank: list[list[float]], embeddings: list[list[float]], labels: list[int], mu: float, rule: str, renormalize: bool
) -> list[list[float]]:
    bank = [list(row) for row in bank]
    if rule == "sequential":
        for e, y in zip(embeddings, labels, strict=True):
            bank[y] = [mu * m + (1 - mu) * x for m, x in zip(bank[y], e, strict=True)]
    else:
        for y in sorted(set(labels)):
            own = [e for e, label in zip(embeddings, labels, strict=True) if label == y]
            mean = [sum(column) / len(own) for column in zip(*own, strict=True)]
            bank[y] = [mu * m + (1 - mu) * x for m, x in zip(bank[y], mean, strict=True)]
    for y in set(labels) if renormalize else ():
        length = math.sqrt(sum(x * x for x in bank[y]))
        bank[y] = [x / length for x in bank[y]]
    return bank


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), max_size=12),
    momentum=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    rule=st.sampled_from(["sequential", "class_mean"]),
    renormalize=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_bank_moves_as_a_loop_moves_it(
    labels: list[int], momentum: float, rule: str, renormalize: bool, seed: int
) -> None:
    bank, embeddings = rows(5, 3, seed), rows(len(labels), 3, seed + 1)
    before = bank.clone()
    moved = moved_memory(
        bank, embeddings, torch.tensor(labels, dtype=torch.long), momentum, rule=rule, renormalize=renormalize
    )
    expected = naive_move(bank.tolist(), embeddings.tolist(), labels, momentum, rule, renormalize)
    torch.testing.assert_close(moved, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    unseen = [y for y in range(5) if y not in labels]
    assert torch.equal(moved[unseen], bank[unseen]), "bit for bit"
    assert torch.equal(bank, before), "the bank that was given is left alone"


def test_four_instances_leave_next_to_nothing_of_the_old_centroid() -> None:
    """μ = 0.2 and four images an identity: the bank is close to the last batch."""
    moved = moved_memory(torch.ones(1, 1), torch.zeros(4, 1), torch.zeros(4, dtype=torch.long))
    assert float(moved) == pytest.approx(0.2**4)


def test_the_order_of_the_rows_counts_only_within_an_identity() -> None:
    bank, embeddings, labels = rows(2, 3, 0), rows(4, 3, 1), torch.tensor([0, 0, 1, 1])
    moved = moved_memory(bank, embeddings, labels)
    mixed, swapped = [2, 0, 3, 1], [1, 0, 2, 3]
    torch.testing.assert_close(moved_memory(bank, embeddings[mixed], labels[mixed]), moved)
    assert not torch.allclose(moved_memory(bank, embeddings[swapped], labels), moved)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: memory_logits(torch.zeros(2, 3), torch.zeros(4, 5)), r"\(2, 3\) and bank \(4, 5\) have other widths"),
        (lambda: memory_logits(torch.zeros(2), torch.zeros(4, 5)), r"embeddings must be \(N, D\)"),
        (lambda: memory_logits(torch.zeros(2, 3), torch.zeros(4, 3), 0.0), "temperature is 0.0"),
        (lambda: memory_contrast(torch.zeros(2, 3), torch.tensor([0, 3])), "classes 0 … 2"),
        (lambda: memory_contrast(torch.zeros(2), torch.tensor([0, 3])), r"logits must be \(N, C\)"),
        (lambda: moved_memory(torch.zeros(2, 3), torch.zeros(1, 3), torch.tensor([2])), "classes 0 … 1"),
        (lambda: moved_memory(torch.zeros(2, 3), torch.zeros(1, 3), torch.tensor([0]), 1.5), "momentum is 1.5"),
        (lambda: moved_memory(torch.zeros(2, 3), torch.zeros(1, 3), torch.tensor([0]), rule="all"), "rule is 'all'"),
    ],
)
def test_what_does_not_fit_is_said(call, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        call()
