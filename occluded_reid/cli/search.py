"""`occluded-reid search`."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from occluded_reid.cli.console import Json, bold, console, print_json

__all__ = ["search_command"]


class Group(StrEnum):
    """What hits are grouped by."""

    IDENTITY = "identity"
    TRACK = "track"


def search_command(
    gallery: Annotated[Path, typer.Argument(help="Folder of the gallery.")],
    images: Annotated[list[Path], typer.Argument(help="One or more query images.")],
    model: Annotated[Path, typer.Option("--model", help="Folder of the model that built the gallery.")],
    k: Annotated[int, typer.Option("-k", help="How many hits for each query.", min=1)] = 10,
    where: Annotated[
        str | None, typer.Option(help="SQL filter on the gallery: \"camera = 3 AND track = 'a'\".")
    ] = None,
    group_by: Annotated[Group | None, typer.Option(help="Keep the best hit of each 'identity' or 'track'.")] = None,
    same_person: Annotated[
        bool, typer.Option(help="All query images show one person: average them over their visible slots.")
    ] = False,
    picture: Annotated[Path | None, typer.Option(help="Save the ranked list as a PNG.")] = None,
    as_json: Json = False,
) -> None:
    """Find a person in a gallery: exact search with the model's own, visibility-aware distance.

    Example: [bold]occluded-reid search mall/ photo.jpg --model runs/sorn/model -k 10 --picture hits.png[/bold]
    """
    from occluded_reid.gallery import Gallery, hits_table
    from occluded_reid.models import load_model

    network = load_model(model)
    with Gallery.open(gallery, model=network) as store:
        found = store.search(
            list(images), k, where=where, group_by=None if group_by is None else group_by.value, combine=same_person
        )
    shown = [" + ".join(str(p) for p in images)] if same_person else [str(p) for p in images]
    if as_json:
        print_json({name: [dataclasses.asdict(hit) for hit in hits] for name, hits in zip(shown, found, strict=True)})
    else:
        for name, hits in zip(shown, found, strict=True):
            console().print(bold(name), soft_wrap=True)
            console().print(hits_table(hits))
    if picture is not None:
        from occluded_reid.evaluation.pictures import save_picture, search_picture

        save_picture(search_picture(network, list(images[: len(found)]), found), picture)
        console(quiet=as_json).print(f"ranked list: {bold(picture)}", soft_wrap=True)
