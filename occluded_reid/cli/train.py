"""`occluded-reid train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from occluded_reid.cli.console import (
    DataRoot,
    DatasetName,
    Holdout,
    Json,
    Masks,
    Overrides,
    Resume,
    Seed,
    TensorBoard,
    Weights,
    WeightsMatch,
    Workers,
    console,
    open_data,
    print_json,
    read_overrides,
    read_weights,
)

__all__ = ["train_command"]


def train_command(
    recipe: Annotated[str, typer.Argument(help="A system's name, or a recipe file ending in .yaml.")],
    data: DataRoot,
    output: Annotated[Path, typer.Option("--output", help="Folder for checkpoints, log and the final model.")],
    dataset: DatasetName = "market1501",
    masks: Masks = None,
    holdout: Holdout = 0,
    validation: Annotated[
        int, typer.Option(help="Train without this many further identities and evaluate on them.", min=0)
    ] = 0,
    weights: Weights = None,
    weights_match: WeightsMatch = None,
    overrides: Overrides = None,
    workers: Workers = 0,
    evaluate_every: Annotated[
        int, typer.Option(help="Evaluate on the held-out identities every n epochs; 0: never.", min=0)
    ] = 0,
    resume: Resume = False,
    tensorboard: TensorBoard = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a recipe on a data set.

    Example: [bold]occluded-reid train sorn_lite --data market/ --masks masks/ --output runs/sorn[/bold]
    """
    from occluded_reid.data.holdout import holdout as split_off
    from occluded_reid.evaluation.held_out import held_out_scores
    from occluded_reid.models.build import find_recipe
    from occluded_reid.training import train

    changes = {**read_overrides(overrides), **read_weights(weights, weights_match)}
    settings = find_recipe(recipe, changes)
    loaded = open_data(dataset, data, masks, holdout, seed)
    # Validation identities are taken from training with another seed: the test identities stay unseen.
    loaded = split_off(loaded, validation, seed + 1) if validation else loaded
    score = held_out_scores(loaded) if evaluate_every else None
    result = train(
        settings,
        loaded,
        output,
        pretrained=settings.model.backbone.weights is not None,
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
        console().print(result.summary(), markup=False, soft_wrap=True)
