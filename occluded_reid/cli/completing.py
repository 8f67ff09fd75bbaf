"""Words that the shell offers for an argument that has been begun."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["complete_dataset", "complete_model", "complete_parser_recipe", "complete_recipe", "complete_teacher"]

_NETWORKS = (".onnx", ".xml")


def complete_recipe(incomplete: str) -> list[str]:
    """Systems that can be trained."""
    from occluded_reid.config import list_recipes

    return _beginning(list_recipes(), incomplete)


def complete_model(incomplete: str) -> list[str]:
    """Models that come with the library, folders, and networks' files."""
    from occluded_reid.config import PACKAGED

    place, begun = os.path.split(incomplete)
    try:
        found = [each for each in Path(place or ".").iterdir() if each.name.startswith(begun)]
    except OSError:
        found = []
    below = [f"{os.path.join(place, each.name)}/" for each in found if each.is_dir()]  # noqa: PTH118 - as it was begun
    files = [os.path.join(place, each.name) for each in found if each.suffix in _NETWORKS]  # noqa: PTH118
    return [*_beginning(PACKAGED, incomplete), *sorted(below), *sorted(files)]


def complete_parser_recipe(incomplete: str) -> list[str]:
    """Human parsers that can be trained."""
    from occluded_reid.config import RECIPES

    return _beginning((path.stem for path in (RECIPES / "parsers").glob("*.yaml")), incomplete)


def complete_dataset(incomplete: str) -> list[str]:
    """Data sets and layouts."""
    from occluded_reid.registry import DATASETS

    return _beginning(DATASETS.names(), incomplete)


def complete_teacher(incomplete: str) -> list[str]:
    """What makes part masks."""
    from occluded_reid.registry import PARSERS

    return _beginning(PARSERS.names(), incomplete)


def _beginning(names: Iterable[str], start: str) -> list[str]:
    return sorted(name for name in names if name.startswith(start))
