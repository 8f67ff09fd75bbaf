"""Counts of comparisons, and where mates stand: as loops over the full matrix say, whatever tiles make of it."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.calibration.matches import find_mates
from occluded_reid.calibration.pair_counts import GRID, NEVER, PairCounts, count_pairs
from occluded_reid.calibration.pairs import Comparisons
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import EmbeddingError, EvaluationError
from occluded_reid.matchers import PlainMatcher, VisibilityWeightedMatcher
from occluded_reid.matchers.base import Prepared

NAMES = ("global", "part_1", "part_2")


class NoisyTiles(VisibilityWeightedMatcher):
    """Tiles that are wrong by nearly all that a matcher may be wrong, differently in each call."""

    generator = torch.Generator().manual_seed(0)

    def tile(self, query: Prepared, gallery: Prepared) -> torch.Tensor:
        found = super().tile(query, gallery)
        noise = torch.rand(found.shape, generator=self.generator) * 1.9e-5 - 0.95e-5
        return torch.where(found > 1e6, found, found + noise)


def sides(seed: int, queries: int, rows: int, *, ties: bool = False, scale: float = 1.0) -> list[EmbeddedSet]:
    """Queries and gallery of six people under three cameras; a third of the slots hidden; `ties`: of few directions."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(6, 3, 4))
    made = []
    for count in (queries, rows):
        identity = random.integers(0, 6, count)
        vectors = centres[identity] + random.normal(size=(count, 3, 4))
        if ties:
            vectors = random.integers(-1, 2, (count, 3, 4)) + np.array([0, 0, 0, 2.0])
        slots = tuple(torch.from_numpy(vectors[:, s] * scale).float() for s in range(3))
        seen = torch.from_numpy((random.random((count, 3)) >= 0.4).astype(np.float32))
        made.append(EmbeddedSet(PartEmbeddings(NAMES, slots, seen), identity, random.integers(0, 3, count)))
    return made


def shuffled(rows: EmbeddedSet, seed: int) -> EmbeddedSet:
    order = np.random.default_rng(seed).permutation(len(rows))
    return EmbeddedSet(rows.embeddings[order.tolist()], rows.identity[order], rows.camera[order])


def by_loops(query: EmbeddedSet, gallery: EmbeddedSet) -> list[tuple[int, int, float, int]]:
    """(q, g, distance rounded to 1e-6, shared slots) of every pair, from the definition, in float64."""
    vectors = [[slot.double().numpy() for slot in rows.embeddings.embeddings] for rows in (query, gallery)]
    seen = [rows.embeddings.visibility.double().numpy() for rows in (query, gallery)]
    pairs = []
    for q in range(len(query)):
        for g in range(len(gallery)):
            both = [s for s in range(3) if seen[0][q, s] * seen[1][g, s] > 0]
            total = 0.0
            for s in both:
                x, y = vectors[0][s][q], vectors[1][s][g]
                length = np.linalg.norm(x) * np.linalg.norm(y)
                total += 1 - (x @ y / length if length else 0.0)
            pairs.append((q, g, round(total / len(both), 6) + 0.0 if both else math.inf, len(both)))
    return pairs


def same(a: PairCounts, b: PairCounts) -> None:
    for name in ("shared", "low", "high", "count", "match_distance", "match_shared", "match_person"):
        assert getattr(a, name).tolist() == getattr(b, name).tolist(), name
    assert a.facts() == b.facts()


