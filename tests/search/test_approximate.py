"""approximate_topk against exact_topk, and against what its rules promise."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, ShapeError, UnknownOptionError
from occluded_reid.matchers import (
    NO_SHARED_SLOT,
    DistanceSumMatcher,
    Matcher,
    PlainMatcher,
    PublicDistanceMatcher,
    VisibilityWeightedMatcher,
)
from occluded_reid.registry import INDEXES
from occluded_reid.search import InMemoryRows, exact_topk
from occluded_reid.search.approximate import approximate_topk
from occluded_reid.search.index.base import SlotIndex
from occluded_reid.search.index.faiss import FaissIndex
from occluded_reid.search.recall import measure_recall

NAMES = ("global", "part_1", "part_2")
MATCHERS = {
    "soft": VisibilityWeightedMatcher(),
    "binary": VisibilityWeightedMatcher(visibility="binary", threshold=0.4),
    "weighted": VisibilityWeightedMatcher(weights={"part_1": 0.0, "global": 2.0}),
    "euclidean": VisibilityWeightedMatcher(metric="euclidean"),
    "raw euclidean": VisibilityWeightedMatcher(metric="euclidean", normalize=False),
    "public distance": PublicDistanceMatcher(always="global"),
    "distance sum": DistanceSumMatcher(weights={"part_2": 0.5}),
    "distance sum, cosine": DistanceSumMatcher(metric="cosine"),
    "plain": PlainMatcher(),
    "plain, raw euclidean": PlainMatcher(metric="euclidean", normalize=False),
}


def make(rows: int, seed: int, *, width: int = 8, identities: int | None = None) -> PartEmbeddings:
    """Random rows; with identities, noisy copies of their centres, row i being of identity i mod identities."""
    generator = torch.Generator().manual_seed(seed)
    visibility = torch.rand(rows, 3, generator=generator)
    visibility[torch.rand(rows, 3, generator=generator) < 0.3] = 0
    slots = [torch.randn(rows, width, generator=generator) for _ in NAMES]
    if identities:
        centres = torch.Generator().manual_seed(99)
        who = torch.arange(rows) % identities
        slots = [0.5 * slot + torch.randn(identities, width, generator=centres)[who] for slot in slots]
    return PartEmbeddings(NAMES, tuple(slots), visibility)


def build(rows: PartEmbeddings, matcher: Matcher, factory: str = "Flat") -> dict[str, SlotIndex]:
    indexes: dict[str, SlotIndex] = {}
    for slot in matcher.used(rows.names):
        numbers, vectors = matcher.index_vectors(rows, slot)
        index = FaissIndex(vectors.shape[1], metric=matcher.index_metric, factory=factory)
        index.train(vectors)
        index.add(vectors, numbers)
        indexes[slot] = index
    return indexes


def same(found, expected) -> None:
    assert len(found) == len(expected)
    for i in range(len(expected)):
        np.testing.assert_array_equal(found.positions[i], expected.positions[i])
        np.testing.assert_array_equal(found.distances[i], expected.distances[i])


def only(mask: np.ndarray, queries: int):
    """A filter for all queries, as exact_topk takes it."""
    return lambda start, stop: np.tile(mask[start:stop], (queries, 1))


@pytest.mark.parametrize("matcher", MATCHERS.values(), ids=MATCHERS)
@pytest.mark.parametrize("k", [1, 7, 400])
def test_exact_indexes_and_as_many_candidates_as_rows_give_the_exact_answer(matcher, k) -> None:
    query, gallery = make(20, 0), make(300, 1)
    rows, indexes = InMemoryRows(gallery), build(gallery, matcher)
    found = approximate_topk(query, rows, matcher, k, indexes, candidates=300)
    same(found, exact_topk(query, rows, matcher, k))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_mixture_of_filters_removed_and_new_rows_gives_the_exact_answer(data) -> None:
    seed = data.draw(st.integers(0, 1000))
    count, extra, k = data.draw(st.integers(1, 60)), data.draw(st.integers(0, 10)), data.draw(st.integers(1, 20))
    rng = np.random.default_rng(seed)
    matcher = MATCHERS[data.draw(st.sampled_from(sorted(MATCHERS)))]
    indexed, query = make(count, seed), make(5, seed + 1)
    if data.draw(st.booleans()):  # twins
        indexed = indexed[rng.integers(0, count, count)]
    kept = np.flatnonzero(rng.random(count) < data.draw(st.sampled_from([0.4, 0.95, 1.0])))
    gallery = PartEmbeddings.cat([indexed[torch.from_numpy(kept)], make(extra, seed + 2)])
    positions = np.full(count, -1)
    positions[kept] = np.arange(len(kept))
    passing = rng.random(len(gallery)) < data.draw(st.sampled_from([0.1, 0.5, 1.0]))
    allowed = rng.random((5, len(gallery))) < data.draw(st.sampled_from([0.2, 1.0]))
    rows = InMemoryRows(gallery)
    found = approximate_topk(
        query,
        rows,
        matcher,
        k,
        build(indexed, matcher),
        candidates=count,
        positions=positions,
        extra=np.arange(len(kept), len(gallery)),
        allowed=lambda start, stop: allowed[:, start:stop],
        passing=passing,
    )
    both = allowed & passing
    same(found, exact_topk(query, rows, matcher, k, allowed=lambda start, stop: both[:, start:stop]))


def test_every_distance_is_exact_and_lists_are_in_order() -> None:
    query, gallery = make(30, 2, identities=40), make(2000, 3, identities=40)
    matcher, rows = VisibilityWeightedMatcher(), InMemoryRows(gallery)
    found = approximate_topk(query, rows, matcher, 10, build(gallery, matcher, "IVF16,SQ8"), candidates=10, effort=2)
    for i in range(30):
        position, distance = found.positions[i], found.distances[i]
        assert len(position) == 10
        np.testing.assert_array_equal(matcher.pairs(query, gallery, [i] * 10, position), distance)
        assert list(zip(distance, position, strict=True)) == sorted(zip(distance, position, strict=True))


def test_a_new_row_that_shares_no_slot_does_not_come_before_an_old_one_that_shares_none() -> None:
    slots = tuple(torch.ones(3, 2) for _ in NAMES)
    rows = PartEmbeddings(NAMES, slots, torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]]))
    matcher, gallery = VisibilityWeightedMatcher(), InMemoryRows(rows[:2])
    found = approximate_topk(rows[2:], gallery, matcher, 1, build(rows[:1], matcher), extra=np.array([1]))
    same(found, exact_topk(rows[2:], gallery, matcher, 1))
    assert found.positions[0].tolist() == [0]


def test_twins_come_in_the_order_of_the_gallery() -> None:
    one = make(1, 4).with_visibility(torch.ones(1, 3))
    gallery = PartEmbeddings.cat([make(50, 5), *[one] * 30])
    matcher = VisibilityWeightedMatcher()
    found = approximate_topk(one, InMemoryRows(gallery), matcher, 5, build(gallery, matcher), candidates=30)
    assert found.positions[0].tolist() == [50, 51, 52, 53, 54]
    assert found.distances[0].tolist() == [0.0] * 5


def test_removed_rows_never_come_back_and_new_ones_are_always_found() -> None:
    indexed, new = make(400, 6, identities=20), make(10, 7)
    matcher = VisibilityWeightedMatcher()
    indexes = build(indexed, matcher, "IVF8,Flat")
    for gone in (np.arange(0, 400, 2), np.arange(3)):  # so many that the index is told, and so few that it is not
        kept = np.setdiff1d(np.arange(400), gone)
        positions = np.full(400, -1)
        positions[kept] = np.arange(len(kept))
        gallery = PartEmbeddings.cat([indexed[torch.from_numpy(kept)], new])
        fresh = np.arange(len(kept), len(gallery))
        found = approximate_topk(
            PartEmbeddings.cat([new, indexed[torch.from_numpy(gone[:3])]]),
            InMemoryRows(gallery),
            matcher,
            8,
            indexes,
            effort=2,
            positions=positions,
            extra=fresh,
        )
        sighted = new.visibility.sum(1) > 0
        for i in np.flatnonzero(sighted.numpy()):
            assert found.positions[i][0] == fresh[i]
        assert all(position.max() < len(gallery) for position in found.positions)
        for i, one in enumerate(gone[:3], start=10):
            if indexed.visibility[one].sum():
                assert found.distances[i][0] > 0


@pytest.mark.parametrize("part", [0.5, 0.01, 0.001])
def test_recall_under_filters(part) -> None:
    query, gallery = make(40, 8, identities=200), make(6000, 9, identities=200)
    matcher, rows = VisibilityWeightedMatcher(), InMemoryRows(gallery)
    passing = np.random.default_rng(0).random(6000) < part
    exact = exact_topk(query, rows, matcher, 5, allowed=only(passing, 40))
    found = approximate_topk(query, rows, matcher, 5, build(gallery, matcher, "IVF64,Flat"), effort=16, passing=passing)
    assert all(passing[position].all() for position in found.positions)
    recall = measure_recall(found, exact)
    assert recall.best > 0.95
    if part < 0.2:  # such a filter is searched exhaustively
        same(found, exact)


def test_a_filter_becomes_a_selector_down_to_a_fifth() -> None:
    class Watched(FaissIndex):
        def search(self, queries, m, *, effort=None, allowed=None):
            seen.append(None if allowed is None else np.flatnonzero(allowed).tolist())
            return super().search(queries, m, effort=effort, allowed=allowed)

    gallery, query, matcher = make(50, 10), make(3, 11), PlainMatcher()
    seen: list[list[int] | None] = []
    indexes = {}
    for slot in NAMES:
        numbers, vectors = matcher.index_vectors(gallery, slot)
        indexes[slot] = Watched(8, metric="inner_product")
        indexes[slot].add(vectors, numbers)
    rows = InMemoryRows(gallery)
    approximate_topk(query, rows, matcher, 2, indexes, passing=np.arange(50) < 10)
    assert seen == [list(range(10))] * 3
    seen.clear()
    approximate_topk(query, rows, matcher, 2, indexes, passing=np.arange(50) < 9)
    assert seen == []
    approximate_topk(query, rows, matcher, 2, indexes)
    assert seen == [None] * 3


def test_what_each_query_may_find_by_windows_or_by_pairs() -> None:
    class Rule:
        """Rows of another camera; row and query i are of camera i mod 3."""

        def __call__(self, start, stop):
            return np.arange(start, stop)[None] % 3 != np.arange(300)[:, None] % 3

        def at(self, positions):
            return positions[None] % 3 != np.arange(300)[:, None] % 3

        def pairs(self, queries, positions):
            assert (np.diff(queries) >= 0).all()
            return positions % 3 != queries % 3

    query, gallery = make(300, 12), make(500, 13)  # more queries than are asked for at a time
    matcher, rows, rule = VisibilityWeightedMatcher(), InMemoryRows(gallery), Rule()
    expected = exact_topk(query, rows, matcher, 9, allowed=rule)
    for allowed in (rule, rule.__call__):
        same(
            approximate_topk(query, rows, matcher, 9, build(gallery, matcher), candidates=500, allowed=allowed),
            expected,
        )


def test_a_query_that_may_find_few_is_answered_exactly() -> None:
    query, gallery = make(4, 14).with_visibility(torch.ones(4, 3)), make(800, 15)
    matcher, rows = VisibilityWeightedMatcher(), InMemoryRows(gallery)
    mask = np.ones((4, 800), dtype=bool)
    far = exact_topk(query[[2]], rows, matcher, 800).positions[0][-20:]
    mask[2] = np.isin(np.arange(800), far)  # what no list of 8 × 10 holds
    mask[3] = False
    allowed = lambda start, stop: mask[:, start:stop]  # noqa: E731
    found = approximate_topk(query, rows, matcher, 10, build(gallery, matcher), candidates=10, allowed=allowed)
    expected = exact_topk(query, rows, matcher, 10, allowed=allowed)
    np.testing.assert_array_equal(found.positions[2], expected.positions[2])
    assert found.positions[3].tolist() == []


def test_a_query_without_a_visible_slot_gets_the_first_rows_at_the_last_distance() -> None:
    query = make(3, 16).with_visibility(torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 0, 0]]))
    gallery = make(60, 17)
    matcher, rows = VisibilityWeightedMatcher(), InMemoryRows(gallery)
    passing = np.arange(60) % 2 == 1
    mask = np.ones((3, 60), dtype=bool)
    mask[2, :10] = False
    allowed = lambda start, stop: mask[:, start:stop]  # noqa: E731
    found = approximate_topk(query, rows, matcher, 4, build(gallery, matcher), passing=passing, allowed=allowed)
    assert found.positions[0].tolist() == [1, 3, 5, 7]
    assert found.positions[2].tolist() == [11, 13, 15, 17]
    assert found.distances[0].tolist() == [NO_SHARED_SLOT] * 4
    assert found.distances[1][0] < NO_SHARED_SLOT


def test_threads_and_company_change_nothing() -> None:
    query, gallery = make(70, 18, identities=30), make(3000, 19, identities=30)
    matcher, rows = VisibilityWeightedMatcher(), InMemoryRows(gallery)
    indexes = build(gallery, matcher, "IVF32,SQfp16")
    threads = torch.get_num_threads()
    try:
        answers = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            answers.append(approximate_topk(query, rows, matcher, 12, indexes, effort=3))
    finally:
        torch.set_num_threads(threads)
    same(answers[1], answers[0])
    same(answers[2], answers[0])
    for i in range(0, 70, 9):
        alone = approximate_topk(query[[i]], rows, matcher, 12, indexes, effort=3)
        np.testing.assert_array_equal(alone.positions[0], answers[0].positions[i])
        np.testing.assert_array_equal(alone.distances[0], answers[0].distances[i])


def test_an_index_of_ones_own_is_registered_and_used() -> None:
    @INDEXES.register("toy")
    class ToyIndex(SlotIndex):
        def __init__(self, width: int, *, metric, reverse: bool = False) -> None:
            super().__init__(width, metric=metric)
            self.vectors, self.ids = np.empty((0, width), np.float32), np.empty(0, np.int64)

        def __len__(self) -> int:
            return len(self.ids)

        @property
        def exact(self) -> bool:
            return True

        def add(self, vectors, ids) -> None:
            self.vectors, self.ids = np.concatenate([self.vectors, vectors]), np.concatenate([self.ids, ids])

        def search(self, queries, m, *, effort=None, allowed=None):
            distance = 1 - queries @ self.vectors.T
            if allowed is not None:
                distance[:, ~allowed[self.ids]] = np.inf
            order = np.argsort(distance, axis=1)[:, :m]
            near = np.take_along_axis(distance, order, 1)
            return near, np.where(np.isinf(near), -1, self.ids[order])

        def save(self, path: Path) -> None:
            np.savez(path, vectors=self.vectors, ids=self.ids)

        @classmethod
        def load(cls, path: Path, *, mmap: bool = True, device: str = "cpu"):
            raise NotImplementedError

    try:
        query, gallery, matcher = make(9, 20), make(80, 21), VisibilityWeightedMatcher()
        indexes = {}
        for slot in NAMES:
            numbers, vectors = matcher.index_vectors(gallery, slot)
            indexes[slot] = INDEXES.create("toy", 8, metric="inner_product")
            indexes[slot].add(vectors, numbers)
        rows = InMemoryRows(gallery)
        found = approximate_topk(query, rows, matcher, 6, indexes, candidates=80)
        same(found, exact_topk(query, rows, matcher, 6))
        assert indexes["global"].efforts == (1,)
    finally:
        INDEXES.unregister("toy")


def test_nothing_to_find_and_nobody_who_asks() -> None:
    query, gallery, matcher = make(3, 22), make(30, 23), VisibilityWeightedMatcher()
    indexes, rows = build(gallery, matcher), InMemoryRows(gallery)
    assert len(approximate_topk(query[:0], rows, matcher, 3, indexes)) == 0
    nothing = approximate_topk(query, InMemoryRows(gallery[:0]), matcher, 3, indexes, positions=np.full(30, -1))
    assert [p.tolist() for p in nothing.positions] == [[]] * 3
    none = approximate_topk(query, rows, matcher, 3, indexes, passing=np.zeros(30, dtype=bool))
    assert [p.tolist() for p in none.positions] == [[]] * 3


def test_bad_arguments() -> None:
    class Other(Matcher):
        config = prepare = tile = tolerance = scorer = explain = None

    query, gallery, matcher = make(3, 24), make(30, 25), VisibilityWeightedMatcher()
    indexes, rows = build(gallery, matcher), InMemoryRows(gallery)
    for wrong in ({"k": 0}, {"candidates": 0}, {"effort": 0}):
        with pytest.raises(ShapeError, match="at least 1"):
            approximate_topk(query, rows, matcher, **{"k": 3, "indexes": indexes, **wrong})
    with pytest.raises(UnknownOptionError, match="subclass SlotMatcher"):
        approximate_topk(query, rows, Other(), 3, indexes)
    with pytest.raises(EmbeddingError, match="'part_2' has no index; there are indexes for global, part_1"):
        approximate_topk(query, rows, matcher, 3, {slot: indexes[slot] for slot in NAMES[:2]})
    with pytest.raises(EmbeddingError, match="compared by inner_product; this search needs 8 compared by l2"):
        approximate_topk(query, rows, MATCHERS["raw euclidean"], 3, indexes)
    with pytest.raises(EmbeddingError, match="holds 8 numbers"):
        approximate_topk(make(2, 0, width=6), rows, matcher, 3, indexes)
    with pytest.raises(ShapeError, match=r"passing has the shape \(4,\)"):
        approximate_topk(query, rows, matcher, 3, indexes, passing=np.ones(4, dtype=bool))
    with pytest.raises(ShapeError, match="ids below 20 are known"):
        approximate_topk(query, InMemoryRows(gallery[:20]), matcher, 3, indexes, candidates=30)
    with pytest.raises(ShapeError, match=r"wanted \(3, "):
        approximate_topk(query, rows, matcher, 3, indexes, allowed=lambda start, stop: np.ones((1, 1), dtype=bool))
