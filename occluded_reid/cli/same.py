"""`occluded-reid same`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from occluded_reid.cli.completing import complete_model
from occluded_reid.cli.console import Device, Json, Preset, bold, check_picture, console, print_json, progress_bar
from occluded_reid.cli.quick import wait_quietly

if TYPE_CHECKING:
    from rich.table import Table

    from occluded_reid.evaluation.same import Verdict

__all__ = ["NOT_ENOUGH_VISIBLE", "same_command"]

NOT_ENOUGH_VISIBLE = 3
"""Exit code of an answer that is neither yes nor no."""


def same_command(
    first: Annotated[Path, typer.Argument(help="An image of a person.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="Another one.", show_default=False)],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Folder of a trained model, the name of one that comes with the library, or a network's file.",
            autocompletion=complete_model,
        ),
    ] = "oreid_lite",
    preset: Preset = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="What `calibrate` has written for this model. Default: calibration.json in the model's folder.",
            show_default=False,
        ),
    ] = None,
    prior: Annotated[
        float | None,
        typer.Option(
            help="Probability beforehand that both are one person: of 50 candidates 0.02. Default: the calibration's.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Draw both with what was compared into this file: .png, .jpg, .webp, .tif or .pdf.",
            callback=check_picture,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how likely two images show one person, and what of them could be compared.

    The exit code is 0 where there is an answer, yes or no, and 3 where not enough is visible to give one.

    Example: [bold]occluded-reid same a.jpg b.jpg --picture both.png[/bold]
    """
    if prior is not None and not 0 < prior < 1:
        raise typer.BadParameter(f"--prior is {prior}; give a probability between 0 and 1, both excluded.")
    wait_quietly()
    from occluded_reid.evaluation.same import same
    from occluded_reid.models import load_model
    from occluded_reid.search.device import choose_device

    with progress_bar("loading the model"):
        network = load_model(model, preset=preset).to(choose_device(device))
    verdict = same(first, second, network, calibration=calibration, prior=prior)
    if as_json:
        print_json({"images": [str(first), str(second)], **verdict.to_dict()})
    else:
        for line in verdict.lines():
            console().say(line)
        console().print(_table(verdict))
    if picture is not None:
        from occluded_reid.evaluation.pictures import save_picture

        save_picture(verdict.picture(), picture)
        console(quiet=as_json).print(f"picture: {bold(picture)}", soft_wrap=True)
    if verdict.probability is None:
        raise typer.Exit(NOT_ENOUGH_VISIBLE)


def _table(verdict: Verdict) -> Table:
    """Each slot: how much of it either image shows, and how far apart they are in it."""
    from rich.table import Table

    from occluded_reid.screen import cell

    table = Table("slot", "first shows", "second shows", "distance")
    one, two = verdict.visibility
    for slot, share in verdict.shared.items():
        far = f"{verdict.slot_distances[slot]:.4f}" if share > 0 else "not compared"
        table.add_row(cell(slot), f"{one[slot]:.0%}", f"{two[slot]:.0%}", far)
    return table
