"""Several systems over the same queries: one table, with paired differences, and the spread over runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from occluded_reid.arguments import checked
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.bootstrap import Comparison, Difference, Interval, bootstrap_means, interval_of
from occluded_reid.evaluation.protocol import Protocol
from occluded_reid.evaluation.report import Report
from occluded_reid.evaluation.tables import Sheet, Tabular, also_written, latex_table, markdown_table
from occluded_reid.registry import did_you_mean

__all__ = ["Compared", "SeveralRuns", "compare"]

# What may differ between systems that are compared, and so stands in their lines and not below the table.
_OWN = (
    "condition",
    "matcher",
    "slots",
    "model",
    "pairs without a common slot",
    "re-ranking",
    "test-time extras",
    "tuned",
    "made by",
)


@dataclass(frozen=True)
class SeveralRuns:
    """One system's reports over the same queries: a run for each training seed or draw of occluders, often just one.

    Attributes:
        reports: at least one.
    """

    reports: tuple[Report, ...]

    def __post_init__(self) -> None:
        if not self.reports:
            raise EvaluationError("a system needs at least one report.")
        for report in self.reports[1:]:
            report.require_same(self.reports[0])

    @cached_property
    def values(self) -> np.ndarray:
        """(answerable queries, numbers): each query's numbers, averaged over the runs."""
        return np.asarray(np.mean([report.query_values for report in self.reports], axis=0))

    @property
    def metrics(self) -> dict[str, float]:
        """Means over queries and runs, by name."""
        return dict(zip(self.reports[0].metrics, self.values.mean(0).tolist(), strict=True))

    @property
    def spread(self) -> dict[str, float]:
        """Standard deviation (n - 1) of each number over the runs; empty with one run, which says nothing of it."""
        if len(self.reports) < 2:
            return {}
        each = np.array([list(report.metrics.values()) for report in self.reports])
        return dict(zip(self.reports[0].metrics, each.std(axis=0, ddof=1).tolist(), strict=True))

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """Percentile-bootstrap intervals over the queries; the runs of one query stay together."""
        protocol = self.reports[0].protocol
        if not protocol.bootstrap:
            return {}
        means = bootstrap_means(self.values, protocol.bootstrap, protocol.seed)
        return {name: interval_of(means[:, i], protocol.confidence) for i, name in enumerate(self.metrics)}

    @property
    def facts(self) -> dict[str, str]:
        """The protocol in words; where runs differ, what each of them has, once, in the order of the runs."""
        every = [report.facts for report in self.reports]
        return {key: " | ".join(dict.fromkeys(facts[key] for facts in every)) for key in every[0]}

    def cell(self, metric: str) -> str:
        """Return one number as tables show it: per cent, ± standard deviation over the runs, interval."""
        spread = f" ± {self.spread[metric] * 100:.1f}" if self.spread else ""
        interval = f" {self.intervals[metric]}" if self.intervals else ""
        return f"{self.metrics[metric] * 100:.1f}{spread}{interval.replace('%', '')}"


