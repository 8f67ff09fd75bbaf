"""`occluded-reid failures`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from occluded_reid.cli.console import (
    CameraRule,
    DataOptions,
    DataRoot,
    DatasetName,
    Holdout,
    Json,
    Masks,
    ModelArgument,
    Preset,
    Seed,
    SkipUnreadable,
    bold,
    camera_rule,
    check_output_folder,
    console,
    open_data,
    print_json,
    progress_bar,
)
from occluded_reid.cli.evaluate import AveragePrecision

if TYPE_CHECKING:
    from occluded_reid.data.dataset import Split

__all__ = ["failures_command"]


def failures_command(
    model: ModelArgument,
    data: DataRoot,
    output: Annotated[
        Path,
        typer.Option(help="Folder for failures.json, .md and .csv and the pictures.", callback=check_output_folder),
    ],
    dataset: DatasetName = "market1501",
    options: DataOptions = None,
    masks: Masks = None,
    holdout: Holdout = 0,
    occlusion: Annotated[
        float, typer.Option(help="Occlude this share of each query's body mask first, 0 … 1.", min=0, max=1)
    ] = 0.0,
    occluders: Annotated[
        str, typer.Option(help="'generated', 'pedestrians' (cut out of the gallery), or a folder of RGBA cut-outs.")
    ] = "generated",
    edge: Annotated[
        list[float] | None,
        typer.Option(
            help="An edge between bins of the queries' mean visibility (repeatable, ascending). Default: by the number "
            "of visible slots, or quarters of the queries."
        ),
    ] = None,
    worst: Annotated[int, typer.Option(help="Draw this many of the worst queries; 0 draws none.", min=0)] = 50,
    ap: Annotated[
        AveragePrecision, typer.Option(help="Average precision at the hits, or by trapezoid.")
    ] = AveragePrecision.HITS,
    exclude_same_camera: CameraRule = None,
    skip_unreadable: SkipUnreadable = False,
    preset: Preset = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Say where a model fails: by visibility, shared slots and cameras, with pictures of the worst queries.

    Example: [bold]occluded-reid failures runs/sorn/model --data market/ --holdout 100 --output failures/[/bold]
    """
    from occluded_reid.data.occlusion.stock import open_occluders
    from occluded_reid.errors import EvaluationError
    from occluded_reid.evaluation import Protocol
    from occluded_reid.evaluation.embed import Occlusion, embed_sides
    from occluded_reid.evaluation.leakage import require_apart
    from occluded_reid.evaluation.studies.failures.find import find_failures
    from occluded_reid.evaluation.studies.failures.worst_pages import worst_pages, write_worst
    from occluded_reid.files import write_json
    from occluded_reid.models import load_model

    network = load_model(model, preset=preset)
    readable: tuple[Split, ...] = ("query", "gallery") if skip_unreadable else ()
    loaded = open_data(dataset, data, masks, holdout, seed, options=options, readable=readable)
    require_apart(loaded)
    hide = None
    if occlusion:
        hide = Occlusion(occlusion, open_occluders(occluders, people=loaded.gallery, seed=seed), seed)
    with progress_bar("embedding") as move:
        query, gallery = embed_sides(network, loaded, occlusion=hide, progress=move)
    shown = "" if hide is None else f", {occlusion:.0%} of each query's body occluded ({hide.occluders.description})"
    with progress_bar("evaluating") as move:
        found = find_failures(
            query,
            gallery,
            network.matcher,
            Protocol.of(
                loaded,
                name=f"{network.name}{shown}",
                ap=ap.value,
                seed=seed,
                shots="multi",
                exclude_same_camera=camera_rule(loaded, exclude_same_camera),
            ),
            visibility_edges=edge,
            cameras_known=loaded.cameras_known,
            camera_names=loaded.camera_names,
            fingerprint=network.fingerprint,
            progress=move,
        )
    write_json(output / "failures.json", found.to_dict(), EvaluationError)
    found.to_markdown(output / "failures.md")
    found.to_csv(output / "failures.csv")
    drawn = worst_pages(network, loaded, query, gallery, found, worst, occlusion=hide) if worst else iter(())
    pages = write_worst(output, drawn)
    screen = console(quiet=as_json)
    if as_json:
        print_json({**found.to_dict(), "pictures": [str(page) for page in pages]})
    else:
        for table in found.tables():
            screen.print(table)
        for line in (*found.notes, str(found.report)):
            screen.print(line, markup=False)
    screen.print(f"written to: {bold(output)}", soft_wrap=True)
    if pages:
        licence = f": {loaded.licence}" if loaded.licence else ""
        screen.print(
            f"The tables show no person. The pictures of the worst queries ({len(pages)}, from {pages[0].name} on) "
            f"show people: keep them as the licence of the data says{licence}.",
            markup=False,
            soft_wrap=True,
        )
