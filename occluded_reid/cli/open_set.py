"""`occluded-reid open-set`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from occluded_reid.cli.calibrate import Per, people_among
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
    check_share,
    console,
    open_data,
    print_json,
    progress_bar,
)

if TYPE_CHECKING:
    from occluded_reid.data.dataset import Split

__all__ = ["open_set_command"]


def _tested_share(share: float) -> float:
    """Some people have to be left to test on."""
    if not share:
        raise typer.BadParameter("0 of the people would leave no people to test on; give a share above 0: 0.5 is half.")
    return check_share(share)


def open_set_command(
    model: ModelArgument,
    data: DataRoot,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            help="Folder for JSON, Markdown, pictures and the calibration.",
            callback=check_output_folder,
        ),
    ] = Path("open-set"),
    check: Annotated[
        float,
        typer.Option(help="Test on this share of the people; the others are calibrated with.", callback=_tested_share),
    ] = 0.5,
    false_match_rate: Annotated[
        float, typer.Option(help="The promise of the calibration: 0.05 is one in twenty.", min=0, max=1)
    ] = 0.05,
    per: Annotated[
        Per, typer.Option(help="Of what that is a share: of each 'search' for an unknown person, or each 'comparison'.")
    ] = Per.SEARCH,
    rank: Annotated[
        list[int] | None,
        typer.Option(
            "--rank", help="The person must be among so many first images (repeatable). Default: 1 and 5.", min=1
        ),
    ] = None,
    occlusion: Annotated[
        float, typer.Option(help="Occlude this share of each query's body mask first, 0 … 1.", min=0, max=1)
    ] = 0.0,
    dataset: DatasetName = "market1501",
    options: DataOptions = None,
    masks: Masks = None,
    holdout: Holdout = 0,
    exclude_same_camera: CameraRule = None,
    skip_unreadable: SkipUnreadable = False,
    preset: Preset = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure what happens when people may not be there: false alarms, missed people, match probabilities.

    Example: [bold]occluded-reid open-set runs/sorn/model --data market/ --holdout 100 --output open-set/[/bold]
    """
    from occluded_reid.calibration.calibration import CALIBRATION_FILE, Calibration
    from occluded_reid.data.occlusion import Occluders
    from occluded_reid.evaluation.bootstrap import PeopleResampling
    from occluded_reid.evaluation.embed import Occlusion, embed_sides
    from occluded_reid.evaluation.leakage import require_apart, training_note
    from occluded_reid.evaluation.open_set.study import open_set_study
    from occluded_reid.evaluation.open_set.threshold import split_people
    from occluded_reid.evaluation.protocol import CAMERAS_UNKNOWN
    from occluded_reid.models import load_model

    network = load_model(model, preset=preset)
    readable: tuple[Split, ...] = ("query", "gallery") if skip_unreadable else ()
    loaded = open_data(dataset, data, masks, holdout, seed, options=options, readable=readable)
    require_apart(loaded)
    exclude = camera_rule(loaded, exclude_same_camera)
    shown = f"{occlusion:.0%} of each body mask occluded, seed {seed}" if occlusion else "as they are"
    hide = Occlusion(occlusion, Occluders.generated(seed), seed) if occlusion else None
    with progress_bar("embedding") as move:
        query, images = embed_sides(network, loaded, occlusion=hide, progress=move)
    first, second = split_people(query, images, 1 - check, seed)
    with progress_bar("calibrating") as move:
        calibration = Calibration.fit(
            *first,
            network.matcher,
            false_match_rate=false_match_rate,
            per=per.value,
            exclude_same_camera=exclude,
            fingerprint=network.fingerprint,
            data=loaded.name,
            people=people_among(loaded, *first),
            part=f"{loaded.part}; queries: {shown}",
            progress=move,
        )
    with progress_bar("measuring") as move:
        found = open_set_study(
            *second,
            network.matcher,
            calibration,
            ranks=tuple(rank or (1, 5)),
            resampling=PeopleResampling(seed=seed),
            data=loaded.name,
            people=people_among(loaded, *second),
            fingerprint=network.fingerprint,
            notes={
                "training": training_note(network, loaded),
                "people": f"split by seed {seed}: {check:.0%} of them tested on, the others calibrated with",
                "queries": shown,
                **({} if loaded.cameras_known else {"cameras": CAMERAS_UNKNOWN}),
                **({"data": "; ".join(loaded.notes)} if loaded.notes else {}),
            },
            progress=move,
        )
    found.write(output, title=f"Open set: {network.name} on {loaded.name}")
    calibration.save(output / CALIBRATION_FILE)
    if as_json:
        print_json(found.to_dict())
    else:
        for table in found.tables():
            console().print(table)
    console(quiet=as_json).print(f"open set: {bold(output)}", soft_wrap=True)
