"""What a study finds: numbers for each matching at each share of occlusion, with paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from occluded_reid.embeddings import EmbeddedSet
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.intervals import Difference, Interval, bootstrap_means, interval_of
from occluded_reid.evaluation.protocol import CAMERAS_UNKNOWN, Protocol
from occluded_reid.evaluation.report import Report

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["MATCHINGS", "Condition", "Study"]

MATCHINGS: dict[str, str] = {
    "own": "the model's slots, visibility as predicted",
    "global": "the global slot alone",
    "all_slots": "all slots, visibility ignored",
    "true": "the model's slots, visibility from the true masks (upper bound)",
}


@dataclass(frozen=True)
class Condition:
    """One cell of a study: a matching at a share of occlusion, with one report a seed (one in all when clean)."""

    matching: str
    fraction: float
    reports: tuple[Report, ...]
    covered: float = 0.0

    def values(self) -> np.ndarray:
        """(answerable queries, metrics): each query's numbers, averaged over the seeds."""
        return np.asarray(np.mean([report.query_values for report in self.reports], axis=0))

    @property
    def metrics(self) -> dict[str, float]:
        """Means over queries and seeds, by name."""
        return dict(zip(self.reports[0].metrics, self.values().mean(0).tolist(), strict=True))

    @property
    def intervals(self) -> dict[str, Interval]:
        """Bootstrap intervals over the queries; the seeds of one query stay together."""
        protocol = self.reports[0].protocol
        if not protocol.bootstrap:
            return {}
        means = bootstrap_means(self.values(), protocol.bootstrap, protocol.seed)
        return {name: interval_of(means[:, i], protocol.confidence) for i, name in enumerate(self.metrics)}

    def minus(self, other: Condition) -> dict[str, Difference]:
        """Paired differences to another condition over the same queries."""
        first, second = self.values(), other.values()
        if first.shape != second.shape:
            raise EvaluationError("the two conditions are of different queries; evaluate both on the same sets.")
        protocol = self.reports[0].protocol
        means = bootstrap_means(first - second, protocol.bootstrap or Protocol.bootstrap, protocol.seed)
        return {
            name: Difference(float((first - second)[:, i].mean()), interval_of(means[:, i], protocol.confidence))
            for i, name in enumerate(self.metrics)
        }


