"""The curves of this field: training, cumulative matching, and a metric under growing occlusion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from occluded_reid.errors import ShapeError
from occluded_reid.visualize.charts import LineChart, Series
from occluded_reid.visualize.colours import INK, PAPER

__all__ = ["charts_svg", "cmc_curves", "occlusion_curves", "sweep_charts", "training_curves"]

_SCORES = {"rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "mAP": "mAP", "mINP": "mINP"}
_LOG_FROM = 30.0


def training_curves(records: Sequence[Mapping[str, Any]]) -> list[LineChart]:
    """Return the charts of a training run: losses by name, scores, learning rate; what was not recorded is left out.

    Args:
        records: one an epoch, in order, as the lines of ``log.jsonl`` hold them: ``epoch``, ``losses``
            (name -> value), ``lr``, ``scores`` (name -> share; empty where the epoch was not evaluated).

    Raises:
        ShapeError: a record has no epoch.

    Example:
        >>> [c.title for c in training_curves([{"epoch": 1, "losses": {"identity": 6.2}, "lr": 3e-4}])]
        ['Losses', 'Learning rate']
    """
    losses: dict[str, list[tuple[float, float]]] = {}
    scores: dict[str, list[tuple[float, float]]] = {}
    rates: dict[str, list[tuple[float, float]]] = {}
    for position, record in enumerate(records):
        if "epoch" not in record:
            raise ShapeError(f"record {position} has no 'epoch'; it holds {', '.join(record) or 'nothing'}.")
        epoch = float(record["epoch"])
        for name, value in record.get("losses", {}).items():
            losses.setdefault(name, []).append((epoch, float(value)))
        for name, value in record.get("scores", {}).items():
            scores.setdefault(_SCORES.get(name, name), []).append((epoch, float(value)))
        if "lr" in record:
            rates.setdefault("lr", []).append((epoch, float(record["lr"])))
    charts: list[LineChart] = []
    if losses:
        spread = _is_spread([v for points in losses.values() for _, v in points])
        charts.append(LineChart("Losses", "epoch", "loss", _series(losses), log_y=spread))
    if scores:
        charts.append(LineChart("Held-out retrieval", "epoch", "share", _series(scores), percent=True))
    if rates:
        spread = _is_spread([v for _, v in rates["lr"]])
        charts.append(LineChart("Learning rate", "epoch", "learning rate", _series(rates), log_y=spread))
    return charts


def cmc_curves(curves: Mapping[str, Sequence[float]], *, title: str = "Cumulative matching") -> LineChart:
    """Return the chart of one or more CMC curves.

    Args:
        curves: name -> share of queries with a true match among the first 1, 2, … hits.
        title: of the chart.

    Example:
        >>> cmc_curves({"own": [0.8, 0.9], "global": [0.7, 0.85]}).percent
        True
    """
    series = [Series(name, list(range(1, len(values) + 1)), list(values)) for name, values in curves.items()]
    return LineChart(title, "rank", "queries with a match", series, percent=True)


def occlusion_curves(
    curves: Mapping[str, Sequence[tuple[float, float, float, float]]],
    *,
    metric: str = "Rank-1",
    title: str | None = None,
) -> LineChart:
    """Return the chart of a metric under growing occlusion, with interval bands.

    Args:
        curves: name -> (share of the body that is occluded, value, low, high), sorted by share; NaN ends draw no band.
        metric: name of the metric.
        title: of the chart; None names the metric.

    Example:
        >>> occlusion_curves({"own": [(0.0, 0.9, 0.88, 0.92), (0.5, 0.6, 0.55, 0.65)]}).title
        'Rank-1 under occlusion'
    """
    series = [
        Series(
            name, [100 * p[0] for p in points], [p[1] for p in points], [p[2] for p in points], [p[3] for p in points]
        )
        for name, points in curves.items()
    ]
    label = "occluded share of the body in %"
    return LineChart(title or f"{metric} under occlusion", label, metric, series, percent=True)


def sweep_charts(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float, float]]]], *, metric: str = "Rank-1"
) -> list[LineChart]:
    """Return one chart for each kind of occlusion, all with one y axis, so that kinds can be compared by eye.

    Args:
        panels: kind -> name -> points as `occlusion_curves` takes them.
        metric: name of the metric.

    Example:
        >>> curve = [(0.0, 0.9, 0.88, 0.92), (0.5, 0.6, 0.55, 0.65)]
        >>> charts = sweep_charts({"bottom": {"own": curve}, "top": {"own": curve}}, metric="mAP")
        >>> [chart.title for chart in charts], charts[0].y_range
        (['mAP: bottom', 'mAP: top'], (0.5, 1.0))
    """
    ends = [v for lines in panels.values() for points in lines.values() for p in points for v in p[1:]]
    finite = [v for v in ends if math.isfinite(v)]
    # A tenth more than needed at most, never beyond what a share can be.
    low, high = (math.floor(10 * min(finite)) / 10, math.ceil(10 * max(finite)) / 10) if finite else (0.0, 1.0)
    limits = (max(low, 0.0), min(high, 1.0)) if low < high else (0.0, 1.0)
    charts = [occlusion_curves(lines, metric=metric, title=f"{metric}: {kind}") for kind, lines in panels.items()]
    return [replace(chart, y_range=limits) for chart in charts]


def charts_svg(charts: Sequence[LineChart], *, columns: int = 3) -> str:
    """Return several charts as one SVG file, row by row, dark on white.

    Raises:
        ShapeError: no chart is given, or less than one column.

    Example:
        >>> charts_svg([cmc_curves({"own": [0.8, 0.9]})]).count("<svg")
        2
    """
    if not charts or columns < 1:
        raise ShapeError(f"got {len(charts)} charts in {columns} columns; give at least one of each.")
    wide, high = max(c.width for c in charts), max(c.height for c in charts)
    across, down = min(columns, len(charts)), -(-len(charts) // columns)
    placed = [
        f'<g transform="translate({number % across * wide} {number // across * high})">{chart.svg()}</g>'
        for number, chart in enumerate(charts)
    ]
    size = f'width="{wide * across}" height="{high * down}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide * across} {high * down}" {size} '
        f'color="rgb{INK}"><rect {size} fill="rgb{PAPER}"/>{"".join(placed)}</svg>\n'
    )


def _series(lines: Mapping[str, Sequence[tuple[float, float]]]) -> list[Series]:
    return [Series(name, [x for x, _ in points], [y for _, y in points]) for name, points in lines.items()]


def _is_spread(values: Sequence[float]) -> bool:
    """Whether values differ so much that only a logarithmic axis shows them all."""
    finite = [v for v in values if math.isfinite(v)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > _LOG_FROM
