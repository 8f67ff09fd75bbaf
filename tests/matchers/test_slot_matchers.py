"""Tiles and pairs of the built-in matchers against weighted_distance in float64."""

import numpy as np
import pytest
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, UnknownOptionError
from occluded_reid.functional.distances import weighted_distance
from occluded_reid.matchers import NO_SHARED_SLOT, Matcher, PlainMatcher, SlotMatcher, VisibilityWeightedMatcher
from occluded_reid.registry import MATCHERS

NAMES = ("global", "part_1", "part_2", "part_3")
WIDTHS = (24, 16, 16, 8)


def make(rows: int, seed: int, *, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> PartEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    visibility = torch.rand(rows, 4, generator=generator)
    visibility[visibility < 0.4] = 0
    slots = tuple((torch.randn(rows, width, generator=generator) * scale).to(dtype) for width in WIDTHS)
    return PartEmbeddings(NAMES, slots, visibility)


def exactly(matcher: SlotMatcher, query: PartEmbeddings, gallery: PartEmbeddings) -> torch.Tensor:
    """The definition, in float64, on what the matcher takes for embeddings and visibility."""

    def seen(rows: PartEmbeddings) -> PartEmbeddings:
        slots = [slot.double() for slot in rows.embeddings]
        if matcher.metric == "euclidean" and matcher.normalize:
            slots = [torch.nn.functional.normalize(slot) for slot in slots]
        return PartEmbeddings(rows.names, tuple(slots), matcher.visibility_of(rows).double())

    return weighted_distance(seen(query), seen(gallery), matcher.metric, matcher.weights)


MATCHERS_HERE = [
    VisibilityWeightedMatcher(),
    VisibilityWeightedMatcher(weights={"global": 0.5, "part_2": 3.0}),
    VisibilityWeightedMatcher(weights={"global": 0.0}),
    VisibilityWeightedMatcher(visibility="binary", threshold=0.6),
    VisibilityWeightedMatcher(metric="euclidean"),
    VisibilityWeightedMatcher(metric="euclidean", normalize=False, weights={"part_1": 0.1}),
    PlainMatcher(),
    PlainMatcher(metric="euclidean", weights={"part_3": 0.0}),
]


@pytest.mark.parametrize("matcher", MATCHERS_HERE, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tiles_and_pairs_equal_the_definition(matcher: SlotMatcher, dtype) -> None:
    query, gallery = make(30, 0, dtype=dtype), make(50, 1, dtype=dtype)
    expected = exactly(matcher, query, gallery)
    tile = matcher.distance(query, gallery)
    assert tile.dtype == torch.float32
    assert tile.shape == (30, 50)
    shared = expected < NO_SHARED_SLOT
    assert torch.equal(tile < NO_SHARED_SLOT, shared)
    assert (tile - expected)[shared].abs().max() < 2e-6
    rows, columns = np.divmod(np.arange(1500), 50)
    pairs = matcher.pairs(query, gallery, rows, columns)
    np.testing.assert_allclose(pairs, expected.numpy().ravel(), rtol=0, atol=0.5000001e-6)
    np.testing.assert_array_equal(pairs, np.round(pairs, 6))


@pytest.mark.parametrize("matcher", MATCHERS_HERE, ids=repr)
def test_a_pair_alone_scores_what_it_scores_among_others(matcher: SlotMatcher) -> None:
    query, gallery = make(9, 2), make(11, 3)
    gallery = PartEmbeddings.cat([gallery, gallery])  # every row has a twin
    rows, columns = np.divmod(np.arange(9 * 22), 22)
    together = matcher.pairs(query, gallery, rows, columns)
    alone = [matcher.pairs(query[[r]], gallery[[c]], [0], [0])[0] for r, c in zip(rows, columns, strict=True)]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together.reshape(9, 22)[:, :11], together.reshape(9, 22)[:, 11:])


def test_threads_do_not_change_pairs() -> None:
    query, gallery = make(40, 4), make(4000, 5)
    generator = np.random.default_rng(0)
    rows, columns = generator.integers(0, 40, 60_000), generator.integers(0, 4000, 60_000)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            results.append(VisibilityWeightedMatcher().pairs(query, gallery, rows, columns))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(*results)


def test_explain_says_what_each_slot_says() -> None:
    matcher = VisibilityWeightedMatcher(weights={"part_1": 2.0, "part_3": 0.0})
    query, gallery = make(6, 6), make(7, 7)
    rows, columns = np.divmod(np.arange(42), 7)
    details = matcher.explain(query, gallery, rows, columns)
    np.testing.assert_array_equal(details.distance, matcher.pairs(query, gallery, rows, columns))
    assert details.slot_distance.shape == details.shared.shape == (42, 4)
    share = details.shared * np.array([1, 2, 1, 0])
    seen = share.sum(1) > 0
    mean = (share * details.slot_distance).sum(1)[seen] / share.sum(1)[seen]
    np.testing.assert_allclose(details.distance[seen], mean, atol=1e-6)
    assert (details.distance[~seen] == NO_SHARED_SLOT).all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_twins_are_at_zero_and_zero_vectors_stay_finite(metric) -> None:
    slot = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    rows = PartEmbeddings(("a",), (slot,), torch.ones(4, 1))
    matcher = VisibilityWeightedMatcher(metric=metric)
    distance = matcher.pairs(rows, rows, [0, 1, 0], [3, 2, 1])
    assert distance.tolist() == ([0.0, 1.0, 1.0] if metric == "cosine" else [0.0, 0.0, 1.0])
    assert not np.signbit(distance).any()
    assert matcher.distance(rows, rows).isfinite().all()


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e25, 1e37])
def test_very_short_and_very_long_vectors_keep_their_direction(scale) -> None:
    query, gallery = make(5, 8), make(6, 9)
    matcher = VisibilityWeightedMatcher()
    scaled = [make(5, 8, scale=scale), make(6, 9, scale=scale)]
    torch.testing.assert_close(matcher.distance(*scaled), matcher.distance(query, gallery), rtol=0, atol=1e-6)
    rows, columns = np.divmod(np.arange(30), 6)
    expected = matcher.pairs(query, gallery, rows, columns)
    np.testing.assert_allclose(matcher.pairs(*scaled, rows, columns), expected, atol=1.1e-6)


