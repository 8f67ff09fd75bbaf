"""Searches for known and unknown people as numbers: points of the DIR-FAR curve, and areas, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from occluded_reid.calibration.pair_counts import false_matches_allowed
from occluded_reid.evaluation.bootstrap import PeopleResampling
from occluded_reid.evaluation.open_set.measured import Measured

__all__ = ["DetectionPoint", "Searches"]


@dataclass(frozen=True)
class DetectionPoint:
    """One point of a DIR-FAR curve.

    Attributes:
        rank: how high the person must stand.
        false_alarm_rate: the rate allowed.
        below: what is nearer than this distance is returned; infinite where everything is. None: not resolvable.
        attained: share of the unknown searches that return something then, at most the rate allowed.
        found: known searches that return their person within that rank; None where fewer unknown searches were made
            than the rate needs to be told from 0.
    """

    rank: int
    false_alarm_rate: float
    below: float | None
    attained: float | None
    found: Measured | None

    def __str__(self) -> str:
        return "too few unknown searches" if self.found is None else str(self.found)

    def to_dict(self) -> dict[str, Any]:
        """Return the point as JSON knows it; None where it cannot be resolved or the threshold is infinite."""
        return {
            "rank": self.rank,
            "false_alarm_rate": self.false_alarm_rate,
            "below": self.below if self.below is not None and math.isfinite(self.below) else None,
            "attained": self.attained,
            "found": None if self.found is None else self.found.to_dict(),
        }


@dataclass(frozen=True)
class Searches:
    """What U unknown and K known searches came back with.

    Args:
        unknown: (U,) distance of the nearest image; infinite where none shares a slot.
        unknown_person: (U,) who is asked for.
        mate: (K,) distance of the nearest image of the person, likewise.
        rank: (K,) its rank, 0 where it is infinitely far.
        first: (K,) distance of the nearest image of any identity.
        known_person: (K,) who is asked for.
    """

    unknown: np.ndarray
    unknown_person: np.ndarray
    mate: np.ndarray
    rank: np.ndarray
    first: np.ndarray
    known_person: np.ndarray

    def measure(
        self, wanted: Sequence[tuple[int, float]], resampling: PeopleResampling
    ) -> tuple[tuple[DetectionPoint, ...], tuple[Measured, Measured]]:
        """Return the points of these ranks and false-alarm rates, and both areas (by `first` and by `mate`).

        A draw that brings a person brings their unknown and their known searches; thresholds are found anew in it.
        """
        person = np.concatenate([self.unknown_person, self.known_person])
        value = self._values(np.ones((1, len(person)), dtype=np.int64), wanted)[0]
        drawn = np.concatenate([self._values(weights, wanted) for weights in resampling.weights(person)])
        intervals = [resampling.interval(column) for column in drawn.T]
        points = []
        for (rank, rate), interval in zip(wanted, intervals[:-2], strict=True):
            below = self._below(rate)
            if below is None:
                points.append(DetectionPoint(rank, rate, None, None, None))
                continue
            found = int(((self.mate < below) & (self.rank <= rank)).sum())
            share = Measured.share(found, len(self.mate), interval)
            points.append(DetectionPoint(rank, rate, below, float((self.unknown < below).mean()), share))
        by_first, by_mate = (Measured(float(value[i]), intervals[i]) for i in (-2, -1))
        return tuple(points), (by_first, by_mate)

    def _below(self, rate: float) -> float | None:
        """The distance below which at most `rate` of the unknown searches return anything."""
        allowed = false_matches_allowed(rate, len(self.unknown))
        return float(np.sort(self.unknown)[allowed]) if allowed else None

    def _values(self, weights: np.ndarray, wanted: Sequence[tuple[int, float]]) -> np.ndarray:
        """(b, points + 2): shares found, and both areas, where each search comes as often as (b, U + K) weights say."""
        cut = len(self.unknown)
        order = np.argsort(self.unknown, kind="stable")
        unknown = self.unknown[order]
        alarms = _running(weights[:, :cut][:, order])
        known = weights[:, cut:]
        totals = alarms[:, -1], known.sum(1)
        nearest_first = np.argsort(self.mate, kind="stable")
        mate = self.mate[nearest_first]
        lines = np.arange(len(weights))
        columns = []
        beyond = np.concatenate([unknown, [np.inf]])
        for rank, rate in wanted:
            found = _running(known[:, nearest_first] * (self.rank[nearest_first] <= rank))
            allowed = np.floor(rate * totals[0] + 1e-9)
            below = beyond[(alarms[:, 1:] <= allowed[:, None]).sum(1)]
            # A draw without unknown searches has no threshold.
            columns.append(_share(found[lines, np.searchsorted(mate, below)], totals[1] * (totals[0] > 0)))
        for score in (self.first, self.mate):
            nearer, ties = (np.searchsorted(unknown, score, side=side) for side in ("left", "right"))
            # Twice the unknown weight that is farther, ties by half: whole numbers, so no order of summation matters.
            farther = 2 * totals[0][:, None] - alarms[:, nearer] - alarms[:, ties]
            columns.append(_share((known * farther).sum(1), 2 * totals[0] * totals[1]))
        return np.stack(columns, axis=1)


def _running(weights: np.ndarray) -> np.ndarray:
    """(b, n) to (b, n + 1) sums of the first 0 … n."""
    return np.concatenate([np.zeros((len(weights), 1), dtype=np.int64), np.cumsum(weights, axis=1)], axis=1)


def _share(count: np.ndarray, total: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(count, total, out=np.full(len(count), np.nan), where=total > 0))
