"""Error rates of comparisons: as plain loops over all thresholds find them, and exact where it is said."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import roc_auc_score

from occluded_reid.calibration.pair_counts import count_pairs
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.bootstrap import PeopleResampling
from occluded_reid.evaluation.open_set.verification import evaluate_verification
from occluded_reid.matchers import VisibilityWeightedMatcher

from .drawn_sides import by_loops, sides

RATES = (1e-5, 1e-3, 0.02, 0.1, 0.3)
FEW = PeopleResampling(resamples=30)
MATCHER = VisibilityWeightedMatcher()


@pytest.mark.parametrize("exact_pairs", [0, 1 << 20])
@pytest.mark.parametrize("ties", [False, True])
def test_rates_are_those_of_loops_over_all_thresholds(exact_pairs: int, ties: bool) -> None:
    query, gallery = sides(1, 50, 70, ties=ties)
    counts = count_pairs(query, gallery, MATCHER, rates=RATES, exact_pairs=exact_pairs)
    found = evaluate_verification(counts, rates=RATES, resampling=FEW)
    pairs = by_loops(query, gallery)
    impostors = [d for match, d, _, _ in pairs if not match]
    matches = [d for match, d, _, _ in pairs if match]
    limits = sorted({0.0, *(np.nextafter(d, 9) for _, d, _, _ in pairs if d < math.inf)})
    rates = [
        (sum(d < t for d in impostors) / len(impostors), sum(not d < t for d in matches) / len(matches)) for t in limits
    ]
    assert rates[-1][0] < 1  # pairs without a shared slot are impostors that no threshold accepts
    assert rates[-1][1] > 0
    assert found.equal_error_rate == min(max(false, missed) for false, missed in rates)
    false = sum(d < found.equal_error_below for d in impostors) / len(impostors)
    missed = sum(not d < found.equal_error_below for d in matches) / len(matches)
    assert found.equal_error_rate == max(false, missed)
    for point in found.points:
        if point.false_match_rate * len(impostors) < 1:
            assert point.missed is point.below is None
            assert str(point) == "too few comparisons of two people"
            continue
        assert point.missed.value == min(m for f, m in rates if f <= point.false_match_rate)
        assert point.false_matches == sum(d < point.below for d in impostors)
        assert point.missed.count == sum(not d < point.below for d in matches)
    assert [p.missed is None for p in found.points] == [True, False, False, False, False]
    for t, f, m in zip(*found.curve(), strict=True):
        assert f == sum(d < t for d in impostors) / len(impostors)
        assert m == sum(not d < t for d in matches) / len(matches)
    exact = sum((a > b) + (a == b) / 2 for a in impostors for b in matches) / (len(impostors) * len(matches))
    score = -np.minimum([*matches, *impostors], 1e9)
    assert exact == pytest.approx(roc_auc_score([1] * len(matches) + [0] * len(impostors), score), abs=1e-9)
    low, high = found.auroc_bounds
    assert low - 1e-12 <= exact <= high + 1e-12
    assert found.auroc == pytest.approx(exact, abs=1e-12 if exact_pairs else 1e-3)
    assert (low == high) == bool(exact_pairs)


def test_intervals_draw_people_at_a_fixed_threshold() -> None:
    query, gallery = sides(2, 40, 60)
    found = evaluate_verification(count_pairs(query, gallery, MATCHER), rates=(0.1,), resampling=FEW)
    (point,) = found.points
    matches = [(person, d) for match, d, _, person in by_loops(query, gallery) if match]
    people = sorted({person for person, _ in matches})
    draws = np.random.default_rng(0).multinomial(len(people), [1 / len(people)] * len(people), 30)
    shares = []
    for draw in draws:
        times = dict(zip(people, draw.tolist(), strict=True))
        drawn = [d for person, d in matches for _ in range(times[person])]
        shares.append(sum(not d < point.below for d in drawn) / len(drawn))
    ends = [point.missed.interval.low, point.missed.interval.high]
    assert ends == pytest.approx(np.percentile(shares, [2.5, 97.5]), abs=1e-12)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), ties=st.booleans(), exact=st.sampled_from([0, 300, 1 << 20]))
def test_tiles_and_the_order_of_the_gallery_change_nothing(seed: int, ties: bool, exact: int) -> None:
    query, gallery = sides(seed, 20, 40, ties=ties)
    order = np.random.default_rng(seed).permutation(len(gallery))
    mixed = EmbeddedSet(gallery.embeddings[order.tolist()], gallery.identity[order], gallery.camera[order])
    wanted = None
    for rows, tile_rows in ((gallery, 1024), (gallery, 1), (gallery, 7), (mixed, 1024), (mixed, 7)):
        counts = count_pairs(query, rows, MATCHER, exact_pairs=exact, tile_rows=tile_rows)
        found = evaluate_verification(counts, resampling=FEW).to_dict()
        wanted = wanted or found
        assert found == wanted


def test_a_rate_inside_a_cell_must_be_asked_for_before_counting() -> None:
    query, gallery = sides(3, 60, 80)
    counts = count_pairs(query, gallery, MATCHER, rates=(), exact_pairs=0)
    with pytest.raises(EvaluationError, match=r"0\.4 is reached in a cell .* count_pairs"):
        evaluate_verification(counts, rates=(0.4,), resampling=FEW)
    counts = count_pairs(query, gallery, MATCHER, rates=(0.4,), exact_pairs=0)
    assert evaluate_verification(counts, rates=(0.4,), resampling=FEW).points[0].missed is not None
    for wrong in ((), (0.0,), (1.0,)):
        with pytest.raises(EvaluationError, match="give numbers between 0 and 1"):
            evaluate_verification(counts, rates=wrong)


def test_when_everything_that_shares_a_slot_may_match() -> None:
    """Nine impostors in ten share nothing: no threshold reaches a false-match rate of a half."""
    seen = torch.ones(22, 2)
    seen[2:, 1] = 0
    seen[:2, 0] = 0
    seen[0, 0] = 1
    vectors = torch.eye(2).repeat(11, 2)
    people = np.array([0, 0, *range(1, 21)])
    rows = EmbeddedSet(PartEmbeddings(("global", "part"), (vectors, vectors), seen), people, np.arange(22))
    query = EmbeddedSet(rows.embeddings[:2], rows.identity[:2], rows.camera[:2])
    counts = count_pairs(query, rows, MATCHER)
    assert (counts.impostors, counts.impostors_unshared) == (40, 20)
    point = evaluate_verification(counts, rates=(0.6,), resampling=FEW).points[0]
    assert (point.below, point.false_matches, point.missed.count) == (None, 20, 0)


def test_it_prints_and_writes_what_it_stands_on() -> None:
    query, gallery = sides(4, 40, 50)
    found = evaluate_verification(count_pairs(query, gallery, MATCHER), resampling=FEW, data="drawn", fingerprint="x@1")
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["points"][3]["missed"] is None
    assert written["auroc_bounds"] == [found.auroc, found.auroc]
    rates = written["curve"]["false_match_rate"]
    assert rates == sorted(set(rates))
    assert set(rates) <= set(found.curve()[1].tolist())
    console = Console(width=180, record=True, file=io.StringIO())
    console.print(found.table())
    shown = " ".join(console.export_text().split())
    for text in (str(found.points[0]), "0.01 % of two", "too few comparisons", "(exact)", "none to deploy"):
        assert text in shown
    page = found.to_markdown()
    unshared = found.counts.impostors_unshared
    for text in ("| value |", "- data: drawn", "x@1", f"{unshared} of two people and", "100.0% of the impostors"):
        assert text in page
