"""The search among centroids, and attention over what is found, by explicit loops in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.errors import ShapeError
from occluded_reid.functional import gated_gelu, nearest_centroids, neighbour_attention


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_cosine(row: list[float], bank: list[list[float]]) -> list[int]:
    """Centroids from the nearest to the farthest; an embedding's own length changes no order."""
    similar = [sum(x * y for x, y in zip(row, c, strict=True)) / math.sqrt(sum(y * y for y in c)) for c in bank]
    return sorted(range(len(bank)), key=lambda c: -similar[c])


@settings(max_examples=60, deadline=None)
@given(classes=st.integers(2, 9), count=st.integers(1, 8), labelled=st.booleans(), seed=st.integers(0, 1000))
def test_the_nearest_others(classes: int, count: int, labelled: bool, seed: int) -> None:
    count = min(count, classes - 1)
    embeddings, bank = rows(6, 4, seed=seed), rows(classes, 4, seed=seed + 1)
    labels = torch.randint(0, classes, (6,), generator=torch.Generator().manual_seed(seed))
    found = nearest_centroids(embeddings, bank, count, labels if labelled else None).tolist()
    for i, neighbours in enumerate(found):
        order = by_cosine(embeddings[i].tolist(), bank.tolist())[: count + 1]
        own = int(labels[i])
        expected = [c for c in order if c != own] if labelled and own in order else order[:-1]
        assert neighbours == expected


def test_the_own_identity_is_never_found() -> None:
    bank = rows(5, 4)
    labels = torch.arange(5)
    found = nearest_centroids(3 * bank, bank, 4, labels)
    assert not (found == labels[:, None]).any()
    assert (nearest_centroids(3 * bank, bank, 4)[:, 0] == labels).all(), "without labels it is the nearest"


def test_a_bank_of_zeros_still_gives_other_identities() -> None:
    """Before a memory is filled all centroids are equally near."""
    found = nearest_centroids(rows(3, 4), torch.zeros(6, 4, dtype=torch.float64), 3, torch.tensor([0, 1, 5]))
    assert found.shape == (3, 3)
    assert all(len(set(row.tolist()) - {own}) == 3 for row, own in zip(found, (0, 1, 5), strict=True))


@pytest.mark.parametrize("heads", [1, 2, 6])
def test_attention_is_a_loop_over_heads_and_neighbours(heads: int) -> None:
    query, keys, values, scale = rows(3, 6), rows(3, 5, 6, seed=1), rows(3, 5, 6, seed=2), 0.37
    result = neighbour_attention(query, keys, values, heads, scale)
    size = 6 // heads
    for i in range(3):
        for h in range(heads):
            columns = range(h * size, (h + 1) * size)
            weights = [math.exp(scale * sum(float(query[i, d] * keys[i, j, d]) for d in columns)) for j in range(5)]
            for d in columns:
                mixed = sum(weights[j] * float(values[i, j, d]) for j in range(5)) / sum(weights)
                assert float(result[i, d]) == pytest.approx(mixed, rel=1e-12)


def test_geglu_gates_the_first_half_by_the_second() -> None:
    values = rows(2, 3, 8)
    result = gated_gelu(values)
    for i in range(2):
        for j in range(3):
            for d in range(4):
                gate = float(values[i, j, 4 + d])
                gelu = gate * 0.5 * (1 + math.erf(gate / math.sqrt(2)))
                assert float(result[i, j, d]) == pytest.approx(float(values[i, j, d]) * gelu, rel=1e-12)


def test_gradients() -> None:
    parts = [
        rows(2, 4).requires_grad_(),
        rows(2, 3, 4, seed=1).requires_grad_(),
        rows(2, 3, 4, seed=2).requires_grad_(),
    ]
    assert torch.autograd.gradcheck(lambda q, k, v: neighbour_attention(q, k, v, 2, 0.5), parts)
    assert torch.autograd.gradcheck(gated_gelu, (rows(2, 6).requires_grad_(),))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nearest_centroids(torch.zeros(2, 3), torch.zeros(4, 3), 4), "a count between 1 and 3"),
        (lambda: nearest_centroids(torch.zeros(2, 3), torch.zeros(4, 3), 0), "a count between 1 and 3"),
        (lambda: nearest_centroids(torch.zeros(2, 3), torch.zeros(4, 5), 1), r"\(2, 3\) are sought in a bank \(4, 5\)"),
        (lambda: nearest_centroids(torch.zeros(1, 3), torch.zeros(4, 3), 1, torch.tensor([4])), "classes 0 … 3"),
        (lambda: neighbour_attention(torch.zeros(2, 6), torch.zeros(2, 3, 6), torch.zeros(2, 3, 6), 4, 1.0), "4 heads"),
        (lambda: neighbour_attention(torch.zeros(2, 6), torch.zeros(2, 3, 6), torch.zeros(2, 4, 6), 2, 1.0), "2 heads"),
        (
            lambda: neighbour_attention(torch.zeros(6), torch.zeros(2, 3, 6), torch.zeros(2, 3, 6), 2, 1.0),
            "query must be",
        ),
        (lambda: gated_gelu(torch.zeros(2, 3)), "must be even"),
    ],
)
def test_what_does_not_fit_is_said(call, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        call()
