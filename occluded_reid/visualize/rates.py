"""The curves of open sets: detection over false alarms, errors over errors, and what a probability is worth."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from occluded_reid.visualize.charts import LineChart, Series

__all__ = ["detection_curves", "error_curves", "reliability_curves"]


def detection_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, title: str = "Known and unknown people"
) -> LineChart:
    """Return the chart of detection and identification rate over false-alarm rate, which is logarithmic.

    Args:
        curves: name -> (false-alarm rates, rising, shares of the known searches that find their person), a step
            function: each share holds up to the next rate. What stands at a rate of 0 is not shown.
        title: of the chart.

    Example:
        >>> list(detection_curves({"rank 1": ([0.0, 0.01, 0.1], [0.1, 0.2, 0.6])}).series[0].x)
        [0.01, 0.1, 0.1]
    """
    return LineChart(
        title,
        "searches for unknown people that return anything",
        "known people found",
        [_stairs(name, *lines) for name, lines in curves.items()],
        percent=True,
        y_range=(0.0, 1.0),
        percent_x=True,
        log_x=True,
    )


def error_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, title: str = "One person or two"
) -> LineChart:
    """Return the chart of false non-matches over false matches, both logarithmic: a detection error trade-off.

    Args:
        curves: name -> (false-match rates, rising, false-non-match rates), a step function as in `detection_curves`;
            rates of 0 are not shown.
        title: of the chart.

    Example:
        >>> chart = error_curves({"own": ([1e-3, 1e-2], [0.3, 0.1])})
        >>> chart.log_x, chart.log_y
        (True, True)
    """
    return LineChart(
        title,
        "false-match rate",
        "false-non-match rate",
        [_stairs(name, *lines) for name, lines in curves.items()],
        percent=True,
        log_y=True,
        percent_x=True,
        log_x=True,
    )


def reliability_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, title: str = "Match probability"
) -> LineChart:
    """Return the reliability diagram: the share of pairs that match over the probability that was said of them.

    Args:
        curves: name -> (mean probability in each bin, rising, share observed there).
        title: of the chart.

    Example:
        >>> [line.name for line in reliability_curves({"all": ([0.1, 0.9], [0.2, 0.8])}).series]
        ['all', 'ideal']
    """
    lines = [Series(name, list(x), list(y)) for name, (x, y) in curves.items()]
    return LineChart(
        title,
        "predicted probability of a match",
        "pairs that match",
        [*lines, Series("ideal", [0.0, 1.0], [0.0, 1.0])],
        percent=True,
        y_range=(0.0, 1.0),
        percent_x=True,
    )


def _stairs(name: str, x: Sequence[float], y: Sequence[float]) -> Series:
    """A step function from its first position above 0: each value holds up to the next position."""
    kept = [(float(a), float(b)) for a, b in zip(x, y, strict=True) if a > 0]
    corners = [(right[0], left[1]) for left, right in itertools.pairwise(kept)]
    points = [p for pair in itertools.zip_longest(kept, corners) for p in pair if p is not None]
    return Series(name, [p[0] for p in points], [p[1] for p in points])
