"""Thresholds, rates and probabilities against plain loops over all pairs; and people who are not there."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occluded_reid.calibration.calibration import Calibration, pool
from occluded_reid.calibration.threshold import apply_threshold, shared_of_hits, shared_of_visibility, within_threshold
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import CalibrationError, EmbeddingError
from occluded_reid.evaluation.open_set.threshold import evaluate_open_set
from occluded_reid.matchers import (
    DistanceSumMatcher,
    PlainMatcher,
    PublicDistanceMatcher,
    VisibilityWeightedMatcher,
)
from occluded_reid.search import InMemoryRows, TopK, exact_topk

NAMES = ("global", "part_1", "part_2", "part_3")


def people(
    count: int,
    images: int,
    seed: int,
    *,
    first: int = 0,
    noise: float = 0.5,
    hidden: float = 0.3,
    width: int = 6,
    slots: int = 3,
    cameras: int = 3,
) -> EmbeddedSet:
    """Drawn people: a direction for each person and slot, with noise for each image; slots are independent."""
    generator = torch.Generator().manual_seed(seed)
    identity = torch.arange(count).repeat_interleave(images)
    columns = []
    for _ in range(slots):
        centres = torch.randn(count, width, generator=generator)
        columns.append(centres[identity] + noise * torch.randn(count * images, width, generator=generator))
    visibility = (torch.rand(count * images, slots, generator=generator) >= hidden).float()
    camera = np.arange(count * images) % cameras
    return EmbeddedSet(PartEmbeddings(NAMES[:slots], tuple(columns), visibility), identity.numpy() + first, camera)


def halves(rows: EmbeddedSet) -> tuple[EmbeddedSet, EmbeddedSet]:
    """Every third image asks, the others are searched."""
    asks = np.arange(len(rows)) % 3 == 0

    def part(which: np.ndarray) -> EmbeddedSet:
        index = np.flatnonzero(which)
        return EmbeddedSet(rows.embeddings[index.tolist()], rows.identity[index], rows.camera[index])

    return part(asks), part(~asks)


def by_loops(query: EmbeddedSet, gallery: EmbeddedSet, *, weights=None, visible=None, total=1.0, euclidean=False):
    """(q, g, distance rounded to 1e-6, shared slots) of every pair, from the definition, in float64."""
    weights = weights or {}
    pairs = []
    sides = [[slot.double().numpy() for slot in rows.embeddings.embeddings] for rows in (query, gallery)]
    seen = [
        rows.embeddings.visibility.double().numpy() if visible is None else visible(rows) for rows in (query, gallery)
    ]
    for q in range(len(query)):
        for g in range(len(gallery)):
            numerator = denominator = 0.0
            shared = 0
            for s, name in enumerate(query.embeddings.names):
                factor = weights.get(name, 1.0) * seen[0][q, s] * seen[1][g, s]
                x, y = sides[0][s][q], sides[1][s][g]
                cosine = (x @ y) / (np.linalg.norm(x) * np.linalg.norm(y))
                d = math.sqrt(max(0.0, 2 - 2 * cosine)) if euclidean else 1 - cosine
                numerator += factor * d
                denominator += factor
                shared += factor > 0
            pairs.append((q, g, round(total * numerator / denominator, 6) if shared else math.inf, shared))
    return pairs


def kth_below(values: list[float], rate: float) -> float:
    """What a new value among len(values) + 1 falls short of with probability `rate` at most."""
    return sorted(values)[math.floor(rate * (len(values) + 1) + 1e-9) - 1]


MATCHERS = {
    "visibility": (VisibilityWeightedMatcher(), {}),
    "one slot without weight": (VisibilityWeightedMatcher(weights={"part_2": 0}), {"weights": {"part_2": 0.0}}),
    "plain": (PlainMatcher(), {"visible": lambda rows: np.ones((len(rows), 3))}),
    "public": (
        PublicDistanceMatcher(),
        {
            "euclidean": True,
            "visible": lambda rows: np.column_stack([np.ones(len(rows)), rows.embeddings.visibility[:, 1:].numpy()]),
        },
    ),
    "sum": (DistanceSumMatcher(), {"euclidean": True, "total": 3.0}),
}


@pytest.mark.parametrize("name", MATCHERS)
@pytest.mark.parametrize("tile_rows", [7, 1000])
def test_thresholds_per_comparison_are_order_statistics_of_the_impostors(name, tile_rows) -> None:
    matcher, options = MATCHERS[name]
    query, gallery = halves(people(20, 6, 0))
    rate = 0.05
    found = Calibration.fit(query, gallery, matcher, false_match_rate=rate, per="comparison", tile_rows=tile_rows)
    pairs = by_loops(query, gallery, **options)
    used = len([n for n, w in ((n, (options.get("weights") or {}).get(n, 1)) for n in NAMES[:3]) if w])
    assert [group.shared for group in found.groups] == list(range(1, used + 1))
    for group in found.groups:
        mine = [d for q, g, d, n in pairs if query.identity[q] != gallery.identity[g] and n == group.shared]
        matches = [
            d
            for q, g, d, n in pairs
            if query.identity[q] == gallery.identity[g] and query.camera[q] != gallery.camera[g] and n == group.shared
        ]
        assert (group.impostors, group.matches) == (len(mine), len(matches))
        block = [d for q, g, d, n in pairs if query.identity[q] != gallery.identity[g] and n in group.threshold_from]
        assert group.shared in group.threshold_from
        limit = kth_below(block, rate)
        assert group.threshold == pytest.approx(limit, abs=1.1e-6)
        assert group.threshold < limit + 1.1e-6
        # Of the impostors it came from, fewer than k lie within: the promise on the calibration's own pairs.
        assert sum(d <= group.threshold - 1.1e-6 for d in block) < rate * (len(block) + 1)
        if matches:
            assert group.matches_kept == pytest.approx(
                np.mean([d <= group.threshold for d in matches]), abs=1.01 / len(matches)
            )
    assert found.gallery_size is None


@pytest.mark.parametrize("name", MATCHERS)
def test_the_threshold_per_search_lets_so_many_unknown_people_through(name) -> None:
    matcher, options = MATCHERS[name]
    query, gallery = halves(people(20, 6, 1))
    found = Calibration.fit(query, gallery, matcher, false_match_rate=0.1, per="search", tile_rows=9)
    nearest = [math.inf] * len(query)
    for q, g, d, _ in by_loops(query, gallery, **options):
        if query.identity[q] != gallery.identity[g]:
            nearest[q] = min(nearest[q], d)
    limit = kth_below(nearest, 0.1)
    assert [group.threshold for group in found.groups] == pytest.approx([limit] * len(found.groups), abs=1.1e-6)
    assert found.gallery_size == len(gallery) - 4
    answered = sum(d <= found.groups[0].threshold + 1e-9 for d in nearest)
    assert answered <= 0.1 * (len(query) + 1)


def test_many_searches_have_a_threshold_for_each_number_of_shared_slots_and_share_the_rate() -> None:
    query, gallery = halves(people(150, 6, 2, hidden=0.5, slots=2, width=3))
    rate = 0.3
    found = Calibration.fit(query, gallery, VisibilityWeightedMatcher(), false_match_rate=rate, per="search")
    first, second = found.groups
    assert (first.threshold_from, second.threshold_from) == ([1], [2])
    total = first.impostors + second.impostors
    visible = [rows.embeddings.visibility.numpy() > 0 for rows in (query, gallery)]
    distance = VisibilityWeightedMatcher().distance(query.embeddings, gallery.embeddings).double().numpy()
    shared = (visible[0][:, None] & visible[1][None]).sum(2)
    other = query.identity[:, None] != gallery.identity[None]
    let_through = np.zeros(len(query), dtype=bool)
    for group in found.groups:
        nearest = np.where(other & (shared == group.shared), distance, np.inf).min(1)
        k = math.floor(rate * group.impostors / total * (len(query) + 1))
        assert k >= 10
        assert group.threshold == pytest.approx(np.sort(nearest)[k - 1], abs=2e-6)
        let_through |= nearest < group.threshold - 2e-6
    assert let_through.mean() <= rate


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rate=st.sampled_from([0.02, 0.1, 0.3]),
    per=st.sampled_from(["comparison", "search"]),
    tile_rows=st.integers(1, 50),
    copies=st.integers(1, 3),
)
def test_tiles_change_nothing_and_twins_do_no_harm(seed, rate, per, tile_rows, copies) -> None:
    rows = people(17, 6, seed, width=3)
    twins = EmbeddedSet(
        PartEmbeddings.cat([rows.embeddings] * copies), np.tile(rows.identity, copies), np.tile(rows.camera, copies)
    )
    query, gallery = halves(twins)
    options = {"false_match_rate": rate, "per": per}
    if per == "search" and rate * (len(query) + 1) < 1:
        with pytest.raises(CalibrationError, match="at least 49 are needed"):
            Calibration.fit(query, gallery, VisibilityWeightedMatcher(), **options)
        return
    one, other = (
        Calibration.fit(query, gallery, VisibilityWeightedMatcher(), tile_rows=size, **options)
        for size in (tile_rows, 10_000)
    )
    assert [g.threshold for g in one.groups] == [g.threshold for g in other.groups]
    assert [g.matches_kept for g in one.groups] == [g.matches_kept for g in other.groups]
    assert all(math.isfinite(g.threshold) for g in one.groups)


@settings(max_examples=100, deadline=None)
@given(counts=st.lists(st.integers(0, 500), min_size=1, max_size=9), needed=st.integers(1, 600))
def test_pooled_blocks_are_neighbours_and_large_enough(counts, needed) -> None:
    blocks = pool(counts, needed)
    assert [n for block in blocks for n in block] == list(range(1, len(counts) + 1))
    sizes = [sum(counts[n - 1] for n in block) for block in blocks]
    assert len(blocks) == 1 or min(sizes) >= needed
    assert pool(counts, 0) == [(n,) for n in range(1, len(counts) + 1)]


def test_identical_distances_everywhere_make_a_threshold_just_below_them() -> None:
    """Every impostor pair at exactly 1: nothing but what is nearer may count."""
    rows = PartEmbeddings(("a",), (torch.eye(12).repeat(3, 1),), torch.ones(36, 1))
    everyone = EmbeddedSet(rows, np.arange(36) % 12, np.arange(36) // 12)
    for per in ("comparison", "search"):
        found = Calibration.fit(everyone, everyone, PlainMatcher(), false_match_rate=0.1, per=per)
        assert found.groups[0].threshold == math.nextafter(1.0, 0)
        assert found.accepts([[0.0, 0.999999], [1.0, 2.0]], [[1, 1], [1, 1]]).tolist() == [[True, True], [False, False]]
        assert found.groups[0].matches_kept == 1


def test_distances_far_beyond_the_bins_are_ordered_as_well() -> None:
    """Raw Euclidean: queries are short, and the gallery's rows so long that every pair falls in the last bin."""
    generator = torch.Generator().manual_seed(0)
    slot = torch.randn(60, 4, generator=generator)
    identity, camera = np.arange(60) // 3, np.arange(60) % 3
    query = EmbeddedSet(PartEmbeddings(("a",), (slot,), torch.ones(60, 1)), identity, camera)
    gallery = EmbeddedSet(PartEmbeddings(("a",), (slot * 1000,), torch.ones(60, 1)), identity, camera)
    matcher = PlainMatcher(metric="euclidean", normalize=False)
    found = Calibration.fit(query, gallery, matcher, false_match_rate=0.1, per="comparison", tile_rows=11)
    distances = torch.cdist(slot.double(), (slot * 1000).double()).numpy()
    impostors = distances[identity[:, None] != identity[None]]
    assert np.median(impostors) > 1000
    assert found.groups[0].threshold == pytest.approx(kth_below(impostors.tolist(), 0.1), rel=1e-9, abs=1.1e-6)


