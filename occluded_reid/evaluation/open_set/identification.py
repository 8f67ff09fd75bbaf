"""Identification of people who may not be there: detection and identification rate over false-alarm rate.

Every query is asked twice: as an unknown person, with its own person taken out of the gallery, and, where there is
something to find, as a known person. A threshold on the distance decides what is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from occluded_reid.arguments import checked
from occluded_reid.calibration.matches import find_mates
from occluded_reid.calibration.pairs import Comparisons
from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.bootstrap import PeopleResampling
from occluded_reid.evaluation.open_set.measured import Measured, common_facts, numbers_of, rate_text
from occluded_reid.evaluation.open_set.searches import DetectionPoint, Searches
from occluded_reid.evaluation.open_set.threshold import rows_of
from occluded_reid.evaluation.tables import Sheet, Tabular
from occluded_reid.matchers.base import Matcher

__all__ = ["FAR_RATES", "Identification", "evaluate_identification"]

FAR_RATES = (0.001, 0.01, 0.1)
"""False-alarm rates that reports show."""


@dataclass(frozen=True)
class Identification(Tabular):
    """What searches for known and unknown people come back with.

    The thresholds behind these numbers are read off the very searches that they are judged by, as the definition of the
    curve demands: they describe how well distances tell known from unknown people, and **no threshold to be deployed
    may be taken from here**. `Calibration` finds one on other people, and `evaluate_open_set` tests it.

    Attributes:
        points: for each rank, and within it for each false-alarm rate.
        auroc: of known against unknown searches by their nearest image, whoever it shows: does a search tell that the
            person is there? Ties count half.
        auroc_mate: of the mate's distance against the nearest image of unknown searches: the area under the DIR-FAR
            curve without a limit of rank.
        unknown: (U,) distance of the nearest image of each unknown search; infinite where none shares a slot.
        mate: (K,) distance of the nearest image of the person, of each known search, likewise.
        rank: (K,) its rank; an impostor at the same distance comes first. 0 where it is infinitely far.
        first: (K,) distance of the nearest image of any identity.
        gallery_size: images that an unknown search meets on average.
        counted: queries, people, images, exclusions.
        resampling: how intervals were made.
        facts: all of it in words.
    """

    points: tuple[DetectionPoint, ...]
    auroc: Measured
    auroc_mate: Measured
    unknown: np.ndarray = field(repr=False)
    mate: np.ndarray = field(repr=False)
    rank: np.ndarray = field(repr=False)
    first: np.ndarray = field(repr=False)
    gallery_size: int
    counted: dict[str, Any] = field(repr=False)
    resampling: PeopleResampling
    facts: dict[str, str] = field(repr=False)

    def at(self, false_alarm_rate: float, rank: int = 1) -> DetectionPoint:
        """Return the point of a rate and a rank.

        Raises:
            EvaluationError: it was not asked for.
        """
        for point in self.points:
            if point.rank == rank and point.false_alarm_rate == false_alarm_rate:
                return point
        known = ", ".join(f"({p.false_alarm_rate:g}, {p.rank})" for p in self.points)
        raise EvaluationError(
            f"no point of false-alarm rate {false_alarm_rate} and rank {rank} was asked for; there are {known}."
        )

    def curve(self, rank: int | None = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return threshold, false-alarm rate and detection and identification rate, at every distinct distance.

        A step function: between two thresholds nothing changes, and below the first both rates are 0.

        Args:
            rank: how high the person must stand; None asks only that it is within the threshold.
        """
        good = self.mate if rank is None else np.where(self.rank <= rank, self.mate, np.inf)
        threshold = np.unique(np.concatenate([self.unknown, self.mate]))
        threshold = threshold[np.isfinite(threshold)]
        alarms = np.searchsorted(np.sort(self.unknown), threshold, side="right")
        found = np.searchsorted(np.sort(good), threshold, side="right")
        return threshold, alarms / len(self.unknown), found / len(self.mate)

    def best(self, rank: int | None = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return each false-alarm rate that a threshold attains, rising, with the best rate of detection and
        identification at it: the curve for drawing.

        Args:
            rank: how high the person must stand; None asks only that it is within the threshold.
        """
        _, alarms, found = self.curve(rank)
        # The last threshold of a rate is its best one.
        last = np.flatnonzero(np.append(alarms[1:] > alarms[:-1], True)) if len(alarms) else np.arange(0)
        return alarms[last], found[last]

    def sheet(self) -> Sheet:
        """Return the numbers and what they stand on."""
        return Sheet(("what", "value"), self._rows(), self.facts, "known and unknown people", self._caption, words=2)

    def records(self) -> list[dict[str, Any]]:
        """Return each point, and the areas under the curves."""
        points = [
            {
                "measure": "DIR",
                "rank": point.rank,
                "false_alarm_rate": point.false_alarm_rate,
                **numbers_of(point.found),
                "below": point.to_dict()["below"],
            }
            for point in self.points
        ]
        areas = {"AUROC": self.auroc, "AUROC, own image": self.auroc_mate}
        return [*points, *({"measure": name, **numbers_of(area)} for name, area in areas.items())]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON knows them."""
        return {
            "points": [point.to_dict() for point in self.points],
            "auroc": self.auroc.to_dict(),
            "auroc_mate": self.auroc_mate.to_dict(),
            "unknown_searches": len(self.unknown),
            "known_searches": len(self.mate),
            "gallery_size": self.gallery_size,
            **self.counted,
            "facts": self.facts,
        }

    @property
    def _caption(self) -> str:
        return (
            f"{len(self.unknown)} searches for an unknown person among {self.gallery_size} images, "
            f"{len(self.mate)} for a known person; thresholds are read off these searches and are none to deploy"
        )

    def _rows(self) -> list[list[str]]:
        rows = [
            [f"known person found at rank {p.rank} where {rate_text(p.false_alarm_rate)} unknown are answered", str(p)]
            for p in self.points
        ]
        rows.append(["AUROC of known against unknown searches, by the nearest image", str(self.auroc)])
        return [*rows, ["AUROC of known against unknown searches, by the person's own image", str(self.auroc_mate)]]


@checked(EvaluationError)
def evaluate_identification(
    query: EmbeddedSet,
    gallery: EmbeddedSet,
    matcher: Matcher,
    *,
    not_enrolled: Collection[int] | None = None,
    ranks: Sequence[int] = (1, 5),
    false_alarm_rates: Sequence[float] = FAR_RATES,
    exclude_same_camera: bool = True,
    resampling: PeopleResampling | None = None,
    data: str = "",
    fingerprint: str = "",
    tile_rows: int = 1024,
    progress: Callable[[int, int], None] | None = None,
) -> Identification:
    """Measure how well a threshold on the distance tells known from unknown people, and finds the known.

    DIR(k, FAR) is the share of the known searches whose person is within the threshold and within rank k, at the
    greatest threshold at which at most FAR of the unknown searches return anything. With U unknown searches, no rate
    below 1/U can be told from 0, and none is reported.

    Memory: one tile, the pairs of one person, and a few numbers for each query; intervals take 40 MB more.

    Args:
        query: Nq labelled rows.
        gallery: Ng labelled rows with the same slots.
        matcher: the distance.
        not_enrolled: people who are taken out of the gallery for good. Their queries are the unknown searches, those of
            the others the known ones. None: every query is asked as an unknown person, its own person taken out, and
            once more as a known one.
        ranks: k, each from 1.
        false_alarm_rates: FAR, each between 0 and 1.
        exclude_same_camera: leave out images of the query's person and camera.
        resampling: of people, behind the intervals.
        data: name of the data.
        fingerprint: of the model.
        tile_rows: gallery rows at a time: changes time and memory, never a number.
        progress: called with (gallery rows done, gallery rows in all).

    Raises:
        EvaluationError: a set is empty, there is no known or no unknown search, or a rank or rate makes no sense.
        EmbeddingError: the slots of both sides differ.
    """
    resampling = resampling or PeopleResampling()
    ranks, false_alarm_rates = tuple(ranks), tuple(false_alarm_rates)
    if not ranks or min(ranks) < 1 or not false_alarm_rates or not all(0 < rate < 1 for rate in false_alarm_rates):
        raise EvaluationError(
            f"ranks are {list(ranks)} and false-alarm rates {list(false_alarm_rates)}; give ranks from 1, and rates "
            "between 0 and 1: 0.01 is one unknown search in a hundred."
        )
    outside = np.zeros(len(query), dtype=bool)
    if not_enrolled is not None:
        absent = np.array(sorted(not_enrolled), dtype=np.int64)
        outside = np.isin(query.identity, absent)
        gallery = rows_of(gallery, np.flatnonzero(~np.isin(gallery.identity, absent)))
    if not len(query) or not len(gallery) or tile_rows < 1:
        raise EvaluationError(
            f"{len(query)} queries, {len(gallery)} gallery images and tiles of {tile_rows} rows; give at least one "
            "of each."
        )
    walk = Comparisons(
        query,
        gallery,
        matcher,
        exclude_same_camera=exclude_same_camera,
        tile_rows=tile_rows,
        progress=progress,
        walks=1,
    )
    mates = find_mates(walk)
    known = np.flatnonzero(mates.known & ~outside)
    unknown = np.arange(len(query)) if not_enrolled is None else np.flatnonzero(outside)
    if not len(known) or not len(unknown):
        raise EvaluationError(
            f"{len(query)} queries make {len(known)} searches for a person in the gallery and {len(unknown)} for "
            "a person who is not; both are needed. Are identities and cameras numbered alike in both sets?"
        )
    searches = Searches(
        mates.impostor[unknown],
        query.identity[unknown],
        mates.mate[known],
        mates.rank[known],
        np.minimum(mates.mate, mates.impostor)[known],
        query.identity[known],
    )
    counted = {
        "queries": len(query),
        "query_people": len(np.unique(query.identity)),
        "gallery": len(gallery),
        "gallery_people": len(np.unique(gallery.identity)),
        "exclude_same_camera": exclude_same_camera,
        "excluded_pairs": mates.excluded,
        "pairs_without_shared_slot": mates.unshared,
        "not_enrolled": None if not_enrolled is None else len(np.unique(query.identity[outside])),
    }
    wanted = [(rank, rate) for rank in dict.fromkeys(ranks) for rate in dict.fromkeys(false_alarm_rates)]
    points, aurocs = searches.measure(wanted, resampling)
    facts = common_facts(data, counted, matcher.config, query.embeddings.widths, fingerprint)
    return Identification(
        points,
        *aurocs,
        searches.unknown,
        searches.mate,
        searches.rank,
        searches.first,
        round(float(mates.others[unknown].mean())),
        counted,
        resampling,
        facts
        | {
            "unknown people": "each query with its own person taken out of the gallery"
            if not_enrolled is None
            else f"{counted['not_enrolled']} people who are not enrolled",
            "known searches": f"{len(known)}; {len(query) - int(outside.sum()) - len(known)} queries have nothing to "
            "find and are left out of them",
            "pairs without a common slot": f"{mates.unshared}, never returned",
            "thresholds": "read off these searches, none to deploy",
            "intervals": str(resampling),
        },
    )