def test_a_long_euclidean_vector_stays_within_the_tolerance() -> None:
    matcher = PlainMatcher(metric="euclidean", normalize=False)
    query, gallery = make(8, 10, scale=1e4), make(9, 11, scale=1e4)
    gallery = PartEmbeddings.cat([gallery, query])  # distances of 0 too: the hard case of the expansion
    prepared = matcher.prepare(query), matcher.prepare(gallery)
    rows, columns = np.divmod(np.arange(8 * 17), 17)
    exact = matcher.pairs(query, gallery, rows, columns).reshape(8, 17)
    assert np.abs(matcher.tile(*prepared).numpy() - exact).max() <= matcher.tolerance(*prepared)
    assert (np.diag(exact[:, 9:]) == 0).all()


def test_a_vanishing_visibility_is_hidden_everywhere() -> None:
    slot = torch.ones(1, 2)
    query = PartEmbeddings(("a", "b"), (slot, slot), torch.tensor([[1e-25, 0.0]]))
    gallery = PartEmbeddings(("a", "b"), (slot, slot), torch.ones(1, 2))
    matcher = VisibilityWeightedMatcher()
    assert float(matcher.distance(query, gallery)) == matcher.pairs(query, gallery, [0], [0])[0] == NO_SHARED_SLOT


def test_plain_ignores_visibility_and_binary_has_its_threshold() -> None:
    rows = make(5, 12)
    hidden = rows.with_visibility(torch.zeros_like(rows.visibility))
    assert torch.equal(PlainMatcher().distance(rows, rows), PlainMatcher().distance(hidden, rows))
    binary = VisibilityWeightedMatcher(visibility="binary")
    shown = binary.visibility_of(rows.with_visibility(torch.tensor([[0.5, 0.49, 0.0, 1.0]]).expand(5, 4)))
    assert shown[0].tolist() == [1.0, 0.0, 0.0, 1.0]


def test_registry_config_and_its_way_back() -> None:
    matcher = MATCHERS.create("visibility_weighted", metric="euclidean", weights={"part_1": 2}, visibility="binary")
    assert matcher.config == {
        "type": "visibility_weighted",
        "options": {
            "metric": "euclidean",
            "weights": {"part_1": 2.0},
            "normalize": True,
            "visibility": "binary",
            "threshold": 0.5,
        },
    }
    again = MATCHERS.create(matcher.config["type"], **matcher.config["options"])
    assert again.config == matcher.config
    assert isinstance(MATCHERS.create("plain"), PlainMatcher)
    assert PlainMatcher().config == {"type": "plain", "options": {"metric": "cosine", "weights": {}}}
    assert MATCHERS.create("plain", **PlainMatcher().config["options"]).config == PlainMatcher().config


