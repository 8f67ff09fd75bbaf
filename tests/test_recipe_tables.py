"""The tables in docs/recipes.md, read and compared with what the recipes resolve to."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from occluded_reid import HEADS, load_recipe
from occluded_reid.yaml12 import parse_yaml

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"


def rows() -> list[tuple[str, Any]]:
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 3 and cells[1].startswith("`"):
            found.append((cells[1].strip("`"), parse_yaml(cells[2].removesuffix("|").strip())))
    return found


def resolved(key: str) -> Any:
    """The value a recipe gives, or the default of the registered class where it leaves an option out."""
    content: Any = load_recipe("sorn").model_dump(mode="json")
    place, owner = content, None
    for part in key.split("."):
        if isinstance(place, list):
            place = place[int(part)]
        elif part in place:
            if "options" in place and part == "options":
                owner = place["type"]
            place = place[part]
        elif part.isdigit() and int(part) in place:
            place = place[int(part)]
        else:
            assert owner is not None, f"the recipe has no {key}"
            return inspect.signature(HEADS.get(owner)).parameters[part].default
    return place


def test_the_tables_are_read():
    assert len(rows()) == 32


@pytest.mark.parametrize(("key", "value"), rows(), ids=[key for key, _ in rows()])
def test_the_recipe_says_what_the_table_says(key, value):
    assert resolved(key) == value
