"""weighted_distance against a loop written from its definition."""

import math

import pytest
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, ShapeError
from occluded_reid.functional.distances import LARGEST_DISTANCE, NO_SHARED_SLOT, slot_weights, weighted_distance

NAMES = ("global", "part_1", "part_2")
WIDTHS = (4, 3, 5)


def make(rows: int, seed: int, *, binary: bool = False, dtype: torch.dtype = torch.float64) -> PartEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    visibility = torch.rand(rows, 3, generator=generator, dtype=torch.float64)
    if binary:
        visibility = (visibility > 0.5).double()
    slots = tuple(torch.randn(rows, width, generator=generator, dtype=torch.float64).to(dtype) for width in WIDTHS)
    return PartEmbeddings(NAMES, slots, visibility)


def by_definition(query, gallery, metric, weights, reduction):
    result = torch.empty(len(query), len(gallery), dtype=torch.float64)
    for i in range(len(query)):
        for j in range(len(gallery)):
            top = bottom = 0.0
            for s, weight in enumerate(weights):
                x, y = query.embeddings[s][i].tolist(), gallery.embeddings[s][j].tolist()
                if metric == "cosine":
                    lengths = math.sqrt(sum(a * a for a in x)) * math.sqrt(sum(b * b for b in y))
                    d = 1 - (sum(a * b for a, b in zip(x, y, strict=True)) / lengths if lengths else 0.0)
                else:
                    d = math.sqrt(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)))
                share = weight * float(query.visibility[i, s]) * float(gallery.visibility[j, s])
                top, bottom = top + share * d, bottom + share
            result[i, j] = NO_SHARED_SLOT if bottom == 0 else top / bottom if reduction == "mean" else top
    return result


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("binary", [True, False])
def test_it_equals_the_definition(metric, reduction, binary) -> None:
    query, gallery = make(7, 0, binary=binary), make(9, 1, binary=binary)
    weights = (1.0, 0.25, 2.0)
    expected = by_definition(query, gallery, metric, weights, reduction)
    if binary:
        assert (expected == NO_SHARED_SLOT).any()
    actual = weighted_distance(query, gallery, metric, weights, reduction)
    assert actual.dtype == torch.float64
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_it_is_one_minus_sorn_equations_13_to_15() -> None:
    query, gallery = make(6, 2, binary=True), make(8, 3, binary=True)
    query.visibility[:, 0] = gallery.visibility[:, 0] = 1
    cosine = [
        torch.nn.functional.cosine_similarity(q[:, None], g[None], dim=2)
        for q, g in zip(query.embeddings, gallery.embeddings, strict=True)
    ]
    both = [query.visibility[:, s, None] * gallery.visibility[None, :, s] for s in (1, 2)]
    similarity = (cosine[0] + both[0] * cosine[1] + both[1] * cosine[2]) / (1 + both[0] + both[1])
    distance = weighted_distance(query, gallery)
    torch.testing.assert_close(distance, 1 - similarity, rtol=1e-12, atol=1e-12)
    assert torch.equal(distance.argsort(dim=1), similarity.argsort(dim=1, descending=True))


def test_weights_by_name_leave_the_others_at_one() -> None:
    query, gallery = make(3, 4), make(4, 5)
    by_name = weighted_distance(query, gallery, weights={"part_2": 3.0})
    assert torch.equal(by_name, weighted_distance(query, gallery, weights=[1, 1, 3]))
    assert not torch.equal(by_name, weighted_distance(query, gallery))


def test_bad_arguments_say_what_was_wanted() -> None:
    rows = make(2, 6)
    with pytest.raises(EmbeddingError, match=r"'part_3'.*Did you mean 'part_"):
        weighted_distance(rows, rows, weights={"part_3": 1.0})
    with pytest.raises(ShapeError, match="2 weights were given for 3 slots"):
        weighted_distance(rows, rows, weights=[1, 1])
    with pytest.raises(ShapeError, match="weight of slot 'part_1' is -1"):
        slot_weights(NAMES, [1, -1, 1])
    with pytest.raises(ShapeError, match="at least one slot must count"):
        slot_weights(NAMES, [0, 0, 0])
    with pytest.raises(ShapeError, match="'cosine' or 'euclidean'"):
        weighted_distance(rows, rows, metric="manhattan")
    with pytest.raises(ShapeError, match="'mean' or 'sum'"):
        weighted_distance(rows, rows, reduction="max")
    with pytest.raises(EmbeddingError, match="slots do not fit"):
        weighted_distance(rows, rows.select(["global"]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_small_types_are_computed_in_float32(dtype) -> None:
    query, gallery = make(4, 7, dtype=dtype), make(5, 8, dtype=dtype)
    actual = weighted_distance(query, gallery)
    assert actual.dtype == torch.float32
    expected = by_definition(query, gallery, "cosine", (1, 1, 1), "mean")
    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=1e-6)
    assert weighted_distance(query, gallery.to(dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_no_common_slot_is_farther_than_anything(metric, reduction) -> None:
    huge = torch.full((1, 2), 3e38, dtype=torch.float64)
    query = PartEmbeddings(("a", "b"), (huge, huge), torch.tensor([[1.0, 0.0]]))
    gallery = PartEmbeddings(
        ("a", "b"), (torch.cat([-huge, huge]), torch.cat([huge, huge])), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    )
    shared, not_shared = weighted_distance(query, gallery, metric, None, reduction)[0].tolist()
    assert shared <= LARGEST_DISTANCE < not_shared == NO_SHARED_SLOT
    assert float(torch.tensor(NO_SHARED_SLOT, dtype=torch.bfloat16)) == NO_SHARED_SLOT


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_zero_vector_and_a_twin_are_no_trouble(metric) -> None:
    slot = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    rows = PartEmbeddings(("a",), (slot,), torch.ones(2, 1))
    distance = weighted_distance(rows, rows, metric)
    expected = [[1.0, 1.0], [1.0, 0.0]] if metric == "cosine" else [[0.0, 5.0], [5.0, 0.0]]
    torch.testing.assert_close(distance, torch.tensor(expected), rtol=0, atol=1e-6)
    distance.sum().backward()
    assert slot.grad.isfinite().all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients(metric, reduction) -> None:
    query, gallery = make(2, 9), make(3, 10)
    # Visibility strictly inside (0, 1), so that the small steps of gradcheck stay valid; one hidden pair in weights.
    inputs = [*query.embeddings, *gallery.embeddings]
    shown = [query.visibility.clamp(0.1, 0.9), gallery.visibility.clamp(0.1, 0.9)]
    inputs = [x.clone().requires_grad_() for x in [*inputs, *shown]]

    def distance(*values):
        q = PartEmbeddings(NAMES, values[:3], values[6])
        g = PartEmbeddings(NAMES, values[3:6], values[7])
        return weighted_distance(q, g, metric, (1.0, 0.5, 2.0), reduction)

    assert torch.autograd.gradcheck(distance, inputs)


def test_the_gradient_of_a_pair_without_a_common_slot_is_zero() -> None:
    slot = torch.randn(1, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    query = PartEmbeddings(("a",), (slot,), torch.zeros(1, 1))
    gallery = PartEmbeddings(("a",), (torch.ones(1, 2),), torch.ones(1, 1))
    weighted_distance(query, gallery).sum().backward()
    assert torch.equal(slot.grad, torch.zeros(1, 2))
