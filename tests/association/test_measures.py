"""Every measure against a loop over all tracks and pairs."""

from __future__ import annotations

from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from occluded_reid.association.measures import compare_b_cubed, identity_switches, measure
from occluded_reid.errors import AssociationError
from occluded_reid.evaluation.bootstrap import PeopleResampling

LABELS = st.integers(1, 12).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n) for _ in range(2)])
)


@given(LABELS)
def test_against_naive_loops(both: tuple[list[int], list[int]]) -> None:
    truth, found = both
    count = len(truth)
    got = measure(truth, found)
    precision = recall = jaccard = 0.0
    for i in range(count):
        mine = {j for j in range(count) if found[j] == found[i]}
        true = {j for j in range(count) if truth[j] == truth[i]}
        precision += len(mine & true) / len(mine) / count
        recall += len(mine & true) / len(true) / count
        jaccard += len(mine & true) / len(mine | true) / count
    assert got.b3_precision == pytest.approx(precision)
    assert got.b3_recall == pytest.approx(recall)
    assert got.b3_f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert got.assa == pytest.approx(jaccard)
    put = {p for p in combinations(range(count), 2) if found[p[0]] == found[p[1]]}
    true_pairs = {p for p in combinations(range(count), 2) if truth[p[0]] == truth[p[1]]}
    assert got.pair_precision == pytest.approx(len(put & true_pairs) / len(put) if put else 1)
    assert got.pair_recall == pytest.approx(len(put & true_pairs) / len(true_pairs) if true_pairs else 1)
    purity = sum(max(sum(truth[j] == p for j in range(count) if found[j] == f) for p in set(truth)) for f in set(found))
    assert got.purity == pytest.approx(purity / count)
    # IDF1: every way to give people identities, each at most once.
    people, identities = sorted(set(truth)), sorted(set(found))
    slots = [*identities, *[-1] * len(people)]
    best = max(
        sum(truth[i] == p and found[i] == f for i in range(count) for p, f in zip(people, chosen, strict=True))
        for chosen in set(permutations(slots, len(people)))
    )
    assert got.idf1 == pytest.approx(2 * best / (2 * best + (count - best) + (count - best)))


def test_switches_follow_the_clock() -> None:
    truth, found, start = [1, 2, 1, 1, 2], [5, 5, 6, 5, 5], [0.0, 1.0, 3.0, 2.0, 9.0]
    switches = 0
    for person in set(truth):
        tracks = sorted((s, f) for t, f, s in zip(truth, found, start, strict=True) if t == person)
        switches += sum(a[1] != b[1] for a, b in pairwise(tracks))
    assert identity_switches(truth, found, start) == switches == 1
    assert measure(truth, found, start=start).switches == 1


def test_an_interval_is_of_people() -> None:
    truth = np.repeat(np.arange(20), 4)
    right, wrong = truth, np.arange(len(truth))
    one, two, difference = compare_b_cubed(truth, right, wrong, PeopleResampling(resamples=200))
    assert (one.low, one.high) == (1.0, 1.0)
    assert two.low == pytest.approx(0.4)  # precision 1, recall 1/4 for everybody
    assert difference.value == pytest.approx(0.6)
    assert difference.clear
    mixed = truth.copy()
    mixed[:20] = np.arange(100, 120)
    low, high = (getattr(compare_b_cubed(truth, mixed, wrong)[0], side) for side in ("low", "high"))
    assert low < measure(truth, mixed).b3_f1 < high


@pytest.mark.parametrize(("truth", "found"), [([], []), ([1], [1, 2]), ([[1]], [[1]]), (["a"], [1])])
def test_what_fits_no_measure_is_refused(truth: list[int], found: list[int]) -> None:
    with pytest.raises(AssociationError):
        measure(truth, found)