@dataclass(frozen=True)
class Study:
    """Conditions of one model on one data set, as a table, as JSON, and with paired differences.

    Attributes:
        model: fingerprint of the model.
        dataset: name of the data.
        occluders: what queries were occluded with, in words.
        seeds: of the occlusions.
        conditions: one for each matching and share of occlusion.
        query: the embedded clean queries, visibility as predicted.
        gallery: the embedded gallery, likewise.
        training: whether the model was trained on these people, in words.
    """

    model: str
    dataset: str
    occluders: str
    seeds: tuple[int, ...]
    conditions: tuple[Condition, ...] = field(repr=False)
    query: EmbeddedSet = field(repr=False)
    gallery: EmbeddedSet = field(repr=False)
    training: str = ""

    def get(self, matching: str, fraction: float = 0.0) -> Condition:
        """Return one condition.

        Raises:
            EvaluationError: it was not part of the study.
        """
        for condition in self.conditions:
            if condition.matching == matching and condition.fraction == fraction:
                return condition
        raise EvaluationError(f"the study has no condition '{matching}' at {fraction}; it was not asked for.")

    @property
    def fractions(self) -> tuple[float, ...]:
        """Shares of the body mask that were occluded; 0 is clean."""
        return tuple(dict.fromkeys(c.fraction for c in self.conditions))

    @property
    def matchings(self) -> tuple[str, ...]:
        """Matchings in the order asked for."""
        return tuple(dict.fromkeys(c.matching for c in self.conditions))

    def differences(self, base: str = "all_slots") -> dict[tuple[str, float], dict[str, Difference]]:
        """Paired differences of every other matching to `base`, at each share of occlusion."""
        if base not in self.matchings:
            return {}
        return {
            (c.matching, c.fraction): c.minus(self.get(base, c.fraction)) for c in self.conditions if c.matching != base
        }

    @property
    def headline(self) -> tuple[str, ...]:
        """The numbers that tables show: CMC at the protocol's first rank, and mAP where it is defined."""
        names = tuple(self.conditions[0].metrics)
        return tuple(dict.fromkeys(name for name in (names[0], "mAP") if name in names))

    def rows(self, metrics: Sequence[str] | None = None) -> list[list[str]]:
        """Return header and lines of the table: matching, then metric with interval for each share of occlusion.

        Args:
            metrics: names as in `Condition.metrics`; None shows the headline.
        """
        metrics = self.headline if metrics is None else metrics
        heads = [f"{name} {'clean' if f == 0 else f'{f:.0%}'}" for f in self.fractions for name in metrics]
        lines = [["matching", *heads]]
        for matching in self.matchings:
            line = [matching]
            line += [self._cell(matching, fraction, name) for fraction in self.fractions for name in metrics]
            lines.append(line)
        return lines

    def table(self) -> Table:
        """Return the table for a terminal."""
        from rich.table import Table

        from occluded_reid.screen import cell

        table = Table(title=cell(f"{self.model} on {self.dataset}"))
        table.add_column("metric")
        table.add_column("matching")
        for fraction in self.fractions:
            table.add_column("clean" if fraction == 0 else f"{fraction:.0%} occluded", justify="right")
        for name in self.headline:
            for matching in self.matchings:
                cells = [self._cell(matching, fraction, name, "\n") for fraction in self.fractions]
                table.add_row(name, matching, *cells, end_section=matching == self.matchings[-1])
        return table

    def _cell(self, matching: str, fraction: float, metric: str, between: str = " ") -> str:
        condition = self.get(matching, fraction)
        interval = f"{between}{condition.intervals[metric]}" if condition.intervals else ""
        return f"{condition.metrics[metric]:.1%}{interval}"

    @property
    def warning(self) -> str:
        """What must be known before any number is read; empty where there is nothing."""
        return "" if self.conditions[0].reports[0].protocol.cameras_known else CAMERAS_UNKNOWN

    def facts(self) -> dict[str, str]:
        """Return what the numbers stand on, by name."""
        facts = dict(self.conditions[0].reports[0].facts)
        for one in ("condition", "pairs without a common slot"):  # of the first condition alone
            facts.pop(one, None)
        # Of the first condition, which may be a matching that uses one slot only.
        facts["slots"] = ", ".join(f"{name} {width}" for name, width in self.query.embeddings.widths.items())
        facts |= {"training": self.training} if self.training else {}
        if len(self.fractions) > 1:
            facts["occlusion"] = (
                f"share of each query's body mask, random place and kind, {self.occluders}; "
                f"mean over seeds {', '.join(map(str, self.seeds))}"
            )
        return facts

    def card(self) -> str:
        """Return protocol, matchings and paired differences in lines."""
        lines = [f"{key}: {value}" for key, value in self.facts().items()]
        lines += [f"matching '{name}': {MATCHINGS[name]}" for name in self.matchings]
        for (matching, fraction), names in self.differences().items():
            shown = ", ".join(f"{name} {names[name]}" for name in self.headline)
            lines.append(f"{matching} − all_slots at {'clean' if not fraction else f'{fraction:.0%}'}: {shown}")
        return "\n".join(lines)

    def save_reports(self, folder: str | Path) -> list[Path]:
        """Write each report with the numbers of every query, for `compare`, and return the files.

        They are named after matching and share: ``own_clean.json``, ``own_35_seed0.json`` (35 % occluded, seed 0).

        Raises:
            EvaluationError: the folder cannot be written.
        """
        written = []
        for condition in self.conditions:
            for seed, report in zip(self.seeds, condition.reports, strict=False):
                share = f"{condition.fraction * 100:g}_seed{seed}" if condition.fraction else "clean"
                written.append(Path(folder) / f"{condition.matching}_{share}.json")
                report.to_json(written[-1])
        return written

    def to_dict(self) -> dict[str, Any]:
        """Return the study as JSON knows it."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "occluders": self.occluders,
            "seeds": list(self.seeds),
            "training": self.training,
            "warning": self.warning,
            "conditions": [
                {
                    "matching": c.matching,
                    "fraction": c.fraction,
                    "covered": c.covered,
                    "metrics": c.metrics,
                    "intervals": {name: [i.low, i.high] for name, i in c.intervals.items()},
                    "protocol": c.reports[0].facts,
                }
                for c in self.conditions
            ],
            "differences_to_all_slots": [
                {
                    "matching": m,
                    "fraction": f,
                    "metric": name,
                    "value": d.value,
                    "low": d.interval.low,
                    "high": d.interval.high,
                }
                for (m, f), names in self.differences().items()
                for name, d in names.items()
            ],
        }
