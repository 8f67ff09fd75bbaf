"""Curves: what a chart shows of its data, that it looks the same on every machine, and the kinds of charts."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import matplotlib
import numpy as np
import pytest

from occluded_reid.errors import ShapeError
from occluded_reid.visualize import (
    LineChart,
    Series,
    charts_svg,
    cmc_curves,
    detection_curves,
    error_curves,
    occlusion_curves,
    reliability_curves,
    side_by_side,
    sweep_charts,
    training_curves,
)
from occluded_reid.visualize.colors import INK, MUTED, PAPER, SERIES

SVG = "{http://www.w3.org/2000/svg}"
Point = tuple[float, float]


def chart_of(*series: Series, **options: object) -> LineChart:
    return LineChart("t", "x", "y", series, **options)  # type: ignore[arg-type]


def paths_of(drawing: str, color: tuple[int, int, int] = SERIES[0], *, band: bool = False) -> list[list[Point]]:
    """Points of the lines of that color, the legend's last, or of its bands."""
    name = f"{'fill' if band else 'stroke'}: #{{:02x}}{{:02x}}{{:02x}}".format(*color)
    paths = [e for e in ElementTree.fromstring(drawing).iter(f"{SVG}path") if bool(e.get("id")) == band]
    numbers = [re.findall(r"-?\d[\d.]*", e.get("d", "")) for e in paths if name in e.get("style", "") or band]
    return [list(zip(map(float, row[::2]), map(float, row[1::2]), strict=True)) for row in numbers]


def line_of(chart: LineChart) -> list[Point]:
    return max((path for path in paths_of(chart.svg()) if path), key=len)


def texts_of(chart: LineChart) -> list[str]:
    return [e.text or "" for e in ElementTree.fromstring(chart.svg()).iter(f"{SVG}text")]


def test_points_lie_where_their_values_put_them() -> None:
    first, second, third = line_of(chart_of(Series("a", [0, 1, 4], [0.0, 1.0, 0.5]), y_range=(0.0, 1.0)))
    assert second[0] - first[0] == pytest.approx((third[0] - first[0]) / 4, abs=0.01)
    assert second[1] < third[1] < first[1]
    assert third[1] == pytest.approx((first[1] + second[1]) / 2, abs=0.01)


def test_a_logarithmic_axis_spaces_powers_evenly() -> None:
    chart = chart_of(Series("a", [0, 1, 2], [1.0, 10.0, 100.0]), log_y=True)
    a, b, c = line_of(chart)
    assert a[1] - b[1] == pytest.approx(b[1] - c[1], abs=0.01)
    assert {"1", "10", "100"} <= set(texts_of(chart))
    chart = chart_of(Series("a", [0, 0.001, 0.01, 0.1], [5.0, 1.0, 2.0, 3.0]), log_x=True)
    a, b, c = line_of(chart)  # 0 has no place there
    assert b[0] - a[0] == pytest.approx(c[0] - b[0], abs=0.01)
    assert {"0.001", "0.01", "0.1"} <= set(texts_of(chart))
    percent = chart_of(Series("a", [0.001, 0.01, 0.1], [1.0, 2.0, 3.0]), log_x=True, percent_x=True)
    assert {"0.1 %", "1 %", "10 %"} <= set(texts_of(percent))


def test_shares_are_labelled_in_per_cent() -> None:
    chart = chart_of(Series("a", [0.0, 1.0], [0.6, 1.0]), percent=True, percent_x=True)
    assert {"0 %", "60 %", "80 %", "100 %"} <= set(texts_of(chart))


@pytest.mark.parametrize(
    ("positions", "shown"),
    [([0, 20, 35, 50], "0 20 35 50"), (range(1, 21), "1 5 10 15 20"), (range(1, 61), "1 10 20 30 40 50 60")],
)
def test_ticks_stand_at_the_data_s_own_positions_or_at_round_ones_from_the_first(positions: range, shown: str) -> None:
    chart = chart_of(Series("a", positions, [0.5] * len(positions)), y_range=(0.0, 0.999))
    assert texts_of(chart)[: len(shown.split())] == shown.split()


