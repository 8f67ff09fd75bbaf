import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from occluded_reid.errors import OccludedReIDError, ShapeError
from occluded_reid.visualize import HtmlReport, LineChart, Series

EVIL = '<script>alert(1)</script>"><img src=http://evil.example onerror=x>'


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def whole_report(text="words"):
    page = HtmlReport(text, text)
    page.add_heading(text).add_heading(text, 3).add_text(text).add_card(text, {text: text, "more": {text: [text]}})
    page.add_table([{text: text, "x": 1.0}, {"y": text}], caption=text, best=["x"])
    page.add_picture(np.zeros((4, 4, 3), np.uint8), text, alt=text)
    return page.add_chart(LineChart(text, text, text, [Series(text, [0, 1], [0, 1])]), caption=text)


def test_everything_from_outside_is_escaped():
    page = Page(whole_report(EVIL).html())
    names = {tag for tag, _ in page.tags}
    assert "script" not in names
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    assert all(not key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert sum(EVIL in word for word in page.words) >= 10
    assert page.open == []


def test_nothing_is_loaded_from_elsewhere():
    html = whole_report().html()
    for tag, attributes in Page(html).tags:
        assert tag not in ("script", "link", "iframe", "object")
        for key in ("src", "href", "srcset", "action"):
            assert attributes.get(key, "data:").startswith("data:")
    assert not re.search(r"url\((?!#)|@import", html)
    assert "default-src 'none'" in html


def test_every_picture_and_chart_can_be_heard():
    page = Page(whole_report("hello").html())
    assert [a["alt"] for tag, a in page.tags if tag == "img"] == ["hello"]
    assert all("hello" in a["aria-label"] for tag, a in page.tags if tag == "svg")
    with pytest.raises(ShapeError, match="alt text"):
        HtmlReport("t").add_picture(np.zeros((4, 4, 3), np.uint8))


def test_light_and_dark():
    html = whole_report().html()
    assert "prefers-color-scheme:dark" in html
    assert "color-scheme:light dark" in html


def test_table_has_all_columns_and_marks_the_best():
    rows = [
        {"m": "own", "r": 0.91, "n": 1234},
        {"m": "global", "r": np.float32(0.5), "extra": True},
        {"r": float("nan")},
    ]
    html = HtmlReport("t").add_table(rows, best=["r"]).html()
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", line) for line in html.split("<tr>")[2:]]
    assert cells == [["own", "0.9100", "1,234", "–"], ["global", "0.5000", "–", "yes"], ["–", "–", "–", "–"]]
    assert re.findall(r'<td class="best">([^<]*)', html) == ["0.9100"]
    with pytest.raises(ShapeError, match="best names the column 'z'"):
        HtmlReport("t").add_table(rows, best=["z"])


def test_empty_pieces_do_no_harm():
    page = Page(HtmlReport("").add_table([]).add_card("", {}).add_chart().add_text("").html())
    assert page.open == []


def test_pictures_are_png_when_small_and_jpeg_when_large():
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    html = HtmlReport("t").add_picture(Image.new("L", (1, 1)), "a").add_picture(noise, "b").html()
    assert re.findall(r"data:image/(\w+);", html) == ["png", "jpeg"]


def test_saving_is_whole_and_the_same_bytes_twice(tmp_path):
    first = whole_report().save(tmp_path / "deep" / "a.html")
    second = whole_report().save(tmp_path / "b.html")
    assert first.read_bytes() == second.read_bytes()
    assert [p.name for p in first.parent.iterdir()] == ["a.html"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OccludedReIDError, match="could not be written"):
        HtmlReport("t").save(tmp_path / "file" / "r.html")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_unknown_heading_level_is_refused():
    with pytest.raises(ShapeError, match="level is 1"):
        HtmlReport("t").add_heading("x", 1)
