"""exact_topk against the full float64 matrix, sorted by (rounded distance, position)."""

import numpy as np
import pytest
import torch

from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import EmbeddingError, ShapeError
from occluded_reid.functional.distances import weighted_distance
from occluded_reid.matchers import NO_SHARED_SLOT, PlainMatcher, VisibilityWeightedMatcher
from occluded_reid.search import InMemoryRows, exact_topk

NAMES = ("global", "part_1", "part_2")


def make(rows: int, seed: int, *, width: int = 12) -> PartEmbeddings:
    generator = torch.Generator().manual_seed(seed)
    visibility = (torch.rand(rows, 3, generator=generator) > 0.5).float()
    return PartEmbeddings(NAMES, tuple(torch.randn(rows, width, generator=generator) for _ in NAMES), visibility)


def with_twins(seed: int) -> PartEmbeddings:
    """120 rows in random order, every one of them four times: ties in every tile."""
    order = torch.randperm(480, generator=torch.Generator().manual_seed(seed))
    return PartEmbeddings.cat([make(120, seed)] * 4)[order]


def by_full_matrix(query, gallery, k, allowed=None, metric="cosine"):
    double = [PartEmbeddings(r.names, tuple(e.double() for e in r.embeddings), r.visibility) for r in (query, gallery)]
    full = weighted_distance(*double, metric).numpy()
    full = np.where(full < NO_SHARED_SLOT, np.round(full, 6) + 0.0, full)
    answers = []
    for i in range(len(query)):
        able = np.arange(len(gallery)) if allowed is None else np.flatnonzero(allowed[i])
        answers.append(sorted((full[i, j], j) for j in able)[:k])
    return answers


def check(found, expected) -> None:
    assert len(found) == len(expected)
    for i, answer in enumerate(expected):
        assert found.positions[i].tolist() == [j for _, j in answer]
        np.testing.assert_allclose(found.distances[i], [d for d, _ in answer], rtol=0, atol=1.1e-6)


@pytest.mark.parametrize("tile_rows", [1, 7, 64, 4096])
@pytest.mark.parametrize("k", [1, 5, 30])
def test_it_equals_the_full_matrix_with_twins_in_different_tiles(tile_rows, k) -> None:
    query, gallery = make(12, 0), with_twins(1)
    found = exact_topk(query, InMemoryRows(gallery), VisibilityWeightedMatcher(), k, tile_rows=tile_rows)
    check(found, by_full_matrix(query, gallery, k))


def test_it_equals_the_full_matrix_with_euclidean_distances() -> None:
    query, gallery = make(10, 2), with_twins(3)
    gallery = PartEmbeddings.cat([gallery, query])
    matcher = VisibilityWeightedMatcher(metric="euclidean", normalize=False)
    found = exact_topk(query, InMemoryRows(gallery), matcher, 4, tile_rows=50)
    check(found, by_full_matrix(query, gallery, 4, metric="euclidean"))


def test_ties_far_beyond_the_margin_are_resolved_by_position() -> None:
    one = make(1, 4).with_visibility(torch.ones(1, 3))
    gallery = PartEmbeddings.cat([make(50, 5)] + [one] * 200)
    found = exact_topk(one, InMemoryRows(gallery), VisibilityWeightedMatcher(), 5, tile_rows=60)
    assert found.positions[0].tolist() == [50, 51, 52, 53, 54]
    assert found.distances[0].tolist() == [0.0] * 5


def test_differences_below_the_rounding_are_ties() -> None:
    base = torch.tensor([[1.0, 0.0]])
    # 1 - cos of an angle a is about a²/2: the later row is nearer by 2e-8, which is less than 1e-6.
    rows = torch.cat(
        [torch.tensor([[1.0, 3e-4]]), torch.tensor([[1.0, 2e-4]]), torch.tensor([[1.0, 0.1]]).expand(40, 2)]
    )
    query = PartEmbeddings(("a",), (base,), torch.ones(1, 1))
    gallery = PartEmbeddings(("a",), (rows,), torch.ones(42, 1))
    found = exact_topk(query, InMemoryRows(gallery), PlainMatcher(), 2, tile_rows=1)
    assert found.positions[0].tolist() == [0, 1]


def test_a_crowd_within_the_rounding_is_a_tie_though_tiles_see_an_order() -> None:
    # All of them round to 0.2; the later ones are a little nearer, so that the tiles propose exactly the wrong rows.
    angle = torch.arccos(1 - (0.2000004 - 1.5e-9 * torch.arange(200, dtype=torch.float64)))
    rows = torch.stack([angle.cos(), angle.sin()], 1)
    query = PartEmbeddings(("a",), (torch.tensor([[1.0, 0.0]], dtype=torch.float64),), torch.ones(1, 1))
    gallery = PartEmbeddings(("a",), (rows,), torch.ones(200, 1))
    found = exact_topk(query, InMemoryRows(gallery), PlainMatcher(), 5)
    assert found.distances[0].tolist() == [0.2] * 5
    assert found.positions[0].tolist() == [0, 1, 2, 3, 4]


