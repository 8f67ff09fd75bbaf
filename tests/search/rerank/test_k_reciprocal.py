"""k-reciprocal encoding, neighbour lists and the re-ranking of one query, against loops over the full matrix."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, ShapeError
from occluded_reid.matchers import NO_SHARED_SLOT, Matcher, PlainMatcher, VisibilityWeightedMatcher
from occluded_reid.search import InMemoryRows, TopK, exact_topk
from occluded_reid.search.rerank.all_queries import JoinedRows
from occluded_reid.search.rerank.farthest import farthest
from occluded_reid.search.rerank.k_reciprocal import KReciprocal, expanded_sets, reciprocal_sets, shared_minima
from occluded_reid.search.rerank.neighbors import NeighbourLists
from occluded_reid.search.rerank.per_query import rerank_topk

NAMES = ("global", "part_1", "part_2")
MATCHER = VisibilityWeightedMatcher()


def make(rows: int, seed: int, *, visibility="binary", people=4, width=6) -> PartEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(3, people, width, generator=torch.Generator().manual_seed(99))
    who = torch.randint(people, (rows,), generator=generator)
    slots = tuple(c[who] + torch.randn(rows, width, generator=generator) for c in centres)
    visible = torch.rand(rows, 3, generator=generator)
    return PartEmbeddings(NAMES, slots, (visible > 0.4).float() if visibility == "binary" else visible)


def with_twins(rows: PartEmbeddings, seed: int) -> PartEmbeddings:
    twice = np.concatenate([np.arange(len(rows)), np.arange(0, len(rows), 3), np.arange(0, len(rows), 4)])
    return rows[torch.from_numpy(np.random.default_rng(seed).permutation(twice))]


def all_distances(rows: PartEmbeddings) -> list[list[float]]:
    """Visibility-weighted cosine distances, rounded to 1e-6; infinite without a common slot."""
    slots = [e.double().numpy() for e in rows.embeddings]
    seen = rows.visibility.double().numpy()
    table = []
    for i in range(len(rows)):
        line = []
        for j in range(len(rows)):
            top = bottom = 0.0
            for s, slot in enumerate(slots):
                a, b = (x / np.sqrt((x * x).sum()) for x in (slot[i], slot[j]))
                top, bottom = top + seen[i, s] * seen[j, s] * (1 - (a * b).sum()), bottom + seen[i, s] * seen[j, s]
            line.append(round(top / bottom, 6) + 0.0 if bottom > 0 else math.inf)
        table.append(line)
    return table


def nearest(table, i, among) -> list[int]:
    return sorted((j for j in among if table[i][j] < math.inf), key=lambda j: (table[i][j], j))


def published(table, k1, k2, weight, largest, among=None) -> dict[int, float]:
    """Final distance of row 0, the one query, to each other row."""
    among = list(range(len(table))) if among is None else among
    lists = {i: nearest(table, i, among) for i in among}

    def scaled(i, j):
        return 1.0 if table[i][j] == math.inf else min(table[i][j] / largest[i], 1.0) if largest[i] else 0.0

    def reciprocal(i, depth):
        return {j for j in lists[i][:depth] if i in lists[j][:depth]}

    first = {}
    for i in among:
        own = reciprocal(i, k1 + 1)
        members = set(own)
        for j in own:
            theirs = reciprocal(j, int(np.around(k1 / 2)) + 1)
            if 3 * len(own & theirs) > 2 * len(theirs):
                members |= theirs
        total = sum(math.exp(-scaled(i, j)) for j in members)
        first[i] = {j: math.exp(-scaled(i, j)) / total for j in members}
    encoded = {}
    for i in among:
        averaged = lists[i][:k2] if k2 > 1 else [i]
        encoded[i] = {c: sum(first[j].get(c, 0.0) for j in averaged) / len(averaged) for c in among} if averaged else {}
    final = {}
    for j in among[1:]:
        least = sum(min(encoded[0].get(c, 0.0), encoded[j].get(c, 0.0)) for c in among)
        final[j] = (1 - weight) * (1 - least / (2 - least)) + weight * scaled(0, j)
    return final


def largest_of(table, i, among) -> float:
    return max((table[i][j] for j in among if table[i][j] < math.inf), default=0.0)


def check(found: TopK, expected: dict[int, float], candidates) -> None:
    """Positions of the gallery are rows 1 … of the table."""
    positions, distances = found.positions[0], found.distances[0]
    assert sorted(positions.tolist()) == sorted(candidates)
    np.testing.assert_allclose(distances, [expected[p + 1] for p in positions], rtol=0, atol=1.1e-6)
    assert list(zip(distances, positions, strict=True)) == sorted(zip(distances, positions, strict=True))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 30),
    k1=st.integers(1, 8),
    k2=st.integers(1, 4),
    weight=st.sampled_from([0.0, 0.3, 1.0]),
    visibility=st.sampled_from(["binary", "soft"]),
    candidates=st.integers(1, 40),
)
def test_one_query_equals_the_published_algorithm(seed, rows, k1, k2, weight, visibility, candidates) -> None:
    query = make(1, seed, visibility=visibility)
    gallery = with_twins(make(rows, seed + 1, visibility=visibility), seed)
    rerank = KReciprocal(k1, min(k2, k1 + 1), weight)
    source, n = InMemoryRows(gallery), len(gallery)
    # At least k1 candidates are asked for: the query's own list comes from them.
    best = exact_topk(query, source, MATCHER, max(candidates, k1))
    lists = NeighbourLists.build(source, MATCHER, k1).locate(np.arange(n))
    table = all_distances(PartEmbeddings.cat([query, gallery]))
    largest = [largest_of(table, 0, range(n + 1)), *(largest_of(table, i, range(1, n + 1)) for i in range(1, n + 1))]
    found = rerank_topk(query, best, source, MATCHER, rerank, n, lists=lists, largest=largest[0])
    expected = published(table, rerank.k1, rerank.k2, weight, largest)
    check(found, expected, best.positions[0].tolist())


@pytest.mark.parametrize("visibility", ["binary", "soft"])
def test_without_lists_it_is_the_published_algorithm_over_the_candidates(visibility) -> None:
    query, gallery = make(1, 0, visibility=visibility), with_twins(make(40, 1, visibility=visibility), 2)
    source = InMemoryRows(gallery)
    best = exact_topk(query, source, MATCHER, 25)
    found = rerank_topk(query, best, source, MATCHER, KReciprocal(k1=5, k2=3), 25)
    table = all_distances(PartEmbeddings.cat([query, gallery]))
    among = [0, *(np.sort(best.positions[0]) + 1).tolist()]
    largest = {i: largest_of(table, i, among) for i in among}
    check(found, published(table, 5, 3, 0.3, largest, among), best.positions[0].tolist())


@pytest.mark.parametrize("gone", [0.0, 0.2])
def test_rows_that_came_and_went_since(gone) -> None:
    """Half of the candidates have no list, and some rows that lists name are gone: by the words of the docstring."""
    generator = np.random.default_rng(0)
    query, before = make(1, 3, visibility="soft"), make(60, 4, visibility="soft")
    lists = NeighbourLists.build(InMemoryRows(before), MATCHER, 5, numbers=np.arange(100, 160))
    stay = np.flatnonzero(generator.random(60) >= gone)
    gallery = PartEmbeddings.cat([before[torch.from_numpy(stay)], make(15, 5, visibility="soft")])
    numbers = np.concatenate([100 + stay, np.arange(200, 215)])
    source = InMemoryRows(gallery)
    located = lists.locate(numbers)
    assert located.known(np.arange(len(gallery))).tolist() == [True] * len(stay) + [False] * 15
    candidates = exact_topk(query, source, MATCHER, 30)
    found = rerank_topk(query, candidates, source, MATCHER, KReciprocal(5, 3), 30, lists=located, largest=1.5)

    table = all_distances(PartEmbeddings.cat([query, gallery]))
    full = all_distances(before)
    place = {row: p + 1 for p, row in enumerate(stay)}
    chosen = [int(p) + 1 for p in candidates.positions[0]]
    new = [p for p in sorted(chosen) if p > len(stay)]
    members, largest = {}, {0: 1.5}
    for row, at in place.items():
        stored = nearest(full, row, range(60))[:6]
        entrants = [0, *new] if at in chosen else [0]
        known = [place[r] for r in stored if r in place]
        known += [e for e in entrants if table[at][e] <= full[row][stored[-1]]]
        members[at] = sorted(known, key=lambda j, at=at: (table[at][j], j))
        largest[at] = max(full[row])
    estimate = float(np.median([largest[p] for p in chosen if p in largest][:5]))
    for at in new:
        members[at] = nearest(table, at, [0, *chosen])
        largest[at] = estimate
    members[0] = nearest(table, 0, [0, *chosen])
    expected = by_lists(table, members, largest, 5, 3, 0.3)
    check(found, expected, [p - 1 for p in chosen])


def by_lists(table, lists, largest, k1, k2, weight) -> dict[int, float]:
    """As `published`, over lists that are given."""
    everyone = sorted(lists)

    def reciprocal(i, depth):
        return {j for j in lists[i][:depth] if i in lists.get(j, [])[:depth]}

    first = {}
    for i in everyone:
        own = reciprocal(i, k1 + 1)
        members = set(own)
        for j in own:
            theirs = reciprocal(j, round(k1 / 2) + 1)
            if 3 * len(own & theirs) > 2 * len(theirs):
                members |= theirs
        weights = {j: math.exp(-min(table[i][j] / largest[i], 1.0)) for j in members}
        first[i] = {j: w / sum(weights.values()) for j, w in weights.items()}
    final = {}
    averaged = {
        i: {c: sum(first[j].get(c, 0) for j in lists[i][:k2]) / len(lists[i][:k2]) for c in everyone} for i in everyone
    }
    for j in everyone[1:]:
        least = sum(min(averaged[0][c], averaged[j][c]) for c in everyone)
        final[j] = (1 - weight) * (1 - least / (2 - least)) + weight * min(table[0][j] / largest[0], 1.0)
    return final


def test_queries_do_not_know_of_each_other() -> None:
    query, gallery = make(4, 6), with_twins(make(50, 7), 8)
    source = InMemoryRows(gallery)
    lists = NeighbourLists.build(source, MATCHER, 6).locate(np.arange(len(gallery)))
    best = exact_topk(query, source, MATCHER, 30)
    together = rerank_topk(query, best, source, MATCHER, KReciprocal(6, 3), 10, lists=lists)
    for q in range(4):
        alone = TopK(best.positions[q : q + 1], best.distances[q : q + 1])
        found = rerank_topk(query[q : q + 1], alone, source, MATCHER, KReciprocal(6, 3), 10, lists=lists)
        np.testing.assert_array_equal(found.positions[0], together.positions[q])
        np.testing.assert_array_equal(found.distances[0], together.distances[q])
        assert len(found.positions[0]) == 10


def test_what_is_not_wanted_has_a_say_but_is_no_answer() -> None:
    query, gallery = make(2, 21), make(50, 22)
    source, rerank = InMemoryRows(gallery), KReciprocal(6, 3)
    lists = NeighbourLists.build(source, MATCHER, 6).locate(np.arange(50))
    best = exact_topk(query, source, MATCHER, 30)
    whole = rerank_topk(query, best, source, MATCHER, rerank, 30, lists=lists)
    wanted = [positions % 2 == 0 for positions in best.positions]
    some = rerank_topk(query, best, source, MATCHER, rerank, 5, lists=lists, wanted=wanted)
    for q in range(2):
        even = whole.positions[q] % 2 == 0
        assert some.positions[q].tolist() == whole.positions[q][even][:5].tolist()
        assert some.distances[q].tolist() == whole.distances[q][even][:5].tolist()
    with pytest.raises(ShapeError, match="one bool for each candidate"):
        rerank_topk(query, best, source, MATCHER, rerank, 5, lists=lists, wanted=wanted[:1])


def test_a_search_with_complete_lists_computes_few_distances_anew() -> None:
    class Counting(InMemoryRows):
        taken = 0

        def take(self, positions):
            self.taken += len(positions)
            return super().take(positions)

    query, gallery = make(1, 23, visibility="soft"), make(300, 24, visibility="soft")
    source = Counting(gallery)
    lists = NeighbourLists.build(source, MATCHER, 10).locate(np.arange(300))
    best = exact_topk(query, source, MATCHER, 60)
    source.taken = 0
    rerank_topk(query, best, source, MATCHER, KReciprocal(10, 4), 60, lists=lists)
    assert source.taken < 60
    i, j = np.divmod(np.arange(300 * 300), 300)
    stored = lists.between(i, j)
    known = np.flatnonzero(~np.isnan(stored))
    assert len(known) == len(lists.lists.beyond) > 100
    assert stored[known].tolist() == MATCHER.pairs(gallery, gallery, i[known], j[known]).tolist()


def test_a_query_without_candidates_and_one_that_shows_nothing() -> None:
    gallery = make(20, 9)
    query = make(2, 10).with_visibility(torch.zeros(2, 3))
    source = InMemoryRows(gallery)
    best = TopK([np.empty(0, np.int64), np.array([3, 5])], [np.empty(0), np.full(2, NO_SHARED_SLOT)])
    lists = NeighbourLists.build(source, MATCHER, 3).locate(np.arange(20))
    found = rerank_topk(query, best, source, MATCHER, KReciprocal(3, 2), 5, lists=lists)
    assert [p.tolist() for p in found.positions] == [[], [3, 5]]
    assert found.distances[1].tolist() == [1.0, 1.0]
    hidden = InMemoryRows(gallery.with_visibility(torch.zeros(20, 3)))
    lists = NeighbourLists.build(hidden, MATCHER, 3).locate(np.arange(20))
    found = rerank_topk(query, best, hidden, MATCHER, KReciprocal(3, 2), 5, lists=lists)
    assert found.distances[1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("matcher", [MATCHER, VisibilityWeightedMatcher(metric="euclidean", normalize=False)], ids=str)
def test_the_farthest_row_is_that_of_the_full_matrix(matcher: Matcher, monkeypatch) -> None:
    rows = with_twins(make(70, 11), 12).with_visibility(
        (torch.rand(112, 3, generator=torch.Generator().manual_seed(0)) > 0.7).float()
    )
    i, j = np.divmod(np.arange(112 * 112), 112)
    full = matcher.pairs(rows, rows, i, j).reshape(112, 112)
    shared = full < NO_SHARED_SLOT
    assert not shared.any(1).all()
    expected = np.where(shared, full, 0).max(1)
    for size in (2048, 112, 30, 7):
        monkeypatch.setattr("occluded_reid.search.rerank.farthest._BLOCK_ROWS", size)
        np.testing.assert_array_equal(farthest(InMemoryRows(rows), matcher), expected)
        some = farthest(JoinedRows([rows[:50], rows[50:]]), matcher, sample=20, seed=3)
        chosen = np.random.default_rng(3).choice(112, 20, replace=False)
        among_them = np.where(shared, full, 0)[:, chosen].max(1)
        among_them[chosen] = expected[chosen]
        np.testing.assert_array_equal(some, among_them)
    with pytest.raises(ShapeError, match="sample is 0"):
        farthest(InMemoryRows(rows), matcher, sample=0)


def test_reciprocal_sets_and_their_expansion_on_a_graph_drawn_by_hand() -> None:
    # 0, 1 and 2 know each other; 3 knows 2, which knows 3 only with a longer list; 4 knows 0, which never knows 4.
    neighbours = np.array([[0, 1, 2, -1], [1, 0, 2, -1], [2, 1, 0, 3], [3, 2, 4, -1], [4, 0, 3, -1]])
    assert [row.tolist() for row in np.split(*_split(reciprocal_sets(neighbours, 3)))] == [
        [0, 1, 2],
        [0, 1, 2],
        [0, 1, 2],
        [3, 4],
        [3, 4],
    ]
    longer = reciprocal_sets(neighbours, 4)
    assert [row.tolist() for row in np.split(*_split(longer))][2:4] == [[0, 1, 2, 3], [2, 3, 4]]
    # k1 = 3: half lists have 3 places. Row 3 takes nothing of row 2, two thirds of whose set it does not hold.
    expanded = expanded_sets(neighbours, KReciprocal(k1=3, k2=1), np.array([3, 0]))
    assert [row.tolist() for row in np.split(*_split(expanded))] == [[2, 3, 4], [0, 1, 2]]


def _split(sets: csr_array) -> tuple[np.ndarray, np.ndarray]:
    return sets.indices, sets.indptr[1:-1]


def test_shared_minima_are_those_of_dense_rows(monkeypatch) -> None:
    generator = np.random.default_rng(0)
    dense = generator.random((23, 40)) * (generator.random((23, 40)) < 0.2)
    expected = [[sum(min(a, b) for a, b in zip(x, y, strict=True)) for y in dense[9:]] for x in dense[:9]]
    for size in (1, 10, 1 << 20):
        monkeypatch.setattr("occluded_reid.search.rerank.k_reciprocal._MINIMA", size)
        found = shared_minima(csr_array(dense[:9]), csr_array(dense[9:]).tocsc())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert shared_minima(csr_array(dense[:0]), csr_array(dense).tocsc()).shape == (0, 23)


def test_lists_are_saved_and_mapped(tmp_path) -> None:
    gallery = with_twins(make(30, 13), 14)
    lists = NeighbourLists.build(InMemoryRows(gallery), MATCHER, 4, numbers=np.arange(len(gallery)) * 3)
    lists.save(tmp_path / "lists.safetensors")
    again = NeighbourLists.load(tmp_path / "lists.safetensors")
    for name in ("numbers", "neighbours", "distances", "largest", "starts", "beyond", "beyond_distances"):
        np.testing.assert_array_equal(getattr(again, name), getattr(lists, name))
        assert getattr(again, name).dtype == getattr(lists, name).dtype
    assert again.k1 == 4
    assert again.matcher == MATCHER.config
    assert len(again) == len(gallery)
    gallery.save(tmp_path / "rows.safetensors")
    with pytest.raises(EmbeddingError, match="holds no neighbour lists"):
        NeighbourLists.load(tmp_path / "rows.safetensors")
    with pytest.raises(EmbeddingError, match="could not be read"):
        NeighbourLists.load(tmp_path / "none.safetensors")


def test_lists_by_another_search_are_the_same_where_it_is_exact() -> None:
    gallery = with_twins(make(30, 15), 16)
    source, seen = InMemoryRows(gallery), []
    lists = NeighbourLists.build(
        source,
        MATCHER,
        4,
        search=lambda block, k: exact_topk(block, source, MATCHER, k, tile_rows=3),
        progress=lambda *at: seen.append(at),
    )
    np.testing.assert_array_equal(lists.neighbours, NeighbourLists.build(source, MATCHER, 4).neighbours)
    assert seen == [(len(gallery), len(gallery))]


def test_what_does_not_fit_says_why() -> None:
    for options, text in (
        ({"k1": 0}, "k1 is 0"),
        ({"k1": 3, "k2": 5}, "k2 between 1 and k1"),
        ({"k1": 2.5}, "give a whole number"),
        ({"k2": True}, "give a whole number"),
        ({"weight": 1.1}, "weight is 1.1"),
        ({"weight": float("nan")}, "weight is nan"),
    ):
        with pytest.raises(ShapeError, match=text):
            KReciprocal(**options)
    gallery, query = make(10, 17), make(1, 18)
    source = InMemoryRows(gallery)
    best = exact_topk(query, source, MATCHER, 5)
    lists = NeighbourLists.build(source, MATCHER, 3).locate(np.arange(10))
    with pytest.raises(ShapeError, match="lists hold 3 neighbours and k1 is 20"):
        rerank_topk(query, best, source, MATCHER, KReciprocal(), 5, lists=lists)
    with pytest.raises(ShapeError, match="made with the matcher"):
        rerank_topk(query, best, source, PlainMatcher(), KReciprocal(3, 2), 5, lists=lists)
    with pytest.raises(ShapeError, match="candidates were given for 1 of 2 queries"):
        rerank_topk(make(2, 18), best, source, MATCHER, KReciprocal(3, 2), 5)
    with pytest.raises(ShapeError, match="ascending"):
        NeighbourLists.build(source, MATCHER, 3, numbers=np.zeros(10, dtype=np.int64))
    with pytest.raises(ShapeError, match="k1 is 0"):
        NeighbourLists.build(source, MATCHER, 0)


def test_joined_rows_are_taken_in_the_order_asked_for() -> None:
    one, two = make(5, 19), make(7, 20)
    joined, whole = JoinedRows([one, two]), PartEmbeddings.cat([one, two])
    for wanted in ([], [11, 0, 5, 4, 11], [1, 2], [6, 7], range(12)):
        taken = joined.take(np.array(wanted, dtype=np.int64))
        expected = whole[torch.tensor(list(wanted), dtype=torch.int64)]
        assert torch.equal(taken.visibility, expected.visibility)
        assert all(torch.equal(a, b) for a, b in zip(taken.embeddings, expected.embeddings, strict=True))
