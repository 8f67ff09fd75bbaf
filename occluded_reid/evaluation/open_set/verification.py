"""Verification: of two images, do they show one person? False matches and false non-matches over all thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from occluded_reid.calibration.pair_counts import GRID, NEVER, PairCounts, false_matches_allowed
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.bootstrap import PeopleResampling
from occluded_reid.evaluation.open_set.measured import Measured, common_facts, numbers_of, rate_text
from occluded_reid.evaluation.tables import Sheet, Tabular

__all__ = ["FMR_RATES", "Verification", "VerificationPoint", "evaluate_verification"]

FMR_RATES = (1e-1, 1e-2, 1e-3, 1e-4)
"""False-match rates that reports show."""

_PER_DECADE = 20
"""Points of a curve that is written or drawn."""


@dataclass(frozen=True)
class VerificationPoint:
    """What is lost at a false-match rate.

    Attributes:
        false_match_rate: the rate allowed.
        below: pairs nearer than this distance count as one person. None: not resolvable, or everything that shares a
            slot counts.
        false_matches: comparisons of two people that do, of all of them.
        missed: comparisons of one person that do not, with an interval over people at this very threshold; None where
            there are too few comparisons of two people to tell the rate from 0.
    """

    false_match_rate: float
    below: float | None
    false_matches: int
    missed: Measured | None

    def __str__(self) -> str:
        return "too few comparisons of two people" if self.missed is None else str(self.missed)

    def to_dict(self) -> dict[str, Any]:
        """Return the point as JSON knows it."""
        return {
            "false_match_rate": self.false_match_rate,
            "below": self.below,
            "false_matches": self.false_matches,
            "missed": None if self.missed is None else self.missed.to_dict(),
        }


@dataclass(frozen=True)
class Verification(Tabular):
    """False-match rate (FMR) and false-non-match rate (FNMR) of all comparisons.

    A pair counts as one person if its distance is below a threshold. A pair that shares no slot never counts as one: it
    is among the comparisons, a non-match at any threshold. As with identification, thresholds are read off the test
    data and none of them is to be deployed.

    Attributes:
        points: FNMR at the false-match rates asked for, each exact.
        equal_error_rate: the smallest rate that both FMR and FNMR can be held to by one threshold; exact.
        equal_error_below: a threshold that does so, of several perhaps; infinite if it accepts all that shares a slot.
        auroc: probability that a comparison of one person is nearer than one of two people; ties count half. Impostors
            of which only the cell is known count half against matches in that cell.
        auroc_bounds: what it can be at least and at most, whatever happens within those cells.
        counts: all comparisons.
        resampling: how intervals were made.
        facts: what the numbers stand on, in words.
    """

    points: tuple[VerificationPoint, ...]
    equal_error_rate: float
    equal_error_below: float
    auroc: float
    auroc_bounds: tuple[float, float]
    counts: PairCounts = field(repr=False)
    resampling: PeopleResampling
    facts: dict[str, str] = field(repr=False)

    def curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return thresholds, FMR and FNMR; pairs nearer than the threshold are accepted.

        A point just before each distance at which more impostors come in, and one for accepting all that shares a slot
        (an infinite threshold): no other threshold is better than all of them. Each point is exact. Among the nearest
        impostors there is one for each distance; farther away, where only cells are known, one for each cell.
        """
        below, false_matches, missed = _steps(self.counts)
        threshold = np.where(below < NEVER, below / GRID, np.inf)
        return threshold, false_matches / self.counts.impostors, missed / self.counts.matches

    def thinned(self, per_decade: int = _PER_DECADE) -> tuple[np.ndarray, np.ndarray]:
        """Return FMR and FNMR at false-match rates evenly spaced in their logarithm: the curve for drawing.

        At each rate stands the last point of the curve that holds to it; what is reached twice comes once.
        """
        _, rate, missed = self.curve()
        lowest = math.log10(1 / self.counts.impostors)
        wanted = 10 ** np.linspace(lowest, 0, max(2, math.ceil(-lowest * per_decade) + 1))
        place = np.unique(np.searchsorted(rate, wanted * (1 + 1e-12), side="right") - 1)
        return rate[place], missed[place]

    def sheet(self) -> Sheet:
        """Return the numbers and what they stand on."""
        return Sheet(("what", "value"), self._rows(), self.facts, "one person or two", self._caption, words=2)

    def records(self) -> list[dict[str, Any]]:
        """Return FNMR at each rate, the equal-error rate and the area under the curve with its bounds."""
        points = [
            {
                "measure": "FNMR",
                "false_match_rate": point.false_match_rate,
                **numbers_of(point.missed),
                "below": point.below,
            }
            for point in self.points
        ]
        below = self.equal_error_below if math.isfinite(self.equal_error_below) else None
        low, high = self.auroc_bounds
        return [
            *points,
            {"measure": "EER", "value": self.equal_error_rate, "below": below},
            {"measure": "AUROC", "value": self.auroc, "low": low, "high": high},
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, and the curve as it is drawn, as JSON knows them."""
        rate, missed = self.thinned()
        return {
            "points": [point.to_dict() for point in self.points],
            "equal_error_rate": self.equal_error_rate,
            "equal_error_below": self.equal_error_below if math.isfinite(self.equal_error_below) else None,
            "auroc": self.auroc,
            "auroc_bounds": list(self.auroc_bounds),
            "curve": {"false_match_rate": rate.tolist(), "false_non_match_rate": missed.tolist()},
            "settled": self.counts.settled,
            **self.counts.facts(),
            "facts": self.facts,
        }

    @property
    def _caption(self) -> str:
        return (
            f"{self.counts.matches} comparisons of one person, {self.counts.impostors} of two; thresholds are read off "
            "these comparisons and are none to deploy"
        )

    def _rows(self) -> list[list[str]]:
        rows = [
            [f"one person not recognised where {rate_text(p.false_match_rate)} of two people match", str(p)]
            for p in self.points
        ]
        low, high = self.auroc_bounds
        bounds = "exact" if low == high else f"between {low:.4%} and {high:.4%} whatever happens within cells"
        rows.append(["equal-error rate", f"{self.equal_error_rate:.2%}"])
        return [*rows, ["AUROC of comparisons", f"{self.auroc:.2%} ({bounds})"]]


def evaluate_verification(
    counts: PairCounts,
    *,
    rates: Sequence[float] = FMR_RATES,
    resampling: PeopleResampling | None = None,
    data: str = "",
    fingerprint: str = "",
) -> Verification:
    """Turn counted comparisons into error rates.

    Args:
        counts: from `count_pairs`; rates that it was not asked for are exact only among its nearest impostors.
        rates: false-match rates, each between 0 and 1.
        resampling: of people, behind the intervals of the matches missed. The threshold stays where it is in every
            draw: of impostors nothing is known by person.
        data: name of the data.
        fingerprint: of the model.

    Raises:
        EvaluationError: a rate is not between 0 and 1, or falls into a cell of which only the count is known.
    """
    resampling = resampling or PeopleResampling()
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise EvaluationError(f"false-match rates are {list(rates)}; give numbers between 0 and 1: 0.01 means 1 %.")
    below, false_matches, missed = _steps(counts)
    coarse = counts.low < counts.high
    reached: list[tuple[float, int | None, int]] = []
    for rate in dict.fromkeys(rates):
        allowed = false_matches_allowed(rate, counts.impostors)
        place = int(np.searchsorted(false_matches, allowed, side="right")) - 1
        if allowed and below[place] < NEVER and coarse[np.searchsorted(counts.low, below[place])]:
            raise EvaluationError(
                f"the false-match rate {rate:g} is reached in a cell of which only the count is known; ask for it when "
                "the pairs are counted: count_pairs(…, rates=…)."
            )
        reached.append((rate, int(below[place]), int(false_matches[place])) if allowed else (rate, None, 0))
    shares = _missed(counts, [limit for _, limit, _ in reached], resampling)
    worst = np.maximum(false_matches * counts.matches, missed * counts.impostors)
    equal = int(np.argmin(worst))
    nearer, unsure = _order(counts)
    pairs = counts.matches * counts.impostors
    unshared = counts.matches_unshared * counts.impostors_unshared
    # Twice the pairs of a match and an impostor in which the match is farther, ties by half.
    lower = 2 * pairs - nearer - 2 * unsure - unshared
    upper = 2 * pairs - nearer - unshared
    facts = common_facts(data, counts.facts(), counts.matcher.config, counts.slots, fingerprint)
    return Verification(
        tuple(
            VerificationPoint(rate, limit / GRID if limit is not None and limit < NEVER else None, wrong, share)
            for (rate, limit, wrong), share in zip(reached, shares, strict=True)
        ),
        float(worst[equal] / pairs),
        float(below[equal] / GRID) if below[equal] < NEVER else math.inf,
        (lower + upper) / (4 * pairs),
        (lower / (2 * pairs), upper / (2 * pairs)),
        counts,
        resampling,
        facts
        | {
            "pairs without a common slot": f"{counts.impostors_unshared} of two people and {counts.matches_unshared} "
            "of one, never accepted",
            "distances": f"known to {1 / GRID:g} for all matches and {counts.settled:.1%} of the impostors; of the "
            "others a cell is known, with exact counts at its edges",
            "thresholds": "read off these comparisons, none to deploy",
            "intervals": f"of the matches missed, at a fixed threshold: {resampling}",
        },
    )


def _steps(counts: PairCounts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds on the grid, impostors below each, matches at it or beyond: just before each segment, and after all.

    Segments of different cells never overlap, so what begins below a threshold lies below it altogether.
    """
    below, place = np.unique(counts.low, return_index=True)
    running = np.concatenate([[0], np.cumsum(counts.count)])
    below = np.append(below, NEVER)
    missed = counts.matches - np.searchsorted(counts.match_distance, below)
    return below, running[np.append(place, len(counts.low))], missed


def _missed(counts: PairCounts, limits: Sequence[int | None], resampling: PeopleResampling) -> list[Measured | None]:
    """Matches at each limit or beyond it, people drawn."""
    people, owner = np.unique(counts.match_person, return_inverse=True)
    wanted = [limit for limit in limits if limit is not None]
    columns = [counts.match_distance >= limit for limit in wanted]
    by_person = np.stack(
        [np.bincount(owner, column, minlength=len(people)) for column in (*columns, np.ones(len(owner)))], axis=1
    )
    drawn = np.concatenate([weights @ by_person for weights in resampling.weights(people)])
    shares = [
        Measured.share(int(column.sum()), counts.matches, resampling.interval(drawn[:, number] / drawn[:, -1]))
        for number, column in enumerate(columns)
    ]
    found = iter(shares)
    return [None if limit is None else next(found) for limit in limits]


def _order(counts: PairCounts) -> tuple[int, int]:
    """Over all matches twice the impostors that are nearer, ties once; and the pairs of which cells tell nothing."""
    running = np.concatenate([[0], np.cumsum(counts.count)])
    place = np.searchsorted(counts.high, counts.match_distance)
    near = running[place]
    with_it = running[np.searchsorted(counts.low, counts.match_distance, side="right")] - near
    coarse = np.append(counts.low < counts.high, False)[place]
    return int((2 * near + np.where(coarse, 0, with_it)).sum()), int(with_it[coarse].sum())
