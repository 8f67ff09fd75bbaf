"""Reliability of the match probability: of the pairs said to match with probability p, does the share p match?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from occluded_reid.calibration.calibration import Calibration
from occluded_reid.calibration.pair_counts import GRID, PairCounts
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.open_set.measured import common_facts
from occluded_reid.evaluation.open_set.reliability_bins import ReliabilityGroup, reliability_group, said_of
from occluded_reid.evaluation.open_set.threshold import require_others
from occluded_reid.evaluation.tables import Sheet, Tabular, also_written

if TYPE_CHECKING:
    pass

__all__ = ["Reliability", "evaluate_reliability"]


@dataclass(frozen=True)
class Reliability(Tabular):
    """How far a calibration's match probabilities hold on people it was not made with.

    A probability of a match depends on how frequent matches are. Here all matches together weigh `prior`, and all
    impostors 1 - `prior`, as if a pair were drawn like that: within each number of shared slots for its own numbers,
    and over all pairs that share a slot for all of them. The last also shows what the calibration leaves out: that
    matches may share more slots than impostors do. With prior 0.5 a calibration error of 0 and a Brier score of 0 are
    perfect; saying 0.5 of every pair scores 0 and 0.25.

    Attributes:
        calibration: what was tested.
        prior: probability of a match beforehand.
        binning: "width": equal steps of probability; "count": about equal mass.
        everything: all pairs that share a slot.
        groups: by number of shared slots, from 1.
        resolution: greatest change of a probability within half a cell: impostors of which only the cell is known enter
            by its middle. 0 where every distance is known.
        counts: all comparisons.
        facts: what the numbers stand on, in words.
    """

    calibration: Calibration = field(repr=False)
    prior: float
    binning: Literal["width", "count"]
    everything: ReliabilityGroup
    groups: tuple[ReliabilityGroup, ...]
    resolution: float
    counts: PairCounts = field(repr=False)
    facts: dict[str, str] = field(repr=False)

    def sheet(self) -> Sheet:
        """Return how far the probabilities can be believed, for each number of shared slots."""
        header, *rows = self._rows()
        return Sheet(header, rows, self.facts, "match probability on other people", self._caption)

    def records(self) -> list[dict[str, Any]]:
        """Return the numbers of each group; those of its bins are in `to_dict`."""
        groups = [(group.name, group.to_dict()) for group in (self.everything, *self.groups)]
        return [{"pairs": name, **{key: v for key, v in numbers.items() if key != "bins"}} for name, numbers in groups]

    def to_markdown(self, path: str | Path | None = None) -> str:
        """Return the numbers, the bins of all pairs and what they stand on as Markdown; write it if a path is given."""
        sheet = self.sheet()
        bins = [
            [
                f"{b.low:.3f} … {b.high:.3f}",
                f"{b.predicted:.3f}",
                f"{b.observed:.3f}",
                f"{b.mass:.1%}",
                str(b.matches),
                str(b.impostors),
            ]
            for b in self.everything.bins
        ]
        named = ("probability", "predicted", "observed", "weight", "of one person", "of two people")
        text = f"{replace(sheet, facts={}).markdown()}\n{Sheet(named, bins, sheet.facts).markdown()}"
        return also_written(text, path)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON knows them."""
        return {
            "prior": self.prior,
            "binning": self.binning,
            "everything": self.everything.to_dict(),
            "groups": [group.to_dict() for group in self.groups],
            "resolution": self.resolution,
            **self.counts.facts(),
            "facts": self.facts,
        }

    @property
    def _caption(self) -> str:
        return (
            f"matches weigh {self.prior:g} and impostors {1 - self.prior:g} in all; pairs without a common slot are "
            "left out"
        )

    def _rows(self) -> list[list[str]]:
        rows = [["pairs", "calibration error", "Brier score", "log loss", "of one person", "of two people"]]
        for group in (self.everything, *self.groups):
            numbers = (group.calibration_error, group.brier, group.log_loss)
            written = ["–" if math.isnan(number) else f"{number:.4f}" for number in numbers]
            rows.append([group.name, *written, str(group.matches), str(group.impostors)])
        return rows


def evaluate_reliability(
    counts: PairCounts,
    calibration: Calibration,
    *,
    prior: float | None = None,
    bins: int = 10,
    binning: Literal["width", "count"] = "width",
    data: str = "",
    people: Sequence[str] = (),
    fingerprint: str | None = None,
) -> Reliability:
    """Compare a calibration's probabilities with what is true of other people's pairs.

    Args:
        counts: from `count_pairs`, of people that the calibration was not made with.
        calibration: gives the probabilities.
        prior: probability of a match beforehand; None is that of the calibration.
        bins: of the diagram.
        binning: "width" for equal steps of probability, "count" for about equal mass in each bin (pairs of one
            probability stay together).
        data: name of the data.
        people: names of the people within it; of those calibrated with, no person may come again.
        fingerprint: of the model.

    Raises:
        EvaluationError: people of the calibration are among those it is tested on, or bins or prior make no sense.
        CalibrationError: the calibration was made for another model, another matcher or other slots.
    """
    prior = calibration.prior if prior is None else prior
    if bins < 1 or binning not in ("width", "count") or not 0 < prior < 1:
        raise EvaluationError(
            f"there are {bins} bins by {binning!r} and the prior is {prior}; give at least one bin, 'width' or "
            "'count', and a probability between 0 and 1."
        )
    require_others(calibration, people, data)
    calibration.require(
        matcher=counts.matcher, slots=counts.slots, fingerprint=fingerprint, reduction=calibration.reduction
    )
    said = said_of(counts, calibration, prior)
    groups = tuple(
        reliability_group(said.of(n), n, prior, bins, binning) for n in range(1, len(calibration.groups) + 1)
    )
    facts = common_facts(data, counts.facts(), counts.matcher.config, counts.slots, fingerprint or "")
    return Reliability(
        calibration,
        prior,
        binning,
        reliability_group(said, None, prior, bins, binning),
        groups,
        said.resolution,
        counts,
        facts
        | {
            "calibrated on": f"{calibration.queries} queries and {calibration.gallery} gallery images of "
            f"{len(calibration.people) or 'unnamed'} people of {calibration.data or 'unnamed data'}",
            "prior": f"{prior:g}: all matches together weigh so much, all impostors the rest",
            "pairs without a common slot": f"{counts.impostors_unshared} of two people and {counts.matches_unshared} "
            "of one, left out: they are given the prior",
            "bins": f"{bins} of equal {'width' if binning == 'width' else 'mass'}",
            "distances": f"known to {1 / GRID:g} for all matches and {counts.settled:.1%} of the impostors; the others "
            f"enter by the middle of a cell, which changes no probability by more than {said.resolution:.2g}",
        },
    )