def test_missing_values_cut_the_line_and_what_stands_alone_is_marked() -> None:
    nan = math.nan
    for rest, runs in (([], [2, 1, 1]), ([nan, *range(30)], [2, 1, 1, 30])):
        values = [1, 2, nan, 3, math.inf, 4, *rest]
        drawing = chart_of(Series("a", range(len(values)), values)).svg()
        paths = [e for e in ElementTree.fromstring(drawing).iter(f"{SVG}path") if e.get("clip-path")]
        (line,) = [e.get("d", "") for e in paths if "stroke: #0072b2" in e.get("style", "")]
        assert [run.count("L") + 1 for run in line.split("M")[1:]] == runs
        marks = [e for e in ElementTree.fromstring(drawing).iter(f"{SVG}use") if "#0072b2" in e.get("style", "")]
        assert len(marks) == (2 if rest else 4 + 1)  # and one in the legend


@pytest.mark.parametrize(
    "chart",
    [
        chart_of(),
        chart_of(Series("a", [], [])),
        chart_of(Series("a", [1], [math.nan]), log_y=True),
        *(chart_of(Series("a", x, [1.0] * len(x)), log_x=True) for x in ([], [0.0], [-1.0])),
    ],
)
def test_nothing_to_draw_is_said(chart: LineChart) -> None:
    assert "no data" in texts_of(chart)
    assert chart.image(1).size == (560, 320)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-9, 1e12, 1e308])
def test_constant_lines_have_an_axis(value: float) -> None:
    chart = chart_of(Series("a", [1, 2], [value, value]))
    assert "nan" not in chart.svg()
    chart.image(1)


def test_an_interval_band_encloses_its_line() -> None:
    drawing = chart_of(Series("a", [0, 1], [2.0, 3.0], [1.0, 2.5], [3.0, 3.5])).svg()
    line = next(path for path in paths_of(drawing) if len(path) == 2)
    band = next(path for path in paths_of(drawing, band=True) if len(path) > 4)
    for x, y in line:
        at_x = [320 + b for a, b in band if a == pytest.approx(x, abs=0.01)]
        assert min(at_x) < y < max(at_x)


def test_the_same_chart_gives_the_same_bytes_whatever_the_caller_has_set() -> None:
    chart = chart_of(Series("a", range(30), range(30)), Series("b", [1, 2], [3, 4]))
    first, drawing = chart.image(), chart.svg()
    assert first.size == (1120, 640)
    assert (np.asarray(first) == SERIES[0]).all(-1).sum() > 500
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        assert (chart.image().tobytes(), chart.svg()) == (first.tobytes(), drawing)
        assert matplotlib.rcParams["lines.linewidth"] == 9
    for word in ("date", "matplotlib", "rdf"):
        assert word not in drawing.lower()


