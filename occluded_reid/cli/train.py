"""`occluded-reid train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from occluded_reid.cli.completing import complete_model, complete_recipe
from occluded_reid.cli.console import (
    CameraRule,
    DataOptions,
    DataRoot,
    DatasetName,
    Holdout,
    Json,
    Masks,
    Overrides,
    Resume,
    Seed,
    SkipUnreadable,
    TensorBoard,
    Validation,
    Weights,
    WeightsMatch,
    Workers,
    check_output_folder,
    console,
    open_data,
    print_json,
    read_overrides,
    read_weights,
)

if TYPE_CHECKING:
    from occluded_reid.data.dataset import Split

__all__ = ["train_command"]


def train_command(
    recipe: Annotated[
        str,
        typer.Argument(help="A system's name, or a recipe file ending in .yaml.", autocompletion=complete_recipe),
    ],
    data: DataRoot,
    output: Annotated[
        Path,
        typer.Option("--output", help="Folder for checkpoints, log and the final model.", callback=check_output_folder),
    ],
    dataset: DatasetName = "market1501",
    options: DataOptions = None,
    masks: Masks = None,
    holdout: Holdout = 0,
    validation: Validation = 0,
    weights: Weights = None,
    weights_match: WeightsMatch = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Folder of a trained model of this recipe to go on from with other people, or the name of one that "
            "comes with the library; classifiers are made anew.",
            autocompletion=complete_model,
        ),
    ] = None,
    overrides: Overrides = None,
    workers: Workers = 0,
    evaluate_every: Annotated[
        int, typer.Option(help="Evaluate on the validation identities every n epochs, which chooses best/.", min=0)
    ] = 0,
    resume: Resume = False,
    tensorboard: TensorBoard = False,
    exclude_same_camera: CameraRule = None,
    skip_unreadable: SkipUnreadable = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a recipe on a data set.

    Example: [bold]occluded-reid train sorn_lite --data market/ --masks masks/ --output runs/sorn[/bold]
    """
    from occluded_reid.evaluation.held_out import held_out_scores
    from occluded_reid.models.build import find_recipe
    from occluded_reid.models.checkpoint import require_model
    from occluded_reid.training import train

    if evaluate_every and not validation:
        raise typer.BadParameter(
            "--evaluate-every chooses the best epoch, and nothing is chosen on people who are tested on. "
            "Give people to choose by: --validation 50."
        )
    if start is not None and weights not in (None, "none"):
        raise typer.BadParameter("--from and --weights both say what training begins with. Give one of the two.")
    if start is not None:
        require_model(start)
    changes = {**read_overrides(overrides), **read_weights(weights, weights_match)}
    settings = find_recipe(recipe, changes)
    if exclude_same_camera is not None and not evaluate_every:
        raise typer.BadParameter("--exclude-same-camera is about evaluation: give it with --evaluate-every.")
    read: tuple[Split, ...] = ("train", *(("query", "gallery") if evaluate_every else ()))
    readable = read if skip_unreadable else ()
    loaded = open_data(dataset, data, masks, holdout, seed, validation=validation, options=options, readable=readable)
    score = None
    if evaluate_every:
        score = held_out_scores(loaded, exclude_same_camera=exclude_same_camera is not False)
        console(quiet=True).say(f"watched, and best/ chosen by: {loaded.part}")
    result = train(
        settings,
        loaded,
        output,
        pretrained=settings.model.backbone.weights is not None and start is None,
        start=start,
        seed=seed,
        workers=workers,
        evaluate=score,
        evaluate_every=evaluate_every,
        resume=resume,
        tensorboard=tensorboard,
    )
    if as_json:
        print_json(result.to_dict())
    else:
        console().say(result.summary())
