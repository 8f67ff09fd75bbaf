"""`occluded-reid search`."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

from occluded_reid.cli.completing import complete_model
from occluded_reid.cli.console import (
    Device,
    Json,
    PrecisionOption,
    Preset,
    bold,
    check_picture,
    console,
    print_json,
    progress_bar,
    set_precision,
)
from occluded_reid.cli.quick import wait_quietly

if TYPE_CHECKING:
    from occluded_reid.gallery import Gallery
    from occluded_reid.models import ReIDModel

T = TypeVar("T")

__all__ = ["search_command"]


class Group(StrEnum):
    """What hits are grouped by."""

    IDENTITY = "identity"
    TRACK = "track"


def search_command(
    gallery: Annotated[str, typer.Argument(help="Folder, or address, of the gallery.")],
    images: Annotated[list[Path] | None, typer.Argument(help="One or more query images.", show_default=False)] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Model that built the gallery, a folder or a network's file. Default: the one that the gallery was "
            "made with, where it lay then.",
            autocompletion=complete_model,
            show_default=False,
        ),
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="KEY",
            help="Instead of an image: the key of one in the gallery, asked for by what is stored (repeatable).",
            show_default=False,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many hits for each query.", min=1)] = 10,
    where: Annotated[
        str | None, typer.Option(help="SQL filter on the gallery: \"camera = 3 AND track = 'a'\".")
    ] = None,
    group_by: Annotated[Group | None, typer.Option(help="Keep the best hit of each 'identity' or 'track'.")] = None,
    same_person: Annotated[
        bool,
        typer.Option("--same-person", help="All query images show one person: average them over their visible slots."),
    ] = False,
    effort: Annotated[
        str, typer.Option(help="'exact', 'auto', or the share of the exact answer to find by the index, such as 0.98.")
    ] = "exact",
    threshold: Annotated[
        str | None,
        typer.Option(help="Leave out hits that are farther: a distance, a calibration's file, or 'calibrated'."),
    ] = None,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Re-rank by neighbour lists; see `occluded-reid gallery neighbours`.")
    ] = False,
    query_camera: Annotated[
        list[str] | None,
        typer.Option(
            "--query-camera",
            metavar="CAMERA",
            help="Camera of the queries, by number or name; its images are left out. Once, or once for each query.",
        ),
    ] = None,
    query_identity: Annotated[
        list[str] | None,
        typer.Option(
            "--query-identity",
            metavar="NAME",
            help="With --query-camera: leave out only that camera's images of this person. Once, or for each query.",
        ),
    ] = None,
    include_self: Annotated[
        bool, typer.Option("--include-self", help="Show the query itself, too, where it is in the gallery.")
    ] = False,
    preset: Preset = None,
    device: Device = "auto",
    precision: PrecisionOption = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Draw the ranked list into this file: .png, .jpg, .webp, .tif or .pdf.", callback=check_picture
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find a person in a gallery with the model's own, visibility-aware distance: exactly, or by an index.

    Example: [bold]occluded-reid search mall/ photo.jpg -k 10 --picture hits.png[/bold]
    """
    if bool(images) == bool(keys):
        raise typer.BadParameter("give query images, or keys of images in the gallery by --key.")
    if keys and precision is not None:
        raise typer.BadParameter("--precision is about images; what is stored under --key is not computed again.")
    if preset is not None and model is None:
        raise typer.BadParameter("--preset is about the network of --model, and none is given. Leave it out.")
    wait_quietly()
    from occluded_reid.gallery import Gallery, hits_table
    from occluded_reid.gallery.known_model import compute_alike
    from occluded_reid.models import load_model

    effort_asked = _effort(effort)
    limit = None if threshold is None else _threshold(threshold)
    network = None
    if model is not None:
        with progress_bar("loading the model"):
            network = load_model(model, preset=preset)
    with Gallery.open(gallery, model=network, device=device) as store:
        if network is not None:
            network.to(store.device)
            compute_alike(store.manifest, network)
        elif images or picture is not None:
            with progress_bar("loading the model"):
                network = cast("ReIDModel", store.model)
        if network is not None:
            set_precision(network, precision)
        found = store.search(
            list(images) if images else None,
            k,
            key=keys or None,
            where=where,
            group_by=None if group_by is None else group_by.value,
            combine=same_person,
            effort=effort_asked,
            rerank=rerank,
            threshold=limit,
            query_camera=_cameras(query_camera),
            query_identity=_one_or_each(query_identity),
            exclude_self=not include_self,
        )
        queries = list(images or []) or [Path(store.get(key).path or key) for key in keys or []]
        names = [str(image) for image in images or keys or []]
        asked = [names] if same_person else [[name] for name in names]
        if include_self:
            left_out: list[list[str]] = [[] for _ in asked]
        else:
            left_out = asked if keys else [_own_images(store, [Path(name) for name in some]) for some in asked]
    shown = [" + ".join(some) for some in asked]
    if as_json:
        # A list: two queries may have one name.
        print_json(
            [
                {
                    "query": some if same_person else some[0],
                    "hits": [dataclasses.asdict(hit) for hit in hits],
                    "left_out": own,
                }
                for some, hits, own in zip(asked, found, left_out, strict=True)
            ]
        )
    else:
        for name, hits, own in zip(shown, found, left_out, strict=True):
            console().print(bold(name), soft_wrap=True)
            console().print(hits_table(hits) if hits or threshold is None else "nobody here")
            for key in [] if keys else own:
                console().say(f"{key} is in the gallery itself and was left out; --include-self shows it")
    if picture is not None and network is not None:
        from occluded_reid.evaluation.pictures import save_picture, search_picture

        save_picture(search_picture(network, queries[: len(found)], found), picture)
        console(quiet=as_json).print(f"ranked list: {bold(picture)}", soft_wrap=True)


def _own_images(store: Gallery, images: list[Path]) -> list[str]:
    """Keys of the gallery's rows that are query images themselves, by their name or by their bytes."""
    from occluded_reid.gallery.images import origins_of

    sources = [source for image in images for source in origins_of(image)]
    found = [
        *store.list({"sha256": sorted({source.sha256 for source in sources})}),
        *store.list({"key": sorted({source.key for source in sources})}),
    ]
    return list(dict.fromkeys(image.key for image in found))


def _one_or_each(given: list[T] | None) -> list[T] | T | None:
    """One value is for all queries; several are for one each."""
    return given[0] if given and len(given) == 1 else given


def _cameras(given: list[str] | None) -> Any:
    """Numbers where they are written, else names."""
    return _one_or_each([int(text) if text.isdecimal() else text for text in given or []] or None)


def _effort(text: str) -> Any:
    """A number where the text is one; the gallery refuses numbers that make no sense."""
    number = _number(text)
    if number is None and text not in ("exact", "auto"):
        raise typer.BadParameter(f"--effort is '{text}'; give 'exact', 'auto', or a share such as 0.98.")
    return text if number is None else number


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _threshold(text: str) -> Any:
    """A distance, "calibrated", or the calibration in a file."""
    from occluded_reid.calibration.calibration import Calibration

    number = _number(text)
    if number is not None or text == "calibrated":
        return text if number is None else number
    if not Path(text).exists():
        raise typer.BadParameter(
            f"--threshold '{text}' does not exist. Give a distance, the file of a calibration, or 'calibrated'."
        )
    return Calibration.load(text)
