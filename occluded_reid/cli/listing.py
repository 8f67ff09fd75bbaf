"""`occluded-reid list`: what can be named in a recipe or on the command line."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from occluded_reid.cli.console import Json, console, print_json

__all__ = ["list_command"]


class Kind(StrEnum):
    """What can be listed."""

    MODELS = "models"
    HEADS = "heads"
    LOSSES = "losses"
    MATCHERS = "matchers"
    BACKBONES = "backbones"
    DATASETS = "datasets"
    PARSERS = "parsers"


def list_command(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    pattern: Annotated[str, typer.Argument(help="Shell pattern, such as 'resnet*'.")] = "*",
    as_json: Json = False,
) -> None:
    """List models, heads, losses, matchers, backbones (timm's too), data sets or parsers.

    Example: [bold]occluded-reid list backbones 'resnet50*'[/bold]
    """
    import fnmatch

    names = sorted(fnmatch.filter(_names(kind), pattern))
    if as_json:
        print_json(names)
        return
    screen = console()
    for name in names:
        screen.say(name)
    if not names:
        screen.say(f"nothing among the {kind.value} matches '{pattern}'", style="yellow")


def _names(kind: Kind) -> list[str]:
    from occluded_reid import registry

    if kind is Kind.MODELS:
        from occluded_reid.config import list_recipes

        return sorted({*list_recipes(), *registry.MODELS.names()})
    if kind is Kind.BACKBONES:
        import timm

        own = [name for name in registry.BACKBONES.names() if name != "timm"]
        return [*own, *timm.list_models()]
    chosen: dict[Kind, registry.Registry[object]] = {
        Kind.HEADS: registry.HEADS,  # type: ignore[dict-item]
        Kind.LOSSES: registry.LOSSES,  # type: ignore[dict-item]
        Kind.MATCHERS: registry.MATCHERS,  # type: ignore[dict-item]
        Kind.DATASETS: registry.DATASETS,  # type: ignore[dict-item]
        Kind.PARSERS: registry.PARSERS,
    }
    return chosen[kind].names()
