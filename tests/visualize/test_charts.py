import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from occluded_reid.errors import ShapeError
from occluded_reid.visualize import LineChart, Series, cmc_curves, occlusion_curves, side_by_side, training_curves
from occluded_reid.visualize.colours import SERIES
from occluded_reid.visualize.ticks import log_ticks, round_ticks, tick_text

SVG = "{http://www.w3.org/2000/svg}"


def lines_of(chart, colour=SERIES[0]):
    """Points of the lines of that colour, without the legend's."""
    name = "#{:02x}{:02x}{:02x}".format(*colour)
    found = [e for e in ElementTree.fromstring(chart.svg()).iter(f"{SVG}polyline") if e.get("stroke") == name]
    return [[tuple(map(float, p.split(","))) for p in e.get("points").split()] for e in found[:-1]]


def texts_of(chart):
    return [e.text for e in ElementTree.fromstring(chart.svg()).iter(f"{SVG}text")]


def test_points_lie_where_their_values_put_them():
    chart = LineChart("t", "x", "y", [Series("a", [0, 1, 4], [0.0, 1.0, 0.5])], y_range=(0.0, 1.0))
    ((first, second, third),) = lines_of(chart)
    assert second[0] - first[0] == pytest.approx((third[0] - first[0]) / 4, abs=0.11)
    assert second[1] < third[1] < first[1]
    assert third[1] == pytest.approx((first[1] + second[1]) / 2, abs=0.11)


def test_logarithmic_axis_spaces_powers_evenly():
    chart = LineChart("t", "x", "y", [Series("a", [0, 1, 2], [1.0, 10.0, 100.0])], log_y=True)
    ((a, b, c),) = lines_of(chart)
    assert a[1] - b[1] == pytest.approx(b[1] - c[1], abs=0.11)
    assert {"1", "10", "100"} <= set(texts_of(chart))


def test_missing_values_cut_the_line():
    nan = math.nan
    chart = LineChart("t", "x", "y", [Series("a", range(6), [1, 2, nan, 3, math.inf, 4])])
    assert [len(line) for line in lines_of(chart)] == [2]
    assert ElementTree.fromstring(chart.svg()).findall(f"{SVG}circle")


def test_nothing_to_draw_is_said():
    for chart in (
        LineChart("t", "x", "y", []),
        LineChart("t", "x", "y", [Series("a", [], [])]),
        LineChart("t", "x", "y", [Series("a", [1], [math.nan])], log_y=True),
    ):
        assert "no data" in texts_of(chart)
        chart.image(1)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-9, 1e12, 1e308])
def test_constant_lines_have_an_axis(value):
    chart = LineChart("t", "x", "y", [Series("a", [1, 2], [value, value])])
    assert "nan" not in chart.svg()
    chart.image(1)


def test_interval_band_encloses_its_line():
    chart = LineChart("t", "x", "y", [Series("a", [0, 1], [2.0, 3.0], [1.0, 2.5], [3.0, 3.5])])
    (band,) = ElementTree.fromstring(chart.svg()).iter(f"{SVG}polygon")
    points = [tuple(map(float, p.split(","))) for p in band.get("points").split()]
    (line,) = lines_of(chart)
    for x, y in line:
        at_x = [py for px, py in points if px == x]
        assert min(at_x) < y < max(at_x)


def test_image_shows_the_line_and_the_same_bytes_twice():
    chart = LineChart("t", "x", "y", [Series("a", range(30), range(30))])
    first = chart.image()
    assert first.size == (1120, 640)
    assert (np.asarray(first) == SERIES[0]).all(-1).sum() > 500
    assert first.tobytes() == chart.image().tobytes()
    assert chart.svg() == chart.svg()


def test_dashes_tell_more_lines_than_colours_apart():
    series = [Series(str(n), [0, 1], [n, n + 1]) for n in range(len(SERIES) + 1)]
    svg = LineChart("t", "x", "y", series).svg()
    assert svg.count("stroke-dasharray") == 2  # the line and its entry in the legend
    LineChart("t", "x", "y", series).image(1)


def test_names_from_outside_are_escaped():
    chart = LineChart("<script>", '"><b>', "&", [Series("</svg><script>alert(1)</script>", [0, 1], [0, 1])])
    assert "<script" not in chart.svg()
    assert "<b>" not in chart.svg()
    ElementTree.fromstring(chart.svg())


def test_endless_labels_stay_inside():
    chart = LineChart("t" * 5000, "x" * 5000, "y" * 5000, [Series("s" * 5000, [0, 1], [0, 1])] * 3)
    assert max(len(t) for t in texts_of(chart)) <= 80
    assert chart.image(1).size == (560, 320)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.123, 0.127), (-5, 12000), (1e-7, 3e-7), (99.9, 100)])
def test_ticks_enclose_and_are_written_differently(low, high):
    ticks = round_ticks(low, high, 5)
    assert ticks[0] <= low + 1e-9 * abs(low)
    assert ticks[-1] >= high - 1e-9 * abs(high)
    assert 2 <= len(ticks) <= 12
    assert len({tick_text(t, ticks) for t in ticks}) == len(ticks)
    for tick in ticks:
        assert float(tick_text(tick, ticks)) == pytest.approx(tick, rel=1e-6, abs=1e-12)


def test_log_ticks_stay_in_range():
    assert log_ticks(3e-6, 3e-4) == pytest.approx([5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4])
    assert log_ticks(0.5, 2e4) == [1, 10, 100, 1000, 10000]


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
    ],
)
def test_wrong_use_is_refused(make, message):
    with pytest.raises(ShapeError, match=message):
        make()


def test_training_curves_hold_every_named_loss_and_score():
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


def test_cmc_and_occlusion_curves_start_where_they_should():
    assert list(cmc_curves({"a": [0.5, 1.0]}).series[0].x) == [1, 2]
    chart = occlusion_curves({"own": [(0.0, 0.9, 0.8, 1.0), (0.35, 0.5, math.nan, math.nan)]})
    assert list(chart.series[0].x) == pytest.approx([0, 35])
    assert {"0", "35"} <= set(texts_of(chart))
    assert not re.search("nan", chart.svg())


def test_side_by_side_holds_all():
    chart = LineChart("t", "x", "y", [Series("a", [0, 1], [0, 1])])
    assert side_by_side([chart] * 3, columns=2, scale=1).size == (1120, 640)
