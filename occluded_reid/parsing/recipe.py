"""Parser recipes: which parsing network, from which weights, and how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from occluded_reid.config import OptimConfig, ShortComponent, Strict, apply_overrides, read_recipe
from occluded_reid.errors import RecipeError

__all__ = ["ParserRecipe", "list_parser_recipes", "load_parser_recipe"]

_RECIPES = Path(__file__).parents[1] / "recipes" / "parsers"


class ParserBackboneConfig(Strict):
    """First weights of the backbone: "hub", a file, or None for random values."""

    weights: str | None = None
    weights_match: Literal["names", "order"] = "names"


class ParserLossConfig(Strict):
    """Cross-entropy over pixels.

    `at` is where it is taken: at the "input" size, to which the class map is stretched, or at the size of the "map".
    """

    at: Literal["input", "map"] = "input"
    smoothing: float = Field(0.0, ge=0, lt=1)
    class_balanced: bool = False


class ParserModelConfig(Strict):
    """The network: a name in `PARSERS`, its options, what it starts from, and its loss.

    `weights` is a parser folder, or a file of the whole network, to go on from; the backbone's are then not read.
    """

    type: str
    options: dict[str, Any] = Field(default_factory=dict)
    backbone: ParserBackboneConfig = ParserBackboneConfig()
    weights: str | None = None
    loss: ParserLossConfig = ParserLossConfig()


class ParserDataConfig(Strict):
    """Global batch size, augmentation in order, and the label set of the masks (None: that of the network).

    A flip swaps left and right classes where the label set has such.
    """

    batch: int = Field(16, ge=2)
    augment: list[ShortComponent] = Field(default_factory=list)
    labels: str | None = None


class ParserRecipe(Strict):
    """How a parsing network is trained."""

    name: str
    paper: str = ""
    notes: str = ""
    model: ParserModelConfig
    data: ParserDataConfig = ParserDataConfig()
    optim: OptimConfig = OptimConfig()


def list_parser_recipes() -> list[str]:
    """Return the sorted names of the parser recipes that come with the library."""
    return sorted(path.stem for path in _RECIPES.glob("*.yaml"))


def load_parser_recipe(
    name_or_path: str | Path | Mapping[str, Any] | ParserRecipe, overrides: Mapping[str, Any] | None = None
) -> ParserRecipe:
    """Load a parser recipe by name, from a YAML file, or from a mapping.

    Args:
        name_or_path: "sgam_parser", "small_parser", a path ending in .yaml or .yml, the content, or a recipe.
        overrides: ``{"optim.epochs": 2, "model.options.label_set": "sgam5"}``.

    Raises:
        RecipeError: no such recipe, a misspelt key, or a value that does not fit; the key's path is named.

    Example:
        >>> load_parser_recipe("sgam_parser").model.options["label_set"]
        'lip20'
    """
    if isinstance(name_or_path, ParserRecipe):
        content = name_or_path.model_dump(mode="json")
    elif isinstance(name_or_path, Mapping):
        content = {"name": "parser", **name_or_path}
    else:
        content = read_recipe(name_or_path, _RECIPES, "parser recipe")
    content = apply_overrides(content, overrides or {})
    try:
        return ParserRecipe.model_validate(content)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            where = ".".join(str(part) for part in item["loc"] if not str(part).startswith("function-"))
            lines.append(f"{where}: was given {item['input']!r}; {item['msg'].lower()}.")
        raise RecipeError(
            f"the parser recipe '{content['name']}' is not valid:\n  " + "\n  ".join(lines) + "\n"
            f"A parser recipe has the keys {', '.join(ParserRecipe.model_fields)}; its model "
            f"{', '.join(ParserModelConfig.model_fields)}."
        ) from error