def test_nearly_equal_rows_are_told_apart_by_their_exact_distance() -> None:
    # Steps of 2e-6 are below what float32 tiles can be trusted with, and 300 of them crowd the margin.
    angle = torch.sqrt(2 * (0.2 + 2e-6 * torch.arange(300, dtype=torch.float64)))
    order = torch.randperm(300, generator=torch.Generator().manual_seed(6))
    rows = torch.stack([angle.cos(), angle.sin()], 1)[order]
    query = PartEmbeddings(("a",), (torch.tensor([[1.0, 0.0]], dtype=torch.float64),), torch.ones(1, 1))
    gallery = PartEmbeddings(("a",), (rows,), torch.ones(300, 1))
    nearest = torch.argsort(order)[:10].tolist()
    for tile_rows in (9, 300):
        found = exact_topk(query, InMemoryRows(gallery), PlainMatcher(), 10, tile_rows=tile_rows)
        assert found.positions[0].tolist() == nearest


@pytest.mark.parametrize("tile_rows", [7, 4096])
def test_only_what_is_allowed_is_found(tile_rows) -> None:
    query, gallery = make(12, 7), with_twins(8)
    allowed = np.random.default_rng(0).random((12, 480)) < 0.1
    allowed[3] = False
    allowed[4] = np.arange(480) == 479
    found = exact_topk(
        query,
        InMemoryRows(gallery),
        VisibilityWeightedMatcher(),
        20,
        tile_rows=tile_rows,
        allowed=lambda start, stop: allowed[:, start:stop],
    )
    check(found, by_full_matrix(query, gallery, 20, allowed))
    assert len(found.positions[3]) == 0
    assert found.positions[4].tolist() == [479]


def test_k_beyond_the_gallery_gives_all_of_it() -> None:
    query, gallery = make(5, 9), make(40, 10)
    found = exact_topk(query, InMemoryRows(gallery), VisibilityWeightedMatcher(), 1000, tile_rows=7)
    check(found, by_full_matrix(query, gallery, 1000))
    assert [len(p) for p in found.positions] == [40] * 5


def test_pairs_without_a_common_slot_come_last_by_position() -> None:
    query = make(3, 11).with_visibility(torch.tensor([[0.0, 1.0, 0.0]]).expand(3, 3))
    visibility = torch.tensor([[0.0, 0.0, 1.0]]).repeat(200, 1)
    visibility[[150, 20]] = 1
    gallery = make(200, 12).with_visibility(visibility)
    found = exact_topk(query, InMemoryRows(gallery), VisibilityWeightedMatcher(), 6, tile_rows=16)
    check(found, by_full_matrix(query, gallery, 6))
    assert found.positions[0][2:].tolist() == [0, 1, 2, 3]
    assert (found.distances[0][2:] == NO_SHARED_SLOT).all()


def test_threads_and_query_batches_change_nothing() -> None:
    query, gallery = make(40, 13), with_twins(14)
    threads = torch.get_num_threads()
    answers = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            answers.append(exact_topk(query, InMemoryRows(gallery), VisibilityWeightedMatcher(), 7, tile_rows=33))
    finally:
        torch.set_num_threads(threads)
    for i in range(40):
        alone = exact_topk(query[[i]], InMemoryRows(gallery), VisibilityWeightedMatcher(), 7)
        for other in (answers[1].positions[i], alone.positions[0]):
            np.testing.assert_array_equal(answers[0].positions[i], other)
        np.testing.assert_array_equal(answers[0].distances[i], alone.distances[0])


def test_empty_sides_and_bad_arguments() -> None:
    query, gallery = make(3, 15), make(30, 16)
    matcher = VisibilityWeightedMatcher()
    assert [p.tolist() for p in exact_topk(query, InMemoryRows(gallery[:0]), matcher, 3).positions] == [[]] * 3
    assert len(exact_topk(query[:0], InMemoryRows(gallery), matcher, 3)) == 0
    with pytest.raises(ShapeError, match="at least 1"):
        exact_topk(query, InMemoryRows(gallery), matcher, 0)
    with pytest.raises(ShapeError, match=r"wanted \(3, 30\)"):
        exact_topk(query, InMemoryRows(gallery), matcher, 3, allowed=lambda start, stop: np.ones((1, 2), dtype=bool))
    with pytest.raises(EmbeddingError, match="slots do not fit"):
        exact_topk(query, InMemoryRows(gallery.select(["global"])), matcher, 3)
