"""Searches for known and unknown people: every point and area as plain loops over the full matrix find them."""

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

from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.bootstrap import PeopleResampling
from occluded_reid.evaluation.open_set.identification import evaluate_identification
from occluded_reid.matchers import VisibilityWeightedMatcher

from .drawn_sides import sides as drawn

RATES = (0.01, 0.05, 0.1, 0.5)
FEW = PeopleResampling(resamples=30)


def sides(seed: int, queries: int, rows: int, *, ties: bool = False) -> list[EmbeddedSet]:
    """Ten people, four slots in ten hidden."""
    return drawn(seed, queries, rows, people=10, noise=0.6, hidden=0.4, ties=ties)


def distances(query: EmbeddedSet, gallery: EmbeddedSet) -> np.ndarray:
    """(Nq, Ng) from the definition, rounded to 1e-6; infinite without a shared slot."""
    vectors = [[slot.double().numpy() for slot in rows.embeddings.embeddings] for rows in (query, gallery)]
    seen = [rows.embeddings.visibility.numpy() for rows in (query, gallery)]
    found = np.full((len(query), len(gallery)), np.inf)
    for q in range(len(query)):
        for g in range(len(gallery)):
            both = [s for s in range(2) if seen[0][q, s] and seen[1][g, s]]
            if both:
                pairs = [(vectors[0][s][q], vectors[1][s][g]) for s in both]
                each = [1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in pairs]
                found[q, g] = round(sum(each) / len(each), 6)
    return found


def by_loops(query: EmbeddedSet, gallery: EmbeddedSet, absent: set[int] | None = None):
    """(person, distance) of unknown searches; (person, mate's distance, rank, nearest of all) of known ones."""
    distance = distances(query, gallery)
    unknown, known = [], []
    for q in range(len(query)):
        person = int(query.identity[q])
        impostors, mates = [], []
        for g in range(len(gallery)):
            if absent is not None and int(gallery.identity[g]) in absent:
                continue
            if gallery.identity[g] != person:
                impostors.append(distance[q, g])
            elif gallery.camera[g] != query.camera[q]:
                mates.append(distance[q, g])
        near = min(mates, default=math.inf)
        if absent is None or person in absent:
            unknown.append((person, min(impostors)))
        if mates and (absent is None or person not in absent):
            rank = 1 + sum(d <= near for d in impostors) if near < math.inf else math.inf
            known.append((person, near, rank, min(near, min(impostors))))
    return unknown, known


def best(unknown, known, rate: float, rank: int) -> tuple[int, int]:
    """The most known people found by any threshold at which no more than `rate` of the unknown are answered."""
    alarms = found = 0
    for limit in sorted({d for _, d in unknown} | {d for _, d, _, _ in known}):
        if limit < math.inf and sum(d <= limit for _, d in unknown) <= rate * len(unknown):
            alarms = sum(d <= limit for _, d in unknown)
            found = sum(d <= limit and r <= rank for _, d, r, _ in known)
    return alarms, found


def area(far: list[float], near: list[float]) -> float:
    return sum((a > b) + (a == b) / 2 for a in far for b in near) / (len(far) * len(near))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("absent", [None, {1, 4, 7}])
def test_points_and_areas_are_those_of_loops(ties: bool, absent: set[int] | None) -> None:
    query, gallery = sides(2, 60, 80, ties=ties)
    found = evaluate_identification(
        query,
        gallery,
        VisibilityWeightedMatcher(),
        not_enrolled=absent,
        ranks=(1, 3),
        false_alarm_rates=RATES,
        resampling=FEW,
    )
    unknown, known = by_loops(query, gallery, absent)
    assert found.unknown.tolist() == [d for _, d in unknown]
    assert found.mate.tolist() == [d for _, d, _, _ in known]
    assert found.rank.tolist() == [0 if r == math.inf else r for _, _, r, _ in known]
    seen = set()
    for rank in (1, 3):
        for rate in RATES:
            point = found.at(rate, rank)
            if rate * len(unknown) < 1:
                assert point.found is point.below is point.attained is None
                assert str(point) == "too few unknown searches"
                continue
            alarms, hits = best(unknown, known, rate, rank)
            assert (point.found.count, point.found.total) == (hits, len(known))
            assert point.attained == alarms / len(unknown) <= rate
            assert sum(d < point.below for _, d in unknown) == alarms
            assert 0 <= point.found.interval.low <= point.found.interval.high <= 1
            seen.add(hits)
        threshold, alarm, hit = found.curve(rank)
        finite = sorted({d for _, d in unknown} | {d for _, d, _, _ in known} - {math.inf})
        assert threshold.tolist() == [d for d in finite if d < math.inf]
        for t, a, h in zip(threshold, alarm, hit, strict=True):
            assert a == sum(d <= t for _, d in unknown) / len(unknown)
            assert h == sum(d <= t and r <= rank for _, d, r, _ in known) / len(known)
        rates, shares = found.best(rank)
        assert rates.tolist() == sorted(set(alarm.tolist()))
        for a, h in zip(rates, shares, strict=True):
            assert h == max(hit[alarm == a])
    assert len(seen) > 2
    far = [d for _, d in unknown]
    for area_found, near in ((found.auroc, [f for *_, f in known]), (found.auroc_mate, [d for _, d, _, _ in known])):
        assert area_found.value == pytest.approx(area(far, near), abs=1e-12)
        score = -np.minimum([*near, *far], 1e9)
        assert area_found.value == pytest.approx(roc_auc_score([1] * len(near) + [0] * len(far), score), abs=1e-9)
        assert area_found.interval.low <= area_found.interval.high


