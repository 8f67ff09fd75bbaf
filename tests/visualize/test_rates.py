"""Open-set curves, and the logarithmic x axis they stand on."""

import xml.etree.ElementTree as ElementTree

import pytest

from occluded_reid.visualize import LineChart, Series
from occluded_reid.visualize.colours import SERIES
from occluded_reid.visualize.rates import detection_curves, error_curves, reliability_curves

SVG = "{http://www.w3.org/2000/svg}"


def line_of(chart):
    """Points of the first line, without the legend's."""
    name = "#{:02x}{:02x}{:02x}".format(*SERIES[0])
    found = [e for e in ElementTree.fromstring(chart.svg()).iter(f"{SVG}polyline") if e.get("stroke") == name]
    return [tuple(map(float, p.split(","))) for p in found[0].get("points").split()]


def texts_of(chart):
    return [e.text for e in ElementTree.fromstring(chart.svg()).iter(f"{SVG}text")]


def test_a_logarithmic_x_axis_spaces_powers_evenly_and_leaves_zero_out():
    chart = LineChart("t", "x", "y", [Series("a", [0, 0.001, 0.01, 0.1], [5.0, 1.0, 2.0, 3.0])], log_x=True)
    a, b, c = line_of(chart)
    assert b[0] - a[0] == pytest.approx(c[0] - b[0], abs=0.11)
    assert {"0.001", "0.01", "0.1"} <= set(texts_of(chart))
    percent = LineChart("t", "x", "y", [Series("a", [0.001, 0.01, 0.1], [1.0, 2.0, 3.0])], log_x=True, percent_x=True)
    assert {"0.1 %", "1 %", "10 %"} <= set(texts_of(percent))
    assert percent.image(1).size == (560, 320)


def test_nothing_above_zero_is_said():
    for x in ([], [0.0], [-1.0]):
        chart = LineChart("t", "x", "y", [Series("a", x, [1.0] * len(x))], log_x=True)
        assert "no data" in texts_of(chart)
        chart.image(1)


def test_shares_along_x_are_labelled_in_per_cent():
    chart = LineChart("t", "x", "y", [Series("a", [0.0, 1.0], [0.0, 1.0])], percent_x=True)
    assert {"0 %", "100 %"} <= set(texts_of(chart))


def test_steps_hold_up_to_the_next_rate():
    chart = detection_curves({"rank 1": ([0.0, 0.01, 0.1, 1.0], [0.1, 0.2, 0.6, 0.9])})
    (line,) = chart.series
    assert list(zip(line.x, line.y, strict=True)) == [(0.01, 0.2), (0.1, 0.2), (0.1, 0.6), (1.0, 0.6), (1.0, 0.9)]
    assert chart.y_range == (0.0, 1.0)
    assert detection_curves({"nothing": ([0.0], [0.3])}).series[0].x == []
    errors = error_curves({"own": ([0.001, 0.1], [0.5, 0.0])})
    assert list(errors.series[0].y) == [0.5, 0.5, 0.0]
    errors.image(1)  # a rate of 0 has no place on a logarithmic axis and is left out


def test_the_diagonal_is_always_there():
    chart = reliability_curves({"all": ([0.2, 0.7], [0.1, 0.9])})
    assert [line.name for line in chart.series] == ["all", "ideal"]
    assert (list(chart.series[1].x), list(chart.series[1].y)) == ([0.0, 1.0], [0.0, 1.0])
    assert "100 %" in texts_of(chart)
