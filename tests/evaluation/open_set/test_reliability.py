"""Reliability of match probabilities: weighed, binned and scored as plain loops over all pairs do it."""

from __future__ import annotations

import io
import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import brier_score_loss, log_loss

from occluded_reid.calibration.calibration import Calibration
from occluded_reid.calibration.pair_counts import count_pairs
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import CalibrationError, EvaluationError
from occluded_reid.evaluation.open_set.reliability import evaluate_reliability
from occluded_reid.matchers import PlainMatcher, VisibilityWeightedMatcher

from .drawn_sides import by_loops, sides

MATCHER = VisibilityWeightedMatcher()


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """Made on people 100 … 107."""
    return Calibration.fit(
        *sides(1, 60, 80, first=100),
        MATCHER,
        false_match_rate=0.1,
        per="comparison",
        data="drawn",
        people=["ada", "bo"],
    )


def said(calibration: Calibration, distance: float, shared: int, prior: float) -> float:
    """The probability as its definition has it."""
    group = calibration.groups[shared - 1]
    odds = math.exp(group.intercept + group.slope * distance) * prior / (1 - prior)
    return odds / (1 + odds)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("prior", [None, 0.1])
def test_scores_are_those_of_loops(calibration: Calibration, ties: bool, prior: float | None) -> None:
    query, gallery = sides(2, 50, 60, ties=ties)
    counts = count_pairs(query, gallery, MATCHER)
    found = evaluate_reliability(counts, calibration, prior=prior, bins=7, data="drawn")
    before = 0.5 if prior is None else prior
    everything = [(m, said(calibration, d, n, before), n) for m, d, n, _ in by_loops(query, gallery) if n]
    assert len(everything) < counts.matches + counts.impostors  # those without a shared slot are left out
    assert [group.shared for group in found.groups] == [1, 2]
    for group in (found.everything, *found.groups):
        pairs = [(m, p) for m, p, n in everything if group.shared in (None, n)]
        matches = sum(m for m, _ in pairs)
        assert (group.matches, group.impostors) == (matches, len(pairs) - matches)
        weights = [before / matches if m else (1 - before) / (len(pairs) - matches) for m, _ in pairs]
        truth, p = ([float(pair[i]) for pair in pairs] for i in (0, 1))
        assert group.brier == pytest.approx(brier_score_loss(truth, p, sample_weight=weights), abs=1e-9)
        assert group.log_loss == pytest.approx(log_loss(truth, p, sample_weight=weights), abs=1e-9)
        error, left = 0.0, list(group.bins)
        for number in range(7):
            mine = [
                (w, t, x)
                for w, t, x in zip(weights, truth, p, strict=True)
                if number / 7 <= x < (number + 1) / 7 or (number == 6 and x == 1)
            ]
            mass = sum(w for w, _, _ in mine)
            if not mine:
                continue
            predicted, observed = sum(w * x for w, _, x in mine) / mass, sum(w * t for w, t, _ in mine) / mass
            error += mass * abs(predicted - observed)
            each = left.pop(0)
            assert (each.mass, each.predicted, each.observed) == pytest.approx((mass, predicted, observed), abs=1e-9)
            assert (each.low, each.high) == pytest.approx((number / 7, (number + 1) / 7))
            assert (each.matches, each.impostors) == (sum(t for _, t, _ in mine), sum(1 - t for _, t, _ in mine))
        assert not left
        assert group.calibration_error == pytest.approx(error, abs=1e-9)
    assert found.resolution == 0


def test_bins_of_equal_mass_hold_about_that(calibration: Calibration) -> None:
    counts = count_pairs(*sides(3, 60, 80), MATCHER)
    found = evaluate_reliability(counts, calibration, bins=5, binning="count")
    bins = found.everything.bins
    assert len(bins) == 5
    assert [b.mass for b in bins] == pytest.approx([0.2] * 5, abs=0.01)
    assert bins[0].low == 0
    assert bins[-1].high == 1
    assert all(a.high == b.low for a, b in itertools.pairwise(bins))
    width = evaluate_reliability(counts, calibration, bins=5)
    assert found.everything.brier == width.everything.brier
    one = evaluate_reliability(counts, calibration, bins=1).everything
    assert one.bins[0].mass == pytest.approx(1)
    assert one.bins[0].observed == pytest.approx(0.5)


