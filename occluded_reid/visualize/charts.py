"""A line chart: laid out once, drawn as SVG text or as pixels from the same primitives."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from occluded_reid.errors import ShapeError
from occluded_reid.visualize.canvas import fit_text, text_width
from occluded_reid.visualize.colours import PAPER, RGB, SERIES
from occluded_reid.visualize.primitives import FINE, Area, Dot, Label, Line, Primitive, paint, to_svg, write_label
from occluded_reid.visualize.ticks import log_ticks, plain_text, round_ticks, span, tick_text

__all__ = ["LineChart", "Series", "side_by_side"]

_DASHES: tuple[tuple[float, ...], ...] = ((), (6.0, 4.0), (2.0, 3.0), (9.0, 3.0, 2.0, 3.0))
_TICK_SIZE = 11


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Args:
        name: for the legend.
        x: positions, rising.
        y: one value a position; NaN leaves a gap.
        low: lower ends of an interval band, one a position; with `high`.
        high: upper ends.

    Raises:
        ShapeError: the lengths differ.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None

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
        height: in pixels, at least 160.

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
        """Return the chart as one SVG element; its text and axes take the colour of the page around it."""
        parts = [to_svg(p) for p in self._primitives(printed=False)]
        label = escape(f"{self.title}: {self.y_label} over {self.x_label}; {', '.join(s.name for s in self.series)}")
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="img" aria-label="{label}" '
            f'font-family="system-ui, sans-serif">{"".join(parts)}</svg>'
        )

    def image(self, scale: int = 2) -> Image.Image:
        """Return the chart as RGB pixels, `scale` pixels for each unit of the SVG."""
        if not 1 <= scale <= 8:
            raise ShapeError(f"scale is {scale}; give 1 … 8.")
        primitives = self._primitives(printed=True)
        fine = Image.new("RGB", (self.width * FINE, self.height * FINE), PAPER)
        for primitive in primitives:
            paint(fine, primitive)
        canvas = fine.resize((self.width * scale, self.height * scale), Image.Resampling.BOX)
        for primitive in primitives:
            if isinstance(primitive, Label):
                write_label(canvas, primitive, scale)
        return canvas

    def _primitives(self, printed: bool) -> list[Primitive]:
        """Lay the chart out; `printed` cuts labels to what the bundled font can draw."""
        lines = [self._usable(series) for series in self.series]
        x_low, x_high = self._x_span(lines)
        y_low, y_high = self.y_range or self._y_span(lines)
        y_ticks = log_ticks(y_low, y_high) if self.log_y else round_ticks(y_low, y_high, max(3, self.height // 60))
        if self.y_range is None and not self.log_y:
            y_low, y_high = min(y_low, y_ticks[0]), max(y_high, y_ticks[-1])
        shown = [(tick, self._y_text(tick, y_ticks)) for tick in y_ticks if y_low <= tick <= y_high]
        names = [fit_text(s.name, self.width - 80, _TICK_SIZE) if printed else _short(s.name) for s in self.series]
        legend, legend_height = self._legend(names)
        left = 34 + max((text_width(text, _TICK_SIZE) for _, text in shown), default=20)
        right, top, bottom = self.width - 16, 36, self.height - 48 - legend_height

        def place(x: float, y: float) -> tuple[float, float]:
            share = _between(y, y_low, y_high, self.log_y)
            across = _between(x, x_low, x_high, self.log_x)
            return left + across * (right - left), bottom - min(1.0, max(0.0, share)) * (bottom - top)

        out: list[Primitive] = [Label(left, 20, self._shown(self.title, right - left, 14, printed), 14, strong=True)]
        for tick, text in shown:
            y = place(x_low, tick)[1]
            out.append(Line(((left, y), (right, y)), "ink", 1.0, 0.13))
            out.append(Label(left - 6, y + 4, text, _TICK_SIZE, "end"))
        x_ticks = [t for t in self._x_ticks(lines, x_low, x_high) if x_low <= t <= x_high]
        for tick in x_ticks:
            x = place(tick, y_high)[0]
            out.append(Line(((x, bottom), (x, bottom + 4)), "ink", 1.0, 0.6))
            out.append(Label(x, bottom + 17, self._x_text(tick, x_ticks), _TICK_SIZE, "middle"))
        out.append(Line(((left, bottom), (right, bottom)), "ink", 1.0, 0.6))
        middle = (left + right) / 2
        out.append(Label(middle, bottom + 34, self._shown(self.x_label, right - left, 12, printed), 12, "middle"))
        beside = self._shown(self.y_label, bottom - top, 12, printed)
        out.append(Label(15, (top + bottom) / 2, beside, 12, "middle", upright=True))
        for number, line in enumerate(lines):
            band = [(x, low, high) for x, _, low, high in line if not (math.isnan(low) or math.isnan(high))]
            if len(band) > 1:
                edge = [place(x, high) for x, _, high in band] + [place(x, low) for x, low, _ in reversed(band)]
                out.append(Area(tuple(edge), SERIES[number % len(SERIES)], 0.16))
        for number, line in enumerate(lines):
            colour, dash = _style(number)
            for run in _runs(line):
                points = tuple(place(x, y) for x, y in run)
                if len(points) > 1:
                    out.append(Line(points, colour, 2.0, 1.0, dash))
                if len(line) <= 20 or len(points) == 1:
                    out.extend(Dot(x, y, 3.0, colour) for x, y in points)
        if not any(any(not math.isnan(y) for _, y, *_ in line) for line in lines):
            out.append(Label(middle, (top + bottom) / 2, "no data", 13, "middle"))
        start = self.height - legend_height - 5
        for number, x, y, name in legend:
            colour, dash = _style(number)
            out.append(Line(((left + x, start + y + 5), (left + x + 20, start + y + 5)), colour, 2.5, 1.0, dash))
            out.append(Label(left + x + 26, start + y + 9, name, _TICK_SIZE))
        return out

    def _shown(self, text: str, room: float, size: int, printed: bool) -> str:
        return fit_text(text, int(room), size) if printed else _short(text)

    def _usable(self, series: Series) -> list[tuple[float, float, float, float]]:
        """(x, y, low, high) of each position; NaN stands for what cannot be drawn."""
        nan = math.nan
        low = series.low if series.low is not None else [nan] * len(series.x)
        high = series.high if series.high is not None else [nan] * len(series.x)

        def good(value: float) -> float:
            number = float(value)
            # Beyond that not even the length of the axis is a number.
            return number if abs(number) < 1e300 and (not self.log_y or number > 0) else nan

        return [
            (float(x), good(y), good(a), good(b))
            for x, y, a, b in zip(series.x, series.y, low, high, strict=True)
            if abs(x) < 1e300 and (not self.log_x or x > 0)
        ]

    def _x_span(self, lines: list[list[tuple[float, float, float, float]]]) -> tuple[float, float]:
        low, high = span([x for line in lines for x, *_ in line])
        return (low, high) if low > 0 or not self.log_x else (0.1, 10.0)

    def _y_span(self, lines: list[list[tuple[float, float, float, float]]]) -> tuple[float, float]:
        low, high = span([v for line in lines for point in line for v in point[1:] if not math.isnan(v)])
        if not self.log_y:
            return low, high
        low, high = (low, high) if low > 0 else (0.1, 10.0)
        return low / 1.1, high * 1.1

    def _x_ticks(self, lines: list[list[tuple[float, float, float, float]]], low: float, high: float) -> list[float]:
        """The data's own positions where they are few and fit (0, 20, 35, 50 %), else round numbers."""
        if self.log_x:
            return log_ticks(low, high)
        own = sorted({x for line in lines for x, *_ in line})
        room = 0.06 * (high - low)
        if 1 <= len(own) <= 8 and all(b - a >= room for a, b in itertools.pairwise(own)):
            return own
        ticks = round_ticks(low, high, self.width // 80)
        whole = all(float(x).is_integer() for x in own)
        return [t for t in ticks if not whole or float(t).is_integer()]

    def _x_text(self, tick: float, ticks: list[float]) -> str:
        if not self.percent_x:
            return plain_text(tick) if self.log_x else tick_text(tick, ticks)
        return f"{plain_text(tick * 100) if self.log_x else tick_text(tick * 100, [t * 100 for t in ticks])} %"

    def _y_text(self, tick: float, ticks: list[float]) -> str:
        if self.log_y:
            return f"{plain_text(tick * 100)} %" if self.percent else plain_text(tick)
        return f"{tick_text(tick * 100, [t * 100 for t in ticks])} %" if self.percent else tick_text(tick, ticks)

    def _legend(self, names: list[str]) -> tuple[list[tuple[int, int, int, str]], int]:
        """(series, x, y, name) of each entry, and the height of all."""
        if not names:
            return [], 0
        entries: list[tuple[int, int, int, str]] = []
        x = y = 0
        for number, name in enumerate(names):
            wide = 26 + text_width(name, _TICK_SIZE) + 18
            if x and x + wide > self.width - 80:
                x, y = 0, y + 18
            entries.append((number, x, y, name))
            x += wide
        return entries, y + 20


def side_by_side(charts: Sequence[LineChart], *, columns: int = 2, scale: int = 2) -> Image.Image:
    """Return several charts as one picture, row by row.

    Raises:
        ShapeError: no chart is given, or less than one column.
    """
    if not charts or columns < 1:
        raise ShapeError(f"got {len(charts)} charts in {columns} columns; give at least one of each.")
    images = [chart.image(scale) for chart in charts]
    wide, high = max(i.width for i in images), max(i.height for i in images)
    across = min(columns, len(images))
    canvas = Image.new("RGB", (wide * across, high * -(-len(images) // across)), PAPER)
    for number, image in enumerate(images):
        canvas.paste(image, (number % across * wide, number // across * high))
    return canvas


def _between(value: float, low: float, high: float, logarithmic: bool) -> float:
    """Where a value stands between two ends, 0 … 1."""
    if logarithmic:
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return (value - low) / (high - low)


def _style(number: int) -> tuple[RGB, tuple[float, ...]]:
    return SERIES[number % len(SERIES)], _DASHES[number // len(SERIES) % len(_DASHES)]


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 80 else flat[:79] + "…"


def _runs(line: list[tuple[float, float, float, float]]) -> list[list[tuple[float, float]]]:
    """Cut a line where values are missing."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y, *_ in line:
        if math.isnan(y):
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]
