"""How a result shows itself: header, rows and facts as a terminal's table, Markdown, LaTeX, HTML; its numbers as CSV
and as a data frame.

A result gives a `Sheet` and its numbers (`Tabular`); everything that shows it is here.
"""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from occluded_reid.errors import EvaluationError
from occluded_reid.files import write_text

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Sheet", "Tabular", "also_written", "csv_text", "latex_table", "latex_text", "markdown_table"]

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "−": "$-$",
        "±": r"$\pm$",
        "λ": r"$\lambda$",
        "τ": r"$\tau$",
        "α": r"$\alpha$",
        "–": "--",
        "…": r"\dots{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "→": r"$\to$",
        "×": r"$\times$",
    }
)


@dataclass(frozen=True)
class Sheet:
    """A table as texts, and what its numbers stand on.

    Attributes:
        header: name of each column.
        rows: cells, as many as the header has.
        facts: what the numbers stand on, by name.
        title: above the table.
        caption: below it.
        words: how many columns from the left hold words; the others hold numbers.
        sections: positions of the rows after which a line is drawn.
        strong: positions of the rows that stand out.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    facts: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    caption: str = ""
    words: int = 1
    sections: Collection[int] = ()
    strong: Collection[int] = ()

    def rich(self, *, facts: bool = False) -> Table:
        """Return the table for a terminal; `facts` writes them below the numbers."""
        from rich.table import Table

        from occluded_reid.screen import cell

        table = Table(title=cell(self.title) or None, caption=cell(self.caption) or None)
        for number, name in enumerate(self.header):
            table.add_column(cell(name), justify="left" if number < self.words else "right")
        for number, row in enumerate(self.rows):
            style = "bold" if number in self.strong else None
            table.add_row(*map(cell, row), end_section=number in self.sections, style=style)
        if facts:
            table.add_section()
            for name, fact in self.facts.items():
                table.add_row(cell(name), cell(fact), style="dim")
        return table

    def markdown(self) -> str:
        """Return table, caption and facts as Markdown."""
        facts = "\n".join(f"- {name}: {fact}" for name, fact in self.facts.items())
        caption = f"{self.caption}." if self.caption else ""
        parts = [markdown_table(self.header, self.rows, words=self.words), caption, facts]
        return "\n\n".join(part for part in parts if part) + "\n"

    def latex(self) -> str:
        """Return a booktabs table whose caption is the facts."""
        return latex_table(self.header, self.rows, "; ".join(f"{name}: {fact}" for name, fact in self.facts.items()))

    def html(self) -> str:
        """Return table and facts as a piece of HTML, every text escaped."""
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.header)
        body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in self.rows)
        words = ". ".join(text for text in (self.title, self.caption) if text)
        caption = f"<caption>{escape(words)}</caption>" if words else ""
        facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in self.facts.items())
        below = f"<dl>{facts}</dl>\n" if facts else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>\n{below}"


class Tabular(ABC):
    """A result that says what its table holds (`sheet`) and its numbers (`records`), and is shown by that alone."""

    @abstractmethod
    def sheet(self) -> Sheet:
        """Return header, rows and facts."""

    @abstractmethod
    def records(self) -> list[dict[str, Any]]:
        """Return the numbers unrounded, a flat mapping for each line of a CSV file; None for what there is not."""

    def table(self) -> Table:
        """Return the numbers for a terminal."""
        return self.sheet().rich()

    def to_markdown(self, path: str | Path | None = None) -> str:
        """Return the numbers and what they stand on as Markdown, and write it if a path is given."""
        return also_written(self.sheet().markdown(), path)

    def to_latex(self, path: str | Path | None = None) -> str:
        """Return a booktabs table whose caption is what the numbers stand on, and write it if a path is given."""
        return also_written(self.sheet().latex(), path)

    def to_html(self, path: str | Path | None = None) -> str:
        """Return the numbers and what they stand on as a piece of HTML, and write it if a path is given."""
        return also_written(self.sheet().html(), path)

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return one line for each number, as shares, with all it stands on; write it if a path is given."""
        facts = self.sheet().facts
        records = self.records()
        names = dict.fromkeys(name for record in records for name in record)
        header = [*names, *(f"{name}, in words" if name in names else name for name in facts)]
        rows = [[*(_exact(record.get(name)) for name in names), *facts.values()] for record in records]
        return also_written(csv_text(header, rows), path)

    def to_pandas(self) -> Any:
        """Return the numbers as a pandas.DataFrame, what they stand on in its `attrs`.

        Raises:
            EvaluationError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as cause:
            raise EvaluationError(
                "a data frame needs pandas, which is not installed: pip install pandas. Or write a file: to_csv(path)."
            ) from cause
        frame = pandas.DataFrame(self.records())
        frame.attrs.update(self.sheet().facts)
        return frame


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """Return a Markdown table, of which the first columns hold words and the others numbers.

    Example:
        >>> print(markdown_table(("metric", "value"), [("a|b", "1")]))
        | metric | value |
        | --- | ---: |
        | a\\|b | 1 |
    """
    lines = [header, ["---"] * words + ["---:"] * (len(header) - words), *rows]
    cells = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def latex_text(text: str) -> str:
    r"""Return text with what LaTeX takes for a command made plain.

    Example:
        >>> print(latex_text("50 % of a_b"))
        50 \% of a\_b
    """
    return text.translate(_LATEX)


def latex_table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Return a table for LaTeX with the package booktabs; the first column is set left, the others right.

    Cells that begin with a bracket or a star are braced, as LaTeX would read them as an argument of the line before.
    """
    columns = "l" + "r" * (len(header) - 1)
    head, *body = [[_cell(cell) for cell in line] for line in (header, *rows)]
    lines = [
        r"\begin{table}",
        r"\centering",
        *([rf"\caption{{{latex_text(caption)}}}"] if caption else []),
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(line) + r" \\" for line in body),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def csv_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return comma-separated lines with a header."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def also_written(text: str, path: str | Path | None) -> str:
    """Return a text, and write it to a file, whole or not at all, if a path is given.

    Raises:
        EvaluationError: the file cannot be written.
    """
    if path is not None:
        write_text(path, text, EvaluationError)
    return text


def _exact(value: Any) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _cell(cell: str) -> str:
    text = latex_text(str(cell))
    return f"{{{text}}}" if text.lstrip().startswith(("[", "*")) else text
