"""The numbers of small matrices as the definitions give them by hand, and that nothing else moves them."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation import Protocol, Report, evaluate, evaluate_matrix
from occluded_reid.matchers import VisibilityWeightedMatcher
from occluded_reid.matchers.base import NO_SHARED_SLOT
from occluded_reid.search.rerank.k_reciprocal import KReciprocal

HAND_MADE = Path(__file__).parent / "hand_made.json"
CASES: list[dict[str, Any]] = json.loads(HAND_MADE.read_text(encoding="utf-8"))["cases"]


def measured(case: dict[str, Any], tile_rows: int = 1024, **protocol: Any) -> Report:
    rules = Protocol(exclude_same_camera=not case.get("keep_same_camera"), bootstrap=0, **protocol)
    query, gallery = case["query"], case["gallery"]
    labels = query["identity"], gallery["identity"], query["camera"], gallery["camera"]
    return evaluate_matrix(np.array(case["distance"]), *labels, rules, tile_rows=tile_rows)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
@pytest.mark.parametrize("tile_rows", [1, 2, 1024])
def test_by_hand(case: dict[str, Any], tile_rows: int) -> None:
    report = measured(case, tile_rows=tile_rows)
    assert report.mAP == pytest.approx(float(Fraction(case["mAP"])), abs=1e-12)
    assert report.mINP == pytest.approx(float(Fraction(case["mINP"])), abs=1e-12)
    for rank, value in case["cmc"].items():
        assert report.rank(int(rank)) == pytest.approx(float(Fraction(value)), abs=1e-12)
    trapezoid = measured(case, tile_rows=tile_rows, ap="trapezoid")
    assert trapezoid.mAP == pytest.approx(float(Fraction(case["mAP_trapezoid"])), abs=1e-12)
    assert (report.unanswerable, report.card.excluded_pairs) == (case["unanswerable"], case["excluded"])


def test_float32_and_tensors_give_the_same() -> None:
    case = CASES[0]
    labels = [1], [1, 2, 1, 3], [0], [1, 1, 1, 1]
    for matrix in (np.float32(case["distance"]), torch.tensor(case["distance"])):
        report = evaluate_matrix(matrix, *labels)
        assert report.mAP == pytest.approx(5 / 6)
        assert {report.facts[name] for name in ("re-ranking", "tuned", "test-time extras")} == {"not known"}


def test_a_matrix_of_a_matcher_gives_what_the_embeddings_give() -> None:
    query, gallery = drawn(30, 0), drawn(70, 1)
    matcher = VisibilityWeightedMatcher()
    i, j = np.divmod(np.arange(30 * 70), 70)
    matrix = matcher.pairs(query.embeddings, gallery.embeddings, i, j).reshape(30, 70)
    assert (matrix >= NO_SHARED_SLOT).any()
    given_ = evaluate_matrix(matrix, query.identity, gallery.identity, query.camera, gallery.camera)
    found = evaluate(query, gallery, matcher)
    assert given_.metrics == found.metrics
    assert given_.card.pairs_without_shared_slot == found.card.pairs_without_shared_slot > 0


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ([[0.1, np.nan]], "query 0 to gallery image 1 is nan"),
        ([[np.inf, 0.1]], "query 0 to gallery image 0 is inf"),
        ([[0.1, 0.2, 0.3]], r"distances are \(1, 3\)"),
        ([0.1, 0.2], r"distances are \(2,\)"),
        ([["a", "b"]], "matrix"),
    ],
)
def test_matrices_that_are_refused(matrix: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        evaluate_matrix(np.array(matrix), [1], [1, 2], [0], [1, 1])


def test_a_matcher_that_gives_nan_is_caught() -> None:
    class Broken(VisibilityWeightedMatcher):
        def tile(self, query, gallery):  # type: ignore[no-untyped-def]
            distance = super().tile(query, gallery)
            distance[2, 0] = torch.nan
            return distance

    with pytest.raises(EvaluationError, match="query 2 is NaN"):
        evaluate(drawn(5, 0), drawn(20, 1), Broken())


def test_sets_without_any_match_and_names_that_stand_twice() -> None:
    query, gallery = drawn(6, 0), drawn(9, 1)
    others = EmbeddedSet(gallery.embeddings, gallery.identity + 100, gallery.camera)
    with pytest.raises(EvaluationError, match="none of the 6 queries"):
        evaluate(query, others, VisibilityWeightedMatcher())
    twice = EmbeddedSet(gallery.embeddings, gallery.identity, gallery.camera, tuple("abcdefgha"))
    with pytest.raises(EvaluationError, match="'a' stands twice"):
        evaluate(query, twice, VisibilityWeightedMatcher())


def drawn(rows: int, seed: int) -> EmbeddedSet:
    """Few identities, three cameras, and embeddings of small whole numbers, so that ties abound."""
    generator = np.random.default_rng(seed)
    slots = tuple(torch.tensor(generator.integers(1, 3, (rows, 2)), dtype=torch.float32) for _ in range(2))
    seen = torch.tensor(generator.integers(0, 2, (rows, 2)), dtype=torch.float32)
    identity, camera = generator.integers(0, 4, rows), generator.integers(0, 3, rows)
    names = tuple(f"{n:04d}.png" for n in range(rows))
    return EmbeddedSet(PartEmbeddings(("a", "b"), slots, seen), identity, camera, names)


def shuffled(rows: EmbeddedSet, seed: int) -> EmbeddedSet:
    order = np.random.default_rng(seed).permutation(len(rows))
    names = tuple(rows.paths[i] for i in order)
    return EmbeddedSet(rows.embeddings[torch.from_numpy(order)], rows.identity[order], rows.camera[order], names)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 80), st.sampled_from([1, 2]))
def test_tiles_threads_and_the_order_of_the_gallery_change_nothing(seed: int, tile_rows: int, threads: int) -> None:
    query, gallery = drawn(25, seed), drawn(60, seed + 1)
    first = evaluate(query, gallery, VisibilityWeightedMatcher())
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        second = evaluate(query, shuffled(gallery, seed), VisibilityWeightedMatcher(), tile_rows=tile_rows)
    finally:
        torch.set_num_threads(before)
    assert second.metrics == first.metrics
    assert second.intervals == first.intervals
    assert np.array_equal(second.first_match_rank, first.first_match_rank)
    assert second.card.gallery_sha256 == first.card.gallery_sha256
    assert first.compare(second)["mAP"].value == 0


def test_the_order_of_the_gallery_changes_nothing_after_re_ranking() -> None:
    query, gallery = drawn(25, 3), drawn(60, 4)
    settings_ = KReciprocal(k1=6, k2=2)
    first, second = (
        evaluate(query, rows, VisibilityWeightedMatcher(), rerank=settings_) for rows in (gallery, shuffled(gallery, 1))
    )
    assert first.metrics == second.metrics


def test_single_shots_by_the_definition() -> None:
    """One random image of each person in a draw, and never one that the camera rule forbids."""
    query, gallery = drawn(20, 5), drawn(50, 6)
    rules = Protocol(shots="single", draws=7, ranks=(1, 2), seed=3)
    report = evaluate(query, gallery, VisibilityWeightedMatcher(), rules)
    assert report.first_match_rank.shape == (20, 7)
    assert list(report.metrics) == ["Rank-1", "Rank-2"]
    keep = report.answerable
    assert report.rank(2) == pytest.approx(float(np.mean(report.first_match_rank[keep] <= 2)))
    assert report.rank(4) == 1.0  # there are four people
    assert Report.from_dict(report.to_dict()).metrics == report.metrics
    assert "not defined" in report.facts["average precision"]
    assert report.compare(report)["Rank-1"].value == 0
    again = evaluate(query, shuffled(gallery, 2), VisibilityWeightedMatcher(), rules)
    assert np.array_equal(again.first_match_rank, report.first_match_rank)
    with pytest.raises(EvaluationError, match="re-ranking uses the whole gallery"):
        evaluate(query, gallery, VisibilityWeightedMatcher(), rules, rerank=KReciprocal())


def test_single_shots_of_a_matrix_with_one_image_a_person_are_plain_ranks() -> None:
    distance = np.random.default_rng(0).random((6, 8))
    labels = list(range(6)), list(range(8)), [0] * 6, [1] * 8
    single = evaluate_matrix(distance, *labels, Protocol(shots="single", draws=3))
    plain = evaluate_matrix(distance, *labels)
    assert np.array_equal(single.first_match_rank, np.repeat(plain.first_match_rank[:, None], 3, axis=1))
