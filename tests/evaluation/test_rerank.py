"""evaluate(rerank=…) against loops over the full matrix, written from the paper and what its released code does."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.evaluation import Protocol, Report, evaluate
from occluded_reid.matchers import DistanceSumMatcher, PlainMatcher, VisibilityWeightedMatcher
from occluded_reid.search.rerank.all_queries import RerankedDistances
from occluded_reid.search.rerank.k_reciprocal import KReciprocal

NAMES = ("global", "part_1", "part_2")
SMALL = KReciprocal(k1=4, k2=3, weight=0.3)


def make(rows, seed, *, identities=5, visibility="binary", width=6) -> EmbeddedSet:
    generator = torch.Generator().manual_seed(seed)
    labels = np.random.default_rng(seed)
    centres = torch.randn(3, identities, width, generator=torch.Generator().manual_seed(99))
    identity, camera = labels.integers(0, identities, rows), labels.integers(0, 3, rows)
    slots = tuple(c[identity] + torch.randn(rows, width, generator=generator) for c in centres)
    visible = torch.rand(rows, 3, generator=generator)
    if visibility == "binary":
        visible = (visible > 0.45).float()
    return EmbeddedSet(PartEmbeddings(NAMES, slots, visible), identity, camera)


def with_twins(rows: EmbeddedSet, seed: int) -> EmbeddedSet:
    """Every third row three times, under other identities, in random order."""
    order = np.random.default_rng(seed).permutation(
        np.concatenate([np.arange(len(rows)), *[np.arange(0, len(rows), 3)] * 2])
    )
    renamed = np.roll(rows.identity[order], 1)
    return EmbeddedSet(rows.embeddings[torch.from_numpy(order)], renamed, rows.camera[order])


def all_distances(rows: PartEmbeddings, euclidean=False) -> list[list[float]]:
    """Distance of all pairs by the formula of the matcher, rounded to 1e-6; infinite without a common slot."""
    slots = [e.double().numpy() for e in rows.embeddings]
    seen = rows.visibility.double().numpy()
    table = []
    for i in range(len(rows)):
        line = []
        for j in range(len(rows)):
            top = bottom = 0.0
            for s, slot in enumerate(slots):
                shared = seen[i, s] * seen[j, s]
                a, b = (x / (np.sqrt((x * x).sum()) or 1.0) for x in (slot[i], slot[j]))
                d = math.sqrt(((a - b) ** 2).sum()) if euclidean else 1 - (a * b).sum()
                top, bottom = top + shared * d, bottom + shared
            line.append(round(top / bottom, 6) + 0.0 if bottom > 0 else math.inf)
        table.append(line)
    return table


def published(table, num_queries, k1, k2, weight, squared=False) -> np.ndarray:
    """Final distances (Nq, Ng) of a full matrix, queries first."""
    n = len(table)
    lists, scaled = [], []
    for i in range(n):
        able = [j for j in range(n) if table[i][j] < math.inf]
        lists.append(sorted(able, key=lambda j, i=i: (table[i][j], j)))
        largest = max((table[i][j] for j in able), default=0.0)
        power = 2 if squared else 1
        scaled.append(
            [1.0 if table[i][j] == math.inf else (table[i][j] / largest) ** power if largest else 0.0 for j in range(n)]
        )

    def reciprocal(i, depth):
        return {j for j in lists[i][:depth] if i in lists[j][:depth]}

    half = int(np.around(k1 / 2)) + 1
    encoded = np.zeros((n, n))
    for i in range(n):
        own = reciprocal(i, k1 + 1)
        expanded = set(own)
        for j in own:
            theirs = reciprocal(j, half)
            if 3 * len(own & theirs) > 2 * len(theirs):
                expanded |= theirs
        for j in expanded:
            encoded[i, j] = math.exp(-scaled[i][j])
        if expanded:
            encoded[i] /= encoded[i].sum()
    if k2 > 1:
        encoded = np.stack(
            [np.mean([encoded[j] for j in lists[i][:k2]], axis=0) if lists[i] else np.zeros(n) for i in range(n)]
        )
    final = np.zeros((num_queries, n - num_queries))
    for i in range(num_queries):
        for j in range(num_queries, n):
            least = sum(min(encoded[i, c], encoded[j, c]) for c in range(n))
            final[i, j - num_queries] = (1 - weight) * (1 - least / (2 - least)) + weight * scaled[i][j]
    return final


def by_definition(query: EmbeddedSet, gallery: EmbeddedSet, final: np.ndarray):
    """Per query (average precision, rank of the first match, matches / rank of the last), and what was excluded."""
    numbers, excluded = [], 0
    for i in range(len(query)):
        ranked = []
        for j in range(len(gallery)):
            same = query.identity[i] == gallery.identity[j]
            if same and query.camera[i] == gallery.camera[j]:
                excluded += 1
            else:
                ranked.append((final[i, j], j, same))
        ranks = [r for r, (_, _, same) in enumerate(sorted(ranked), start=1) if same]
        precision = [n / rank for n, rank in enumerate(ranks, start=1)]
        numbers.append((np.mean(precision), ranks[0], len(ranks) / ranks[-1]) if ranks else None)
    return numbers, excluded


def check(report: Report, query, gallery, final) -> None:
    # The last bit of a sum decides nothing that matters: a rank is compared where rounding to 1e-6 is beyond doubt.
    numbers, excluded = by_definition(query, gallery, np.round(final, 6))
    assert report.card.excluded_pairs == excluded
    assert report.answerable.tolist() == [n is not None for n in numbers]
    for i, expected in enumerate(numbers):
        if expected is not None:
            found = report.average_precision[i], report.first_match_rank[i], report.inverse_negative_penalty[i]
            assert found == pytest.approx(expected)


def joined(query: EmbeddedSet, gallery: EmbeddedSet) -> PartEmbeddings:
    return PartEmbeddings.cat([query.embeddings, gallery.embeddings])


def all_scores(query, gallery, matcher, rerank) -> np.ndarray:
    distances = RerankedDistances(query.embeddings, gallery.embeddings, matcher, rerank)
    i, j = np.divmod(np.arange(len(query) * len(gallery)), len(gallery))
    scores = distances.score(i, j).reshape(len(query), len(gallery))
    for tile in distances.tiles(7, 1 << 20):
        gap = np.abs(tile.distance.numpy() - scores[:, tile.start : tile.stop])
        assert (gap <= np.asarray(tile.tolerance)[:, None]).all()
    return scores


@pytest.mark.parametrize("visibility", ["binary", "soft"])
@pytest.mark.parametrize(
    "rerank", [SMALL, KReciprocal(), KReciprocal(k1=5, k2=1, weight=0), KReciprocal(3, 4, 1.0)], ids=str
)
def test_it_equals_the_published_algorithm(visibility, rerank) -> None:
    query, gallery = make(9, 0, visibility=visibility), with_twins(make(24, 1, visibility=visibility), 2)
    final = published(all_distances(joined(query, gallery)), len(query), rerank.k1, rerank.k2, rerank.weight)
    matcher = VisibilityWeightedMatcher()
    np.testing.assert_allclose(all_scores(query, gallery, matcher, rerank), final, rtol=0, atol=1e-6)
    check(evaluate(query, gallery, matcher, rerank=rerank), query, gallery, final)


@pytest.mark.parametrize("squared", [None, True, False])
def test_euclidean_distances_are_squared_unless_told_otherwise(squared) -> None:
    query, gallery = make(8, 3), make(25, 4)
    rerank = KReciprocal(k1=4, k2=3, weight=0.3, squared=squared)
    matcher = VisibilityWeightedMatcher(metric="euclidean")
    table = all_distances(joined(query, gallery), euclidean=True)
    final = published(table, len(query), 4, 3, 0.3, squared=squared is not False)
    np.testing.assert_allclose(all_scores(query, gallery, matcher, rerank), final, rtol=0, atol=1e-6)
    check(evaluate(query, gallery, matcher, rerank=rerank), query, gallery, final)
    # A sum over slots is a multiple of the mean here, and only shares of the largest distance count.
    summed = all_scores(query, gallery, DistanceSumMatcher(metric="euclidean"), rerank)
    np.testing.assert_allclose(summed, final, rtol=0, atol=3e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    queries=st.integers(1, 6),
    rows=st.integers(1, 22),
    k1=st.integers(1, 9),
    k2=st.integers(1, 5),
    weight=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    visibility=st.sampled_from(["binary", "soft"]),
    tile_rows=st.sampled_from([1, 5, 1024]),
)
def test_it_equals_the_published_algorithm_on_anything(
    seed, queries, rows, k1, k2, weight, visibility, tile_rows
) -> None:
    query = make(queries, seed, identities=2, visibility=visibility)
    gallery = with_twins(make(rows, seed + 1, identities=2, visibility=visibility), seed)
    rerank = KReciprocal(k1, min(k2, k1 + 1), weight)
    final = published(all_distances(joined(query, gallery)), queries, rerank.k1, rerank.k2, weight)
    matcher = VisibilityWeightedMatcher()
    found = all_scores(query, gallery, matcher, rerank)
    np.testing.assert_allclose(found, final, rtol=0, atol=1.1e-6)
    numbers, _ = by_definition(query, gallery, found)
    if any(numbers):
        report = evaluate(query, gallery, matcher, tile_rows=tile_rows, rerank=rerank)
        check(report, query, gallery, found)


def test_pairs_without_a_common_slot_stand_at_the_largest_distance_and_may_share_neighbours() -> None:
    # Head alone, legs alone, and images of both that know each: the two meet through them.
    slot = torch.tensor([[1.0, 0.0]]).repeat(6, 1) + 0.01 * torch.randn(
        6, 2, generator=torch.Generator().manual_seed(5)
    )
    visible = torch.tensor([[1.0, 0], [0, 1], [1, 1], [1, 1], [1, 1], [0, 0]])
    rows = PartEmbeddings(("head", "legs"), (slot, slot), visible)
    query = EmbeddedSet(rows[:1], [1], [0])
    gallery = EmbeddedSet(rows[1:], [1, 2, 2, 2, 1], [1] * 5)
    rerank = KReciprocal(k1=4, k2=2)
    scores = all_scores(query, gallery, VisibilityWeightedMatcher(), rerank)[0]
    np.testing.assert_allclose(scores, published(all_distances(rows), 1, 4, 2, 0.3)[0], rtol=0, atol=1e-6)
    assert scores[0] < 0.3 + 0.7 * 0.9  # unshared, yet nearer than an image that shares nothing with anybody
    assert scores[4] == 1.0
    report = evaluate(query, gallery, VisibilityWeightedMatcher(), rerank=rerank)
    assert report.card.pairs_without_shared_slot == 2


def test_unshared_pairs_are_counted_as_without_re_ranking() -> None:
    query, gallery = make(20, 6), make(60, 7)
    for exclude in (True, False):
        protocol = Protocol(exclude_same_camera=exclude)
        plain, reranked = (
            evaluate(query, gallery, VisibilityWeightedMatcher(), protocol, rerank=r, tile_rows=16).card
            for r in (None, SMALL)
        )
        assert plain.pairs_without_shared_slot == reranked.pairs_without_shared_slot > 0
        assert plain.excluded_pairs == reranked.excluded_pairs


def test_rows_that_are_all_alike_have_distance_0() -> None:
    rows = PartEmbeddings(("a",), (torch.ones(12, 3),), torch.ones(12, 1))
    query, gallery = EmbeddedSet(rows[:2], [1, 2], [0, 0]), EmbeddedSet(rows[2:], [1, 2] * 5, [1] * 10)
    table = all_distances(rows)
    assert all_scores(query, gallery, PlainMatcher(), SMALL) == pytest.approx(published(table, 2, 4, 3, 0.3), abs=1e-6)
    check(evaluate(query, gallery, PlainMatcher(), rerank=SMALL), query, gallery, published(table, 2, 4, 3, 0.3))


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_tiles_and_threads_change_nothing(weight) -> None:
    query, gallery = make(30, 8), with_twins(make(120, 9), 10)
    rerank = KReciprocal(k1=6, k2=3, weight=weight)
    threads = torch.get_num_threads()
    reports = []
    try:
        for count, tile_rows in ((1, 1024), (3, 1024), (1, 1), (3, 37)):
            torch.set_num_threads(count)
            report = evaluate(query, gallery, VisibilityWeightedMatcher(), tile_rows=tile_rows, rerank=rerank)
            reports.append(report.to_dict()["per_query"])
    finally:
        torch.set_num_threads(threads)
    assert all(report == reports[0] for report in reports[1:])


def test_it_helps_where_neighbours_agree_and_the_report_says_what_was_done() -> None:
    query, gallery = make(40, 11, identities=8, visibility="soft"), make(200, 12, identities=8, visibility="soft")
    plain = evaluate(query, gallery, VisibilityWeightedMatcher())
    report = evaluate(query, gallery, VisibilityWeightedMatcher(), rerank=KReciprocal())
    assert report.mAP > plain.mAP + 0.05
    assert report.card.reranking == "k-reciprocal (k1=20, k2=6, weight=0.3), uses all queries"
    assert "re-ranking: k-reciprocal (k1=20, k2=6, weight=0.3), uses all queries" in str(report)
    assert "re-ranking: none" in str(plain)
    again = Report.from_dict(report.to_dict())
    assert again.card.reranking == report.card.reranking
    old = report.to_dict()
    del old["card"]["reranking"]
    assert Report.from_dict(old).card.reranking == ""


def test_other_queries_change_the_answer_of_a_query() -> None:
    query, gallery = make(30, 13, visibility="soft"), make(60, 14, visibility="soft")
    everyone = all_scores(query, gallery, VisibilityWeightedMatcher(), SMALL)
    alone = EmbeddedSet(query.embeddings[:1], query.identity[:1], query.camera[:1])
    assert not np.array_equal(everyone[:1], all_scores(alone, gallery, VisibilityWeightedMatcher(), SMALL))
