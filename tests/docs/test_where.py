"""The table of docs/architecture.md that says what stands where: the files exist and define the names beside them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import occluded_reid

PACKAGE = Path(occluded_reid.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"


def rows() -> list[tuple[str, list[str], list[str]]]:
    """Question, files and names of each row."""
    table = PAGE.read_text(encoding="utf-8").split("## Where does it say")[1].split("\n## ")[0]
    cells = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")][2:]
    return [(row[0].strip(), re.findall(r"`(.+?)`", row[1]), re.findall(r"`(.+?)`", row[2])) for row in cells]


def defined(file: Path) -> set[str]:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_the_table_is_found() -> None:
    assert len(rows()) >= 15


@pytest.mark.parametrize(("question", "files", "names"), rows())
def test_what_a_newcomer_asks_is_where_the_table_says(question: str, files: list[str], names: list[str]) -> None:
    missing = [file for file in files if not (PACKAGE / file).is_file()]
    assert not missing, question
    there = set().union(*(defined(PACKAGE / file) for file in files)) if files else set()
    assert set(names) <= there, f"{question} {sorted(set(names) - there)} is in none of {files}"
