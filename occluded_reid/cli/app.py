"""The `occluded-reid` command and its exit codes.

0 done, 1 the work failed, 2 wrong usage, 130 stopped by the user; 3 of `same`: not enough is visible to answer.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from occluded_reid._version import __version__
from occluded_reid.cli import (
    calibrate,
    compare,
    data,
    demo,
    evaluate,
    export,
    failures,
    gallery,
    index,
    listing,
    open_set,
    parse,
    same,
    search,
    sweep,
    train,
    train_parser,
    tune,
)
from occluded_reid.cli.door import exit_code, harmless_output
from occluded_reid.cli.pages import Commands
from occluded_reid.cli.quick import quick_imports

__all__ = ["app", "main"]

app = Commands(
    name="occluded-reid",
    help="Find a person again across cameras although half of the person is hidden.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"occluded-reid {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Find a person again across cameras although half of the person is hidden."""


app.command("train")(train.train_command)
app.command("train-parser")(train_parser.train_parser_command)
app.command("evaluate")(evaluate.evaluate_command)
app.command("failures")(failures.failures_command)
app.command("compare")(compare.compare_command)
app.command("sweep")(sweep.sweep_command)
app.command("tune")(tune.tune_command)
app.command("index")(index.index_command)
app.command("search")(search.search_command)
app.command("same")(same.same_command)
app.command("export")(export.export_command)
app.command("calibrate")(calibrate.calibrate_command)
app.command("open-set")(open_set.open_set_command)
app.add_typer(gallery.gallery_app, name="gallery")
app.command("demo")(demo.demo_command)
app.command("list")(listing.list_command)
app.add_typer(data.data_app, name="data")
app.command("parse")(parse.parse_command)


def main() -> None:
    """Run the command line and leave with its exit code."""
    with harmless_output(), quick_imports():
        code = exit_code(lambda: typer.main.get_command(app).main(prog_name="occluded-reid", standalone_mode=False))
    sys.exit(code)
