"""evaluate() against a loop written from the definitions, and against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation import Protocol, evaluate
from occluded_reid.functional.distances import weighted_distance
from occluded_reid.matchers import NO_SHARED_SLOT, PlainMatcher, VisibilityWeightedMatcher

NAMES = ("global", "part_1", "part_2")


def make(rows, seed, *, identities=9, cameras=3, visibility="binary", width=10, dtype=torch.float32) -> EmbeddedSet:
    generator = torch.Generator().manual_seed(seed)
    labels = np.random.default_rng(seed)
    centres = torch.randn(3, identities + 1, width, generator=torch.Generator().manual_seed(99))
    identity, camera = labels.integers(0, identities, rows), labels.integers(0, cameras, rows)
    noise = torch.randn(3, rows, width, generator=generator)
    slots = tuple((centre[identity] + 1.5 * n).to(dtype) for centre, n in zip(centres, noise, strict=True))
    visible = torch.rand(rows, 3, generator=generator)
    if visibility == "binary":
        visible = (visible > 0.4).float()
    return EmbeddedSet(PartEmbeddings(NAMES, slots, visible), identity, camera)


def pick(rows: EmbeddedSet, index) -> EmbeddedSet:
    index = np.asarray(index)
    return EmbeddedSet(rows.embeddings[torch.from_numpy(index)], rows.identity[index], rows.camera[index])


def join(*sets: EmbeddedSet) -> EmbeddedSet:
    return EmbeddedSet(
        PartEmbeddings.cat([s.embeddings for s in sets]),
        np.concatenate([s.identity for s in sets]),
        np.concatenate([s.camera for s in sets]),
    )


def full_matrix(query: EmbeddedSet, gallery: EmbeddedSet, metric="cosine") -> np.ndarray:
    double = [s.embeddings.to(dtype=torch.float64) for s in (query, gallery)]
    full = weighted_distance(*double, metric).numpy()
    return np.where(full < NO_SHARED_SLOT, np.round(full, 6) + 0.0, full)


def by_definition(query, gallery, distance, *, ap="hits", exclude=True):
    """Per query (average precision, rank of the first match, matches / rank of the last), and the counts."""
    numbers, excluded, unshared = [], 0, 0
    for i in range(len(query)):
        ranked = []
        for j in range(len(gallery)):
            same = query.identity[i] == gallery.identity[j]
            if exclude and same and query.camera[i] == gallery.camera[j]:
                excluded += 1
                continue
            unshared += distance[i, j] == NO_SHARED_SLOT
            ranked.append((distance[i, j], j, same))
        ranks = [r for r, (_, _, same) in enumerate(sorted(ranked), start=1) if same]
        if not ranks:
            numbers.append(None)
            continue
        total = 0.0
        for n, rank in enumerate(ranks, start=1):
            precision = n / rank
            if ap == "trapezoid":
                before = 1.0 if rank == 1 else (n - 1) / (rank - 1)
                precision = (before + precision) / 2
            total += precision / len(ranks)
        numbers.append((total, ranks[0], len(ranks) / ranks[-1]))
    return numbers, excluded, unshared


def check(report, numbers) -> None:
    assert report.answerable.tolist() == [n is not None for n in numbers]
    good = [n for n in numbers if n is not None]
    keep = report.answerable
    np.testing.assert_allclose(report.average_precision[keep], [n[0] for n in good], rtol=1e-12)
    assert report.first_match_rank[keep].tolist() == [n[1] for n in good]
    np.testing.assert_allclose(report.inverse_negative_penalty[keep], [n[2] for n in good], rtol=1e-12)
    assert report.mAP == pytest.approx(np.mean([n[0] for n in good]), abs=1e-12)
    assert report.mINP == pytest.approx(np.mean([n[2] for n in good]), abs=1e-12)
    for k in (1, 2, 5, 10, 50):
        assert report.rank(k) == pytest.approx(np.mean([n[1] <= k for n in good]), abs=1e-12)


@pytest.mark.parametrize("tile_rows", [1, 7, 4096])
@pytest.mark.parametrize("visibility", ["binary", "soft"])
@pytest.mark.parametrize("ap", ["hits", "trapezoid"])
def test_it_equals_the_definition(tile_rows, visibility, ap) -> None:
    query, gallery = make(25, 0, visibility=visibility, identities=14), make(110, 1, visibility=visibility)
    report = evaluate(query, gallery, VisibilityWeightedMatcher(), Protocol(ap=ap), tile_rows=tile_rows)
    numbers, excluded, unshared = by_definition(query, gallery, full_matrix(query, gallery), ap=ap)
    check(report, numbers)
    assert report.card.excluded_pairs == excluded > 0
    assert report.card.pairs_without_shared_slot == unshared
    assert (unshared > 0) == (visibility == "binary")
    assert report.unanswerable == sum(n is None for n in numbers) > 0


@pytest.mark.parametrize("tile_rows", [1, 7, 4096])
def test_twins_in_different_tiles_rank_by_their_place_in_the_gallery(tile_rows) -> None:
    query, few = make(20, 2), make(40, 3)
    # Twins of other people too: the same picture under two identities is a tie that only the order can break.
    renamed = EmbeddedSet(few.embeddings, np.roll(few.identity, 1), few.camera)
    everyone = join(few, renamed, few, renamed)
    order = np.random.default_rng(0).permutation(len(everyone))
    gallery = pick(everyone, order)
    report = evaluate(query, gallery, VisibilityWeightedMatcher(), tile_rows=tile_rows)
    numbers, _, _ = by_definition(query, gallery, full_matrix(query, gallery))
    check(report, numbers)


@pytest.mark.parametrize("normalize", [True, False])
def test_euclidean_equals_the_definition(normalize) -> None:
    query, gallery = make(20, 4), make(90, 5)
    gallery = join(gallery, pick(query, range(10)))  # distances of 0, where an expansion is least exact
    gallery.camera[-10:] += 1
    report = evaluate(query, gallery, VisibilityWeightedMatcher(metric="euclidean", normalize=normalize))
    if normalize:
        unit = [
            EmbeddedSet(
                PartEmbeddings(
                    NAMES,
                    tuple(torch.nn.functional.normalize(e.double()) for e in s.embeddings.embeddings),
                    s.embeddings.visibility,
                ),
                s.identity,
                s.camera,
            )
            for s in (query, gallery)
        ]
        distance = full_matrix(*unit, metric="euclidean")
    else:
        distance = full_matrix(query, gallery, metric="euclidean")
    check(report, by_definition(query, gallery, distance)[0])


def test_average_precision_is_scikit_learns() -> None:
    query, gallery = make(15, 6), make(80, 7)
    report = evaluate(query, gallery, PlainMatcher())
    distance = PlainMatcher().distance(query.embeddings, gallery.embeddings).numpy()
    compared = 0
    for i in np.flatnonzero(report.answerable):
        same = gallery.identity == query.identity[i]
        keep = ~(same & (gallery.camera == query.camera[i]))
        assert report.average_precision[i] == pytest.approx(average_precision_score(same[keep], -distance[i, keep]))
        compared += 1
    assert compared > 10


def test_the_order_of_the_gallery_and_of_the_queries_changes_no_number_without_ties() -> None:
    query, gallery = make(20, 8, visibility="soft"), make(90, 9, visibility="soft")
    report = evaluate(query, gallery, VisibilityWeightedMatcher())
    generator = np.random.default_rng(0)
    shuffled = evaluate(query, pick(gallery, generator.permutation(90)), VisibilityWeightedMatcher())
    np.testing.assert_array_equal(report.average_precision, shuffled.average_precision)
    order = generator.permutation(20)
    turned = evaluate(pick(query, order), gallery, VisibilityWeightedMatcher())
    np.testing.assert_array_equal(report.first_match_rank[order], turned.first_match_rank)
    alone = evaluate(pick(query, order[:1]), gallery, VisibilityWeightedMatcher())
    assert alone.average_precision[0] == report.average_precision[order[0]]


def test_near_ties_that_float32_cannot_tell_apart() -> None:
    # One query at 0°, 400 rows whose distances step by 2e-6; every tenth is a match.
    angle = torch.sqrt(2 * (0.2 + 2e-6 * torch.arange(400, dtype=torch.float64)))
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    rows = torch.stack([angle.cos(), angle.sin()], 1)[order]
    query = EmbeddedSet(PartEmbeddings(("a",), (torch.tensor([[1.0, 0.0]]).double(),), torch.ones(1, 1)), [1], [0])
    identity = (order % 10 == 3).long().numpy()
    gallery = EmbeddedSet(PartEmbeddings(("a",), (rows,), torch.ones(400, 1)), identity, np.ones(400))
    for tile_rows in (1, 64, 4096):
        report = evaluate(query, gallery, PlainMatcher(), tile_rows=tile_rows)
        assert report.first_match_rank[0] == 4
        assert report.average_precision[0] == pytest.approx(np.mean([n / (10 * n - 6) for n in range(1, 41)]))


def test_matches_without_a_common_slot_come_last_but_count() -> None:
    slot = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    visible = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    gallery = EmbeddedSet(PartEmbeddings(("a", "b"), (slot, slot), visible), [5, 6, 5, 7], [1, 1, 1, 1])
    query = EmbeddedSet(PartEmbeddings(("a", "b"), (slot[:1], slot[:1]), torch.tensor([[1.0, 0.0]])), [5], [0])
    for tile_rows in (1, 2, 4096):
        report = evaluate(query, gallery, VisibilityWeightedMatcher(), tile_rows=tile_rows)
        # Row 1 shares a slot and is farthest by cosine, yet comes before rows 0, 2 and 3, which share none.
        assert report.first_match_rank.tolist() == [2]
        assert report.average_precision[0] == pytest.approx((1 / 2 + 2 / 3) / 2)
        assert report.card.pairs_without_shared_slot == 3


def test_same_camera_images_can_be_kept() -> None:
    query, gallery = make(20, 10), make(60, 11)
    report = evaluate(query, gallery, PlainMatcher(), Protocol(exclude_same_camera=False))
    visible = [
        EmbeddedSet(s.embeddings.with_visibility(torch.ones(len(s), 3)), s.identity, s.camera) for s in (query, gallery)
    ]
    numbers, excluded, _ = by_definition(query, gallery, full_matrix(*visible), exclude=False)
    check(report, numbers)
    assert excluded == report.card.excluded_pairs == 0


def test_float16_and_zero_vectors() -> None:
    query, gallery = make(10, 12, dtype=torch.float16), make(50, 13, dtype=torch.float16)
    for rows in (query, gallery):
        rows.embeddings.embeddings[1][::4] = 0
    report = evaluate(query, gallery, VisibilityWeightedMatcher(), tile_rows=16)
    check(report, by_definition(query, gallery, full_matrix(query, gallery))[0])


def test_threads_change_nothing() -> None:
    query, gallery = make(60, 14), make(400, 15)
    threads = torch.get_num_threads()
    reports = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            reports.append(evaluate(query, gallery, VisibilityWeightedMatcher(), tile_rows=100))
    finally:
        torch.set_num_threads(threads)
    assert reports[0].to_json() == reports[1].to_json()


def test_progress_is_told() -> None:
    seen = []
    evaluate(make(5, 16), make(50, 17), PlainMatcher(), tile_rows=20, progress=lambda *at: seen.append(at))
    assert seen == [(20, 50), (40, 50), (50, 50)]


def test_what_cannot_be_evaluated_says_why() -> None:
    query, gallery = make(5, 18), make(20, 19)
    nobody = EmbeddedSet(query.embeddings[:0], [], [])
    with pytest.raises(EvaluationError, match="query set is empty"):
        evaluate(nobody, gallery, PlainMatcher())
    with pytest.raises(EvaluationError, match="gallery set is empty"):
        evaluate(query, nobody, PlainMatcher())
    with pytest.raises(EvaluationError, match="cannot be compared: slots do not fit"):
        evaluate(query, gallery.select(["global"]), PlainMatcher())
    strangers = EmbeddedSet(gallery.embeddings, gallery.identity + 100, gallery.camera)
    with pytest.raises(EvaluationError, match=r"none of the 5 queries .* Are identities numbered"):
        evaluate(query, strangers, PlainMatcher())
    one_camera = [EmbeddedSet(s.embeddings, s.identity, np.zeros(len(s))) for s in (query, gallery)]
    with pytest.raises(EvaluationError, match="from another camera"):
        evaluate(*one_camera, PlainMatcher())
    assert evaluate(*one_camera, PlainMatcher(), Protocol(exclude_same_camera=False)).rank(50) > 0
