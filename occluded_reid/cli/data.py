"""`occluded-reid data`: look at a folder before anything is trained on it, or draw the synthetic set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from occluded_reid.cli.console import (
    DatasetName,
    Holdout,
    Json,
    Masks,
    Seed,
    console,
    open_data,
    print_json,
    progress_bar,
)

__all__ = ["data_command"]


def data_command(
    root: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    dataset: DatasetName = "market1501",
    masks: Masks = None,
    holdout: Holdout = 0,
    synthesize: Annotated[
        bool, typer.Option(help="First draw the synthetic set into ROOT (layout: synthetic).")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Verify a data set: counts, unreadable files, identities per split, overlaps, duplicates, masks.

    Example: [bold]occluded-reid data market/ --masks market_masks/ --holdout 100[/bold]
    """
    from occluded_reid.data.verify import verify_dataset

    if synthesize:
        from occluded_reid.data.synthetic import SyntheticOptions, generate

        with progress_bar("drawing") as move:
            generate(root, SyntheticOptions(seed=seed), progress=move)
        dataset = "synthetic"
    loaded = open_data(dataset, root, masks, holdout, seed)
    with progress_bar("reading files") as move:
        report = verify_dataset(loaded, progress=move)
    if as_json:
        print_json(report.to_dict())
    else:
        screen = console()
        for line in report.lines():
            screen.print(line, markup=False, soft_wrap=True)
    if not report.ok:
        raise typer.Exit(1)
