"""A result's sheet and numbers in every form; what LaTeX would read as a command, an argument or another letter."""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from occluded_reid.errors import EvaluationError
from occluded_reid.evaluation.tables import Sheet, Tabular, latex_table, latex_text


class Result(Tabular):
    """Two numbers of which one has no interval."""

    def sheet(self) -> Sheet:
        rows = [["[a] <b>", "50.0% [40.0%, 60.0%]"], ["c|d", "–"]]
        return Sheet(["name", "value"], rows, {"data": "made_up", "name": "of <somebody>"}, "a title", "a caption")

    def records(self) -> list[dict[str, Any]]:
        return [{"name": "[a] <b>", "value": 1 / 3, "low": 0.4}, {"name": "c|d", "value": None, "runs": 2}]


def test_a_terminal_shows_cells_as_they_are() -> None:
    console = Console(width=100, record=True)
    console.print(Result().table())
    console.print(Result().sheet().rich(facts=True))
    text = console.export_text()
    for cell in ("[a] <b>", "50.0% [40.0%, 60.0%]", "a title", "a caption", "made_up"):
        assert cell in text


def test_markdown_latex_and_html_say_what_the_numbers_stand_on(tmp_path: Path) -> None:
    markdown = Result().to_markdown(tmp_path / "t.md")
    assert (tmp_path / "t.md").read_text(encoding="utf-8") == markdown
    assert markdown.splitlines()[3:] == [
        "| c\\|d | – |",
        "",
        "a caption.",
        "",
        "- data: made_up",
        "- name: of <somebody>",
    ]
    latex = Result().to_latex()
    assert r"made\_up" in latex
    assert "{[a]" in latex
    html = Result().to_html()
    assert "<td>[a] &lt;b&gt;</td>" in html
    assert "<dd>of &lt;somebody&gt;</dd>" in html
    assert "<caption>a title. a caption</caption>" in html


def test_csv_is_exact_and_names_no_column_twice() -> None:
    rows = list(csv.DictReader(io.StringIO(Result().to_csv())))
    assert list(rows[0]) == ["name", "value", "low", "runs", "data", "name, in words"]
    assert float(rows[0]["value"]) == 1 / 3
    assert (rows[1]["value"], rows[1]["runs"], rows[1]["data"]) == ("", "2", "made_up")


def test_a_data_frame_holds_the_numbers_and_the_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    frame = Result().to_pandas()
    assert list(frame.columns) == ["name", "value", "low", "runs"]
    assert frame["value"][0] == 1 / 3
    assert frame.attrs["data"] == "made_up"
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(EvaluationError, match="pip install pandas"):
        Result().to_pandas()


def test_text_stays_what_it_says() -> None:
    assert latex_text("a<b | c>d → 2×") == (r"a\textless{}b \textbar{} c\textgreater{}d $\to$ 2$\times$")


def test_a_line_that_begins_with_a_bracket_or_a_star_is_no_argument_of_the_line_before() -> None:
    lines = latex_table(["a", "b"], [["[x]", "1"], ["*", "2"], [" [y]", "3"], ["z", "[4, 5]"]]).splitlines()
    assert [line for line in lines if "&" in line] == [
        r"a & b \\",
        r"{[x]} & 1 \\",
        r"{*} & 2 \\",
        r"{ [y]} & 3 \\",
        r"z & {[4, 5]} \\",
    ]
