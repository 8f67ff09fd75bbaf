"""Charts of a sweep share one axis, and become one SVG file that stands alone."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest

from occluded_reid.errors import ShapeError
from occluded_reid.visualize import LineChart
from occluded_reid.visualize.curves import charts_svg, sweep_charts

CURVE = [(0.0, 0.82, 0.8, 0.84), (0.5, 0.41, 0.33, 0.5)]


def test_one_axis_holds_every_value_and_band_of_every_kind() -> None:
    low = [(0.0, 0.82, math.nan, math.nan), (0.5, 0.17, math.nan, math.nan)]
    charts = sweep_charts({"bottom": {"a": CURVE}, "top": {"a": CURVE, "b": low}}, metric="mAP")
    assert [chart.y_range for chart in charts] == [(0.1, 0.9)] * 2
    assert [len(chart.series) for chart in charts] == [1, 2]
    assert sweep_charts({"top": {"a": [(0.0, 1.0, 1.0, 1.0)]}})[0].y_range == (0.0, 1.0), "an empty range is none"
    assert sweep_charts({"top": {"a": [(0.0, math.nan, math.nan, math.nan)]}})[0].y_range == (0.0, 1.0)


@pytest.mark.parametrize(("count", "columns", "size"), [(1, 3, (560, 320)), (4, 3, (1680, 640)), (4, 1, (560, 1280))])
def test_charts_are_laid_out_row_by_row_on_white(count: int, columns: int, size: tuple[int, int]) -> None:
    charts = sweep_charts({f"kind & {n}": {"<a>": CURVE} for n in range(count)})
    drawing = ET.fromstring(charts_svg(charts, columns=columns))
    assert drawing.get("viewBox") == f"0 0 {size[0]} {size[1]}"
    paper = drawing.find("{*}rect")
    assert paper is not None
    assert (paper.get("width"), paper.get("fill")) == (str(size[0]), "rgb(255, 255, 255)")
    groups = drawing.findall("{*}g")
    assert len(groups) == count
    places = [group.get("transform") for group in groups]
    expected = [f"translate({n % columns * 560} {n // columns * 320})" for n in range(count)]
    assert places == expected
    assert len({tuple(group.itertext()) for group in groups}) == count


def test_nothing_to_draw() -> None:
    with pytest.raises(ShapeError, match="got 0 charts in 3 columns"):
        charts_svg([])
    with pytest.raises(ShapeError, match="1 charts in 0 columns"):
        charts_svg([LineChart("a", "b", "c", [])], columns=0)
