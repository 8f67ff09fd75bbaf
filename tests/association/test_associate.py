"""Association against average link over all pairs, written as a loop; and what it promises."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from occluded_reid.association import Decisions, Tracks, associate, calibrate_joins, measure
from occluded_reid.embeddings import PartEmbeddings
from occluded_reid.errors import AssociationError, CalibrationError
from occluded_reid.matchers import PlainMatcher


def naive(tracks, learnt, join, forbidden=lambda i, j: False):
    """Average link over all pairs, from the definition, in float64."""
    count = len(tracks)
    odds = {}
    vectors = [e.double() for e in tracks.embeddings.embeddings]
    seen = tracks.embeddings.visibility.double()
    for i, j in combinations(range(count), 2):
        weight = [float(seen[i, s] * seen[j, s]) for s in range(2)]
        shared = sum(w > 0 for w in weight)
        if not shared:
            continue
        far = sum(
            w * (1 - float(v[i] @ v[j] / (v[i].norm() * v[j].norm()))) for w, v in zip(weight, vectors, strict=True)
        ) / sum(weight)
        group = learnt.calibration.groups[shared - 1]
        odds[i, j] = group.intercept + group.slope * round(far, 6)
    clusters = [[i] for i in range(count)]
    while True:
        best = None
        for a, b in combinations(range(len(clusters)), 2):
            pairs = [tuple(sorted((i, j))) for i in clusters[a] for j in clusters[b]]
            known = [odds[p] for p in pairs if p in odds]
            if known and not any(forbidden(*p) for p in pairs):
                mean = round(sum(known) / len(known), 9)
                if best is None or mean > best[0]:
                    best = mean, a, b
        if best is None or best[0] < math.log(join / (1 - join)):
            return {frozenset(tracks.names[i] for i in c) for c in clusters}
        clusters[best[1]] += clusters.pop(best[2])


def groups(found):
    return {frozenset(each.tracks) for each in found.identities}


@pytest.mark.parametrize("seed", range(4))
def test_average_link_over_all_pairs(drawn, matcher, learnt, seed):
    tracks, _ = drawn(9, seed=seed, noise=0.7)
    found = associate(tracks, matcher, **learnt.options(), neighbors=len(tracks))
    assert groups(found) == naive(tracks, learnt, learnt.join)
    assert 1 < len(found) < len(tracks)


def test_people_are_found_without_their_number(drawn, matcher, learnt):
    tracks, person = drawn(60, seed=5, noise=0.4)
    found = associate(tracks, matcher, **learnt.options())
    got = measure(person, found.identity)
    assert got.b3_f1 > 0.8
    assert got.b3_f1 > measure(person, np.arange(len(person))).b3_f1 + 0.3
    assert str(found).startswith(f"240 tracks are {got.identities} identities")


def test_the_order_of_the_tracks_changes_nothing(drawn, matcher, learnt):
    tracks, _ = drawn(30, seed=6, noise=0.7)
    order = np.random.default_rng(0).permutation(len(tracks))
    one, two = (associate(t, matcher, **learnt.options()) for t in (tracks, tracks[order]))
    assert one.to_dict() == two.to_dict()
    assert one.identity[order].tolist() == two.identity.tolist()


def test_two_boxes_in_one_frame_are_two_people(matcher, learnt):
    rows = PartEmbeddings(("global", "part_1"), (torch.ones(3, 8), torch.ones(3, 8)), torch.ones(3, 2))
    apart = Tracks(rows, ("a", "b", "c"), (1, 1, 2), [0.0, 5.0, 0.0], [5.0, 9.0, 5.0])
    found = associate(apart, matcher, **learnt.options())
    assert found["a"] != found["b"]
    assert len(found) == 2
    later = Tracks(rows, ("a", "b", "c"), (1, 1, 2), [0.0, 5.1, 0.0], [5.0, 9.0, 5.0])
    assert len(associate(later, matcher, **learnt.options())) == 1
    untimed = Tracks(rows, ("a", "b", "c"), (1, 1, 2))
    assert len(associate(untimed, matcher, **learnt.options())) == 1


def test_constraints_hold_in_every_cluster(drawn, matcher, learnt):
    tracks, _ = drawn(12, seed=7, noise=0.5)
    tracks = Tracks(tracks.embeddings, tracks.names, tracks.camera, tracks.start, tracks.start + 100)

    def overlap(i, j):
        return tracks.camera[i] == tracks.camera[j] and abs(tracks.start[i] - tracks.start[j]) <= 100

    found = associate(tracks, matcher, **learnt.options(), neighbors=len(tracks))
    for i, j in combinations(range(len(tracks)), 2):
        assert not (overlap(i, j) and found.identity[i] == found.identity[j])
    # The first pairs with equal means are the same only where nothing is forbidden from the start: compare in full.
    order = np.argsort(tracks.names)
    assert groups(found) == naive(
        tracks[order], learnt, learnt.join, lambda i, j: overlap(int(order[i]), int(order[j]))
    )


def test_nobody_walks_faster_than_the_gate(matcher, learnt):
    rows = PartEmbeddings(("global", "part_1"), (torch.ones(2, 8), torch.ones(2, 8)), torch.ones(2, 2))
    tracks = Tracks(rows, ("a", "b"), (1, 2), [0.0, 10.0], [4.0, 12.0])
    assert len(associate(tracks, matcher, **learnt.options(), travel={(1, 2): 6.0})) == 1
    assert len(associate(tracks, matcher, **learnt.options(), travel={(1, 2): 6.1})) == 2
    assert len(associate(tracks, matcher, **learnt.options(), travel={(2, 1): 6.1})) == 2
    assert len(associate(tracks, matcher, **learnt.options(), travel={(2, 1): 6.1, (1, 2): 0})) == 1
    with pytest.raises(AssociationError, match="travel"):
        associate(tracks, matcher, **learnt.options(), travel={(1, 2): -1.0})


def test_decisions_win(drawn, matcher, learnt):
    tracks, _ = drawn(20, seed=8, noise=0.5)
    free = associate(tracks, matcher, **learnt.options())
    pair = next(each.tracks for each in free.identities if len(each.tracks) > 2)
    one, two = free.identities[0].tracks[0], free.identities[1].tracks[0]
    log = Decisions()
    log.decide(pair[0], pair[1], "different")
    log.decide(one, two, "same")
    log.decide("gone", one, "same")
    bound = associate(tracks, matcher, **learnt.options(), decisions=log)
    assert bound[pair[0]] != bound[pair[1]]
    assert bound[one] == bound[two]
    log.decide(pair[0], pair[1], "withdrawn")
    log.decide(one, two, "withdrawn")
    assert groups(associate(tracks, matcher, **learnt.options(), decisions=log)) == groups(free)
    log.decide("t000", "t001", "same")
    log.decide("t001", "t002", "same")
    log.decide("t002", "t000", "different")
    with pytest.raises(AssociationError, match="Withdraw"):
        associate(tracks, matcher, **learnt.options(), decisions=log)


def test_decisions_come_back_from_their_file(tmp_path):
    log = Decisions()
    log.decide("a", "b", "same", by="Ada", note="the same umbrella")
    log.decide("b", "a", "different")
    log.save(tmp_path / "decisions.json")
    again = Decisions.load(tmp_path / "decisions.json")
    assert again.log == log.log
    assert len(again.without(["a"])) == 0
    with pytest.raises(AssociationError, match="twice"):
        log.decide("a", "a", "same")
    with pytest.raises(AssociationError, match="verdict"):
        log.decide("a", "b", "perhaps")
    (tmp_path / "decisions.json").write_text('{"format": "occluded_reid.decisions", "format_version": 1}')
    with pytest.raises(AssociationError, match="damaged"):
        Decisions.load(tmp_path / "decisions.json")


def test_what_cannot_be_seen_is_kept_apart(matcher, learnt):
    rows = PartEmbeddings(
        ("global", "part_1"), (torch.ones(3, 8), torch.ones(3, 8)), torch.tensor([[1.0, 1], [1, 1], [0, 0]])
    )
    found = associate(Tracks(rows, ("a", "b", "c"), (1, 2, 3)), matcher, **learnt.options())
    assert found.hidden == ("c",)
    assert found["a"] == found["b"] != found["c"]
    assert [each.confidence for each in found.identities if not each.visible] == [0.0]


def test_confidence_and_close_calls_are_probabilities(drawn, matcher, learnt):
    tracks, _ = drawn(30, seed=9, noise=0.8)
    found = associate(tracks, matcher, **learnt.options())
    assert all(0 <= each.confidence <= min(each.cohesion, 1 - each.rival) for each in found.identities)
    assert {call.joined for call in found.uncertain} == {True, False}
    for call in found.uncertain:
        assert call.joined == (call.probability >= found.join)
        if not call.joined:
            assert found[call.first] != found[call.second]


def test_the_threshold_is_the_best_of_all(drawn, matcher):
    tracks, person = drawn(25, seed=11, noise=0.7)
    learnt = calibrate_joins(tracks, person, matcher)
    reached = measure(person, associate(tracks, matcher, **learnt.options()).identity).b3_f1
    assert reached == pytest.approx(learnt.b3_f1)
    for join in np.linspace(0.01, 0.99, 25):
        other = associate(tracks, matcher, learnt.calibration, join=float(join))
        assert measure(person, other.identity).b3_f1 <= reached + 1e-12


def test_bad_arguments_are_named(drawn, matcher, learnt):
    tracks, person = drawn(5, seed=1)
    with pytest.raises(AssociationError, match="join"):
        associate(tracks, matcher, learnt.calibration, join=1.0)
    with pytest.raises(AssociationError, match="Tracks"):
        associate(tracks.embeddings, matcher, learnt.calibration)
    with pytest.raises(CalibrationError, match="matcher"):
        associate(tracks, PlainMatcher(), learnt.calibration)
    with pytest.raises(AssociationError, match="name"):
        Tracks(tracks.embeddings, ("a",) * len(tracks))
    with pytest.raises(AssociationError, match="start"):
        Tracks(tracks.embeddings, tracks.names, (), np.ones(len(tracks)), np.zeros(len(tracks)))
    with pytest.raises(AssociationError, match="camera"):
        calibrate_joins(Tracks(tracks.embeddings, tracks.names), person, matcher)
