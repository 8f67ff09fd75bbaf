"""The curves of this field as matplotlib draws them: what is shown (`LineChart`), and one function for each kind of it.

matplotlib is imported when something is drawn. No pyplot, and no style or `matplotlibrc` of the caller's decides what a
picture looks like: the same chart gives the same bytes.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from occluded_reid.errors import ShapeError
from occluded_reid.printable import printable
from occluded_reid.visualize.colors import INK, MUTED, PAPER, RGB, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "LineChart",
    "Series",
    "charts_svg",
    "cmc_curves",
    "detection_curves",
    "error_curves",
    "occlusion_curves",
    "reliability_curves",
    "side_by_side",
    "sweep_charts",
    "training_curves",
]

_SCORES = {"rank1": "Rank-1", "rank5": "Rank-5", "rank10": "Rank-10", "mAP": "mAP", "mINP": "mINP"}
_LOG_FROM = 30.0  # times that the largest value of a training curve is above the smallest
_MARKED = 20  # points that are shown one by one; a longer line is told apart by its dashes
_MARKERS = "os^DvPX"
_DASHES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (1.5, 1.5)), (0, (7, 2, 1.5, 2)))
_UNIT = 72  # of matplotlib's points in its inches, so that a unit of a chart is a point, and a pixel of an SVG
_EDGE, _TOP, _BOTTOM = 16, 38, 46  # around the axes, in units; what the y axis needs is measured
_SMALL = 11
_LONGEST = 400  # characters of a label that are measured
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # matplotlib brings it along
    "svg.fonttype": "none",
    "text.parse_math": False,
}
_drawing = threading.Lock()  # matplotlib's settings and Python's filter of warnings belong to the process


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Args:
        name: for the legend.
        x: positions, rising.
        y: one value a position; NaN leaves a gap.
        low: lower ends of an interval band, one a position; with `high`.
        high: upper ends.
        reference: what the others are compared with, such as a diagonal: thin, grey and dashed.

    Raises:
        ShapeError: the lengths differ.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    reference: bool = False

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ShapeError(f"series '{self.name}' has one end of its band only; give both low and high, or neither.")
        lengths = {len(values) for values in (self.x, self.y, self.low, self.high) if values is not None}
        if len(lengths) > 1:
            raise ShapeError(f"series '{self.name}' has values of {sorted(lengths)} lengths; give one y for each x.")


@dataclass(frozen=True)
class LineChart:
    """Lines over a common x axis, with ticks, legend and interval bands.

    Args:
        title: above the chart.
        x_label: below the x axis.
        y_label: beside the y axis.
        series: the lines; points that are not finite are left out.
        percent: y values are shares and are labelled in per cent.
        log_y: logarithmic y axis; values that are not above 0 are left out.
        percent_x: x positions are shares and are labelled in per cent.
        log_x: logarithmic x axis; points whose position is not above 0 are left out.
        y_range: fixed lower and upper end of the y axis, or None to follow the data.
        width: in pixels, at least 240.
        height: in pixels, at least 160; it grows where the legend would take too much of it.

    Raises:
        ShapeError: the chart is too small, or the range is empty.

    Example:
        >>> chart = LineChart("CMC", "rank", "hit rate", [Series("own", [1, 2, 3], [0.5, 0.75, 1.0])], percent=True)
        >>> chart.svg().startswith("<svg"), chart.image().size
        (True, (1120, 640))
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    percent: bool = False
    log_y: bool = False
    y_range: tuple[float, float] | None = None
    width: int = 560
    height: int = 320
    percent_x: bool = False
    log_x: bool = False

    def __post_init__(self) -> None:
        if self.width < 240 or self.height < 160:
            raise ShapeError(f"a chart of {self.width}×{self.height} pixels is too small; give at least 240×160.")
        if self.y_range is not None and not self.y_range[0] < self.y_range[1]:
            raise ShapeError(f"y_range is {self.y_range}; the first end must lie below the second.")
        if self.log_y and self.y_range is not None and self.y_range[0] <= 0:
            raise ShapeError(f"y_range is {self.y_range}; a logarithmic axis must lie above 0.")

    def svg(self) -> str:
        """Return the chart as one SVG element; its text and axes take the color of the page around it."""
        return _vectors([self], 1)

    def image(self, scale: int = 2) -> Image.Image:
        """Return the chart as RGB pixels, `scale` pixels for each unit of the SVG.

        Raises:
            ShapeError: the scale is not 1 … 8.
        """
        return side_by_side([self], columns=1, scale=scale)