def test_threads_draw_in_turns() -> None:
    chart = chart_of(Series("a", [0, 1], [0, 1]))
    drawn: list[bytes] = []
    threads = [threading.Thread(target=lambda: drawn.append(chart.image(1).tobytes())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drawn == [chart.image(1).tobytes()] * 3


def test_a_picture_takes_its_ink_from_the_page_and_a_file_from_its_paper() -> None:
    chart = chart_of(Series("a", [0, 1], [0, 1]))
    ink, paper = ("#{:02x}{:02x}{:02x}".format(*color) for color in (INK, PAPER))
    assert "currentColor" in chart.svg()
    assert ink not in chart.svg()
    assert f'fill="{paper}"' not in chart.svg()
    file = charts_svg([chart])
    assert f'color="{ink}"' in file
    assert f'fill="{paper}"' in file


def test_marks_and_dashes_tell_lines_apart_without_color() -> None:
    few = [Series(str(n), [0, 1], [n, n + 1]) for n in range(2 * len(SERIES))]
    assert len(set(_marks(chart_of(*few)))) == len(few)
    many = [Series(str(n), range(30), range(n, n + 30)) for n in range(2 * len(SERIES))]
    lines = [e.get("style", "") for e in ElementTree.fromstring(chart_of(*many).svg()).iter(f"{SVG}path")]
    assert len({style for style in lines if "stroke-width: 2" in style}) == len(many)


def _marks(chart: LineChart) -> list[str]:
    """Shape and color of the marks."""
    shapes = ElementTree.fromstring(chart.svg()).iter(f"{SVG}path")
    return [
        f"{e.get('d')} {e.get('style')}"
        for e in shapes
        if e.get("id", "").startswith("m") and "#" in e.get("style", "")
    ]


def test_names_from_outside_are_escaped_and_are_no_formulas() -> None:
    chart = LineChart(
        "<script>", '"><b>', "$a_b$ & \x1b[2J", [Series("</svg><script>alert(1)</script>", [0, 1], [0, 1])]
    )
    assert "<script" not in chart.svg()
    assert "<b>" not in chart.svg()
    assert r"$a_b$ & \x1b[2J" in texts_of(chart)


def test_a_script_that_the_font_lacks_is_left_to_the_reader_s_browser() -> None:
    chart = chart_of(Series("张三", [0, 1], [0, 1]))
    assert "张三" in texts_of(chart)
    chart.image(1)


def test_endless_labels_stay_inside() -> None:
    chart = LineChart("t" * 5000, "x" * 5000, "y" * 5000, [Series("s" * 5000, [0, 1], [0, 1])] * 3)
    assert max(len(t) for t in texts_of(chart)) <= 100
    assert chart.image(1).size == (560, 320)


def test_a_long_legend_does_not_take_the_lines_room() -> None:
    names = [Series(f"a model with a name {n}", [0, 1], [n, n]) for n in range(24)]
    assert chart_of(*names[:9]).image(1).size == (560, 320)
    assert chart_of(*names).image(1).height > 320
    texts = ElementTree.fromstring(chart_of(*names).svg()).iter(f"{SVG}text")
    read = sorted(texts, key=lambda e: (float(e.get("y", 0)), float(e.get("x", 0))))  # line by line
    assert [e.text for e in read if (e.text or "").startswith("a model")] == [s.name for s in names]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Series("a", [1, 2], [1]), "lengths"),
        (lambda: Series("a", [1], [1], low=[0]), "one end"),
        (lambda: LineChart("t", "x", "y", [], width=10), "too small"),
        (lambda: LineChart("t", "x", "y", [], y_range=(1, 1)), "y_range"),
        (lambda: LineChart("t", "x", "y", []).image(0), "scale"),
        (lambda: LineChart("t", "x", "y", [], log_y=True, y_range=(0, 1)), "above 0"),
        (lambda: side_by_side([]), "0 charts"),
        (lambda: charts_svg([]), "got 0 charts in 3 columns"),
        (lambda: charts_svg([LineChart("a", "b", "c", [])], columns=0), "1 charts in 0 columns"),
    ],
)
def test_wrong_use_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        make()


