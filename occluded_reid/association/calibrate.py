"""From which probability on two clusters are one person: found on labelled tracks of other people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from occluded_reid.arguments import check_fields, checked, shown
from occluded_reid.association.agglomerate import Clusters
from occluded_reid.association.associate import log_odds_of, probability_of
from occluded_reid.association.candidates import find_candidates
from occluded_reid.association.evidence import Evidence, TravelTimes, travel_gates
from occluded_reid.association.measures import measure
from occluded_reid.association.tracks import Tracks
from occluded_reid.calibration.calibration import Calibration
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import AssociationError
from occluded_reid.files import read_json, write_json
from occluded_reid.matchers.base import Matcher
from occluded_reid.numbered import whole_numbers

__all__ = ["JoinCalibration", "calibrate_joins"]

_FORMAT = "occluded_reid.joins"
_LEAST = 1e-4  # a smaller probability is no candidate for a threshold


@dataclass(frozen=True)
class JoinCalibration:
    """What was learnt from labelled tracks.

    Attributes:
        calibration: log-odds of pairs of tracks.
        join: the probability for `associate(join=…)`.
        b3_f1: what it reached on these people, who are not a test.
    """

    calibration: Calibration
    join: float
    b3_f1: float

    def __post_init__(self) -> None:
        check_fields(self, AssociationError)
        if not 0 < self.join < 1:
            raise AssociationError(f"join is {self.join}; give a probability between 0 and 1.")

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            AssociationError: the file cannot be written.
        """
        content = {
            "format": _FORMAT,
            "format_version": 1,
            "join": self.join,
            "b3_f1": self.b3_f1,
            "calibration": self.calibration.model_dump(mode="json"),
        }
        write_json(path, content, AssociationError)

    @staticmethod
    def load(path: str | Path) -> JoinCalibration:
        """Read what `save` has written.

        Raises:
            AssociationError: the file is missing, damaged, or something else.
        """
        content = read_json(path, AssociationError)
        if not isinstance(content, dict) or content.get("format") != _FORMAT or content.get("format_version") != 1:
            raise AssociationError(f"'{path}' holds no join calibration; write one with JoinCalibration.save().")
        try:
            found = JoinCalibration(
                Calibration.model_validate(content["calibration"]), float(content["join"]), float(content["b3_f1"])
            )
        except (KeyError, TypeError, ValueError) as cause:
            raise AssociationError(f"the join calibration '{path}' is damaged: {cause}. Calibrate again.") from cause
        return found

    def options(self) -> dict[str, Any]:
        """Return what `associate` takes."""
        return {"calibration": self.calibration, "join": self.join}


@checked(AssociationError, only=("neighbors", "data", "fingerprint"))
def calibrate_joins(
    tracks: Tracks,
    identity: np.ndarray | list[int],
    matcher: Matcher,
    *,
    neighbors: int = 20,
    travel: TravelTimes | None = None,
    fingerprint: str | None = None,
    data: str = "",
) -> JoinCalibration:
    """Calibrate pairs of tracks, and choose the join threshold with the best B³ F1, on people not tested on later.

    All thresholds are tried in one run, because a higher one is the beginning of the same run. Of equal ones the most
    cautious is taken, halfway (in log-odds) to the next join that was not made.

    Args:
        tracks: N tracks of several people, of whom some were seen by several cameras.
        identity: (N,) who they are.
        matcher: the distance.
        neighbors: as for `associate`.
        travel: as for `associate`.
        fingerprint: of the model.
        data: name of the data.

    Raises:
        AssociationError: the labels do not fit, or no camera is known.
        CalibrationError: there are too few people.
    """
    if not isinstance(tracks, Tracks):
        raise AssociationError(f"tracks is {shown(tracks)}; give Tracks, as Tracks.embed(model, tracklets) makes them.")
    if not isinstance(matcher, Matcher):
        raise AssociationError(f"matcher is {shown(matcher)}; give a Matcher, such as model.matcher.")
    if neighbors < 1:
        raise AssociationError(f"neighbors is {neighbors}; give at least 1.")
    travel_gates(travel, [])
    person = whole_numbers("identity", identity, AssociationError)
    if person.shape != (len(tracks),):
        raise AssociationError(f"identity has the shape {person.shape}; give one for each of {len(tracks)} tracks.")
    if any(camera is None for camera in tracks.camera):
        raise AssociationError("a track has no camera; to calibrate for several cameras, give each track's camera.")
    order = np.array(sorted(range(len(tracks)), key=lambda row: tracks.names[row]), dtype=np.int64)
    tracks, person = tracks[order], person[order]
    labelled = EmbeddedSet(tracks.embeddings, person, np.array(tracks.camera, dtype=np.int64))
    calibration = Calibration.fit(
        labelled, labelled, matcher, per="comparison", false_match_rate=0.01, fingerprint=fingerprint, data=data
    )
    evidence = Evidence(tracks, matcher, calibration, travel=travel)
    least = log_odds_of(_LEAST)
    clusters = Clusters(evidence, find_candidates(evidence, neighbors, floor=least))
    found = clusters.labels()
    lowest, best, limit = np.inf, measure(person, found).b3_f1, np.inf
    merges = list(clusters.run(least))
    for number, merge in enumerate(merges):
        found[found == merge.second] = merge.first
        lowest = min(lowest, merge.log_odds)
        following = merges[number + 1].log_odds if number + 1 < len(merges) else least
        # A threshold cuts the run before the first join below it: only there a state of its own can be reached.
        if following < lowest and (reached := measure(person, found).b3_f1) > best + 1e-12:
            best, limit = reached, (lowest + following) / 2
    top = max((m.log_odds for m in merges), default=least)
    join = probability_of(limit if np.isfinite(limit) else top + 1)
    return JoinCalibration(calibration, float(min(max(join, _LEAST), 1 - 1e-9)), best)
