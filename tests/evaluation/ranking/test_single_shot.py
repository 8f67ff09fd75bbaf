"""One random gallery image of each person, against a loop written from the definition."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import EmbeddingError, EvaluationError
from occluded_reid.evaluation.ranking.single_shot import SingleShotRanks, rank_single_shot_by
from occluded_reid.matchers import NO_SHARED_SLOT, PlainMatcher, VisibilityWeightedMatcher
from occluded_reid.matchers.base import Matcher
from occluded_reid.search.matrix import MatrixDistances
from occluded_reid.search.tiles import Tile, Tiles

NAMES = ("global", "part_1")


def rank_single_shot(query: EmbeddedSet, gallery: EmbeddedSet, matcher: Matcher, **rules: Any) -> SingleShotRanks:
    """By the distances of a matcher."""
    return rank_single_shot_by(Tiles(query.embeddings, gallery.embeddings, matcher), query, gallery, **rules)


def make(rows, seed, *, identities=7, cameras=2, ties=False, named=True, visible=0.6) -> EmbeddedSet:
    random = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    identity, camera = random.integers(0, identities, rows), random.integers(0, cameras, rows)
    centres = torch.randn(2, identities, 6, generator=torch.Generator().manual_seed(5))
    slots = tuple(centre[identity] + torch.randn(rows, 6, generator=generator) for centre in centres)
    if ties:
        slots = tuple(slot.round() for slot in slots)
    visibility = (torch.rand(rows, 2, generator=generator) < visible).float()
    paths = tuple(f"{seed}/{n:04d}.png" for n in random.permutation(rows)) if named else ()
    return EmbeddedSet(PartEmbeddings(NAMES, slots, visibility), identity, camera, paths)


def distance_matrix(query, gallery) -> np.ndarray:
    """Weighted mean of cosine distances of the shared slots, written out pair by pair in float64."""
    full = np.empty((len(query), len(gallery)))
    sides = [[slot.double().numpy() for slot in rows.embeddings.embeddings] for rows in (query, gallery)]
    seen = [rows.embeddings.visibility.double().numpy() for rows in (query, gallery)]
    for q in range(len(query)):
        for g in range(len(gallery)):
            weights = seen[0][q] * seen[1][g]
            apart = []
            for s in range(2):
                a, b = sides[0][s][q], sides[1][s][g]
                lengths = np.sqrt((a * a).sum()) * np.sqrt((b * b).sum())
                apart.append(1 - (a * b).sum() / lengths if lengths else 1.0)
            shared = weights.sum()
            full[q, g] = np.round((weights * apart).sum() / shared, 6) + 0.0 if shared else NO_SHARED_SLOT
    return full


def naive(query, gallery, distance, *, draws, seed, exclude=True) -> np.ndarray:
    """For each query and draw: make the gallery of the draw, sort it, look for the match."""
    names = gallery.paths or [str(n) for n in range(len(gallery))]
    place = [sorted(range(len(names)), key=lambda n: names[n]).index(n) for n in range(len(names))]
    if not gallery.paths:
        place = list(range(len(names)))
    ranks = np.zeros((len(query), draws), dtype=int)
    for draw in range(draws):
        lot = [int(hashlib.sha256(f"{seed}:{draw}:{name}".encode()).hexdigest()[:16], 16) for name in names]
        for q in range(len(query)):
            chosen = {}
            for g in range(len(gallery)):
                own = gallery.identity[g] == query.identity[q]
                if own and exclude and gallery.camera[g] == query.camera[q]:
                    continue
                person = int(gallery.identity[g])
                if person not in chosen or lot[g] < lot[chosen[person]]:
                    chosen[person] = g
            if int(query.identity[q]) not in chosen:
                continue
            ranked = sorted(chosen.values(), key=lambda g: (distance[q, g], place[g]))
            ranks[q, draw] = 1 + ranked.index(chosen[int(query.identity[q])])
    return ranks


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("ties", [True, False])
def test_against_the_definition(named, exclude, ties):
    query, gallery = make(25, 1, ties=ties), make(60, 2, ties=ties, named=named)
    found = rank_single_shot(
        query, gallery, VisibilityWeightedMatcher(), exclude_same_camera=exclude, draws=4, seed=3, tile_rows=17
    )
    full = distance_matrix(query, gallery)
    expected = naive(query, gallery, full, draws=4, seed=3, exclude=exclude)
    assert found.ranks.tolist() == expected.tolist()
    assert expected.max() > 2
    same = (query.identity[:, None] == gallery.identity) & (query.camera[:, None] == gallery.camera)
    assert found.excluded == (same.sum() if exclude else 0)
    assert found.unshared == ((full[~same] if exclude else full) >= NO_SHARED_SLOT).sum() > 0
    assert found.unanswerable == (expected[:, 0] == 0).sum()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    identities=st.integers(1, 12),
    cameras=st.integers(1, 3),
    visible=st.sampled_from([0.0, 0.3, 1.0]),
    ties=st.booleans(),
)
def test_any_sets(seed, identities, cameras, visible, ties):
    options = {"identities": identities, "cameras": cameras, "visible": visible, "ties": ties}
    query, gallery = make(6, seed, **options), make(19, seed + 1, **options)
    found = rank_single_shot(query, gallery, VisibilityWeightedMatcher(), draws=3, seed=seed, tile_rows=5)
    expected = naive(query, gallery, distance_matrix(query, gallery), draws=3, seed=seed)
    assert found.ranks.tolist() == expected.tolist()


def test_neither_tiles_nor_the_order_of_the_gallery_matter():
    query, gallery = make(20, 1, ties=True), make(50, 2, ties=True)
    found = [
        rank_single_shot(query, gallery, VisibilityWeightedMatcher(), draws=5, seed=1, tile_rows=rows).ranks
        for rows in (1, 7, 1000)
    ]
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()
    order = np.random.default_rng(0).permutation(len(gallery))
    shuffled = EmbeddedSet(
        gallery.embeddings[torch.from_numpy(order)],
        gallery.identity[order],
        gallery.camera[order],
        tuple(gallery.paths[n] for n in order),
    )
    again = rank_single_shot(query, shuffled, VisibilityWeightedMatcher(), draws=5, seed=1)
    assert (again.ranks == found[0]).all()
    kept = again.rows[again.answerable]
    first = rank_single_shot(query, gallery, VisibilityWeightedMatcher(), draws=5, seed=1)
    assert (order[kept] == first.rows[first.answerable]).all()


def test_blocks_of_queries_change_nothing(monkeypatch):
    query, gallery = make(30, 1, ties=True), make(40, 2, ties=True)
    found = rank_single_shot(query, gallery, VisibilityWeightedMatcher(), draws=3)
    monkeypatch.setattr("occluded_reid.evaluation.ranking.single_shot._BLOCK_VALUES", 50)
    monkeypatch.setattr("occluded_reid.search.tiles._RESCORED_PAIRS", 3)
    again = rank_single_shot(query, gallery, VisibilityWeightedMatcher(), draws=3, tile_rows=9)
    assert (again.ranks == found.ranks).all()
    assert (again.excluded, again.unshared) == (found.excluded, found.unshared)


def test_draws_differ_and_are_kept_by_the_seed():
    query, gallery = make(20, 1), make(80, 2)
    rows = [rank_single_shot(query, gallery, PlainMatcher(), draws=4, seed=seed).rows for seed in (0, 0, 1)]
    assert (rows[0] == rows[1]).all()
    assert (rows[0] != rows[2]).any()
    assert (rows[0][:, 0] != rows[0][:, 1]).any()
    # More draws begin with the same ones.
    assert (rank_single_shot(query, gallery, PlainMatcher(), draws=9).rows[:, :4] == rows[0]).all()


def test_every_allowed_image_has_its_turn():
    query, gallery = make(1, 1, identities=1, cameras=1), make(8, 2, identities=1, cameras=2)
    found = rank_single_shot(query, gallery, PlainMatcher(), draws=400)
    allowed = np.flatnonzero(gallery.camera != query.camera[0])
    times = np.bincount(found.rows[0], minlength=8)
    assert set(np.flatnonzero(times)) == set(allowed)
    # Each is drawn with the same chance: five standard deviations of a binomial around the mean.
    expected = 400 / len(allowed)
    assert (abs(times[allowed] - expected) < 5 * np.sqrt(expected)).all()


def test_numbers():
    found = rank_single_shot(make(25, 1), make(60, 2), VisibilityWeightedMatcher(), draws=6)
    ranks = found.ranks[found.ranks[:, 0] > 0]
    for k in (1, 3, 50):
        assert found.rank(k) == pytest.approx((ranks <= k).mean(), abs=1e-12)
        assert found.hits(k).shape == (len(ranks),)
    assert found.rank(7) == 1.0, "seven people, seven images"
    with pytest.raises(EvaluationError, match="counted from 1"):
        found.rank(0)


def test_a_matrix_of_distances():
    query, gallery = make(10, 1), make(30, 2)
    distance = np.random.default_rng(0).random((10, 30)).round(1)
    found = rank_single_shot_by(MatrixDistances(distance), query, gallery, draws=3, seed=2, tile_rows=4)
    assert found.ranks.tolist() == naive(query, gallery, distance, draws=3, seed=2).tolist()


class Broken:
    """Distances of which one is NaN, by tiles or by what decides."""

    def __init__(self, whole, exact):
        self.whole, self.exact = torch.from_numpy(whole).float(), exact

    def score(self, query_rows, gallery_rows):
        return self.exact[np.asarray(query_rows), np.asarray(gallery_rows)]

    def tiles(self, rows, values):
        for start in range(0, self.whole.shape[1], rows):
            part = self.whole[:, start : start + rows].clone()
            yield Tile(0, start, part, 1e-5, lambda q, g, start=start: self.score(q, g + start))


@pytest.mark.parametrize("tiles", [True, False])
def test_nan(tiles):
    query, gallery = make(5, 1, identities=2), make(9, 2, identities=2)
    good = np.random.default_rng(0).random((5, 9))
    bad = good.copy()
    bad[3] = np.nan
    with pytest.raises(EvaluationError, match=r"query 3 to gallery image \d is NaN"):
        rank_single_shot_by(Broken(bad, good) if tiles else Broken(good, bad), query, gallery, tile_rows=4)


def test_what_is_refused():
    query, gallery = make(5, 1), make(9, 2)
    with pytest.raises(EvaluationError, match="at least 1 draw"):
        rank_single_shot(query, gallery, PlainMatcher(), draws=0)
    with pytest.raises(EmbeddingError, match="slots do not fit"):
        rank_single_shot(query.select(["global"]), gallery, PlainMatcher())


def test_nothing_to_find():
    query, gallery = make(4, 1, identities=1, cameras=1), make(6, 2, identities=1, cameras=1)
    found = rank_single_shot(query, gallery, PlainMatcher(), draws=2)
    assert (found.ranks == 0).all()
    assert (found.rows == -1).all()
    assert found.unanswerable == 4
    assert np.isnan(found.rank(1))


def test_the_greatest_identity_is_a_number_like_others():
    greatest = 2**63 - 1
    query, gallery = make(3, 0), make(6, 1)
    query = EmbeddedSet(query.embeddings, [greatest, 1, 2], [0, 0, 0])
    gallery = EmbeddedSet(gallery.embeddings, [greatest, 1, 2, 3, -(2**63), 5], [1] * 6)
    assert rank_single_shot(query, gallery, PlainMatcher(), draws=1).rows[:, 0].tolist() == [0, 1, 2]
