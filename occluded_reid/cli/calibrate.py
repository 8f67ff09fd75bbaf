"""`occluded-reid calibrate`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    Validation,
    bold,
    camera_rule,
    check_output_file,
    check_share,
    console,
    open_data,
    print_json,
    progress_bar,
)

if TYPE_CHECKING:
    from rich.table import Table

    from occluded_reid.calibration.calibration import Calibration
    from occluded_reid.data.dataset import ReIDData, Split
    from occluded_reid.embeddings import EmbeddedSet

__all__ = ["Per", "calibrate_command", "people_among"]


class Per(StrEnum):
    """Of what the false-match rate is a share."""

    SEARCH = "search"
    COMPARISON = "comparison"


def calibrate_command(
    model: ModelArgument,
    data: DataRoot,
    out: Annotated[
        Path, typer.Option("--out", help="Write the calibration to this file.", callback=check_output_file)
    ] = Path("calibration.json"),
    false_match_rate: Annotated[
        float, typer.Option(help="How many false matches are allowed: 0.01 is one in a hundred.", min=0, max=1)
    ] = 0.01,
    per: Annotated[
        Per,
        typer.Option(
            help="One in how many of what: of each 'search' for a person who is not there, or of each 'comparison'."
        ),
    ] = Per.SEARCH,
    gallery_size: Annotated[
        int | None, typer.Option(help="Of searches: images that will be searched, if more than this data has.", min=1)
    ] = None,
    check: Annotated[
        float,
        typer.Option(
            help="Keep this share of the people for testing the promise; 0 calibrates with all.", callback=check_share
        ),
    ] = 0.0,
    occlusion: Annotated[
        float, typer.Option(help="Occlude this share of each query's body mask first, 0 … 1.", min=0, max=1)
    ] = 0.0,
    gallery: Annotated[Path | None, typer.Option(help="Also store it in this gallery, for its searches.")] = None,
    dataset: DatasetName = "market1501",
    options: DataOptions = None,
    masks: Masks = None,
    holdout: Holdout = 0,
    validation: Validation = 0,
    exclude_same_camera: CameraRule = None,
    skip_unreadable: SkipUnreadable = False,
    preset: Preset = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Find the distance from which on a hit is no match, for a wanted rate of false matches, on people held out.

    Example: [bold]occluded-reid calibrate runs/sorn/model --data market/ --holdout 100 --false-match-rate 0.01[/bold]
    """
    from occluded_reid.calibration.calibration import Calibration
    from occluded_reid.data.occlusion import Occluders
    from occluded_reid.embeddings import EmbeddedSet
    from occluded_reid.evaluation.embed import Occlusion, embed_sides
    from occluded_reid.evaluation.leakage import require_apart
    from occluded_reid.evaluation.open_set.threshold import evaluate_open_set, split_people
    from occluded_reid.gallery import Gallery
    from occluded_reid.models import load_model

    network = load_model(model, preset=preset)
    readable: tuple[Split, ...] = ("query", "gallery") if skip_unreadable else ()
    loaded = open_data(dataset, data, masks, holdout, seed, validation=validation, options=options, readable=readable)
    require_apart(loaded)
    exclude = camera_rule(loaded, exclude_same_camera)
    shown = f"{occlusion:.0%} of each body mask occluded, seed {seed}" if occlusion else "as they are"
    hide = Occlusion(occlusion, Occluders.generated(seed), seed) if occlusion else None
    with progress_bar("embedding") as move:
        query, images = embed_sides(network, loaded, occlusion=hide, progress=move)
    store = None if gallery is None else Gallery.open(gallery, model=network)
    reduction = None if store is None else store.reduction
    if reduction is not None:
        query, images = (
            EmbeddedSet(reduction.apply(side.embeddings), side.identity, side.camera, side.paths)
            for side in (query, images)
        )
    parts = [(query, images)]
    if check:
        first, second = split_people(query, images, 1 - check, seed)
        parts = [first, second]
    with progress_bar("calibrating") as move:
        found = Calibration.fit(
            *parts[0],
            network.matcher,
            false_match_rate=false_match_rate,
            per=per.value,
            exclude_same_camera=exclude,
            gallery_size=gallery_size,
            fingerprint=network.fingerprint,
            reduction=None if reduction is None else reduction.fingerprint,
            data=loaded.name,
            people=people_among(loaded, *parts[0]),
            part=f"{loaded.part}; queries: {shown}",
            progress=move,
        )
    tested = None
    if check:
        tested = evaluate_open_set(
            *parts[1],
            network.matcher,
            found,
            data=loaded.name,
            people=people_among(loaded, *parts[1]),
            exclude_same_camera=exclude,
            seed=seed,
        )
    found.save(out)
    if store is not None:
        store.keep_calibration(found)
    if as_json:
        content: dict[str, Any] = found.model_dump(mode="json")
        print_json({**content, "promise": found.promise, "check": None if tested is None else tested.to_dict()})
        return
    console().print(_table(found))
    if tested is not None:
        console().print(tested.table())
    console().print(f"calibration: {bold(out)}", soft_wrap=True)
    if gallery is not None:
        console().print(f"stored in: {bold(gallery)}", soft_wrap=True)


def people_among(data: ReIDData, query: EmbeddedSet, gallery: EmbeddedSet) -> list[str]:
    """Return the names of the people among some rows of a data set."""
    samples = {sample.name: sample.person for sample in (*data.query, *data.gallery)}
    return sorted({samples[path] for path in (*query.paths, *gallery.paths)} - data.distractors)


def _table(found: Calibration) -> Table:
    """Thresholds by number of shared slots, and what they were made of."""
    from rich.markup import escape
    from rich.table import Table

    made_with = (
        f"made with {found.queries} queries and {found.gallery} gallery images of {len(found.people)} people of "
    )
    known = found.auroc is not None
    told_apart = f"; a match is nearer than two people in {found.auroc:.1%} of cases" if known else ""
    table = Table(title=found.promise, caption=escape(f"{made_with}'{found.data}' ({found.part}){told_apart}"))
    for name in ("shared slots", "threshold", "pairs of two people", "of one person", "of one person within it"):
        table.add_column(name, justify="right")
    for group in found.groups:
        pooled = [n for n in group.threshold_from if n != group.shared]
        table.add_row(
            str(group.shared),
            f"{group.threshold:.4f}" + (f" (with {', '.join(map(str, pooled))})" if pooled else ""),
            str(group.impostors),
            str(group.matches),
            "–" if group.matches_kept is None else f"{group.matches_kept:.1%}",
        )
    return table
