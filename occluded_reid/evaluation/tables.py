"""Tables as text: Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from occluded_reid.errors import EvaluationError
from occluded_reid.files import write_text

__all__ = ["also_written", "csv_text", "latex_table", "latex_text", "markdown_table"]

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


def _cell(cell: str) -> str:
    text = latex_text(str(cell))
    return f"{{{text}}}" if text.lstrip().startswith(("[", "*")) else text
