"""One person, one number across cameras, without knowing how many people there are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from occluded_reid.arguments import checked, shown
from occluded_reid.association.agglomerate import Clusters, Merge
from occluded_reid.association.candidates import find_candidates
from occluded_reid.association.decisions import Decisions
from occluded_reid.association.evidence import Evidence, TravelTimes, travel_gates
from occluded_reid.association.result import Association, Identity, Join
from occluded_reid.association.tracks import Tracks
from occluded_reid.calibration.calibration import Calibration
from occluded_reid.errors import AssociationError
from occluded_reid.matchers.base import Matcher

__all__ = ["associate", "decided_rows", "log_odds_of", "probability_of"]

_CLOSE = 3.0  # log-odds on either side of the threshold: what lies there is a close call


@checked(AssociationError, but=("tracks", "matcher", "travel"))
def associate(
    tracks: Tracks,
    matcher: Matcher,
    calibration: Calibration,
    *,
    join: float = 0.5,
    prior: float | None = None,
    neighbors: int = 20,
    travel: TravelTimes | None = None,
    decisions: Decisions | None = None,
    uncertain: int = 50,
    device: str = "cpu",
) -> Association:
    """Find out which tracks are of one person.

    Every track looks for its `neighbors` nearest; pairs that name each other are candidates. Distances become log-odds
    by the calibration, each by the number of slots that both tracks show. Then the two clusters whose pairs have the
    greatest mean log-odds are joined, again and again, as long as that mean is a probability of at least `join`
    (average link). Never together are two tracks of one camera that overlap in time, tracks between which no person
    can have walked (`travel`), and what a decision keeps apart; always together is what a decision puts together.

    The answer depends neither on the order of the tracks nor on tiles, threads or device. Work is about N² / 2 products
    of rows in the search and N · `neighbors` pairs after it; memory is the rows, N · `neighbors` numbers and a tile.

    Args:
        tracks: N tracks.
        matcher: the distance.
        calibration: made with tracks like these, of other people, and this matcher.
        join: probability from which on two clusters are one person. `JoinCalibration` finds it on other people.
        prior: probability of a match beforehand; None is the calibration's.
        neighbors: of a track; more find more, and cost more.
        travel: (camera, camera) -> the least seconds from the end of a track in one to the start of one in the other.
        decisions: what people have decided; it wins against everything else. Names that are not among the tracks are
            passed over.
        uncertain: the number of close calls that are reported.
        device: where the search multiplies.

    Raises:
        AssociationError: an argument makes no sense, or decisions contradict each other.
        CalibrationError: the calibration is for another matcher or other slots.
    """
    if not isinstance(tracks, Tracks):
        raise AssociationError(f"tracks is {shown(tracks)}; give Tracks, as Tracks.embed(model, tracklets) makes them.")
    if not isinstance(matcher, Matcher):
        raise AssociationError(f"matcher is {shown(matcher)}; give a Matcher, such as model.matcher.")
    if not 0 < join < 1 or neighbors < 1 or uncertain < 0:
        raise AssociationError(
            f"join is {join}, neighbors {neighbors} and uncertain {uncertain}; give a probability between 0 and 1, at "
            "least 1, and at least 0."
        )
    travel_gates(travel, [])
    calibration.require(matcher=matcher, slots=tracks.embeddings.widths)
    order = np.array(sorted(range(len(tracks)), key=lambda row: tracks.names[row]), dtype=np.int64)
    sorted_tracks = tracks[order]
    together, different = decided_rows(decisions or Decisions(), sorted_tracks.names)
    evidence = Evidence(sorted_tracks, matcher, calibration, prior=prior, travel=travel, different=different)
    least = log_odds_of(join)
    candidates = find_candidates(evidence, neighbors, floor=least - _CLOSE, device=device)
    clusters = Clusters(evidence, candidates, together)
    merges = list(clusters.run(least))
    labels = clusters.labels()
    number = {int(cluster): n for n, cluster in enumerate(np.unique(labels), start=1)}
    identity = np.empty(len(tracks), dtype=np.int64)
    identity[order] = [number[int(cluster)] for cluster in labels]
    return Association(
        names=tracks.names,
        identity=identity,
        identities=_identities(clusters, number),
        uncertain=_close_calls(clusters, merges, least)[:uncertain],
        join=join,
    )


def log_odds_of(probability: float) -> float:
    """Return log p / (1 - p)."""
    return math.log(probability / (1 - probability))


def probability_of(log_odds: float) -> float:
    """Return the p of log p / (1 - p)."""
    return 1 / (1 + math.exp(-min(max(log_odds, -700.0), 700.0)))


def decided_rows(decisions: Decisions, names: Sequence[str]) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Return what is decided in numbers of rows: groups that are one person, and pairs of two people.

    Raises:
        AssociationError: a decision keeps two tracks apart that others put together.
    """
    place = {name: row for row, name in enumerate(names)}
    root = list(range(len(names)))

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for a, b in decisions.pairs("same"):
        if a in place and b in place:
            one, two = sorted((find(place[a]), find(place[b])))
            root[two] = one
    different = []
    for a, b in decisions.pairs("different"):
        if a in place and b in place:
            if find(place[a]) == find(place[b]):
                raise AssociationError(
                    f"'{a}' and '{b}' are two people by one decision and one by others. Withdraw one of them."
                )
            different.append((place[a], place[b]))
    groups: dict[int, list[int]] = {}
    for row in range(len(names)):
        groups.setdefault(find(row), []).append(row)
    return [group for _, group in sorted(groups.items()) if len(group) > 1], different


def _identities(clusters: Clusters, number: dict[int, int]) -> tuple[Identity, ...]:
    tracks, hidden = clusters.evidence.tracks, clusters.evidence.hidden
    rival = dict.fromkeys(number, 0.0)
    for a, b, link in clusters.rivals():
        for cluster in (a, b):
            rival[cluster] = max(rival[cluster], probability_of(link.mean))
    found = []
    for (cluster, own), link in zip(number.items(), clusters.cohesion(number), strict=True):
        rows = clusters.members[cluster]
        visible = len(rows) > 1 or not hidden[rows[0]]
        cohesion = probability_of(link.mean) if link.pairs else 1.0
        found.append(
            Identity(
                number=own,
                tracks=tuple(tracks.names[row] for row in rows),
                cameras=tuple(sorted({c for row in rows if (c := tracks.camera[row]) is not None})),
                confidence=min(cohesion, 1 - rival[cluster]) if visible else 0.0,
                cohesion=cohesion,
                rival=rival[cluster],
                visible=visible,
            )
        )
    return tuple(found)


def _close_calls(clusters: Clusters, merges: Sequence[Merge], least: float) -> tuple[Join, ...]:
    """The joins made and not made whose log-odds are nearest to the threshold."""
    names = clusters.evidence.tracks.names
    calls = [(abs(m.log_odds - least), m.first, m.second, m.log_odds, True) for m in merges]
    calls += [(abs(link.mean - least), a, b, link.mean, False) for a, b, link in clusters.rivals()]
    return tuple(
        Join(names[a], names[b], probability_of(odds), joined)
        for far, a, b, odds, joined in sorted(calls)
        if far <= _CLOSE
    )