def side_by_side(charts: Sequence[LineChart], *, columns: int = 2, scale: int = 2) -> Image.Image:
    """Return several charts as one picture, row by row; charts of the same lines share a legend.

    Raises:
        ShapeError: no chart is given, less than one column, or a scale that is not 1 … 8.
    """
    if not 1 <= scale <= 8:
        raise ShapeError(f"scale is {scale}; give 1 … 8.")
    with _figure(charts, columns, scale) as figure:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        figure.set_facecolor(_hex(PAPER))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def charts_svg(charts: Sequence[LineChart], *, columns: int = 3) -> str:
    """Return several charts as one SVG file, row by row, dark on white; charts of the same lines share a legend.

    Raises:
        ShapeError: no chart is given, or less than one column.

    Example:
        >>> drawing = charts_svg([cmc_curves({"own": [0.8, 0.9]}), cmc_curves({"own": [0.7, 0.9]})])
        >>> drawing.startswith("<svg"), drawing.count("<svg"), 'fill="#ffffff"' in drawing
        (True, 1, True)
    """
    return _vectors(charts, columns, paper=True) + "\n"


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
        charts.append(LineChart("Losses", "epoch", "loss", _lines(losses), log_y=spread))
    if scores:
        charts.append(LineChart("Held-out retrieval", "epoch", "share", _lines(scores), percent=True))
    if rates:
        spread = _is_spread([v for _, v in rates["lr"]])
        charts.append(LineChart("Learning rate", "epoch", "learning rate", _lines(rates), log_y=spread))
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
        [*lines, Series("ideal", [0.0, 1.0], [0.0, 1.0], reference=True)],
        percent=True,
        y_range=(0.0, 1.0),
        percent_x=True,
    )


def _lines(points: Mapping[str, Sequence[tuple[float, float]]]) -> list[Series]:
    return [Series(name, [x for x, _ in pairs], [y for _, y in pairs]) for name, pairs in points.items()]


def _is_spread(values: Sequence[float]) -> bool:
    """Whether values differ so much that only a logarithmic axis shows them all."""
    finite = [v for v in values if math.isfinite(v)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) > _LOG_FROM


def _stairs(name: str, x: Sequence[float], y: Sequence[float]) -> Series:
    """A step function from its first position above 0: each value holds up to the next position."""
    kept = [(float(a), float(b)) for a, b in zip(x, y, strict=True) if a > 0]
    corners = [(right[0], left[1]) for left, right in itertools.pairwise(kept)]
    points = [p for pair in itertools.zip_longest(kept, corners) for p in pair if p is not None]
    return Series(name, [p[0] for p in points], [p[1] for p in points])


@contextmanager
def _figure(charts: Sequence[LineChart], columns: int, scale: float = 1.0, salt: str = "") -> Iterator[Figure]:
    """The figure of some charts, under our settings as long as it is drawn."""
    if not charts or columns < 1:
        raise ShapeError(f"got {len(charts)} charts in {columns} columns; give at least one of each.")
    import matplotlib
    from matplotlib.figure import Figure

    with _drawing, matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": salt})
        # A name in a script that the font lacks: boxes in pixels; in an SVG the reader's browser finds another font.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        across, down = min(columns, len(charts)), -(-len(charts) // columns)
        wide = max(chart.width for chart in charts)
        shared = len(charts) > 1 and len({tuple(s.name for s in chart.series) for chart in charts}) == 1
        below = _Legend(charts[0], wide * across) if shared else None
        legends = [None if shared else _Legend(chart, chart.width) for chart in charts]
        high = max(_height(chart, legend) for chart, legend in zip(charts, legends, strict=True))
        width, height = wide * across, high * down + (below.height if below else 0)
        # A little more than whole, for matplotlib cuts pixels off.
        size = (width + 1e-9) / _UNIT, (height + 1e-9) / _UNIT
        figure = Figure(size, dpi=_UNIT * scale, facecolor="none")
        for number, (chart, legend) in enumerate(zip(charts, legends, strict=True)):
            left, top = number % across * wide, height - number // across * high
            axes = figure.add_axes((0, 0, 1, 1), facecolor="none")
            _draw(axes, chart)
            _place(axes, chart, (left, top - high + (legend.height if legend else 0), left + chart.width, top))
            if legend:
                legend.draw(axes, left + _EDGE, top - high)
        if below:
            below.draw(figure.axes[0], _EDGE, 0)
        yield figure