def test_few_shared_slots_need_a_threshold_of_their_own() -> None:
    """Independent slots: a pair that shares one slot looks alike by chance far more often than one that shares four.

    One threshold for all pairs breaks the promise where little is shared; thresholds by number of shared slots keep it.
    """
    options = {"hidden": 0.2, "slots": 4, "width": 16}
    fitted_on, tested_on = halves(people(60, 6, 3, **options)), halves(people(60, 6, 4, first=60, **options))
    matcher = VisibilityWeightedMatcher()
    rate = 0.02
    found = Calibration.fit(*fitted_on, matcher, false_match_rate=rate, per="comparison")
    thresholds = [group.threshold for group in found.groups]
    assert thresholds == sorted(thresholds)
    kept = evaluate_open_set(*tested_on, matcher, found, resamples=20)
    query, gallery = fitted_on
    distance = matcher.distance(query.embeddings, gallery.embeddings).numpy()
    two_people = query.identity[:, None] != gallery.identity[None]
    single = float(np.quantile(distance[two_people & (distance < 3)], rate))
    broken = evaluate_open_set(*tested_on, matcher, single, resamples=20)
    for n in range(1, 5):
        assert kept.impostors[n].value < 1.6 * rate
    assert broken.impostors[1].value > 2 * rate
    assert broken.impostors[4].value < 0.5 * rate


