"""What an occlusion sweep of one model finds: each query's numbers under each occlusion, and the areas under them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from occluded_reid.arguments import checked
from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.bootstrap import Difference, Interval, bootstrap_means, interval_of
from occluded_reid.evaluation.studies.sweep.settings import SweepSettings

__all__ = ["MEAN", "Sweep"]

MEAN = "mean"
"""Where a kind is asked for: the mean over all kinds."""

_RESAMPLES = 1000  # behind differences that were asked for where no intervals were


@dataclass(frozen=True)
class Sweep:
    """One model on queries that are occluded more and more, kind by kind.

    The area under a curve is taken by the trapezoid rule and divided by the width of the range of severities: it is the
    mean of the metric while the occlusion grows, 0 … 1. It is taken for each query first, averaged over seeds; the area
    of all kinds is the mean over kinds. So everything is a mean over queries, and its interval resamples queries.

    Args:
        name: of the model, for tables and legends.
        model: its fingerprint.
        matcher: type and options.
        settings: what the numbers stand on beside the model.
        metrics: names, in the order of the last axis of `values`.
        values: (kinds, severities, queries with an answer, metrics), means over seeds.
        covered: (kinds, severities) mean share of the bodies that was really covered.
        missed: (kinds, severities) images, of all seeds, whose occluder is more than 0.03 off the share wanted.
        facts: the protocol in words.

    Raises:
        EvaluationError: sizes do not fit.
    """

    name: str
    model: str
    matcher: Mapping[str, Any]
    settings: SweepSettings
    metrics: tuple[str, ...]
    values: np.ndarray = field(repr=False)
    covered: np.ndarray = field(repr=False)
    missed: np.ndarray = field(repr=False)
    facts: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        cells = (len(self.settings.kinds), len(self.settings.severities))
        shape = self.values.shape
        if len(shape) != 4 or shape[:2] != cells or shape[3] != len(self.metrics) or not shape[2]:
            raise EvaluationError(
                f"the values of a sweep are {shape}; wanted (kinds {cells[0]}, severities {cells[1]}, queries, "
                f"metrics {len(self.metrics)}) with at least one query."
            )
        if self.covered.shape != cells or self.missed.shape != cells:
            raise EvaluationError(
                f"a sweep's covered shares are {self.covered.shape} and its misses {self.missed.shape}; wanted {cells}."
            )

    @cached_property
    def per_query(self) -> np.ndarray:
        """(queries, kinds + 1, severities + 1, metrics): after the kinds their mean, after the severities the area."""
        at = np.asarray(self.settings.severities)
        widths = np.diff(at)[:, None, None]
        area = ((self.values[:, 1:] + self.values[:, :-1]) / 2 * widths).sum(1, keepdims=True) / (at[-1] - at[0])
        cells = np.concatenate([self.values, area], 1)
        return np.moveaxis(np.concatenate([cells, cells.mean(0, keepdims=True)]), 2, 0)

    def value(self, metric: str, kind: str = MEAN, severity: float | None = None) -> float:
        """Return a mean over queries.

        Args:
            metric: one of `metrics`.
            kind: one of the kinds; by default the mean over all.
            severity: one of the severities; None is the area under the curve.

        Raises:
            EvaluationError: that was not measured.
        """
        return float(self.per_query[:, *self._cell(kind, severity), self._column(metric)].mean())

    def interval(self, metric: str, kind: str = MEAN, severity: float | None = None) -> Interval | None:
        """Return the percentile-bootstrap interval over queries of a value, None where no resamples were wanted."""
        at = (*self._cell(kind, severity), self._column(metric))
        if not self.settings.bootstrap:
            return None
        return interval_of(self._resampled[:, *at], self.settings.confidence)

    def points(self, metric: str, kind: str = MEAN) -> list[tuple[float, float, float, float]]:
        """Return the curve: (severity, value, low, high), the ends NaN where no resamples were wanted."""
        curve = []
        for severity in self.settings.severities:
            band = self.interval(metric, kind, severity)
            ends = (np.nan, np.nan) if band is None else (band.low, band.high)
            curve.append((severity, self.value(metric, kind, severity), *ends))
        return curve

    def minus(self, other: Sweep, metric: str, kind: str = MEAN, severity: float | None = None) -> Difference:
        """Return the paired difference of a value to another model's, over the same queries and occlusions.

        Args:
            other: what is subtracted.
            metric: one of `metrics`.
            kind: one of the kinds; by default the mean over all.
            severity: one of the severities; None is the area under the curve.

        Raises:
            EvaluationError: the sweeps were not made under the same settings, or that was not measured.
        """
        self.require_same_settings(other)
        if other.settings.bootstrap != self.settings.bootstrap:
            other = replace(other, settings=self.settings)
        at = (*self._cell(kind, severity), self._column(metric))
        there = (*other._cell(kind, severity), other._column(metric))
        # Both sides see the same draws, so the difference of two resampled means is the resampled mean difference.
        means = self._resampled[:, *at] - other._resampled[:, *there]
        value = self.value(metric, kind, severity) - other.value(metric, kind, severity)
        return Difference(value, interval_of(means, self.settings.confidence))

    def require_same_settings(self, other: Sweep) -> None:
        """Refuse a comparison with a sweep of other queries, occlusions or rules.

        Raises:
            EvaluationError: something differs; it is named.
        """
        differing = self.settings.differing(other.settings)
        if not differing and self.values.shape[2] != other.values.shape[2]:
            differing = [f"queries with an answer: {self.values.shape[2]} and {other.values.shape[2]}"]
        if differing:
            raise EvaluationError(
                f"the sweeps of '{self.name}' and '{other.name}' cannot be compared; they differ in "
                f"{'; '.join(differing)}. Sweep both models over the same data with the same kinds, severities, "
                "seeds and occluders."
            )

    @property
    def headline(self) -> tuple[str, ...]:
        """The numbers that tables and figures show: the first CMC rank, and mAP where it is defined."""
        return tuple(dict.fromkeys(m for m in (self.metrics[0], "mAP") if m in self.metrics))

    @checked(EvaluationError)
    def to_dict(self, *, per_query: bool = True) -> dict[str, Any]:
        """Return the sweep as JSON knows it.

        Args:
            per_query: with the numbers of each query, from which `from_dict` computes everything again.
        """
        kinds, severities = (*self.settings.names, MEAN), (*self.settings.severities, None)
        summary = {
            metric: {kind: [self._entry(metric, kind, severity) for severity in severities] for kind in kinds}
            for metric in self.metrics
        }
        content = {
            "name": self.name,
            "model": self.model,
            "matcher": dict(self.matcher),
            "settings": self.settings.to_dict(),
            "metrics": list(self.metrics),
            "facts": dict(self.facts),
            "covered": self.covered.tolist(),
            "missed": self.missed.tolist(),
            "numbers": summary,
        }
        # The clean queries are the same for all kinds.
        return content | (
            {"clean": self.values[0, 0].tolist(), "occluded": self.values[:, 1:].tolist()} if per_query else {}
        )

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild a sweep from `to_dict`; its numbers are computed again from those of each query.

        Raises:
            EvaluationError: something is missing or does not fit.
        """
        try:
            occluded = np.array(content["occluded"], dtype=np.float64)
            clean = np.array(content["clean"], dtype=np.float64)
            first = np.broadcast_to(clean, (len(occluded), 1, *clean.shape))
            return cls(
                name=str(content["name"]),
                model=str(content["model"]),
                matcher=content["matcher"],
                settings=SweepSettings.from_dict(content["settings"]),
                metrics=tuple(content["metrics"]),
                values=np.concatenate([first, occluded], 1),
                covered=np.array(content["covered"], dtype=np.float64),
                missed=np.array(content["missed"], dtype=np.int64),
                facts=content["facts"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, EvaluationError):
                raise
            raise EvaluationError(f"the sweep is incomplete or changed: {error!r}. Measure it again.") from error

    def _entry(self, metric: str, kind: str, severity: float | None) -> dict[str, Any]:
        band = self.interval(metric, kind, severity)
        return {
            "severity": "area" if severity is None else severity,
            "value": self.value(metric, kind, severity),
            "interval": None if band is None else [band.low, band.high],
        }

    @cached_property
    def _resampled(self) -> np.ndarray:
        """(resamples, kinds + 1, severities + 1, metrics): all numbers see the same draws."""
        rows = self.per_query
        seed = int(self.settings.rules.get("seed", 0))
        means = bootstrap_means(rows.reshape(len(rows), -1), self.settings.bootstrap or _RESAMPLES, seed)
        return means.reshape(-1, *rows.shape[1:])

    def _cell(self, kind: str, severity: float | None) -> tuple[int, int]:
        kinds, severities = (*self.settings.names, MEAN), (*self.settings.severities, None)
        if kind not in kinds or severity not in severities:
            raise EvaluationError(
                f"the sweep holds no kind '{kind}' at severity {severity}; it holds {', '.join(kinds)} at "
                f"{', '.join(f'{s:g}' for s in self.settings.severities)} (None is the area)."
            )
        return kinds.index(kind), severities.index(severity)

    def _column(self, metric: str) -> int:
        if metric not in self.metrics:
            raise EvaluationError(f"the sweep holds no '{metric}'; it holds {', '.join(self.metrics)}.")
        return self.metrics.index(metric)