@pytest.mark.parametrize("exact_pairs", [0, 40, 1 << 20])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("exclude", [False, True])
def test_counts_are_those_of_loops(exact_pairs: int, ties: bool, exclude: bool) -> None:
    query, gallery = sides(1, 40, 60, ties=ties)
    counts = count_pairs(
        query,
        gallery,
        VisibilityWeightedMatcher(),
        exclude_same_camera=exclude,
        exact_pairs=exact_pairs,
        rates=(0.1, 0.5),
    )
    impostors, matches, excluded = [], [], 0
    for q, g, d, n in by_loops(query, gallery):
        if query.identity[q] != gallery.identity[g]:
            impostors.append((d, n))
        elif exclude and query.camera[q] == gallery.camera[g]:
            excluded += 1
        else:
            matches.append((round(d * GRID) if n else NEVER, n, int(query.identity[q])))
    assert counts.facts() == {
        "queries": 40,
        "query_people": 6,
        "gallery": 60,
        "gallery_people": 6,
        "exclude_same_camera": exclude,
        "excluded_pairs": excluded,
        "impostors": len(impostors),
        "impostors_without_shared_slot": sum(not n for _, n in impostors),
        "matches": len(matches),
        "matches_without_shared_slot": sum(not n for _, n, _ in matches),
    }
    assert counts.facts()["impostors_without_shared_slot"] > 0
    found = zip(*(getattr(counts, f"match_{name}").tolist() for name in ("distance", "shared", "person")), strict=True)
    assert list(found) == sorted(matches)
    left = Counter((round(d * GRID), n) for d, n in impostors if n)
    for n, low, high, count in zip(counts.shared, counts.low, counts.high, counts.count, strict=True):
        inside = [key for key in left if key[1] == n and low <= key[0] <= high]
        assert sum(left.pop(key) for key in inside) == count > 0
    assert not left
    assert counts.low.tolist() == sorted(counts.low.tolist())
    if exact_pairs > 2400:
        assert counts.settled == 1
        assert counts.low.tolist() == counts.high.tolist()
        return
    assert 0 < counts.settled < 1
    # What was asked for is known to 1e-6: the nearest ones, and the cells in which the rates are reached.
    known = sorted(d for d, n in impostors if n)
    exact = set(counts.low[counts.low == counts.high].tolist())
    for rank in (0, max(0, exact_pairs - 10), len(impostors) // 10, len(impostors) // 2):
        if not ties or rank != max(0, exact_pairs - 10):
            assert round(known[rank] * GRID) in exact


def test_crowded_cells_with_many_pairs_beside_their_edges() -> None:
    """All distances within 20 cells, so that tiles put pairs on both sides of each edge."""
    query, gallery = sides(6, 60, 100)
    near = [
        EmbeddedSet(
            PartEmbeddings(NAMES, tuple(8 + s / s.std() for s in rows.embeddings.embeddings), torch.ones(len(rows), 3)),
            rows.identity,
            rows.camera,
        )
        for rows in (query, gallery)
    ]
    found = count_pairs(*near, NoisyTiles(), exact_pairs=300, rates=(0.5, 0.8))
    impostors = [round(d * GRID) for q, g, d, _ in by_loops(*near) if near[0].identity[q] != near[1].identity[g]]
    assert max(impostors) < 40_000
    for low, high, count in zip(found.low, found.high, found.count, strict=True):
        assert sum(low <= d <= high for d in impostors) == count
    assert found.count.sum() == len(impostors)
    beside = [d for d in impostors if min(d % 1000, -d % 1000) <= 10]
    assert len(beside) > 50
    for rank in (100, len(impostors) // 2, len(impostors) * 4 // 5):
        place = np.searchsorted(found.low, sorted(impostors)[rank], side="right") - 1
        assert found.low[place] == found.high[place]
    beyond = len(found.match_distance) - np.searchsorted(found.match_distance, found.low)
    crossing = np.argmax(found.count.cumsum() * len(found.match_distance) >= beyond * len(impostors))
    assert found.low[crossing] == found.high[crossing]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), ties=st.booleans(), exact=st.sampled_from([0, 100, 1 << 20]))