@dataclass(frozen=True)
class Compared(Tabular):
    """Systems over the same queries and gallery.

    Attributes:
        systems: name -> its reports, in the order of the table.
        base: the one that the others are compared with.
    """

    systems: Mapping[str, SeveralRuns]
    base: str

    @cached_property
    def differences(self) -> dict[str, Comparison]:
        """Of each other system minus the base, paired by query: the same draws for both."""
        base = self.systems[self.base]
        protocol = base.reports[0].protocol
        found = {}
        for name, system in self.systems.items():
            if name == self.base:
                continue
            values = system.values - base.values
            means = bootstrap_means(values, protocol.bootstrap or Protocol.bootstrap, protocol.seed)
            each = {
                metric: Difference(float(values[:, i].mean()), interval_of(means[:, i], protocol.confidence))
                for i, metric in enumerate(base.metrics)
            }
            found[name] = Comparison(each, len(values), protocol.confidence)
        return found

    def sentences(self, metric: str | None = None) -> list[str]:
        """Say each difference in words, the base named second; of mAP, or of the first rank where there is no mAP."""
        if metric is None:
            names = self.systems[self.base].metrics
            metric = "mAP" if "mAP" in names else next(iter(names))
        return [found.sentence(name, self.base, metric) for name, found in self.differences.items()]

    @property
    def facts(self) -> dict[str, str]:
        """What all numbers stand on."""
        first = next(iter(self.systems.values())).reports[0].facts
        return {name: fact for name, fact in first.items() if name not in _OWN}

    @property
    def system_facts(self) -> dict[str, str]:
        """What each system's numbers stand on besides."""
        facts = {}
        for name, system in self.systems.items():
            own = system.facts
            parts = [
                f"{key} {own[key]}" for key in _OWN if own[key] not in ("none", "unnamed", "nothing that was said")
            ]
            seeds = f"mean over {len(system.reports)} runs, ± their standard deviation; " if system.spread else ""
            facts[name] = seeds + "; ".join(parts)
        return facts

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Return header and lines of the numbers, in per cent with intervals."""
        metrics = list(next(iter(self.systems.values())).metrics)
        lines = [[name, *(system.cell(metric) for metric in metrics)] for name, system in self.systems.items()]
        return ["system", *metrics], lines

    def difference_rows(self) -> tuple[list[str], list[list[str]]]:
        """Return header and lines of the differences to the base, in points; * where the interval leaves 0 out."""
        metrics = list(next(iter(self.systems.values())).metrics)
        lines = [[name, *(_points(found[metric]) for metric in metrics)] for name, found in self.differences.items()]
        return [f"minus {self.base}, in points", *metrics], lines

    def sheet(self) -> Sheet:
        """Return the numbers, and below them the differences to the base."""
        header, rows = self.rows()
        heads: list[list[str]] = []
        differences: list[list[str]] = []
        if self.differences:
            head, differences = self.difference_rows()
            heads = [head]
        title, last = "per cent, with intervals over the queries", len(rows)
        every = [*rows, *heads, *differences]
        return Sheet(header, every, self.facts, title, words=len(header), sections=(last - 1,), strong=(last,))

    def records(self) -> list[dict[str, Any]]:
        """Return one mapping for each system and number, with what this system's numbers stand on besides."""
        return [
            {
                "system": name,
                "metric": metric,
                "value": value,
                "low": (interval := system.intervals.get(metric)) and interval.low,
                "high": interval and interval.high,
                "runs": len(system.reports),
                "standard deviation": system.spread.get(metric),
                **{key: system.facts[key] for key in _OWN},
            }
            for name, system in self.systems.items()
            for metric, value in system.metrics.items()
        ]

    def to_markdown(self, path: str | Path | None = None) -> str:
        """Return both tables, the differences in words and the protocol as Markdown; write it if a path is given."""
        parts = [markdown_table(*self.rows())]
        if self.differences:
            parts += [
                "Paired differences; * marks those whose interval leaves 0 out.",
                markdown_table(*self.difference_rows()),
                "\n".join(f"- {sentence}." for sentence in self.sentences()),
            ]
        parts.append("\n".join(f"- {name}: {fact}" for name, fact in self.facts.items()))
        parts.append("\n".join(f"- system {name}: {fact}" for name, fact in self.system_facts.items()))
        return also_written("\n\n".join(parts) + "\n", path)

    def to_latex(self, path: str | Path | None = None) -> str:
        """Return booktabs tables, the protocol as caption of the first, each system's card as a comment; write them."""
        caption = "; ".join(f"{name}: {fact}" for name, fact in self.facts.items())
        text = "".join(f"% {name}: {fact}\n" for name, fact in self.system_facts.items())
        text += latex_table(*self.rows(), caption)
        if self.differences:
            caption = "Paired differences; * where the interval leaves 0 out."
            text += "\n" + latex_table(*self.difference_rows(), caption)
        return also_written(text, path)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON knows it."""
        return {
            "base": self.base,
            "systems": {
                name: {
                    "metrics": system.metrics,
                    "intervals": {metric: [i.low, i.high] for metric, i in system.intervals.items()},
                    "spread": system.spread,
                    "runs": len(system.reports),
                }
                for name, system in self.systems.items()
            },
            "differences": {
                name: {
                    metric: {"value": d.value, "low": d.interval.low, "high": d.interval.high}
                    for metric, d in found.differences.items()
                }
                for name, found in self.differences.items()
            },
            "facts": self.facts,
            "system_facts": self.system_facts,
        }


def _points(difference: Difference) -> str:
    """A difference as tables show it, starred where its interval leaves 0 out."""
    low, high = difference.interval.low * 100, difference.interval.high * 100
    return f"{difference.value * 100:+.1f} [{low:+.1f}, {high:+.1f}]{' *' if difference.clear else ''}"


@checked(EvaluationError)
def compare(reports: Mapping[str, Report | Sequence[Report]], base: str | None = None) -> Compared:
    """Compare systems over the same queries and gallery, by the same rules.

    Args:
        reports: name -> its report, or one for each run with another seed.
        base: the one that the others are compared with; None is the last. Its ranks, resamples and confidence are
            those of the whole table.

    Raises:
        EvaluationError: nothing to compare, an unknown base, or reports of other queries, galleries or rules.
    """
    if not reports:
        raise EvaluationError("there are no reports to compare; give at least one.")
    chosen = list(reports)[-1] if base is None else base
    if chosen not in reports:
        hint = did_you_mean(chosen, list(reports))
        raise EvaluationError(f"there is no report '{chosen}'.{hint} There are: {', '.join(reports)}.")
    several = {name: (found,) if isinstance(found, Report) else tuple(found) for name, found in reports.items()}
    if not several[chosen]:
        raise EvaluationError(f"'{chosen}' has no report; give at least one.")
    # The same numbers and intervals for all, whatever each report was asked to show.
    rules = several[chosen][0].protocol
    shown: dict[str, Any] = {"ranks": rules.ranks, "bootstrap": rules.bootstrap, "confidence": rules.confidence}
    if rules.shots == "multi":  # the seed of single shots is that of their galleries, too
        shown["seed"] = rules.seed
    systems = {
        name: SeveralRuns(tuple(replace(r, protocol=replace(r.protocol, **shown)) for r in found))
        for name, found in several.items()
    }
    for name, system in systems.items():
        try:
            system.reports[0].require_same(systems[chosen].reports[0])
        except EvaluationError as error:
            raise EvaluationError(f"'{name}' and '{chosen}' cannot be compared: {error}") from error
    return Compared(systems, chosen)
