"""The tables in the docs, read and compared with what the recipes resolve to.

A table belongs to the recipe of the nearest line above it that reads ``<!-- recipe: name -->``.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from occluded_reid import BACKBONES, HEADS, LOSSES, MATCHERS, load_recipe
from occluded_reid.data.transforms import TRANSFORMS
from occluded_reid.yaml12 import parse_yaml

DOCS = Path(__file__).parents[1] / "docs"
MARK = re.compile(r"<!-- recipe: (\w+) -->")
REGISTRIES = (HEADS, LOSSES, MATCHERS, TRANSFORMS, BACKBONES)


def rows() -> list[tuple[str, str, Any]]:
    found = []
    for page in sorted(DOCS.rglob("*.md")):
        recipe = None
        for line in page.read_text(encoding="utf-8").splitlines():
            if mark := MARK.search(line):
                recipe = mark[1]
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if recipe and len(cells) == 3 and cells[1].startswith("`"):
                found.append((recipe, cells[1].strip("`"), parse_yaml(cells[2].removesuffix("|").strip())))
    return found


def default(kind: str, option: str) -> Any:
    """The default of a registered class's option; heads come first, as some names stand in several registries."""
    for registry in REGISTRIES:
        if kind in registry:
            parameters = inspect.signature(registry.get(kind)).parameters
            if option in parameters:
                value = parameters[option].default
                return list(value) if isinstance(value, tuple) else value
    raise AssertionError(f"'{kind}' takes no '{option}'")


def resolved(recipe: str, key: str) -> Any:
    """The value a recipe gives, or the default of the registered class where it leaves an option out."""
    place: Any = load_recipe(recipe).model_dump(mode="json")
    owner = None
    for part in key.split("."):
        if isinstance(place, list):
            place = place[int(part)]
        elif part in place or (part.isdigit() and int(part) in place):
            if part == "options":
                owner = place.get("type", owner)
            place = place[part if part in place else int(part)]
        else:
            assert owner is not None, f"the recipe '{recipe}' has no {key}"
            return default(owner, part)
    return place


def test_the_tables_are_read():
    assert sum(recipe == "sorn" for recipe, _, _ in rows()) == 35


@pytest.mark.parametrize(("recipe", "key", "value"), rows(), ids=[f"{recipe}-{key}" for recipe, key, _ in rows()])
def test_the_recipe_says_what_the_table_says(recipe, key, value):
    assert resolved(recipe, key) == value
