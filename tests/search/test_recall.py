"""measure_recall by counting, and choose_effort by what it promises."""

import numpy as np
import pytest
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import ShapeError
from occluded_reid.matchers import NO_SHARED_SLOT, VisibilityWeightedMatcher
from occluded_reid.search import InMemoryRows, TopK, exact_topk
from occluded_reid.search.approximate import approximate_topk
from occluded_reid.search.index.faiss import FaissIndex
from occluded_reid.search.recall import NotItself, choose_effort, measure_recall

IDENTITIES = 150


def make(rows: int, seed: int) -> tuple[PartEmbeddings, np.ndarray]:
    """Noisy copies of the centres of 150 identities, and who they are."""
    centres = torch.randn(2, IDENTITIES, 12, generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    who = torch.randint(0, IDENTITIES, (rows,), generator=generator)
    slots = tuple(c[who] + 0.6 * torch.randn(rows, 12, generator=generator) for c in centres)
    visible = torch.rand(rows, 2, generator=generator).add(0.1).clamp(max=1)
    return PartEmbeddings(("global", "part_1"), slots, visible), who.numpy()


def build(rows: PartEmbeddings, factory: str) -> dict[str, FaissIndex]:
    matcher, indexes = VisibilityWeightedMatcher(), {}
    for slot in rows.names:
        numbers, vectors = matcher.index_vectors(rows, slot)
        indexes[slot] = FaissIndex(12, metric="inner_product", factory=factory)
        indexes[slot].train(vectors)
        indexes[slot].add(vectors, numbers)
    return indexes


def answer(*lists: list[int], last: float = 0.5) -> TopK:
    return TopK([np.array(one, dtype=np.int64) for one in lists], [np.linspace(0.1, last, len(one)) for one in lists])


def test_recall_by_counting() -> None:
    exact = answer([3, 1, 2], [7, 8, 9], [5, 4], [])
    found = answer([3, 2, 6], [8, 9, 1], [4, 5], [2])
    recall = measure_recall(found, exact, [np.array([1, 2, 50]), np.array([7]), np.array([], int), np.array([2])])
    assert recall.best == 2 / 3
    assert recall.topk == 6 / 8
    assert recall.true_matches == 1 / 3
    assert recall.least == 1 / 3
    assert measure_recall(found, exact).least == 2 / 3
    assert "best hit 66.7 %" in str(recall)


def test_rows_that_share_nothing_do_not_count() -> None:
    exact = TopK([np.array([4, 0, 1])], [np.array([0.2, NO_SHARED_SLOT, NO_SHARED_SLOT])])
    assert measure_recall(answer([4]), exact).topk == 1
    nothing = measure_recall(answer([]), TopK([np.array([0])], [np.array([NO_SHARED_SLOT])]))
    assert np.isnan(nothing.best)
    assert np.isnan(nothing.least)


def test_numbers_of_queries_must_agree() -> None:
    with pytest.raises(ShapeError, match="1 approximate and 2 exact"):
        measure_recall(answer([1]), answer([1], [2]))
    with pytest.raises(ShapeError, match="true matches of 2"):
        measure_recall(answer([1]), answer([1]), [np.array([1])] * 2)


def test_not_itself() -> None:
    rule = NotItself(np.array([2, -1, 0]))
    assert rule(1, 4).tolist() == [[True, False, True], [True] * 3, [True] * 3]
    assert rule.at(np.array([0, 2])).tolist() == [[True, False], [True, True], [False, True]]
    assert rule.pairs(np.array([0, 1, 2]), np.array([2, 2, 2])).tolist() == [False, True, True]


def test_the_chosen_effort_reaches_what_was_wanted_and_nothing_cheaper_does() -> None:
    (gallery, who), (query, asked) = make(6000, 0), make(120, 1)
    rows, matcher, indexes = InMemoryRows(gallery), VisibilityWeightedMatcher(), build(gallery, "IVF64,SQfp16")
    true = [np.flatnonzero(who == one) for one in asked]
    chosen = choose_effort(query, rows, matcher, 10, indexes, 0.95, relevant=true)
    again = choose_effort(query, rows, matcher, 10, indexes, 0.95, relevant=true)
    assert chosen == again
    assert chosen.reached
    assert chosen.recall.least >= 0.95
    found = approximate_topk(query, rows, matcher, 10, indexes, candidates=chosen.candidates, effort=chosen.effort)
    exact = exact_topk(query, rows, matcher, 10)
    assert measure_recall(found, exact, true) == chosen.recall
    assert chosen == choose_effort(query, rows, matcher, 10, indexes, 0.95, relevant=true, exact=exact)
    for effort in indexes["global"].efforts:
        if effort < chosen.effort:
            less = approximate_topk(query, rows, matcher, 10, indexes, candidates=chosen.candidates, effort=effort)
            assert measure_recall(less, exact, true).least < 0.95
    easier = choose_effort(query, rows, matcher, 10, indexes, 0.5, relevant=true)
    assert easier.cost < chosen.cost


def test_rows_of_the_gallery_as_queries_do_not_find_themselves() -> None:
    gallery, _ = make(3000, 2)
    own = np.arange(0, 3000, 40)
    rows, matcher, indexes = InMemoryRows(gallery), VisibilityWeightedMatcher(), build(gallery, "IVF32,Flat")
    chosen = choose_effort(rows.take(own), rows, matcher, 5, indexes, 0.9, own=own)
    found = approximate_topk(
        rows.take(own),
        rows,
        matcher,
        5,
        indexes,
        candidates=chosen.candidates,
        effort=chosen.effort,
        allowed=NotItself(own),
    )
    assert all(own[q] not in found.positions[q] for q in range(len(own)))
    assert measure_recall(found, exact_topk(rows.take(own), rows, matcher, 5, allowed=NotItself(own))) == chosen.recall


def test_a_recall_that_is_not_reached_is_said_so() -> None:
    gallery, _ = make(3000, 3)
    query, _ = make(40, 4)
    rows, matcher = InMemoryRows(gallery), VisibilityWeightedMatcher()
    indexes = build(gallery, "PCA2,Flat")  # two numbers of twelve
    chosen = choose_effort(query, rows, matcher, 5, indexes, 1.0, candidates=[5, 8])
    assert not chosen.reached
    assert 0 < chosen.recall.least < 1
    assert "NOT reached" in str(chosen)
    assert chosen.candidates == 8  # the best that was tried


def test_with_a_filter() -> None:
    gallery, _ = make(3000, 5)
    query, _ = make(40, 6)
    rows, matcher, indexes = InMemoryRows(gallery), VisibilityWeightedMatcher(), build(gallery, "IVF32,Flat")
    passing = np.arange(3000) % 2 == 0
    chosen = choose_effort(query, rows, matcher, 5, indexes, 0.9, passing=passing)
    exact = exact_topk(query, rows, matcher, 5, allowed=lambda a, b: np.tile(passing[a:b], (40, 1)))
    found = approximate_topk(
        query, rows, matcher, 5, indexes, candidates=chosen.candidates, effort=chosen.effort, passing=passing
    )
    assert measure_recall(found, exact) == chosen.recall


@pytest.mark.parametrize("wrong", [{"wanted": 0.0}, {"wanted": 1.1}, {"candidates": []}, {"count": 0}])
def test_bad_arguments(wrong) -> None:
    gallery, _ = make(100, 7)
    options = {"wanted": 0.9, "count": 5, **wrong}
    count, wanted = options.pop("count"), options.pop("wanted")
    with pytest.raises(ShapeError, match="give some queries and candidates"):
        choose_effort(
            gallery[:count],
            InMemoryRows(gallery),
            VisibilityWeightedMatcher(),
            5,
            build(gallery, "Flat"),
            wanted,
            **options,
        )