def test_matplotlib_comes_late_and_without_pyplot() -> None:
    code = (
        "import sys; from occluded_reid.visualize import LineChart; chart = LineChart('t', 'x', 'y', [])\n"
        "print('matplotlib' in sys.modules); chart.svg(); print('matplotlib.pyplot' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300).stdout
    assert out.split() == ["False", "False"]


def test_charts_stand_row_by_row_and_share_a_legend_of_the_same_lines() -> None:
    curve = [(0.0, 0.82, 0.8, 0.84), (0.5, 0.41, 0.33, 0.5)]
    charts = sweep_charts({f"kind & {n}": {"<a>": curve} for n in range(4)})
    drawing = ElementTree.fromstring(charts_svg(charts, columns=3))
    texts = [e.text or "" for e in drawing.iter(f"{SVG}text")]
    assert [t for t in texts if "kind" in t] == [f"Rank-1: kind & {n}" for n in range(4)]
    assert texts.count("<a>") == 1
    _, _, width, height = map(int, drawing.get("viewBox", "").split())
    assert (width, 640 < height < 680) == (1680, True)
    assert side_by_side(charts, columns=3, scale=1).size == (width, height)
    others = [chart_of(Series(name, [0, 1], [0, 1])) for name in "abc"]
    assert side_by_side(others, columns=2, scale=1).size == (1120, 640)


def test_training_curves_hold_every_named_loss_and_score() -> None:
    records = [
        {
            "epoch": e,
            "lr": 10.0**-e,
            "losses": {"total": 3.0, "spc": 96.0 / e},
            "scores": {"mAP": 0.1 * e} if e > 1 else {},
        }
        for e in (1, 2, 3)
    ]
    losses, scores, rate = training_curves(records)
    assert [s.name for s in losses.series] == ["total", "spc"]
    assert list(losses.series[1].y) == [96.0, 48.0, 32.0]
    assert losses.log_y
    assert (list(scores.series[0].x), list(scores.series[0].y)) == ([2, 3], pytest.approx([0.2, 0.3]))
    assert list(rate.series[0].y) == pytest.approx([0.1, 0.01, 0.001])
    assert training_curves([]) == []
    with pytest.raises(ShapeError, match="record 0 has no 'epoch'"):
        training_curves([{"lr": 1}])


def test_cmc_and_occlusion_curves_start_where_they_should() -> None:
    assert list(cmc_curves({"a": [0.5, 1.0]}).series[0].x) == [1, 2]
    chart = occlusion_curves({"own": [(0.0, 0.9, 0.8, 1.0), (0.35, 0.5, math.nan, math.nan)]})
    assert list(chart.series[0].x) == pytest.approx([0, 35])
    assert {"0", "35"} <= set(texts_of(chart))
    assert "nan" not in chart.svg()


def test_one_axis_holds_every_value_and_band_of_every_kind() -> None:
    curve = [(0.0, 0.82, 0.8, 0.84), (0.5, 0.41, 0.33, 0.5)]
    low = [(0.0, 0.82, math.nan, math.nan), (0.5, 0.17, math.nan, math.nan)]
    charts = sweep_charts({"bottom": {"a": curve}, "top": {"a": curve, "b": low}}, metric="mAP")
    assert [chart.y_range for chart in charts] == [(0.1, 0.9)] * 2
    assert [len(chart.series) for chart in charts] == [1, 2]
    assert sweep_charts({"top": {"a": [(0.0, 1.0, 1.0, 1.0)]}})[0].y_range == (0.0, 1.0), "an empty range is none"
    assert sweep_charts({"top": {"a": [(0.0, math.nan, math.nan, math.nan)]}})[0].y_range == (0.0, 1.0)


def test_steps_hold_up_to_the_next_rate() -> None:
    chart = detection_curves({"rank 1": ([0.0, 0.01, 0.1, 1.0], [0.1, 0.2, 0.6, 0.9])})
    (line,) = chart.series
    assert list(zip(line.x, line.y, strict=True)) == [(0.01, 0.2), (0.1, 0.2), (0.1, 0.6), (1.0, 0.6), (1.0, 0.9)]
    assert chart.y_range == (0.0, 1.0)
    assert detection_curves({"nothing": ([0.0], [0.3])}).series[0].x == []
    errors = error_curves({"own": ([0.001, 0.1], [0.5, 0.0])})
    assert list(errors.series[0].y) == [0.5, 0.5, 0.0]
    errors.image(1)  # a rate of 0 has no place on a logarithmic axis and is left out


def test_the_diagonal_is_always_there() -> None:
    chart = reliability_curves({"all": ([0.2, 0.7], [0.1, 0.9])})
    assert [(line.name, line.reference) for line in chart.series] == [("all", False), ("ideal", True)]
    assert (list(chart.series[1].x), list(chart.series[1].y)) == ([0.0, 1.0], [0.0, 1.0])
    assert "100 %" in texts_of(chart)
    assert "#{:02x}{:02x}{:02x}".format(*MUTED) in chart.svg()
