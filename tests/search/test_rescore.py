"""nearest_candidates against scoring and sorting every candidate; SelectedRows and rules asked pair by pair."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.matchers import DistanceSumMatcher, VisibilityWeightedMatcher
from occluded_reid.search import InMemoryRows
from occluded_reid.search.rescore import nearest_candidates
from occluded_reid.search.selected import SelectedRows, allowed_at, allowed_pairs


def make(rows: int, seed: int) -> PartEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    visible = (torch.rand(rows, 2, generator=generator) > 0.3).float()
    return PartEmbeddings(("a", "b"), tuple(torch.randn(rows, 4, generator=generator) for _ in "ab"), visible)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 500), st.integers(1, 12), st.sampled_from(["cosine", "euclidean"]), st.booleans())
def test_it_equals_sorting_all_candidates(seed, k, metric, near_twins) -> None:
    rng = np.random.default_rng(seed)
    matcher = (DistanceSumMatcher if seed % 2 else VisibilityWeightedMatcher)(metric=metric)
    query, gallery = make(6, seed), make(60, seed + 1)
    if near_twins:  # apart by about 1e-6, which float32 cannot order
        noise = make(60, seed + 2)
        slots = tuple(e[:1] + 1e-6 * n for e, n in zip(gallery.embeddings, noise.embeddings, strict=True))
        gallery = PartEmbeddings(gallery.names, slots, gallery.visibility)
    chosen = rng.random((6, 60)) < 0.5
    chosen[3] = False
    owner, place = np.nonzero(chosen)
    found = nearest_candidates(query, InMemoryRows(gallery), matcher, k, owner, place)
    for q in range(6):
        able = np.flatnonzero(chosen[q])
        exact = matcher.pairs(query, gallery, [q] * len(able), able)
        expected = sorted(zip(exact, able, strict=True))[:k]
        assert found.positions[q].tolist() == [p for _, p in expected]
        assert found.distances[q].tolist() == [d for d, _ in expected]


def test_no_candidates_at_all() -> None:
    nothing = np.empty(0, np.int64)
    found = nearest_candidates(make(2, 0), InMemoryRows(make(5, 1)), VisibilityWeightedMatcher(), 3, nothing, nothing)
    assert [p.tolist() for p in found.positions] == [[], []]


def test_selected_rows() -> None:
    rows = make(30, 2)
    some = SelectedRows(InMemoryRows(rows), np.array([1, 8, 9, 20, 29]))
    assert len(some) == 5
    tiles = list(some.tiles(2))
    assert [start for start, _ in tiles] == [0, 2, 4]
    for start, tile in tiles:
        assert torch.equal(tile.slot("b"), rows.slot("b")[[1, 8, 9, 20, 29]][start : start + 2])
    assert torch.equal(some.take([4, 0]).visibility, rows.visibility[[29, 1]])


@pytest.mark.parametrize("spread", [1, 5000])
def test_windows_give_what_the_whole_mask_holds(spread) -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((4, 40 * spread)) < 0.5
    asked = []

    def allowed(start: int, stop: int) -> np.ndarray:
        asked.append(stop - start)
        return mask[:, start:stop]

    positions = np.sort(rng.choice(40 * spread, 30, replace=False))
    np.testing.assert_array_equal(allowed_at(allowed, positions, 4), mask[:, positions])
    queries, places = np.sort(rng.integers(0, 4, 50)), rng.integers(0, 40 * spread, 50)
    np.testing.assert_array_equal(allowed_pairs(allowed, queries, places, 4), mask[queries, places])
    assert max(asked) <= 8192