def _height(chart: LineChart, legend: _Legend | None) -> int:
    """The height of a chart, and more where its legend would leave the lines too little of it."""
    return max(chart.height, chart.height // 2 - 30 + _TOP + _BOTTOM + legend.height if legend else 0)


class _Legend:
    """The names of a chart's lines, in as many columns as find room below it, read line by line."""

    def __init__(self, chart: LineChart, width: int) -> None:
        self.names = [_fit(series.name, width - 2 * _EDGE - 40, _SMALL) for series in chart.series]
        widest = max((_width(name, _SMALL) for name in self.names), default=0.0)
        self.columns = max(1, min(len(self.names), int((width - 2 * _EDGE) // (widest + 48))))
        self.height = 17 * -(-len(self.names) // self.columns) + 8 if self.names else 0

    def draw(self, axes: Axes, left: float, bottom: float) -> None:
        """Write it into the figure of some axes that hold the lines, its lower left corner there."""
        if not self.names:
            return
        entries = list(zip((line for line in axes.lines if line.get_gid() == "series"), self.names, strict=True))
        entries = [entry for column in range(self.columns) for entry in entries[column :: self.columns]]
        figure: Any = axes.figure
        width, height = figure.get_size_inches() * _UNIT
        figure.legend(
            *zip(*entries, strict=True),
            loc="lower left",
            bbox_to_anchor=(left / width, (bottom + 6) / height),
            ncols=self.columns,
            frameon=False,
            fontsize=_SMALL,
            labelcolor=_hex(INK),
            handlelength=2.4,
            columnspacing=1.4,
            labelspacing=0.4,
            borderaxespad=0.0,
            borderpad=0.0,
        )


def _draw(axes: Axes, chart: LineChart) -> None:
    """Draw the lines of a chart, its scales, limits and ticks."""
    lines = [_usable(chart, series) for series in chart.series]
    for number, (series, (x, y, low, high)) in enumerate(zip(chart.series, lines, strict=True)):
        color = _hex(SERIES[number % len(SERIES)])
        look: dict[str, Any] = {"color": color, "linewidth": 2.0, "markersize": 5.5, "solid_joinstyle": "round"}
        if series.reference:
            look |= {"color": _hex(MUTED), "linewidth": 1.2, "dashes": (4, 3)}
        elif len(x) <= _MARKED:
            look |= {"marker": _MARKERS[(number + number // len(SERIES)) % len(_MARKERS)]}
        else:
            look |= {"linestyle": _DASHES[number % len(_DASHES)]}
            drawn = np.r_[False, np.isfinite(y), False]
            alone = drawn[1:-1] & ~drawn[:-2] & ~drawn[2:]
            axes.plot(x[alone], y[alone], "o", color=color, markersize=5.5)
        axes.plot(x, y, gid="series", **look)
        banded = np.isfinite(low) & np.isfinite(high)
        if banded.any():
            axes.fill_between(x, low, high, where=banded.tolist(), color=color, alpha=0.16, linewidth=0)
    empty = not any(np.isfinite(y).any() for _, y, *_ in lines)
    for logarithmic, scale, limit in (
        (chart.log_x, axes.set_xscale, axes.set_xlim),
        (chart.log_y, axes.set_yscale, axes.set_ylim),
    ):
        if logarithmic:
            scale("log")
        if empty:
            limit(*((0.1, 10.0) if logarithmic else (0.0, 1.0)))
    if chart.y_range is not None:
        low_end, high_end = chart.y_range
        room = 0.0 if chart.log_y else 0.025 * (high_end - low_end)  # so that a mark on an end is whole
        axes.set_ylim(low_end - room, high_end + room)
    positions = sorted({float(value) for x, *_ in lines for value in x})
    _tick(axes.xaxis, chart.log_x, chart.percent_x, chart.width // 80, positions)
    _tick(axes.yaxis, chart.log_y, chart.percent, max(3, chart.height // 50), [])
    if empty:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", size=13, color=_hex(INK))


def _place(axes: Axes, chart: LineChart, box: tuple[float, float, float, float]) -> None:
    """Put axes with their title and labels into a box (left, bottom, right, top) of the figure, in units of a chart."""
    ink = _hex(INK)
    texts = axes.yaxis.get_major_formatter().format_ticks(list(axes.yaxis.get_majorticklocs()))
    beside = 34 + max((_width(text, _SMALL) for text in texts), default=0.0)
    left, bottom, right, top = box[0] + beside, box[1] + _BOTTOM, box[2] - _EDGE, box[3] - _TOP
    figure: Any = axes.figure
    width, height = figure.get_size_inches() * _UNIT
    axes.set_position((left / width, bottom / height, (right - left) / width, (top - bottom) / height))
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set(color=ink, alpha=0.6, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=ink, alpha=0.13, linewidth=0.8)
    axes.tick_params(which="both", color=ink, labelcolor=ink, labelsize=_SMALL, width=0.8, length=4)
    axes.tick_params(axis="y", which="both", length=0, pad=6)
    title = _fit(chart.title, right - left, 14, bold=True)
    axes.set_title(title, loc="left", size=14, weight="bold", color=ink, pad=10)
    axes.set_xlabel(_fit(chart.x_label, right - left, 12), size=12, color=ink)
    axes.set_ylabel(_fit(chart.y_label, top - bottom, 12), size=12, color=ink)
    axes.yaxis.set_label_coords((22 - beside) / (right - left), 0.5)


def _tick(axis: Any, logarithmic: bool, percent: bool, most: int, positions: list[float]) -> None:
    """Place and write the ticks of an axis; where the data's own positions are few and fit (0, 20, 35, 50 %), there."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator, ScalarFormatter

    low, high = axis.get_view_interval()
    if logarithmic:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low <= 300 else (1,), numticks=most + 1))
        axis.set_minor_locator(NullLocator())
    elif 1 <= len(positions) <= 8 and all(b - a >= 0.06 * (high - low) for a, b in itertools.pairwise(positions)):
        axis.set_major_locator(FixedLocator(positions))
    elif positions and all(x.is_integer() for x in positions):  # ranks, epochs: the first of them counts
        ticks = MaxNLocator(most, integer=True, steps=[1, 2, 5, 10]).tick_values(low, high)
        after = [tick for tick in ticks if positions[0] + 0.04 * (high - low) < tick <= positions[-1]]
        axis.set_major_locator(FixedLocator([positions[0], *after]))
    else:
        axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    if percent:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g} %"))
    elif logarithmic:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    else:
        axis.set_major_formatter(ScalarFormatter(useOffset=False))


def _usable(chart: LineChart, series: Series) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, y, low and high of the positions that can be drawn; NaN stands for values that cannot."""
    x = np.asarray([float(value) for value in series.x])
    none = np.full(len(x), np.nan)
    rows = [np.asarray([float(v) for v in r]) if r is not None else none for r in (series.y, series.low, series.high)]
    # Beyond 1e300 not even the length of the axis is a number.
    kept = (np.abs(x) < 1e300) & (x > 0 if chart.log_x else True)
    y, low, high = (
        np.where((np.abs(row) < 1e300) & (row > 0 if chart.log_y else True), row, np.nan)[kept] for row in rows
    )
    return x[kept], y, low, high


def _vectors(charts: Sequence[LineChart], columns: int, *, paper: bool = False) -> str:
    """Charts as one SVG element: text stays text, and ink is the color around it, or our own on a paper."""
    told = [f"{c.title}: {c.y_label} over {c.x_label}; {', '.join(s.name for s in c.series)}" for c in charts]
    label = printable(". ".join(told))
    with _figure(charts, columns, salt=label) as figure:
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        width, height = (round(side * _UNIT) for side in figure.get_size_inches())
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawn = text.getvalue()
    drawn = drawn[drawn.index(">", drawn.index("<svg")) + 1 :]
    drawn = re.sub(r'<g id="[\w.]+"', "<g", drawn)  # names that charts of one page would share
    drawn = re.sub(r"\n *(<g/>)?", "\n", drawn)
    drawn = re.sub(rf"(fill|stroke): {_hex(INK)}", r"\1: currentColor", drawn)
    ground = f'<rect width="{width}" height="{height}" fill="{_hex(PAPER)}"/>' if paper else ""
    ink = f' color="{_hex(INK)}"' if paper else ""
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label)}"{ink}>{ground}{drawn.strip()}'
    )


def _fit(text: str, room: float, size: float, *, bold: bool = False) -> str:
    """A text in one line, cut with "…" where it would be wider than `room`."""
    shown = printable(" ".join(text[:_LONGEST].split()))
    while len(shown) > 1 and (width := _width(shown, size, bold=bold)) > room:
        shown = shown[: max(0, min(len(shown) - 2, int(len(shown) * room / width)))].rstrip() + "…"
    return shown


def _width(text: str, size: float, *, bold: bool = False) -> float:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size, weight="bold" if bold else "normal")
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def _hex(color: RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
