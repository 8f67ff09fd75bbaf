"""`occluded-reid parse`: part masks for a folder of images."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from occluded_reid.cli.completing import complete_teacher
from occluded_reid.cli.console import (
    Json,
    Seed,
    bold,
    check_output_folder,
    console,
    print_json,
    progress_bar,
    read_overrides,
)

if TYPE_CHECKING:
    from occluded_reid.parsing.label_maps import MapOptions
    from occluded_reid.parsing.report import ParseReport

__all__ = ["parse_command"]

_SHOWN = 24


class LabelSetName(StrEnum):
    """Classes of the masks."""

    SORN8 = "sorn8"
    SORN5 = "sorn5"
    SORN2 = "sorn2"
    SGAM5 = "sgam5"
    OWN = "own"


def parse_command(
    images: Annotated[Path, typer.Argument(help="Folder of images, searched through its sub-folders.")],
    teacher: Annotated[
        str,
        typer.Option(
            "--teacher",
            help="'onnx', 'masks', a plug-in, or the folder of a trained parser.",
            autocompletion=complete_teacher,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--out", help="Folder for the masks; it mirrors the images' tree.", callback=check_output_folder),
    ],
    options: Annotated[
        list[str] | None, typer.Option("--option", help="Option of the teacher: --option preset=bodypix (repeatable).")
    ] = None,
    to: Annotated[LabelSetName, typer.Option("--to", help="Classes of the masks; 'own': the teacher's.")] = (
        LabelSetName.SORN8
    ),
    clothes: Annotated[
        list[str] | None,
        typer.Option("--map", help="Where clothes go: bag=torso, socks=lower_leg, scarf=head (repeatable)."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first so many images.", min=1, show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make masks again that are there.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Give every image a part mask: single-channel PNGs that `train` and `evaluate` take as --masks.

    A run that was stopped goes on where it was. Ends with exit code 1 if an image cannot be read.

    Example: [bold]occluded-reid parse photos/ --teacher runs/parser --to sgam5 --out masks/[/bold]
    """
    from occluded_reid.parsing import open_teacher, parse_folder

    made = open_teacher(teacher, read_overrides(options))
    with progress_bar("parsing") as move:
        report = parse_folder(
            images,
            made,
            output,
            to=to.value,
            limit=limit,
            overwrite=overwrite,
            clothes=cast("MapOptions", read_overrides(clothes)),
            progress=move,
        )
    sheet = _draw(images, report, seed)
    if as_json:
        print_json({**report.to_dict(), "contact_sheet": None if sheet is None else str(sheet)})
    else:
        console().say(report.summary())
    for note in report.notes:
        console(quiet=as_json).say(f"note: {note}")
    if not as_json:
        screen = console()
        for name, reason in report.unreadable.items():
            screen.say(f"left out: {name}: {reason}")
        if sheet is not None:
            screen.print(f"contact sheet: {bold(sheet)}", soft_wrap=True)
    if report.unreadable:
        raise typer.Exit(1)


def _draw(images: Path, report: ParseReport, seed: int) -> Path | None:
    """Some of the images beside their masks, for the eye to judge; None where there is none."""
    import numpy as np

    from occluded_reid.errors import MaskError
    from occluded_reid.parsing import LABEL_SETS
    from occluded_reid.parsing.write import CONTACT_SHEET
    from occluded_reid.visualize import save_picture
    from occluded_reid.visualize.contact_sheet import contact_sheet

    if not report.names:
        return None
    classes = LABEL_SETS[report.label_set].names
    count = min(_SHOWN, len(report.names))
    places = sorted(np.random.default_rng(seed).choice(len(report.names), count, replace=False))
    chosen = [report.names[place] for place in places]
    files = [report.output / Path(name).with_suffix(".png") for name in chosen]
    picture = contact_sheet(
        [images / name for name in chosen],
        files,
        classes,
        captions=[Path(name).name for name in chosen],
    )
    return save_picture(picture, report.output / CONTACT_SHEET, MaskError)