def test_unknown_people_find_nobody_and_known_ones_are_found() -> None:
    matcher = VisibilityWeightedMatcher()
    options = {"hidden": 0.2, "noise": 0.25, "width": 16}
    found = Calibration.fit(*halves(people(60, 6, 5, **options)), matcher, false_match_rate=0.05, per="search")
    query, gallery = halves(people(60, 6, 6, first=60, **options))
    report = evaluate_open_set(query, gallery, matcher, found)
    assert report.unknown_answered.value < 0.12
    assert report.known_found.value > 0.9
    assert report.unknown_answered.total == len(query) == 120
    # The same through a search: a gallery without the person answers with an empty list.
    there = gallery.identity < 90
    rows = InMemoryRows(gallery.embeddings[np.flatnonzero(there).tolist()])
    best = exact_topk(query.embeddings, rows, matcher, 10)
    near = apply_threshold(best, shared_of_hits(query.embeddings, rows, matcher, best), found)
    nobody = np.array([not len(positions) for positions in near.positions])
    assert nobody[query.identity >= 90].mean() > 0.88
    assert nobody[query.identity < 90].mean() < 0.1


def test_a_larger_gallery_asks_for_a_smaller_distance() -> None:
    query, gallery = halves(people(100, 6, 9))
    options = {"false_match_rate": 0.2, "per": "search"}
    searched = len(gallery) - 4
    same, twice, fewer = (
        Calibration.fit(query, gallery, PlainMatcher(), gallery_size=size, **options)
        for size in (None, 2 * searched, 10)
    )
    exact = Calibration.fit(query, gallery, PlainMatcher(), false_match_rate=1 - math.sqrt(0.8), per="search")
    assert twice.groups[0].threshold == exact.groups[0].threshold < same.groups[0].threshold
    assert fewer.groups[0].threshold == same.groups[0].threshold
    assert (same.gallery_size, twice.gallery_size) == (searched, 2 * searched)
    with pytest.raises(CalibrationError, match=r"200 queries cannot promise .* of 0.2 per search of 396000 images"):
        Calibration.fit(query, gallery, PlainMatcher(), gallery_size=1000 * searched, **options)