def test_neither_tiles_nor_order_nor_rounding_change_a_count(seed: int, ties: bool, exact: int) -> None:
    query, gallery = sides(seed, 25, 40, ties=ties)
    wanted = count_pairs(query, gallery, VisibilityWeightedMatcher(), exact_pairs=exact)
    for tile_rows in (1, 7):
        same(wanted, count_pairs(query, gallery, NoisyTiles(), exact_pairs=exact, tile_rows=tile_rows))
    same(wanted, count_pairs(query, shuffled(gallery, seed), NoisyTiles(), exact_pairs=exact))
    mates = find_mates(Comparisons(query, gallery, VisibilityWeightedMatcher()))
    for tile_rows, rows in ((1, gallery), (7, shuffled(gallery, seed)), (1024, shuffled(gallery, seed + 1))):
        again = find_mates(Comparisons(query, rows, NoisyTiles(), tile_rows=tile_rows))
        for name, values in vars(mates).items():
            assert np.array_equal(values, getattr(again, name)), name


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("exclude", [False, True])
def test_mates_stand_where_loops_put_them(ties: bool, exclude: bool) -> None:
    query, gallery = sides(3, 30, 50, ties=ties)
    found = find_mates(Comparisons(query, gallery, VisibilityWeightedMatcher(), exclude_same_camera=exclude))
    pairs = by_loops(query, gallery)
    excluded = unshared = tied = 0
    for number in range(len(query)):
        impostors, mates = [], []
        for q, g, d, n in pairs:
            if q != number:
                continue
            if query.identity[q] != gallery.identity[g]:
                impostors.append(d)
            elif exclude and query.camera[q] == gallery.camera[g]:
                excluded += 1
                continue
            else:
                mates.append(d)
            unshared += n == 0
        near = min(mates, default=math.inf)
        assert found.impostor[number] == min(impostors, default=math.inf)
        assert found.mate[number] == near
        assert found.known[number] == bool(mates)
        assert found.others[number] == len(impostors)
        assert found.rank[number] == (1 + sum(d <= near for d in impostors) if near < math.inf else 0)
        tied += near in impostors
    assert (found.excluded, found.unshared) == (excluded, unshared)
    assert not ties or tied


@pytest.mark.parametrize("larger", [1.0, 30.0])
def test_long_vectors_by_euclidean_distance(larger: float) -> None:
    (query, _), (_, gallery) = sides(5, 20, 1, scale=20.0), sides(5, 1, 30, scale=20.0 * larger)
    matcher = PlainMatcher(metric="euclidean", normalize=False)
    exact = count_pairs(query, gallery, matcher)
    coarse = count_pairs(query, gallery, matcher, exact_pairs=0, tile_rows=7)
    same(coarse, count_pairs(query, shuffled(gallery, 1), matcher, exact_pairs=0))
    assert coarse.match_distance.tolist() == exact.match_distance.tolist()
    for low, high, count in zip(coarse.low, coarse.high, coarse.count, strict=True):
        assert exact.count[(exact.low >= low) & (exact.low <= high)].sum() == count
    assert exact.low[0] == round(
        GRID
        * min(
            round(
                sum(
                    float((a[q].double() - b[g].double()).norm())
                    for a, b in zip(query.embeddings.embeddings, gallery.embeddings.embeddings, strict=True)
                )
                / 3,
                6,
            )
            for q in range(20)
            for g in range(30)
            if query.identity[q] != gallery.identity[g]
        )
    )


def test_progress_ends_where_it_said() -> None:
    query, gallery = sides(7, 10, 20)
    for exact, walks in ((0, 2), (1000, 1)):
        heard: list[tuple[int, int]] = []
        count_pairs(
            query,
            gallery,
            PlainMatcher(),
            exact_pairs=exact,
            tile_rows=7,
            progress=lambda done, total, heard=heard: heard.append((done, total)),
        )
        assert heard == [(min(20, 7 * step) + 20 * walk, 20 * walks) for walk in range(walks) for step in (1, 2, 3)]


def test_nothing_to_compare_is_refused() -> None:
    query, gallery = sides(9, 6, 8)
    nothing = EmbeddedSet(gallery.embeddings[:0], [], [])
    for wrong in ((query, nothing), (nothing, gallery)):
        with pytest.raises(EvaluationError, match="give at least one of the first three"):
            count_pairs(*wrong, PlainMatcher())
    with pytest.raises(EvaluationError, match="tiles of 0 rows"):
        count_pairs(query, gallery, PlainMatcher(), tile_rows=0)
    strangers = EmbeddedSet(gallery.embeddings, gallery.identity + 100, gallery.camera)
    with pytest.raises(EvaluationError, match="48 comparisons of two people and 0 of one person"):
        count_pairs(query, strangers, PlainMatcher())
    one = [EmbeddedSet(rows.embeddings, np.zeros(len(rows)), np.arange(len(rows))) for rows in (query, gallery)]
    with pytest.raises(EvaluationError, match="make 0 comparisons of two people"):
        count_pairs(*one, PlainMatcher())
    with pytest.raises(EmbeddingError, match="slots do not fit"):
        count_pairs(query, gallery.select(["global"]), PlainMatcher())
