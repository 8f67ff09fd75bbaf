"""Unknown people: what passes a threshold, counted by loops; and people who are never on both sides of a test."""

import io
import json
import math

import numpy as np
import pytest
import torch
from rich.console import Console

from occluded_reid.calibration.calibration import Calibration
from occluded_reid.embeddings import EmbeddedSet, PartEmbeddings
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.open_set.threshold import evaluate_open_set, split_people
from occluded_reid.matchers import PlainMatcher, VisibilityWeightedMatcher

NAMES = ("global", "part_1", "part_2")


def people(count: int, images: int, seed: int) -> EmbeddedSet:
    """Drawn people: a direction for each person and slot, with noise for each image; a third of the slots hidden."""
    generator = torch.Generator().manual_seed(seed)
    identity = torch.arange(count).repeat_interleave(images)
    centres = [torch.randn(count, 6, generator=generator)[identity] for _ in NAMES]
    slots = tuple(c + 0.5 * torch.randn(count * images, 6, generator=generator) for c in centres)
    visibility = (torch.rand(count * images, 3, generator=generator) >= 0.3).float()
    return EmbeddedSet(PartEmbeddings(NAMES, slots, visibility), identity.numpy(), np.arange(count * images) % 3)


def halves(rows: EmbeddedSet) -> tuple[EmbeddedSet, EmbeddedSet]:
    """Every third image asks, the others are searched."""
    asks = np.arange(len(rows)) % 3 == 0

    def part(which: np.ndarray) -> EmbeddedSet:
        index = np.flatnonzero(which)
        return EmbeddedSet(rows.embeddings[index.tolist()], rows.identity[index], rows.camera[index])

    return part(asks), part(~asks)


def by_loops(query: EmbeddedSet, gallery: EmbeddedSet) -> list[tuple[int, int, float, int]]:
    """(q, g, distance rounded to 1e-6, shared slots) of every pair, from the definition, in float64."""
    pairs = []
    sides = [[slot.double().numpy() for slot in rows.embeddings.embeddings] for rows in (query, gallery)]
    seen = [rows.embeddings.visibility.double().numpy() for rows in (query, gallery)]
    for q in range(len(query)):
        for g in range(len(gallery)):
            both = [s for s in range(3) if seen[0][q, s] * seen[1][g, s] > 0]
            cosines = [
                sides[0][s][q] @ sides[1][s][g] / np.linalg.norm(sides[0][s][q]) / np.linalg.norm(sides[1][s][g])
                for s in both
            ]
            pairs.append((q, g, round(1 - sum(cosines) / len(both), 6) if both else math.inf, len(both)))
    return pairs


def test_the_open_set_report_counts_as_loops_do() -> None:
    query, gallery = halves(people(15, 6, 7))
    matcher = VisibilityWeightedMatcher()
    found = Calibration.fit(*halves(people(15, 6, 8)), matcher, false_match_rate=0.1, per="comparison")
    report = evaluate_open_set(query, gallery, matcher, found, tile_rows=13)
    limit = {group.shared: group.threshold for group in found.groups} | {0: -math.inf}
    pairs = by_loops(query, gallery)
    unknown, known, there = set(), set(), set()
    for q, g, d, n in pairs:
        if query.identity[q] != gallery.identity[g]:
            unknown |= {q} if d <= limit[n] else set()
        elif query.camera[q] != gallery.camera[g]:
            there.add(q)
            known |= {q} if d <= limit[n] else set()
    assert (report.unknown_answered.count, report.unknown_answered.total) == (len(unknown), len(query))
    assert (report.known_found.count, report.known_found.total) == (len(known), len(there))
    for shared, share in report.impostors.items():
        mine = [d for q, g, d, n in pairs if query.identity[q] != gallery.identity[g] and n == shared]
        assert (share.count, share.total) == (sum(d <= limit[shared] for d in mine), len(mine))
        assert 0 <= share.interval.low <= share.value <= share.interval.high <= 1
    accepted, total = (sum(getattr(s, what) for s in report.impostors.values()) for what in ("count", "total"))
    assert report.false_match_rate == accepted / total
    printed = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert printed["known_found"]["count"] == len(known)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(report.table())
    shown = console.export_text()
    for share in (report.unknown_answered, report.known_found, *report.impostors.values(), *report.matches.values()):
        assert str(share) in shown