def test_probability_falls_with_distance_and_is_right_on_other_people() -> None:
    matcher = VisibilityWeightedMatcher()
    # Wide slots and much noise: distances are nearly normal, with one spread, so that log-odds are a line.
    options = {"width": 40, "noise": 1.1}
    found = Calibration.fit(*halves(people(60, 6, 10, **options)), matcher, false_match_rate=0.1)
    distances = np.linspace(0, 2, 50)
    for n in (1, 2, 3):
        probability = found.probability(distances, np.full(50, n))
        assert (np.diff(probability) < 0).all()
        assert ((probability > 0) & (probability < 1)).all()
    assert found.probability(0.4, 0) == 0.5
    # Right: among pairs said to be p likely, matches and impostors weighing the same, p are matches.
    query, gallery = halves(people(60, 6, 11, first=100, **options))
    distance = matcher.distance(query.embeddings, gallery.embeddings).double().numpy()
    visible = [rows.embeddings.visibility.numpy() > 0 for rows in (query, gallery)]
    shared = (visible[0][:, None] & visible[1][None]).sum(2)
    same = query.identity[:, None] == gallery.identity[None]
    match = same & (query.camera[:, None] != gallery.camera[None])
    said = [found.probability(distance[which], shared[which]) for which in (match & (shared > 0), ~same & (shared > 0))]
    # Expected calibration error: few pairs are in doubt, so a middle bin moves a lot by chance and weighs little.
    wrong = 0.0
    for low in np.arange(0, 1, 0.2):
        inside = [(p >= low) & (p < low + 0.2) for p in said]
        near = float(inside[0].mean())
        predicted = sum(float((p * mask).mean()) for p, mask in zip(said, inside, strict=True))
        wrong += abs(near - predicted) / 2
    assert wrong < 0.02