def test_cells_change_no_score_by_more_than_is_said(calibration: Calibration) -> None:
    query, gallery = sides(4, 50, 60)
    exact = evaluate_reliability(count_pairs(query, gallery, MATCHER), calibration)
    counts = count_pairs(query, gallery, MATCHER, exact_pairs=0)
    coarse = evaluate_reliability(counts, calibration)
    assert counts.settled < 0.5
    assert 0 < coarse.resolution < 0.01
    for a, b in zip((exact.everything, *exact.groups), (coarse.everything, *coarse.groups), strict=True):
        assert (a.matches, a.impostors) == (b.matches, b.impostors)
        assert abs(a.brier - b.brier) <= 2 * coarse.resolution
        assert a.brier == pytest.approx(b.brier, abs=1e-4)
        assert a.log_loss == pytest.approx(b.log_loss, abs=1e-4)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), ties=st.booleans(), exact=st.sampled_from([0, 1 << 20]))
def test_tiles_and_the_order_of_the_gallery_change_nothing(
    calibration: Calibration, seed: int, ties: bool, exact: int
) -> None:
    query, gallery = sides(seed, 20, 40, ties=ties)
    order = np.random.default_rng(seed).permutation(len(gallery))
    mixed = EmbeddedSet(gallery.embeddings[order.tolist()], gallery.identity[order], gallery.camera[order])
    wanted = None
    for rows, tile_rows in ((gallery, 1024), (gallery, 1), (gallery, 7), (mixed, 1024), (mixed, 7)):
        counts = count_pairs(query, rows, MATCHER, exact_pairs=exact, tile_rows=tile_rows)
        found = evaluate_reliability(counts, calibration, binning="count").to_dict()
        wanted = wanted or found
        assert found == wanted


def test_saying_nothing_scores_as_it_should(calibration: Calibration) -> None:
    flat = calibration.model_copy(
        update={"groups": [g.model_copy(update={"intercept": 0.0, "slope": 0.0}) for g in calibration.groups]}
    )
    found = evaluate_reliability(count_pairs(*sides(5, 30, 40), MATCHER), flat, binning="count").everything
    assert found.brier == pytest.approx(0.25)
    assert found.log_loss == pytest.approx(math.log(2))
    assert found.calibration_error == pytest.approx(0, abs=1e-9)
    certain = calibration.model_copy(
        update={"groups": [g.model_copy(update={"intercept": 900.0, "slope": 0.0}) for g in calibration.groups]}
    )
    assert math.isfinite(evaluate_reliability(count_pairs(*sides(5, 30, 40), MATCHER), certain).everything.log_loss)


def test_a_number_of_slots_without_matches_has_no_score(calibration: Calibration) -> None:
    query, gallery = sides(6, 30, 40)
    both = [
        EmbeddedSet(PartEmbeddings(("global", "part"), r.embeddings.embeddings, torch.ones(len(r), 2)), *labels)
        for r, labels in ((query, (query.identity, query.camera)), (gallery, (gallery.identity, gallery.camera)))
    ]
    found = evaluate_reliability(count_pairs(*both, MATCHER), calibration)
    assert math.isnan(found.groups[0].brier)
    assert found.groups[0].bins == ()
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["groups"][0]["brier"] is None
    assert found.groups[1].brier == found.everything.brier


def test_it_is_tested_on_other_people_with_the_same_matcher(calibration: Calibration) -> None:
    counts = count_pairs(*sides(1, 60, 80, first=107), MATCHER)
    with pytest.raises(EvaluationError, match="1 of the 8 people asked or searched for, such as 'bo'"):
        evaluate_reliability(counts, calibration, data="drawn", people=["bo", *"abcdefg"])
    evaluate_reliability(counts, calibration, data="another", people=["bo"])
    with pytest.raises(CalibrationError, match="the matcher"):
        evaluate_reliability(count_pairs(*sides(2, 20, 30), PlainMatcher()), calibration)
    for wrong in ({"bins": 0}, {"binning": "mass"}, {"prior": 0.0}, {"prior": 1.0}):
        with pytest.raises(EvaluationError, match="give at least one bin"):
            evaluate_reliability(counts, calibration, **wrong)


def test_it_prints_and_writes_what_it_stands_on(calibration: Calibration) -> None:
    counts = count_pairs(*sides(7, 40, 50), MATCHER)
    found = evaluate_reliability(counts, calibration, data="drawn", fingerprint="x@1")
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["everything"]["bins"][0]["matches"] == found.everything.bins[0].matches
    console = Console(width=180, record=True, file=io.StringIO())
    console.print(found.table())
    shown = " ".join(console.export_text().split())
    for text in (f"{found.everything.brier:.4f}", "1 shared slot ", "2 shared slots", "matches weigh 0.5"):
        assert text in shown
    page = found.to_markdown()
    for text in ("| observed |", "- calibrated on: 60 queries and 80 gallery images of 2 people of drawn", "x@1"):
        assert text in page
