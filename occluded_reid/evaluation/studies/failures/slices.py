"""A slice of an evaluation: the same numbers over some of the true matches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from occluded_reid.evaluation.bootstrap import FEW, Interval
from occluded_reid.evaluation.metrics import query_numbers
from occluded_reid.evaluation.ranking.matches import MatchRanks
from occluded_reid.evaluation.report import Report

__all__ = ["Slice", "slice_of"]


@dataclass(frozen=True)
class Slice:
    """CMC, mAP and mINP where only some of the true matches count.

    Attributes:
        name: what the matches have in common, as tables show it: "0 → 3".
        key: the same in numbers: a count, two cameras, or the lower and upper edge of a bin.
        queries: queries that have at least one of these matches; the numbers are means over them.
        matches: pairs of a query and a match.
        metrics: the numbers by name.
        intervals: percentile-bootstrap interval of each over the queries; empty for few queries and where the protocol
            asks for none.
    """

    name: str
    key: tuple[float, ...]
    queries: int
    matches: int
    metrics: Mapping[str, float] = field(repr=False)
    intervals: Mapping[str, Interval] = field(repr=False)

    @property
    def few(self) -> bool:
        """Whether there are too few queries to rely on."""
        return self.queries < FEW

    def cell(self, metric: str) -> str:
        """Return one number with its interval as tables show it."""
        interval = f" {self.intervals[metric]}" if metric in self.intervals else ""
        return f"{self.metrics[metric]:.1%}{interval}"

    def to_dict(self) -> dict[str, Any]:
        """Return the slice as JSON knows it."""
        return {
            "name": self.name,
            "key": list(self.key),
            "queries": self.queries,
            "matches": self.matches,
            "few": self.few,
            "metrics": dict(self.metrics),
            "intervals": {name: [interval.low, interval.high] for name, interval in self.intervals.items()},
        }


def slice_of(report: Report, found: MatchRanks, kept: np.ndarray, name: str, key: tuple[float, ...]) -> Slice:
    """Return the numbers where only some matches count, at least one; the others are left out of the gallery.

    Args:
        report: of all matches, for its rules.
        found: where all matches stand.
        kept: (matches,) bool.
        name: of the slice.
        key: of the slice.
    """
    numbers = query_numbers(found.select(kept), report.protocol.ap)
    part = replace(
        report,
        average_precision=numbers[0],
        first_match_rank=numbers[1],
        inverse_negative_penalty=numbers[2],
    )
    queries = int(part.answerable.sum())
    if queries < FEW:
        part = replace(part, protocol=replace(part.protocol, bootstrap=0))
    return Slice(name, key, queries, int(kept.sum()), part.metrics, part.intervals)