def test_neither_tiles_nor_the_order_of_the_gallery_move_a_calibration() -> None:
    query, gallery = halves(people(20, 6, 13))
    first = Calibration.fit(query, gallery, VisibilityWeightedMatcher(), false_match_rate=0.1)
    order = np.random.default_rng(0).permutation(len(gallery))
    mixed = EmbeddedSet(gallery.embeddings[torch.from_numpy(order)], gallery.identity[order], gallery.camera[order])
    for rows, tile_rows in ((gallery, 1), (gallery, 7), (mixed, 1024)):
        again = Calibration.fit(query, rows, VisibilityWeightedMatcher(), false_match_rate=0.1, tile_rows=tile_rows)
        assert again.groups == first.groups


def test_the_prior_shifts_the_odds_and_nothing_else() -> None:
    found = Calibration.fit(*halves(people(30, 6, 12)), PlainMatcher(), false_match_rate=0.1, prior=0.25)
    even = found.probability([0.1, 0.5, 1.0], [3, 3, 3], prior=0.5)
    stored = found.probability([0.1, 0.5, 1.0], [3, 3, 3])
    np.testing.assert_allclose(stored / (1 - stored), even / (1 - even) / 3, rtol=1e-9)
    for prior in (0.0, 1.0, float("nan")):
        with pytest.raises(CalibrationError, match="prior"):
            found.probability(0.1, 1, prior=prior)


