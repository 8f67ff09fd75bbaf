"""`occluded-reid tune`."""

from __future__ import annotations

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
    bold,
    camera_rule,
    check_output_file,
    console,
    open_data,
    print_json,
    progress_bar,
)

if TYPE_CHECKING:
    from occluded_reid.data.dataset import Split

__all__ = ["tune_command"]


def tune_command(
    model: ModelArgument,
    data: DataRoot,
    choose: Annotated[
        list[str],
        typer.Option(
            help="An option and the values to try: threshold=0.1,0.15 (of a head), rerank.weight=0.1,0.3, or one of "
            "the matcher, such as weights.backbone=0.5,1. Repeat it to try all combinations."
        ),
    ],
    validation: Annotated[
        int, typer.Option(help="Choose on this many identities taken from training, after --holdout.", min=1)
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Write what was chosen to this file.", callback=check_output_file)
    ] = Path("tuned.json"),
    metric: Annotated[str, typer.Option(help="What decides: mAP, mINP, or Rank-1.")] = "mAP",
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
    """Choose thresholds and weights on people who are not tested on; `evaluate --tuned` takes the file.

    Give --holdout and --seed as for training and testing: the people chosen by are then neither tested on nor, if the
    model was trained with the same --validation, trained on.

    Example: [bold]occluded-reid tune runs/sorn/model --data market/ --validation 50 --choose threshold=0.1,0.2[/bold]
    """
    from occluded_reid.evaluation import Protocol
    from occluded_reid.evaluation.studies.tuning.choices import tune_model
    from occluded_reid.models import load_model

    choices = _read_choices(choose)
    network = load_model(model, preset=preset)
    readable: tuple[Split, ...] = ("query", "gallery") if skip_unreadable else ()
    loaded = open_data(dataset, data, masks, holdout, seed, validation=validation, options=options, readable=readable)
    with progress_bar("embedding") as embedding, progress_bar("trying") as trying:
        found = tune_model(
            network,
            loaded,
            choices,
            metric=metric,
            protocol=Protocol(
                dataset=loaded.name, seed=seed, exclude_same_camera=camera_rule(loaded, exclude_same_camera)
            ),
            embedding=embedding,
            progress=trying,
        )
    found.save(out)
    if found.warning:
        console(quiet=True).say(f"warning: {found.warning}")
    if as_json:
        print_json({**found.to_dict(), "text": found.text, "warning": found.warning})
        return
    console().print(found.table())
    console().say(f"chosen: {found.text}")
    if found.chosen != found.default:
        clear = "" if found.difference.clear else ": no clear difference"
        console().say(f"minus the default: {found.difference}{clear}")
    console().print(f"tuned settings: {bold(out)}", soft_wrap=True)


def _read_choices(texts: list[str]) -> dict[str, list[Any]]:
    """Turn ``option=value,value`` texts into a mapping; anything else is wrong usage."""
    from occluded_reid.config import parse_override
    from occluded_reid.errors import RecipeError

    choices: dict[str, list[Any]] = {}
    for text in texts:
        key, _, values = text.partition("=")
        try:
            option, read = parse_override(f"{key}=[{values}]")
        except RecipeError as error:
            raise typer.BadParameter(f"--choose is '{text}'; give values: --choose threshold=0.1,0.15.") from error
        if not read or option in choices:
            raise typer.BadParameter(f"--choose is '{text}'; give each option once, with values: threshold=0.1,0.15.")
        choices[option] = read
    return choices
