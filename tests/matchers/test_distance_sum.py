"""The sum of distances (OCNet Eq. 4): tiles and pairs against loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, UnknownOptionError
from occluded_reid.functional import weighted_distance
from occluded_reid.matchers import NO_SHARED_SLOT, DistanceSumMatcher
from occluded_reid.registry import MATCHERS

NAMES = ("final", "backbone", "part")
WIDTHS = (12, 8, 5)


def make(rows: int, seed: int, *, visible: bool = False, scale: float = 1.0, dtype=torch.float32) -> PartEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    slots = tuple((scale * torch.randn(rows, width, generator=generator)).to(dtype) for width in WIDTHS)
    visibility = torch.rand(rows, 3, generator=generator)
    visibility[visibility < 0.4] = 0
    return PartEmbeddings(NAMES, slots, torch.ones(rows, 3) if visible else visibility)


def slot_loop(x: list[float], y: list[float], metric: str, normalize: bool) -> float:
    length_x, length_y = (math.sqrt(math.fsum(v * v for v in z)) for z in (x, y))
    if metric == "cosine":
        return 1 - math.fsum(a * b for a, b in zip(x, y, strict=True)) / (length_x * length_y)
    if normalize:
        x, y = [v / length_x for v in x], [v / length_y for v in y]
    return math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True)))


def loop(query: PartEmbeddings, gallery: PartEmbeddings, matcher: DistanceSumMatcher) -> np.ndarray:
    """Σ_s w_s times the mean of d over the shared slots, weighted by w_s v_s(q) v_s(g)."""
    weights = [matcher.weights.get(name, 1.0) for name in query.names]
    result = np.full((len(query), len(gallery)), NO_SHARED_SLOT)
    for i in range(len(query)):
        for j in range(len(gallery)):
            numerator = denominator = 0.0
            for s, weight in enumerate(weights):
                share = weight * float(query.visibility[i, s]) * float(gallery.visibility[j, s])
                x, y = query.embeddings[s][i].double().tolist(), gallery.embeddings[s][j].double().tolist()
                numerator += share * slot_loop(x, y, matcher.metric, matcher.normalize)
                denominator += share
            if denominator > 0:
                result[i, j] = sum(weights) * numerator / denominator
    return result


MATCHERS_HERE = [
    DistanceSumMatcher(),
    DistanceSumMatcher(weights={"backbone": 0.3}),
    DistanceSumMatcher(weights={"part": 0.0, "final": 4.0}),
    DistanceSumMatcher(normalize=False),
    DistanceSumMatcher(metric="cosine", weights={"backbone": 2.5}),
]


@pytest.mark.parametrize("visible", [True, False])
@pytest.mark.parametrize("matcher", MATCHERS_HERE, ids=repr)
def test_tiles_and_pairs_equal_the_loop(matcher: DistanceSumMatcher, visible: bool) -> None:
    query, gallery = make(9, 0, visible=visible), make(13, 1, visible=visible)
    expected = loop(query, gallery, matcher)
    tile = matcher.distance(query, gallery)
    assert tile.dtype == torch.float32
    near = expected < NO_SHARED_SLOT
    assert visible == bool(near.all())
    assert np.array_equal(tile.numpy() < NO_SHARED_SLOT, near)
    prepared = matcher.prepare(query), matcher.prepare(gallery)
    assert np.abs(tile.numpy() - expected)[near].max() <= matcher.tolerance(*prepared)
    assert np.abs(tile.numpy() - expected)[near].max() < 5e-6
    rows, columns = np.divmod(np.arange(9 * 13), 13)
    pairs = matcher.pairs(query, gallery, rows, columns)
    np.testing.assert_allclose(pairs, expected.ravel(), rtol=0, atol=0.5000001e-6)
    np.testing.assert_array_equal(pairs, np.round(pairs, 6))


@pytest.mark.parametrize("alpha", [0.25, 1.0, 3.0])
def test_with_everything_visible_it_is_the_papers_equation_and_its_ranking(alpha: float) -> None:
    query, gallery = (make(6, seed, visible=True).select(["final", "backbone"]) for seed in (2, 3))
    matcher = DistanceSumMatcher(weights={"backbone": alpha})
    paper = np.zeros((6, 6))
    for i in range(6):
        for j in range(6):
            for s, factor in ((0, 1.0), (1, alpha)):
                x, y = query.embeddings[s][i].double().tolist(), gallery.embeddings[s][j].double().tolist()
                paper[i, j] += factor * slot_loop(x, y, "euclidean", True)
    np.testing.assert_allclose(matcher.distance(query, gallery), paper, atol=2e-6)
    np.testing.assert_array_equal(matcher.distance(query, gallery).numpy().argsort(1), paper.argsort(1))
    unit = [
        PartEmbeddings(r.names, tuple(torch.nn.functional.normalize(e.double()) for e in r.embeddings), r.visibility)
        for r in (query, gallery)
    ]
    bare = weighted_distance(*unit, "euclidean", {"backbone": alpha}, reduction="sum")
    np.testing.assert_allclose(bare.numpy(), paper, atol=1e-9)


def test_a_pair_that_shares_less_is_not_nearer_for_that() -> None:
    slot = torch.tensor([[1.0, 0.0]])
    other = torch.tensor([[0.0, 1.0]])
    query = PartEmbeddings(("a", "b"), (slot, slot), torch.ones(1, 2))
    whole = PartEmbeddings(("a", "b"), (other, other), torch.ones(1, 2))
    half = whole.with_visibility(torch.tensor([[1.0, 0.0]]))
    matcher = DistanceSumMatcher()
    assert matcher.pairs(query, whole, [0], [0])[0] == pytest.approx(2 * math.sqrt(2), abs=1e-6)
    assert matcher.pairs(query, half, [0], [0]) == matcher.pairs(query, whole, [0], [0])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_no_shared_slot_is_farther_than_anything(metric) -> None:
    far = torch.full((1, 4), 3e38)
    query = PartEmbeddings(("a", "b"), (far, far), torch.tensor([[1.0, 0.0]]))
    gallery = PartEmbeddings(("a", "b"), (torch.cat([-far, far]),) * 2, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    matcher = DistanceSumMatcher(metric=metric, normalize=False, weights={"a": 1e6, "b": 1e6})
    tile, pairs = matcher.distance(query, gallery)[0], matcher.pairs(query, gallery, [0, 0], [0, 1])
    assert float(tile[1]) == pairs[1] == NO_SHARED_SLOT
    assert float(tile[0]) < NO_SHARED_SLOT
    assert pairs[0] < NO_SHARED_SLOT


def test_a_long_vector_stays_within_the_tolerance() -> None:
    matcher = DistanceSumMatcher(normalize=False, weights={"final": 50.0})
    query, gallery = make(8, 4, visible=True, scale=1e4), make(9, 5, visible=True, scale=1e4)
    gallery = PartEmbeddings.cat([gallery, query])  # distances of 0 too
    prepared = matcher.prepare(query), matcher.prepare(gallery)
    rows, columns = np.divmod(np.arange(8 * 17), 17)
    exact = matcher.pairs(query, gallery, rows, columns).reshape(8, 17)
    assert np.abs(matcher.tile(*prepared).numpy() - exact).max() <= matcher.tolerance(*prepared)
    assert (np.diag(exact[:, 9:]) == 0).all()


def test_light_weights_keep_the_least_tolerance() -> None:
    matcher = DistanceSumMatcher(weights=dict.fromkeys(NAMES, 0.01))
    prepared = matcher.prepare(make(3, 6))
    assert matcher.tolerance(prepared, prepared) == pytest.approx(1e-5)
    heavy = DistanceSumMatcher(weights={"final": 9.0})
    assert heavy.tolerance(heavy.prepare(make(3, 6)), heavy.prepare(make(3, 7))) == pytest.approx(11e-5)


def test_a_pair_alone_scores_what_it_scores_among_others() -> None:
    matcher = DistanceSumMatcher(weights={"backbone": 0.7})
    query, gallery = make(5, 8), make(7, 9)
    rows, columns = np.divmod(np.arange(35), 7)
    together = matcher.pairs(query, gallery, rows, columns)
    alone = [matcher.pairs(query[[r]], gallery[[c]], [0], [0])[0] for r, c in zip(rows, columns, strict=True)]
    np.testing.assert_array_equal(together, alone)


def test_a_slice_of_prepared_rows_knows_the_sum_too() -> None:
    matcher = DistanceSumMatcher(weights={"backbone": 0.7})
    query, gallery = make(5, 8), make(7, 9)
    prepared = matcher.prepare(query), matcher.prepare(gallery)
    assert torch.equal(matcher.tile(prepared[0][1:3], prepared[1][2:6]), matcher.tile(*prepared)[1:3, 2:6])


def test_explain_gives_the_distance_of_each_slot_as_it_is() -> None:
    matcher = DistanceSumMatcher(weights={"backbone": 0.3, "part": 0.0})
    query, gallery = make(4, 10), make(5, 11)
    rows, columns = np.divmod(np.arange(20), 5)
    details = matcher.explain(query, gallery, rows, columns)
    np.testing.assert_array_equal(details.distance, matcher.pairs(query, gallery, rows, columns))
    for n, (i, j) in enumerate(zip(rows, columns, strict=True)):
        for s in range(3):
            x, y = query.embeddings[s][i].double().tolist(), gallery.embeddings[s][j].double().tolist()
            assert details.slot_distance[n, s] == pytest.approx(slot_loop(x, y, "euclidean", True), abs=1e-12)
            assert details.shared[n, s] == pytest.approx(float(query.visibility[i, s] * gallery.visibility[j, s]))


def test_registry_config_and_what_makes_no_sense() -> None:
    matcher = MATCHERS.create("distance_sum", weights={"backbone": 2})
    assert matcher.config == {
        "type": "distance_sum",
        "options": {"metric": "euclidean", "weights": {"backbone": 2.0}, "normalize": True},
    }
    assert MATCHERS.create("distance_sum", **matcher.config["options"]).config == matcher.config
    with pytest.raises(UnknownOptionError, match="'cosine' or 'euclidean'"):
        DistanceSumMatcher(metric="l2")
    rows = make(2, 12)
    with pytest.raises(EmbeddingError, match=r"slot 'backbones'.*Did you mean 'backbone'"):
        DistanceSumMatcher(weights={"backbones": 1.0}).distance(rows, rows)
    with pytest.raises(EmbeddingError, match="slots do not fit"):
        DistanceSumMatcher().pairs(rows, rows.select(["final"]), [0], [0])