def test_distances_that_say_nothing_say_the_prior() -> None:
    """Matches farther than impostors: no probability may rise with the distance."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(60, 8, generator=generator)
    sign = torch.where(torch.arange(60) % 2 == 0, 1.0, -1.0)[:, None]
    rows = PartEmbeddings(("a",), (base.repeat_interleave(2, 0)[:60] * sign,), torch.ones(60, 1))
    everyone = EmbeddedSet(rows, np.arange(60) // 2, np.arange(60) % 2)
    found = Calibration.fit(everyone, everyone, PlainMatcher(), false_match_rate=0.1)
    assert found.probability([0.0, 1.0, 2.0], [1, 1, 1]).tolist() == [0.5, 0.5, 0.5]


def test_same_camera_matches_count_when_asked_for() -> None:
    query, gallery = halves(people(20, 6, 13, cameras=1))
    with pytest.raises(CalibrationError, match="no pair of one person under two cameras"):
        Calibration.fit(query, gallery, PlainMatcher(), false_match_rate=0.1)
    found = Calibration.fit(query, gallery, PlainMatcher(), false_match_rate=0.1, exclude_same_camera=False)
    assert found.groups[2].matches == 20 * 2 * 4


def test_it_is_saved_and_loaded(tmp_path) -> None:
    query, gallery = halves(people(30, 6, 14))
    found = Calibration.fit(
        query, gallery, VisibilityWeightedMatcher(), false_match_rate=0.1, fingerprint="sorn@1", data="drawn"
    )
    file = tmp_path / "calibration.json"
    found.save(file)
    assert Calibration.load(file) == found
    assert "0.1 of the searches for somebody who is not among 116 images" in found.promise
    content = json.loads(file.read_text())
    assert "identities" not in content
    file.write_text(json.dumps({**content, "format_version": 1, "identities": [0, 1]}))
    assert Calibration.load(file) == found  # as older versions wrote it
    groups = content["groups"]
    for change, message in (
        ({"format": "another"}, "no calibration"),
        ({"format_version": 3}, "format 3"),
        ({"per": "day"}, "damaged: per"),
        ({"false_match_rate": "0.1"}, "damaged: false_match_rate"),
        ({"groups": groups[1:]}, "not of 1, 2"),
        ({"groups": [{**groups[0], "slope": 1.0}, *groups[1:]]}, "damaged: groups.0.slope"),
        ({"groups": [{**groups[0], "threshold": None}, *groups[1:]]}, "damaged: groups.0.threshold"),
        ({"more": 1}, "damaged: more"),
    ):
        file.write_text(json.dumps({**content, **change}))
        with pytest.raises(CalibrationError, match=message):
            Calibration.load(file)
    for text, message in (("[]", "no calibration"), ("{", "could not be read")):
        file.write_text(text)
        with pytest.raises(CalibrationError, match=message):
            Calibration.load(file)


def test_another_model_matcher_or_reduction_is_refused() -> None:
    query, gallery = halves(people(30, 6, 15))
    matcher = VisibilityWeightedMatcher()
    found = Calibration.fit(query, gallery, matcher, false_match_rate=0.1, fingerprint="sorn@1", reduction="abc")
    slots = query.embeddings.widths
    fits = {"matcher": matcher, "slots": slots, "fingerprint": "sorn@1", "reduction": "abc"}
    found.require(**fits)
    found.require(**{**fits, "fingerprint": None})
    for change, message in (
        ({"fingerprint": "sorn@2"}, r"the model sorn@1; this one is sorn@2"),
        ({"matcher": PlainMatcher()}, r"visibility_weighted.*; this one is .*plain"),
        ({"slots": {**slots, "global": 5}}, "'global': 5"),
        ({"reduction": None}, "reduced by abc; this is full embeddings"),
    ):
        with pytest.raises(CalibrationError, match=message):
            found.require(**{**fits, **change})
    with pytest.raises(CalibrationError, match=r"this one is .*plain"):
        evaluate_open_set(query, gallery, PlainMatcher(), found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"false_match_rate": 0.0}, "between 0 and 1"),
        ({"false_match_rate": 1.0}, "between 0 and 1"),
        ({"false_match_rate": float("nan")}, "between 0 and 1"),
        ({"prior": 1.0}, "between 0 and 1"),
        ({"per": "day"}, "give 'search'"),
        ({"gallery_size": 0}, "gallery_size is 0"),
        ({"gallery_size": 9, "per": "comparison"}, "a rate per comparison has none"),
        ({"false_match_rate": 0.001}, "40 queries cannot promise .* at least 999 are needed"),
        ({"false_match_rate": 1e-6, "per": "comparison"}, "at least 999999 are needed"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message) -> None:
    query, gallery = halves(people(20, 6, 17))
    with pytest.raises(CalibrationError, match=message):
        Calibration.fit(query, gallery, PlainMatcher(), **options)


def test_sets_that_hold_no_impostors_no_matches_or_nothing_are_refused() -> None:
    query, gallery = halves(people(1, 6, 18))
    with pytest.raises(CalibrationError, match="no pair of two people"):
        Calibration.fit(query, gallery, PlainMatcher(), false_match_rate=0.5)
    query, gallery = halves(people(20, 6, 19))
    others = EmbeddedSet(gallery.embeddings, gallery.identity + 100, gallery.camera)
    with pytest.raises(CalibrationError, match="no pair of one person"):
        Calibration.fit(query, others, PlainMatcher(), false_match_rate=0.5)
    nothing = EmbeddedSet(gallery.embeddings[:0], [], [])
    with pytest.raises(CalibrationError, match="the gallery set is empty"):
        Calibration.fit(query, nothing, PlainMatcher(), false_match_rate=0.5)
    with pytest.raises(EmbeddingError, match="slots do not fit"):
        Calibration.fit(query.select(["global"]), gallery, PlainMatcher(), false_match_rate=0.5)
    hidden = query.embeddings.with_visibility(torch.zeros(len(query), 3))
    with pytest.raises(CalibrationError, match="no pair of two people that share a visible slot"):
        Calibration.fit(
            EmbeddedSet(hidden, query.identity, query.camera),
            gallery,
            VisibilityWeightedMatcher(),
            false_match_rate=0.5,
        )


def test_numbers_that_cannot_be_are_refused() -> None:
    found = Calibration.fit(*halves(people(20, 6, 20)), PlainMatcher(), false_match_rate=0.1)
    assert found.threshold([0]).tolist() == [-math.inf]
    assert found.threshold(np.zeros((0,), dtype=np.int64)).shape == (0,)
    for shared in ([4], [-1], [1.5]):
        with pytest.raises(CalibrationError, match="share"):
            found.threshold(shared)
    with pytest.raises(CalibrationError, match="NaN"):
        found.accepts([float("nan")], [1])
    with pytest.raises(CalibrationError, match="NaN"):
        found.probability([float("nan")], [1])


def test_a_plain_distance_is_a_threshold_too() -> None:
    best = TopK(
        [np.array([4, 2]), np.array([1]), np.empty(0, np.int64)], [np.array([0.2, 0.4]), np.array([0.5]), np.empty(0)]
    )
    shared = [np.array([1, 0]), np.array([3]), np.empty(0, np.int64)]
    found = apply_threshold(best, shared, 0.4)
    assert [p.tolist() for p in found.positions] == [[4, 2], [], []]
    assert [d.tolist() for d in found.distances] == [[0.2, 0.4], [], []]
    assert [p.tolist() for p in apply_threshold(best, shared, 0).positions] == [[], [], []]
    for wrong in (float("nan"), "calibrated", None, True):
        with pytest.raises(CalibrationError, match="the threshold is"):
            apply_threshold(best, shared, wrong)
    with pytest.raises(CalibrationError, match="one for each hit"):
        apply_threshold(best, shared[:2], 0.4)


def test_hits_behind_dropped_ones_are_found() -> None:
    """Pairs that share one slot are near by chance and dropped; the k nearest of what may stay stand behind them."""
    matcher = VisibilityWeightedMatcher()
    options = {"hidden": 0.6, "slots": 4, "width": 4, "noise": 0.9}
    found = Calibration.fit(*halves(people(40, 6, 21, **options)), matcher, false_match_rate=0.05, per="comparison")
    query, gallery = halves(people(40, 6, 22, **options))
    rows = InMemoryRows(gallery.embeddings)

    def search(queries: np.ndarray, k: int) -> TopK:
        return exact_topk(query.embeddings[queries.tolist()], rows, matcher, k)

    def shared(queries: np.ndarray, best: TopK) -> list[np.ndarray]:
        return shared_of_hits(query.embeddings[queries.tolist()], rows, matcher, best)

    everything = np.arange(len(query))
    whole = search(everything, len(gallery))
    counts = shared(everything, whole)
    visible = [side.embeddings.visibility.numpy() > 0 for side in (query, gallery)]
    behind = 0
    for threshold in (found, 0.35):
        near = within_threshold(search, shared, len(query), 3, threshold)
        for q in range(len(query)):
            by_hand = [int((visible[0][q] & visible[1][g]).sum()) for g in whole.positions[q]]
            assert counts[q].tolist() == by_hand
            limit = [
                (-math.inf if n == 0 else found.groups[n - 1].threshold) if threshold is found else threshold
                for n in by_hand
            ]
            able = [i for i, d in enumerate(whole.distances[q]) if d <= limit[i]][:3]
            assert near.positions[q].tolist() == whole.positions[q][able].tolist()
            assert near.distances[q].tolist() == whole.distances[q][able].tolist()
            behind += bool(able and able[-1] >= 3)
    assert behind > 3, "the test must meet what it is about"


@pytest.mark.parametrize("name", MATCHERS)
def test_a_hit_shares_as_many_slots_whether_its_rows_or_its_visibility_are_asked(name) -> None:
    matcher, _ = MATCHERS[name]
    query, gallery = halves(people(10, 6, 24))
    rows = InMemoryRows(gallery.embeddings)
    best = exact_topk(query.embeddings, rows, matcher, 7)
    shared = shared_of_hits(query.embeddings, rows, matcher, best)
    for q, positions in enumerate(best.positions):
        told = matcher.explain(query.embeddings, gallery.embeddings, [q] * len(positions), positions).shared
        by_slot = [dict(zip(NAMES, line.tolist(), strict=False)) for line in told]
        assert shared[q].tolist() == [shared_of_visibility(visibility, matcher) for visibility in by_slot]


@pytest.mark.parametrize("noise", [0.1, 2.0, 50.0])
def test_a_model_that_tells_nobody_apart_is_said_to(noise: float, caplog: pytest.LogCaptureFixture) -> None:
    query, gallery = halves(people(40, 6, seed=3, noise=noise))
    found = Calibration.fit(query, gallery, PlainMatcher(), false_match_rate=0.1)
    matches, impostors = [], []
    table = PlainMatcher().distance(query.embeddings, gallery.embeddings).numpy()
    for q, g in np.ndindex(table.shape):
        if query.identity[q] != gallery.identity[g]:
            impostors.append(table[q, g])
        elif query.camera[q] != gallery.camera[g]:
            matches.append(table[q, g])
    nearer = np.mean([np.mean(np.array(impostors) > match) for match in matches])
    assert found.auroc == pytest.approx(nearer, abs=2e-3)
    assert (found.caution is None) == (found.auroc >= 0.6) == (noise < 10)
    assert ("hardly tells these people apart" in caplog.text) == (noise > 10)


def test_progress_is_told_over_both_walks() -> None:
    query, gallery = halves(people(20, 6, 23))
    steps: list[tuple[int, int]] = []
    for per in ("comparison", "search"):
        steps.clear()
        Calibration.fit(
            query,
            gallery,
            PlainMatcher(),
            false_match_rate=0.1,
            per=per,
            tile_rows=50,
            progress=lambda done, total: steps.append((done, total)),
        )
        assert steps == [(50, 160), (80, 160), (130, 160), (160, 160)]