def test_intervals_are_those_of_drawn_people_however_many_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = halves(people(9, 6, 3))
    whole = evaluate_open_set(query, gallery, PlainMatcher(), 0.4, resamples=40, seed=2)
    found = dict.fromkeys(range(len(query)), 0)
    for q, g, d, _ in by_loops(
        *(
            EmbeddedSet(s.embeddings.with_visibility(torch.ones(len(s), 3)), s.identity, s.camera)
            for s in (query, gallery)
        )
    ):
        found[q] |= query.identity[q] != gallery.identity[g] and d <= 0.4
    shares = []
    for draw in np.random.default_rng(2).multinomial(9, [1 / 9] * 9, 40):
        times = [draw[query.identity[q]] for q in found]
        shares.append(sum(t * f for t, f in zip(times, found.values(), strict=True)) / sum(times))
    interval = whole.unknown_answered.interval
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(shares, [2.5, 97.5])))
    monkeypatch.setattr("occluded_reid.evaluation.bootstrap._CHUNK_VALUES", 20)
    assert evaluate_open_set(query, gallery, PlainMatcher(), 0.4, resamples=40, seed=2) == whole


def test_one_distance_for_all_pairs_is_a_threshold_too() -> None:
    query, gallery = halves(people(10, 6, 1))
    nobody, everybody = (evaluate_open_set(query, gallery, PlainMatcher(), t, resamples=5) for t in (-1.0, 2.0))
    assert (nobody.unknown_answered.count, nobody.known_found.count, nobody.false_match_rate) == (0, 0, 0)
    assert nobody.calibration is None
    assert everybody.unknown_answered.value == everybody.known_found.value == everybody.false_match_rate == 1
    assert str(everybody.impostors[1]) == "none"
    assert everybody.impostors[1].to_dict()["value"] is None


def test_nothing_to_ask_or_to_search_is_refused() -> None:
    query, gallery = halves(people(10, 6, 2))
    nothing = EmbeddedSet(gallery.embeddings[:0], [], [])
    with pytest.raises(EvaluationError, match="give at least one of each"):
        evaluate_open_set(query, nothing, PlainMatcher(), 0.5)
    with pytest.raises(EvaluationError, match="give at least one of each"):
        evaluate_open_set(query, gallery, PlainMatcher(), 0.5, resamples=0)


def test_people_of_the_calibration_are_not_tested_on() -> None:
    rows = people(30, 6, 16)
    query, gallery = halves(rows)
    (first, second), (third, fourth) = split_people(query, gallery, 0.4, seed=3)
    assert set(first.identity) == set(second.identity)
    assert len(set(first.identity)) == 12
    assert not set(first.identity) & set(third.identity)
    assert len(first) + len(third) == len(query)
    assert len(second) + len(fourth) == len(gallery)
    again = split_people(query, gallery, 0.4, seed=3)
    assert again[0][0].identity.tolist() == first.identity.tolist()
    names = [str(person) for person in np.unique(first.identity)]
    others = [str(person) for person in np.unique(third.identity)]
    found = Calibration.fit(first, second, PlainMatcher(), false_match_rate=0.1, data="drawn", people=names)
    evaluate_open_set(third, fourth, PlainMatcher(), found, data="drawn", people=others, resamples=5)
    evaluate_open_set(first, second, PlainMatcher(), found, data="another", people=names, resamples=5)
    with pytest.raises(EvaluationError, match="12 of the 12 people asked or searched for"):
        evaluate_open_set(first, second, PlainMatcher(), found, data="drawn", people=names)
    with pytest.raises(EvaluationError, match="12 of the 30 people asked or searched for"):
        evaluate_open_set(third, gallery, PlainMatcher(), found, data="drawn", people=[*names, *others])
    for share in (0.0, 1.0, 0.001):
        with pytest.raises(EvaluationError, match=r"share|split"):
            split_people(query, gallery, share)
