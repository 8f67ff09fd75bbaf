"""`occluded-reid train-parser`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from occluded_reid.cli.completing import complete_parser_recipe
from occluded_reid.cli.console import (
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
    Weights,
    Workers,
    check_output_folder,
    console,
    keep_readable,
    open_data,
    print_json,
    read_overrides,
    read_weights,
    say_notes,
)

__all__ = ["train_parser_command"]


def train_parser_command(
    recipe: Annotated[
        str,
        typer.Argument(
            help="'small_parser', 'sgam_parser', or a file ending in .yaml.", autocompletion=complete_parser_recipe
        ),
    ],
    data: DataRoot,
    output: Annotated[
        Path,
        typer.Option(
            "--output", help="Folder for checkpoints, log, scores and the parser.", callback=check_output_folder
        ),
    ],
    dataset: DatasetName = "market1501",
    options: DataOptions = None,
    masks: Masks = None,
    labels: Annotated[
        str | None, typer.Option(help="Label set of the masks: sorn8, lip20, … Default: that of the network.")
    ] = None,
    holdout: Holdout = 0,
    weights: Weights = None,
    weights_match: Annotated[
        str | None,
        typer.Option("--weights-match", help="'names', or 'order' for other key names in the network's tensor order."),
    ] = None,
    overrides: Overrides = None,
    workers: Workers = 0,
    evaluate_every: Annotated[
        int, typer.Option(help="Score what is held out every n epochs; 0: at the end only.", min=0)
    ] = 0,
    resume: Resume = False,
    tensorboard: TensorBoard = False,
    skip_unreadable: SkipUnreadable = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a human parser on images and part masks. With --dataset images any folder of images will do.

    Example: [bold]occluded-reid train-parser small_parser --data market/ --masks masks/ --output runs/parser[/bold]
    """
    from occluded_reid.data.dataset import SPLITS
    from occluded_reid.data.holdout import holdout as split_off
    from occluded_reid.parsing.labelled import load_images
    from occluded_reid.parsing.recipe import load_parser_recipe
    from occluded_reid.training.parser import train_parser

    changes = {**read_overrides(overrides), **read_weights(weights, weights_match)}
    if labels is not None:
        changes["data.labels"] = labels
    settings = load_parser_recipe(recipe, changes)
    if dataset == "images":
        loaded = load_images(data)
        loaded = loaded if masks is None else loaded.with_masks(masks)
        loaded = split_off(loaded, holdout, seed) if holdout else loaded
    else:
        loaded = open_data(dataset, data, masks, holdout, seed, options=options, say=False)
    loaded = keep_readable(loaded, SPLITS if skip_unreadable else ())
    say_notes(loaded)
    result = train_parser(
        settings,
        loaded,
        output,
        seed=seed,
        workers=workers,
        evaluate_every=evaluate_every,
        resume=resume,
        tensorboard=tensorboard,
    )
    if as_json:
        print_json(result.to_dict())
    else:
        console().card(result.summary())
