"""`occluded-reid data`: look at a folder before anything is trained on it, or at what is known of data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from occluded_reid.cli.completing import complete_dataset
from occluded_reid.cli.console import (
    DataOptions,
    Holdout,
    Json,
    Masks,
    Seed,
    bold,
    check_output_folder,
    console,
    open_data,
    print_json,
    progress_bar,
)
from occluded_reid.cli.pages import Commands

if TYPE_CHECKING:
    from rich.table import Table

    from occluded_reid.data.dataset import ReIDData
    from occluded_reid.data.occlusion import Proposals

__all__ = ["data_app"]

_SHOWN = 60  # occluders on a contact sheet

data_app = Commands(
    name="data",
    help="Verify a data set on disk, show what is known about published ones, draw a synthetic one, propose occluders.",
)

Name = Annotated[
    str,
    typer.Argument(
        help="Data set or layout; see `occluded-reid data show`.", show_default=False, autocompletion=complete_dataset
    ),
]
Root = Annotated[Path, typer.Argument(help="Folder of the data set.", show_default=False)]


@data_app.command("verify")
def verify_command(
    name: Name,
    root: Root,
    masks: Masks = None,
    holdout: Holdout = 0,
    options: DataOptions = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Read every file and compare the counts with those of a whole copy; exit code 1 if something must be mended.

    Reported are unreadable files, images and identities of each split and how many there should be, identities in
    training and test, duplicates, queries without a match, masks that are missing or do not fit.

    Example: [bold]occluded-reid data verify market1501 market/ --masks market_masks/ --holdout 100[/bold]
    """
    _verify(open_data(name, root, masks, holdout, seed, options=options, say=False), as_json)


