"""Where a matcher fails: the same numbers by visibility, by shared slots and by camera pair, and the worst queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.ranking.matches import MatchRanks
from occluded_reid.evaluation.report import Report
from occluded_reid.evaluation.studies.failures.slices import Slice
from occluded_reid.evaluation.studies.failures.unshared import Unshared
from occluded_reid.evaluation.tables import Sheet, Tabular, also_written, markdown_table

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Failures"]

_FORMAT = 1


@dataclass(frozen=True)
class Failures(Tabular):
    """What an evaluation says about where the matcher fails.

    A slice keeps some of the true matches and leaves the others out of the gallery; all images of other people stay.
    Over slices of whole queries (visibility, camera of the query) the mean of the numbers, weighted by queries, is that
    of the report. A slice by what a pair shares, or by both cameras, leaves a query fewer images to find, which is
    harder in itself: compare such slices with each other, those with about as many matches for each query.

    Attributes:
        report: the whole, as `evaluate` gives it.
        by_visibility: by how much of the query the matcher takes for visible.
        by_shared_slots: by the number of slots that query and match share.
        by_camera_pair: by the cameras of query and match; empty where the cameras are unknown.
        by_query_camera: by the camera of the query; empty likewise.
        unshared: the pairs that share no slot.
        visibility: (Nq,) mean visibility of each query over the slots that count.
        matches: where each true match stands.
        names: of the queries, or empty.
        notes: what a reader of the slices should know, a line each.
    """

    report: Report
    by_visibility: tuple[Slice, ...]
    by_shared_slots: tuple[Slice, ...]
    by_camera_pair: tuple[Slice, ...]
    by_query_camera: tuple[Slice, ...]
    unshared: Unshared
    visibility: np.ndarray = field(repr=False)
    matches: MatchRanks = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    @property
    def slices(self) -> dict[str, tuple[Slice, ...]]:
        """All slices by what they are made of; those that there are."""
        every = {
            "visibility of the query": self.by_visibility,
            "slots that query and match share": self.by_shared_slots,
            "camera of the query": self.by_query_camera,
            "cameras of query and match": self.by_camera_pair,
        }
        return {title: slices for title, slices in every.items() if slices}

    def worst(self, n: int = 50) -> list[int]:
        """Return the positions of the n worst queries, worst first.

        The lowest average precision comes first, then the lowest inverse negative penalty (the hardest match farther
        back), then the name or, without names, the position. Queries that have nothing to find are left out.

        Raises:
            EvaluationError: n is less than 1.
        """
        if n < 1:
            raise EvaluationError(f"the {n} worst queries were asked for; ask for at least 1.")
        report = self.report
        names: Sequence[str | int] = self.names or range(len(report.answerable))
        order = sorted(
            np.flatnonzero(report.answerable).tolist(),
            key=lambda q: (report.average_precision[q], report.inverse_negative_penalty[q], names[q], q),
        )
        return order[:n]

    def rows(self, title: str) -> list[list[str]]:
        """Return header and lines of the table of some slices.

        Args:
            title: a key of `slices`.
        """
        metrics = list(self.report.metrics)
        lines = [[title, "queries", "matches", *metrics]]
        for part in self.slices[title]:
            count = f"{part.queries:,}" + (" (few)" if part.few else "")
            lines.append([part.name, count, f"{part.matches:,}", *(part.cell(metric) for metric in metrics)])
        return lines

    def tables(self, metrics: Sequence[str] | None = None) -> list[Table]:
        """Return tables for a terminal, one for each kind of slice, and the pairs that share no slot.

        Args:
            metrics: names as in `Report.metrics`; None shows the first rank and mAP.
        """
        from rich.box import SIMPLE
        from rich.table import Table

        from occluded_reid.screen import cell

        every = list(self.report.metrics)
        shown = [every[0], "mAP"] if metrics is None else list(metrics)
        tables = []
        for title in self.slices:
            header, *lines = self.rows(title)
            table = Table(title=f"by {title}", box=SIMPLE)
            keep = [*range(3), *(header.index(metric) for metric in shown)]
            for column in keep:
                table.add_column(header[column] if column else "", justify="right" if column else "left")
            for line in lines:
                table.add_row(*(cell(line[column]) for column in keep))
            tables.append(table)
        counts = Table(title="what cannot be compared", show_header=False, box=SIMPLE)
        for name, count in self.unshared.facts.items():
            counts.add_row(name, count)
        return [*tables, counts]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON knows it, with the 50 worst queries by position and name."""
        report = self.report
        return {
            "format": _FORMAT,
            "report": report.to_dict(),
            "by_visibility": [part.to_dict() for part in self.by_visibility],
            "by_shared_slots": [part.to_dict() for part in self.by_shared_slots],
            "by_camera_pair": [part.to_dict() for part in self.by_camera_pair],
            "by_query_camera": [part.to_dict() for part in self.by_query_camera],
            "unshared": self.unshared.to_dict(),
            "worst": [
                {
                    "query": q,
                    "name": self.names[q] if self.names else None,
                    "average_precision": float(report.average_precision[q]),
                    "first_match_rank": int(report.first_match_rank[q]),
                    "inverse_negative_penalty": float(report.inverse_negative_penalty[q]),
                    "visibility": float(self.visibility[q]),
                }
                for q in self.worst()
            ],
            "notes": list(self.notes),
        }

    def to_markdown(self, path: str | Path | None = None) -> str:
        """Return all tables with the protocol below them as Markdown, and write it if a path is given."""
        parts = [f"Where it fails: {self.report.protocol.name or self.report.card.fingerprint or 'a matcher'}"]
        for title in self.slices:
            header, *lines = self.rows(title)
            parts.append(markdown_table(header, lines))
        parts.append(markdown_table(("what cannot be compared", "count"), list(self.unshared.facts.items())))
        parts.append("\n".join(f"- {note}" for note in self.notes))
        parts.append("\n".join(["As a whole:", "", self.report.to_markdown().rstrip()]))
        return also_written("\n\n".join(part for part in parts if part) + "\n", path)

    def sheet(self) -> Sheet:
        """Return all slices in one table, and what they stand on."""
        metrics = list(self.report.metrics)
        rows = [[title, *row] for title in self.slices for row in self.rows(title)[1:]]
        return Sheet(["sliced by", "slice", "queries", "matches", *metrics], rows, self.report.facts, words=2)

    def records(self) -> list[dict[str, Any]]:
        """Return each number of each slice, the whole first; slices of few queries have no bounds."""
        report = self.report
        queries, matches = int(report.answerable.sum()), len(self.matches.rows)
        whole = Slice("all", (), queries, matches, report.metrics, report.intervals)
        return [
            {
                "sliced by": title,
                "slice": part.name,
                "queries": part.queries,
                "matches": part.matches,
                "metric": metric,
                "value": value,
                "low": (interval := part.intervals.get(metric)) and interval.low,
                "high": interval and interval.high,
            }
            for title, slices in {"all": (whole,), **self.slices}.items()
            for part in slices
            for metric, value in part.metrics.items()
        ]