@pytest.mark.parametrize("ties", [False, True])
def test_intervals_draw_people_with_all_their_searches(ties: bool) -> None:
    query, gallery = sides(11, 50, 60, ties=ties)
    found = evaluate_identification(
        query, gallery, VisibilityWeightedMatcher(), ranks=(1,), false_alarm_rates=(0.1,), resampling=FEW
    )
    unknown, known = by_loops(query, gallery)
    people = sorted(set(query.identity.tolist()))
    draws = np.random.default_rng(0).multinomial(len(people), [1 / len(people)] * len(people), 30)
    shares, areas = [], []
    for draw in draws:
        times = dict(zip(people, draw.tolist(), strict=True))
        u = [search for search in unknown for _ in range(times[search[0]])]
        k = [search for search in known for _ in range(times[search[0]])]
        shares.append(best(u, k, 0.1, 1)[1] / len(k))
        areas.append(area([d for _, d in u], [f for *_, f in k]))
    point = found.at(0.1).found
    assert [point.interval.low, point.interval.high] == pytest.approx(np.percentile(shares, [2.5, 97.5]), abs=1e-12)
    ends = [found.auroc.interval.low, found.auroc.interval.high]
    assert ends == pytest.approx(np.percentile(areas, [2.5, 97.5]), abs=1e-12)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), ties=st.booleans())
def test_tiles_and_the_order_of_the_gallery_change_nothing(seed: int, ties: bool) -> None:
    query, gallery = sides(seed, 25, 40, ties=ties)
    order = np.random.default_rng(seed).permutation(len(gallery))
    mixed = EmbeddedSet(gallery.embeddings[order.tolist()], gallery.identity[order], gallery.camera[order])
    wanted = None
    for rows, tile_rows in ((gallery, 1024), (gallery, 1), (gallery, 7), (mixed, 1024), (mixed, 7)):
        found = evaluate_identification(
            query, rows, VisibilityWeightedMatcher(), false_alarm_rates=(0.1,), resampling=FEW, tile_rows=tile_rows
        ).to_dict()
        wanted = wanted or found
        assert found == wanted


def test_people_who_look_all_alike_are_ties() -> None:
    rows = PartEmbeddings(("global",), (torch.ones(6, 3),), torch.ones(6, 1))
    people = EmbeddedSet(rows, np.arange(6) % 3, np.arange(6) // 3)
    found = evaluate_identification(people, people, VisibilityWeightedMatcher(), resampling=FEW, ranks=(1, 5))
    assert found.auroc.value == found.auroc_mate.value == 0.5
    assert found.rank.tolist() == [5] * 6  # four impostors as near as the mate stand before it
    assert [p.found for p in found.points[:2]] == [None, None]


def test_it_prints_and_writes_what_it_stands_on() -> None:
    query, gallery = sides(4, 40, 50)
    found = evaluate_identification(
        query, gallery, VisibilityWeightedMatcher(), resampling=FEW, data="drawn", fingerprint="tiny@1"
    )
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["points"][2]["found"]["count"] == found.at(0.1).found.count
    assert written["points"][0] == {
        "rank": 1,
        "false_alarm_rate": 0.001,
        "below": None,
        "attained": None,
        "found": None,
    }
    console = Console(width=180, record=True, file=io.StringIO())
    console.print(found.table())
    shown = " ".join(console.export_text().split())
    for text in (str(found.at(0.1)), str(found.auroc), "0.1 % unknown", "too few unknown searches", "none to deploy"):
        assert text in shown
    page = found.to_markdown()
    for text in ("| value |", str(found.auroc_mate), "- data: drawn", "tiny@1", "30 resamples of the people"):
        assert text in page
    with pytest.raises(EvaluationError, match=r"no point of false-alarm rate 0\.2 and rank 1"):
        found.at(0.2)


def test_what_cannot_be_asked_is_refused() -> None:
    query, gallery = sides(5, 20, 30)
    matcher = VisibilityWeightedMatcher()
    for wrong in ({"ranks": ()}, {"ranks": (0,)}, {"false_alarm_rates": (0.0,)}, {"false_alarm_rates": (1.0,)}):
        with pytest.raises(EvaluationError, match="give ranks from 1"):
            evaluate_identification(query, gallery, matcher, **wrong)
    nothing = EmbeddedSet(gallery.embeddings[:0], [], [])
    with pytest.raises(EvaluationError, match="20 queries, 0 gallery images"):
        evaluate_identification(query, nothing, matcher)
    with pytest.raises(EvaluationError, match="tiles of 0 rows"):
        evaluate_identification(query, gallery, matcher, tile_rows=0)
    with pytest.raises(EvaluationError, match="0 for a person who is not"):
        evaluate_identification(query, gallery, matcher, not_enrolled={99})
    strangers = EmbeddedSet(gallery.embeddings, gallery.identity + 100, gallery.camera)
    with pytest.raises(EvaluationError, match="make 0 searches for a person in the gallery"):
        evaluate_identification(query, strangers, matcher)
    for wrong in ({"resamples": 0}, {"confidence": 1.0}):
        with pytest.raises(EvaluationError, match="wanted at least 1"):
            PeopleResampling(**wrong)