def test_options_that_make_no_sense() -> None:
    with pytest.raises(UnknownOptionError, match="'cosine' or 'euclidean'"):
        PlainMatcher(metric="cos")
    with pytest.raises(UnknownOptionError, match="weight of slot 'a' is -1"):
        PlainMatcher(weights={"a": -1})
    with pytest.raises(UnknownOptionError, match="'soft' or 'binary'"):
        VisibilityWeightedMatcher(visibility="hard")
    with pytest.raises(UnknownOptionError, match="soft visibility has none"):
        VisibilityWeightedMatcher(threshold=0.3)
    with pytest.raises(UnknownOptionError, match=r"must lie in \(0, 1\]"):
        VisibilityWeightedMatcher(visibility="binary", threshold=0.0)
    with pytest.raises(UnknownOptionError, match=r"takes no 'metrik'.*Did you mean 'metric'"):
        MATCHERS.create("plain", metrik="cosine")
    rows = make(2, 13)
    with pytest.raises(EmbeddingError, match=r"'part_7'.*Slots: global, part_1"):
        PlainMatcher(weights={"part_7": 1.0}).distance(rows, rows)
    with pytest.raises(EmbeddingError, match="slots do not fit"):
        PlainMatcher().pairs(rows, rows.select(["global"]), [0], [0])


def test_a_matcher_of_ones_own_says_only_what_is_visible() -> None:
    class Halved(SlotMatcher):
        def visibility_of(self, rows):
            return rows.visibility / 2

    rows = make(4, 14)
    assert isinstance(Halved(), Matcher)
    assert Halved().config["type"].endswith("Halved")
    torch.testing.assert_close(Halved().distance(rows, rows), VisibilityWeightedMatcher().distance(rows, rows))
    assert repr(Halved()) == "Halved(metric='cosine', weights={})"


@pytest.mark.parametrize("matcher", MATCHERS_HERE, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_an_index_holds_of_a_slot_is_as_near_as_the_slot_says(matcher: SlotMatcher, dtype) -> None:
    query, gallery = make(6, 40, dtype=dtype), make(50, 41, dtype=dtype)
    gallery.embeddings[0][7] = 0
    assert matcher.used(NAMES) == tuple(name for name in NAMES if matcher.weights.get(name, 1) != 0)
    for s, slot in enumerate(NAMES):
        asked, x = matcher.index_vectors(query, slot)
        held, y = matcher.index_vectors(gallery, slot)
        assert held.tolist() == [i for i, seen in enumerate(matcher.visibility_of(gallery)[:, s].tolist()) if seen]
        assert (x.dtype, y.dtype, y.shape) == (np.float32, np.float32, (len(held), WIDTHS[s]))
        said = matcher.explain(query, gallery, np.repeat(asked, len(held)), np.tile(held, len(asked))).slot_distance
        said = said[:, s].reshape(len(asked), len(held))
        some = (y != 0).any(1)  # a unit vector is at 1 from a zero vector, its inner product with it is 0
        if matcher.index_metric == "l2":
            near = np.sqrt(((x[:, None] - y[None]) ** 2).sum(2))
        else:
            near = x @ y.T
            near = 1 - near if matcher.metric == "cosine" else np.sqrt(np.maximum(0, 2 - 2 * near))
        np.testing.assert_allclose(near[:, some], said[:, some], atol=2e-3 if dtype == torch.float16 else 2e-5)


@pytest.mark.parametrize("far", [1e30, 3e30, 1e31, 3e38])
def test_tiles_and_pairs_agree_beyond_the_largest_distance(far: float) -> None:
    """One slot is farther than the largest distance, the mean of the slots need not be: that mean is what counts."""
    slots = (torch.tensor([[0.0], [far]]), torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [0.0]]))
    rows = PartEmbeddings(("a", "b", "c"), slots, torch.ones(2, 3))
    matcher = VisibilityWeightedMatcher(metric="euclidean", normalize=False)
    side = matcher.prepare(rows)
    wanted = min((far + 1) / 3, 2.0**99)
    assert float(matcher.tile(side, side)[0, 1]) == pytest.approx(wanted, rel=1e-6)
    assert matcher.pairs(rows, rows, [0], [1])[0] == pytest.approx(wanted, rel=1e-6)