@data_app.command("show")
def show_command(
    name: Annotated[
        str | None,
        typer.Argument(help="Data set; without one, all of them.", show_default=False, autocompletion=complete_dataset),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the protocol of a published data set: counts, splits, camera rule, layouts, licence, traps.

    Example: [bold]occluded-reid data show occluded_duke[/bold]
    """
    if as_json:
        print_json(_all_sets() if name is None else _facts(name))
        return
    console().print(_table_of_all() if name is None else _table_of(name))


@data_app.command("synthesize")
def synthesize_command(root: Root, seed: Seed = 0, as_json: Json = False) -> None:
    """Draw the synthetic set into a folder and verify it.

    Example: [bold]occluded-reid data synthesize people/[/bold]
    """
    from occluded_reid.data.synthetic import SyntheticOptions, generate

    with progress_bar("drawing") as move:
        generate(root, SyntheticOptions(seed=seed), progress=move)
    _verify(open_data("synthetic", root, None, 0, seed, say=False), as_json)


@data_app.command("extract-cuhk03")
def extract_command(
    root: Annotated[Path, typer.Argument(help="Folder that holds cuhk-03.mat.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="Where to write; by default the folder itself.")] = None,
    as_json: Json = False,
) -> None:
    """Write the images that CUHK03 packs into one MATLAB file as PNG files, once (extra: cuhk03).

    Example: [bold]occluded-reid data extract-cuhk03 cuhk03_release/[/bold]
    """
    from occluded_reid.data.benchmarks.cuhk03_mat import extract_cuhk03

    with progress_bar("extracting") as move:
        folder = extract_cuhk03(root, out, progress=move)
    if as_json:
        print_json({"folder": str(folder)})
    else:
        console().say(f"load it as the data set 'cuhk03' from {folder}")


@data_app.command("propose-occluders")
def propose_command(
    images: Annotated[Path, typer.Argument(help="Folder of training images, or of a data set.", show_default=False)],
    masks: Annotated[
        Path, typer.Option("--masks", help="Folder of part masks: one PNG an image, mirroring the images' tree.")
    ],
    out: Annotated[Path, typer.Option("--out", help="New folder for the occluders.", callback=check_output_folder)],
    count: Annotated[int, typer.Option("--count", help="How many at most, one an image.", min=1)] = 200,
    least: Annotated[float, typer.Option("--least", help="Smallest share of an image's side.", min=0.01, max=1)] = 0.15,
    most: Annotated[float, typer.Option("--most", help="Largest share of an image's side.", min=0.01, max=1)] = 1.0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Cut pieces of background without a person out of training images, as occluders for FED.

    Of a data set only the training split is taken. A contact sheet, in the folder look/, shows where they come from:
    look at it, and delete what is no occluder.

    Example: [bold]occluded-reid data propose-occluders market/ --masks market_masks/ --out patches/[/bold]
    """
    from occluded_reid.data.occlusion import propose_occluders

    with progress_bar("looking") as move:
        found = propose_occluders(images, masks, out, count=count, size=(least, most), seed=seed, progress=move)
    sheet = _draw(found)
    if as_json:
        print_json(
            {
                "folder": str(found.output),
                "occluders": len(found.proposals),
                "seen": found.seen,
                "passed": found.passed,
                "contact_sheet": str(sheet),
            }
        )
        return
    console().say(found.summary())
    console().print(f"contact sheet: {bold(sheet)}", soft_wrap=True)


def _draw(found: Proposals) -> Path:
    """Some of the occluders where they lie in their images, beside the body; spread evenly over all of them."""
    import numpy as np

    from occluded_reid.data.dataset import mirrored
    from occluded_reid.data.images import open_mask
    from occluded_reid.data.occlusion.propose import LOOK
    from occluded_reid.errors import MaskError
    from occluded_reid.visualize import save_picture
    from occluded_reid.visualize.contact_sheet import contact_sheet

    places = np.unique(np.linspace(0, len(found.proposals) - 1, _SHOWN).round().astype(int))
    chosen = [found.proposals[place] for place in places]
    shown = []
    for each in chosen:
        mask = mirrored(found.masks, each.source)
        assert mask is not None  # it had one when it was proposed
        label = (open_mask(mask, classes=256) > 0).astype(np.uint8)
        label[each.top : each.top + each.height, each.left : each.left + each.width] = 2
        shown.append(label)
    picture = contact_sheet(
        [found.images / each.source for each in chosen],
        shown,
        ("background", "person", "occluder"),
        captions=[each.file for each in chosen],
        columns=10,
    )
    return save_picture(picture, found.output / LOOK / "contact_sheet.png", MaskError)


def _verify(data: ReIDData, as_json: bool) -> None:
    from occluded_reid.data.verify import verify_dataset

    with progress_bar("reading files") as move:
        report = verify_dataset(data, progress=move)
    if as_json:
        print_json(report.to_dict())
    else:
        screen = console()
        for line in report.lines():
            screen.say(line)
    if not report.ok:
        raise typer.Exit(1)


def _all_sets() -> list[dict[str, Any]]:
    """Each name with its counts; layouts that are nobody's data set have none."""
    from occluded_reid.data.benchmark import all_benchmarks
    from occluded_reid.registry import DATASETS

    known = {benchmark.name: benchmark for benchmark in all_benchmarks()}
    rows: list[dict[str, Any]] = []
    for name in DATASETS.names():
        found = known.get(name)
        variants = found.counts.items() if found else ()
        counts = {variant: {split: c._asdict() for split, c in splits.items()} for variant, splits in variants}
        rows.append(
            {
                "name": name,
                "title": found.title if found else "",
                "counts": counts,
                "trained_on": list(found.trained_on) if found else [],
                "licence": found.licence if found else "",
                "withdrawn": found.withdrawn if found else "",
            }
        )
    return rows


def _facts(name: str) -> dict[str, str]:
    """What is known of a data set, its loader's options last."""
    import inspect

    from occluded_reid.data.benchmark import benchmark_of
    from occluded_reid.registry import DATASETS

    benchmark = benchmark_of(name)
    loader = DATASETS.get(name)
    first = (inspect.getdoc(loader) or "").split("\n\n")[0].replace("\n", " ")
    facts = benchmark.facts if benchmark else {"layout": first}
    taken = [
        f"{parameter.name}={parameter.default}"
        for parameter in list(inspect.signature(loader).parameters.values())[1:]
        if parameter.default is not parameter.empty
    ]
    return facts | ({"options": ", ".join(taken)} if taken else {})


def _table_of_all() -> Table:
    """A row for each variant of each data set, with people / images of each split."""
    from rich.markup import escape
    from rich.table import Table

    from occluded_reid.data.dataset import SPLITS

    table = Table(box=None, title="people / images", title_justify="left")
    for column in ("data set", *SPLITS, "licence"):
        table.add_column(column, justify="right" if column in SPLITS else "left", no_wrap=column in SPLITS)
    for row in _all_sets():
        licence = escape(row["licence"])
        terms = f"[red]withdrawn by its authors[/red]; {licence}" if row["withdrawn"] else licence
        for variant, splits in (row["counts"] or {"": {}}).items():
            name = f"{row['name']} ({variant})" if variant else row["name"]
            table.add_row(escape(name), *(_shown(splits.get(split)) for split in SPLITS), terms)
            terms = ""
    return table


def _table_of(name: str) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False)
    for fact, text in _facts(name).items():
        table.add_row(fact, escape(text))
    return table


def _shown(counts: dict[str, int] | None) -> str:
    return f"{counts['identities'] + counts['distractors']:,} / {counts['images']:,}" if counts else "–"
